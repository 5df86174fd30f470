"""The average of the weights with another width, after training (Karras et al. 2024, arXiv 2312.02696, sec. 3.2).

A run with ``PowerEMA(snapshots=...)`` leaves two averages at several steps in ``averages/`` beside its checkpoints.
The average of any width is close to a linear combination of them: that whose shares of the steps, equation (1) of
`ema`, are nearest in the least-squares sense.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..._atomic import replacing
from ..files import DamagedModelError, flatten, unflatten
from ..model import DiffusionModel
from .ema import PowerEMA, shares
from .state import TrainState

FOLDER = "averages"
_BINS = 4096  # groups of successive steps whose shares are compared
_MISFIT = 0.05  # relative error of the shares beyond which an average is refused


def posthoc_ema(model: DiffusionModel, checkpoint_dir: str | os.PathLike, width: float) -> DiffusionModel:
    """``model`` with the weights averaged over another width.

    **Arguments**

    - ``model``: the model of a run with ``FitConfig(ema=PowerEMA(snapshots=...))``.
    - ``checkpoint_dir``: the folder that this run was given.
    - ``width``: relative to the length of the run, as in `PowerEMA`. What is much narrower than both widths of the run
      cannot be made from few snapshots.

    **Raises** ``ValueError`` for a model or folder without snapshots, for a folder of another run, and for a width
    whose average is off by more than five per cent in its shares; `DamagedModelError` for a snapshot that cannot be
    read.

    >>> import tempfile
    >>> import jax
    >>> from scoregeo.diffusion import FitConfig, PowerEMA, fit, posthoc_ema
    >>> data = jax.random.normal(jax.random.key(0), (1000, 2))
    >>> config = FitConfig(steps=40, chunk_steps=5, width=8, depth=1, ema=PowerEMA(snapshots=8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = fit(data, config, checkpoint_dir=folder, progress=False)
    ...     wider = posthoc_ema(model, folder, 0.15)
    >>> wider.score_at(0.2)(data[0]).shape
    (2,)
    """
    ema = model.config.ema
    if not (isinstance(ema, PowerEMA) and ema.snapshots):
        raise ValueError(f"`model` must be trained with `ema=PowerEMA(snapshots=...)`, got {ema!r}")
    PowerEMA(width, second_width=width / 2)  # raises for a width that makes no sense
    folder, paths = pathlib.Path(checkpoint_dir).absolute() / FOLDER, snapshots_in(checkpoint_dir)
    end = int(model.history.steps[-1]) if len(model.history.steps) else 0
    if end not in paths:
        raise ValueError(f"`checkpoint_dir` must have the snapshots of this run, but {folder} has none of step {end}")
    graphdef, weights, constants = nnx.split(model.denoiser, nnx.Param, ...)
    # A network may have other variables, which are not trained and have no averages.
    template = dict.fromkeys(("average", "second"), nnx.to_pure_dict(weights))
    trees = {step: _read(path, template) for step, path in sorted(paths.items()) if step <= end}
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), trees[end]["average"], template["average"])
    if not jax.tree.all(same):
        raise ValueError(f"`checkpoint_dir` holds the snapshots of another run: {folder} does not end with `model`")
    widths = {"average": ema.width, "second": ema.second_width}
    kept = [(name, step) for step in trees for name in widths]
    factors, misfit = combination([(widths[name], step) for name, step in kept], width, end)
    if misfit > _MISFIT:
        raise ValueError(
            f"`width` must be one that the snapshots can make; {width} is off by {misfit:.0%} with {len(trees)} "
            f"snapshots of widths {ema.width} and {ema.second_width}. Try more snapshots, or a wider average"
        )

    def combined(*leaves):
        total = sum(factor * np.asarray(leaf, np.float64) for factor, leaf in zip(factors, leaves, strict=True))
        return jnp.asarray(total, leaves[0].dtype)

    weights = jax.tree.map(combined, *(trees[step][name] for name, step in kept))
    return model.replace(nnx.merge(graphdef, weights, nnx.to_pure_dict(constants)), model.history)


def combination(kept: Sequence[tuple[float, int]], width: float, end: int) -> tuple[np.ndarray, float]:
    """Factors, with sum one, of averages given as (width, step) that come nearest to the average of ``width`` after
    ``end`` steps; and how near, the relative L2 error of the shares of the steps."""
    edges = np.linspace(0, end, min(end, _BINS) + 1)
    matrix = np.stack([shares(w, step, edges) for w, step in kept], 1)
    target = shares(width, end, edges)
    # The last average is subtracted, so that factors sum to one, as the shares of every average do.
    others = np.linalg.lstsq(matrix[:, :-1] - matrix[:, -1:], target - matrix[:, -1])[0]
    factors = np.append(others, 1 - others.sum())
    return factors, float(np.linalg.norm(matrix @ factors - target) / np.linalg.norm(target))


def write_snapshot(checkpoint_dir: str | os.PathLike, state: TrainState) -> None:
    """Put both averages of the state of a run beside its checkpoints, in a file named after its step."""
    from safetensors.numpy import save

    folder = pathlib.Path(checkpoint_dir).absolute() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    # The parameters of a learned weighting are left out.
    arrays = flatten({kept: {"net": state.averages[kept]["net"]} for kept in ("average", "second")})
    with replacing(folder / f"{int(state.step)}.safetensors") as temporary:
        temporary.write_bytes(save({name: np.array(leaf, order="C") for name, leaf in arrays.items()}))


def remove_snapshots(checkpoint_dir: str | os.PathLike) -> None:
    """Remove the snapshots of another run, and no other file."""
    for path in snapshots_in(checkpoint_dir).values():
        path.unlink()


def snapshots_in(checkpoint_dir: str | os.PathLike) -> dict[int, pathlib.Path]:
    """The files of the snapshots beside the checkpoints, by their steps."""
    # Files with other names were being written when a run was killed.
    paths = (pathlib.Path(checkpoint_dir).absolute() / FOLDER).glob("*.safetensors")
    return {int(path.stem): path for path in paths if path.stem.isdecimal()}


def _read(path: pathlib.Path, template: Any) -> Any:
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
    except Exception as error:  # safetensors raises its own error type, KeyError or ValueError
        raise DamagedModelError(f"{path} is damaged: it is not a safetensors file ({error})") from error
    return unflatten(template, arrays, str(path))
