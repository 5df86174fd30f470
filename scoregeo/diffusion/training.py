"""Training a score: denoising score matching, in chunks of steps between which losses and checkpoints are written.

Everything random in step ``k`` comes from ``fold_in(key, k)``, so the state of a run is its weights, their averages,
the optimiser's moments, ``k`` and the key: a run that was interrupted and goes on is the run that was not.
"""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from .config import FitConfig
from .data import AbstractData, as_data
from .ema import takes_snapshots
from .history import TrainingHistory
from .model import DiffusionModel
from .networks import MLP, Potential
from .parameterization import Denoiser
from .progress import Progress
from .sharding import check_agreement, check_mesh, divided, has_several_processes, is_writer, local, replicated
from .steps import WEIGHTING, Losses, optimiser, run_steps, with_weights
from .weightings import LearnedWeighting


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted (Ctrl-C).

    **Fields**

    - ``step``: steps that were completed.
    - ``checkpoint``: directory of the last checkpoint, or ``None`` if there is none.
    """

    def __init__(self, step: int, checkpoint: str | None):
        self.step, self.checkpoint = step, checkpoint
        super().__init__(f"training was interrupted after {step} steps; {_where(checkpoint)}")


class TrainingDiverged(FloatingPointError):
    """The loss became NaN or infinite.

    **Fields**

    - ``step``: number of steps after which it was seen.
    - ``checkpoint``: directory of the last checkpoint (all finite), or ``None`` if there is none.
    """

    def __init__(self, step: int, checkpoint: str | None):
        self.step, self.checkpoint = step, checkpoint
        super().__init__(
            f"the loss is not finite after {step} steps; {_where(checkpoint)}. Try a smaller `learning_rate` or "
            "`clip_norm`, and data scaled to a standard deviation of about one"
        )


def fit(
    data: Float[Array, "n d"] | Iterable | Callable[[int], Iterable],
    config: FitConfig | None = None,
    *,
    network: nnx.Module | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    progress: bool = True,
    standardization: Any = None,
    conditions: Array | None = None,
    callbacks: Sequence[Callable[[TrainingHistory], bool | None]] = (),
    mesh: Mesh | None = None,
) -> DiffusionModel:
    """Learn the score of the distribution that ``data`` was drawn from, at all noise levels.

    **Arguments**

    - ``data``: one of

      - an array ``(n, d)``, at least three points;
      - one in a file, from ``numpy.load(path, mmap_mode="r")``: only the rows of a chunk of steps are ever in memory;
      - an iterator of batches ``(b, d)``, or pairs ``(points, conditions)``, with ``b = config.points_per_step`` (or
        ``config.reference_size``, if that is more), one for each step. The first few, about 2048 points, are not
        trained on: mean and standard deviation of the data, and the held-out loss, are theirs. To go on with a run, it
        must begin from the beginning, and what was used is skipped;
      - a function of the number of batches to leave out that returns such an iterator: nothing has to be skipped.

      Float64 data gives float64 weights, anything else float32. The defaults of the schedules suit a standard deviation
      of about 0.5 to 1 (`scoregeo.datasets.Standardization`).
    - ``config``: settings, see `FitConfig`.
    - ``network``: the initial network, a module ``(x, c_noise) -> (d,)`` with an integer ``dim`` (see `networks`); by
      default an `MLP` as ``config`` says. It is not changed.
    - ``checkpoint_dir``: directory for the state of the run. If it already holds a run with the same settings and data,
      that run goes on from its last whole checkpoint.
    - ``progress``: report the losses on standard error, as a bar on a terminal and as lines elsewhere.
    - ``standardization``: the map that was applied to the data, kept with the model for those who need to undo it.
    - ``conditions``: a class label ``0, 1, ...`` for each point, integers ``(n,)``, or a vector, ``(n, m)``: what
      `DiffusionModel.score_at` and `DiffusionModel.sample` can then be asked for. A given ``network`` must take them.
    - ``callbacks``: functions of the `TrainingHistory` that are called after every chunk of steps, in turn; one that
      returns ``True`` ends the training. See `EarlyStop`, `JSONLines`.
    - ``mesh``: a `jax.sharding.Mesh` with one axis, as of ``jax.make_mesh((8,), ("data",),
      axis_types=(AxisType.Auto,))``: the points of a batch are divided among its devices. After
      ``jax.distributed.initialize`` these may belong to several processes, each of which calls this function with the
      same arguments and gets the model; the first one writes the checkpoints, in a folder that all can read.

    **Returns** a `DiffusionModel` with the averaged weights. Noise levels are standard deviations in the units of
    ``data``.

    **Raises** ``ValueError`` or ``TypeError`` for unusable arguments, before anything is trained, and for a bad batch
    of an iterator when it comes; ``OSError`` if a checkpoint cannot be written (the last whole one stays);
    `TrainingDiverged` when the loss is not finite; `TrainingInterrupted`, a ``KeyboardInterrupt``, on Ctrl-C.

    >>> import jax
    >>> from scoregeo.diffusion import FitConfig, fit
    >>> data = jax.random.normal(jax.random.key(0), (1000, 2))
    >>> model = fit(data, FitConfig(steps=20, chunk_steps=10, width=8, depth=1), progress=False)
    >>> score = model.score_at(0.2)  # of the distribution of the data, blurred by noise of standard deviation 0.2
    >>> score(data[0]).shape
    (2,)
    """
    config = FitConfig() if config is None else config
    if not isinstance(config, FitConfig):
        raise TypeError(f"`config` must be a FitConfig, got {type(config).__name__}")
    check_mesh(mesh, config)
    if takes_snapshots(config.ema) and checkpoint_dir is None:
        raise ValueError("`checkpoint_dir` must be given with `ema=PowerEMA(snapshots=...)`, got None")
    callbacks = _as_callbacks(callbacks)
    data = as_data(data, conditions, config)
    denoiser = _denoiser(data, config, network)
    graphdef, weights, constants = nnx.split(denoiser, nnx.Param, ...)
    run = _Run(graphdef, nnx.to_pure_dict(constants), config, data, mesh)
    # Made before the training, so that a bad argument is not noticed after it.
    model = DiffusionModel(denoiser, config, standardization=standardization)
    state, history = run.start(nnx.to_pure_dict(weights)), TrainingHistory.empty()

    if has_several_processes(mesh):
        # Also a time to meet: what the first process has written before this call is then on disk.
        check_agreement(int(data.digest()[:7], 16), mesh, "`data` must be the same in all processes")
    checkpoints = None
    if checkpoint_dir is not None:
        from .checkpoint import Checkpoints

        checkpoints = Checkpoints(checkpoint_dir, config, data.digest(), writes=is_writer(mesh))
        state, history = checkpoints.restore(state, history)
        check_agreement(int(state["step"]), mesh, "`checkpoint_dir` must be a folder that all processes can read")
    # Also of a history that was restored: a run that a callback has ended does not go on when started again.
    stopped = len(history.steps) > 0 and _asks_to_stop(callbacks, history)
    # The state after the last chunk and its losses: one name, so that an interrupt finds what belongs together.
    latest = run.place(state), None
    try:
        with Progress(config.steps, enabled=progress and is_writer(mesh)) as report:
            while (step := history.last_step) < config.steps and not stopped:
                latest = run.chunk(latest[0], min(config.chunk_steps, config.steps - step))
                history = _record(history, latest, checkpoints)
                stopped = _asks_to_stop(callbacks, history)
                if checkpoints:
                    _keep(latest[0], history, checkpoints, config, ended=stopped)
                report.update(history)
        if checkpoints:
            checkpoints.close()  # raises if the last one could not be written
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt, OSError):  # a second Ctrl-C: the last whole checkpoint will do
            if not latest[0]["step"].is_deleted():  # used up by a chunk that was interrupted as it began
                history = _record(history, latest, checkpoints)
                if checkpoints:
                    _keep(latest[0], history, checkpoints, config)
                    checkpoints.save(latest[0], history)
        raise TrainingInterrupted(history.last_step, checkpoints and checkpoints.last) from None
    finally:
        if checkpoints:
            with contextlib.suppress(OSError):
                checkpoints.close()
    return model.replace(run.merge(latest[0]["average"]), history)


def _as_callbacks(callbacks: Any) -> tuple[Callable, ...]:
    found = tuple(callbacks) if isinstance(callbacks, Iterable) else (None,)
    if not all(callable(callback) for callback in found):
        raise TypeError(f"`callbacks` must be a sequence of functions, got {callbacks!r}")
    return found


def _asks_to_stop(callbacks: Sequence[Callable], history: TrainingHistory) -> bool:
    # All of them: one that stops must not keep the others from seeing the last entry.
    return any([callback(history) for callback in callbacks])


def _record(history: TrainingHistory, latest: tuple[dict, Losses | None], checkpoints: Any) -> TrainingHistory:
    """The history with the losses of the last chunk, unless it has them; waits until they are computed."""
    state, losses = latest
    step = int(state["step"])
    if step == history.last_step:
        return history
    losses = jax.device_get(losses)
    if not (math.isfinite(losses.train) and (losses.sigmas.size == 0 or math.isfinite(losses.held_out))):
        raise TrainingDiverged(step, checkpoints and checkpoints.last)
    return history.append(step, float(losses.train), float(losses.held_out), losses.sigmas, losses.by_level)


def _keep(state, history: TrainingHistory, checkpoints: Any, config: FitConfig, *, ended: bool = False) -> None:
    """Write what is due after the last chunk; everything if the run has ended."""
    step = history.last_step
    before = (step - 1) // config.chunk_steps * config.chunk_steps
    ended = ended or step == config.steps
    # First, so that a run that goes on from a checkpoint has all snapshots of the steps before it.
    if takes_snapshots(config.ema) and (ended or config.ema.snapshot_due(step, before, config.steps)):
        checkpoints.snapshot(state)
    if ended or step // config.checkpoint_every > before // config.checkpoint_every:
        checkpoints.save(state, history)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same during a run: the structure of the denoiser, the settings, the data and the devices."""

    graphdef: Any
    constants: Any
    config: FitConfig
    data: AbstractData
    mesh: Mesh | None

    def start(self, weights: Any) -> dict[str, Any]:
        """The state before the first step: pure dictionaries of arrays."""
        if isinstance(self.config.weighting, LearnedWeighting):
            weights = weights | {WEIGHTING: self.config.weighting.initial(self.data.dtype)}
        step = jnp.zeros((), jnp.int32)
        averages = dict.fromkeys(self.config.ema.decays(step), weights)
        key = jax.random.key_data(jax.random.fold_in(jax.random.key(self.config.seed), 1))
        moments = optimiser(self.config).init(weights)
        return averages | {"weights": weights, "optimiser": moments, "step": step, "key": key}

    def place(self, state: dict[str, Any]) -> dict[str, Any]:
        """A copy of ``state`` on the devices: the steps overwrite it."""
        return jax.tree.map(jnp.copy, state) if self.mesh is None else replicated(state, self.mesh)

    @functools.cached_property
    def _arrays(self) -> tuple:
        """What every chunk takes besides the state and the batches."""
        return replicated((self.constants, self.data.resident, self.data.held_out), self.mesh)

    def chunk(self, state: dict[str, Any], steps: int) -> tuple[dict[str, Any], Losses]:
        """The state after ``steps`` more steps, and the losses; ``state`` is used up."""
        key = jax.random.wrap_key_data(np.asarray(state["key"]))
        batches = self.data.batches(key, int(state["step"]), steps)
        if batches is not None:
            place = divided if self.config.reference_size == 0 else replicated
            batches = place(batches, self.mesh)
        # The seed reaches the computation through the key: with another seed, nothing compiles again.
        config = dataclasses.replace(self.config, seed=0)
        return run_steps(self.graphdef, config, steps, self.mesh, state, batches, *self._arrays)

    def merge(self, weights: Any) -> Denoiser:
        """The denoiser with the given weights; those of a learned weighting are thrown away."""
        return with_weights(self.graphdef, local(weights, self.mesh), self.constants)


def _denoiser(data: AbstractData, config: FitConfig, network: nnx.Module | None) -> Denoiser:
    """The untrained denoiser, with the mean and the standard deviation of the training data."""
    dim, dtype, condition = data.dim, data.dtype, data.example
    if network is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        network = MLP(dim, config.width, config.depth, key=key, dtype=dtype, **_kind(condition))
        network = Potential(network) if config.potential else network
    elif not isinstance(network, nnx.Module):
        raise TypeError(f"`network` must be a flax nnx.Module, got {type(network).__name__}")
    elif getattr(network, "dim", None) != dim:
        raise ValueError(f"`network` must have dim {dim} to match `data`, got {getattr(network, 'dim', None)}")
    denoiser = Denoiser(network, data.spread, jnp.asarray(data.mean, dtype))
    x, sigma = jnp.zeros(dim, dtype), jnp.ones((), dtype)
    # Of all labels the largest: a network that knows it knows the others.
    shape = jax.eval_shape(lambda: denoiser.network_output(x, sigma, condition)).shape
    if shape != (dim,):
        raise ValueError(f"`network` must return shape ({dim},) for a point of shape ({dim},), got {shape}")
    while isinstance(network, Potential):
        network = network.net
    data.classes = getattr(network, "classes", None)
    return denoiser


def _kind(example: Array | None) -> dict[str, int]:
    """Which conditions a network has to take, in its own words."""
    if example is None:
        return {}
    return {"classes": int(example) + 1} if example.ndim == 0 else {"condition_dim": len(example)}


def _where(checkpoint: str | None) -> str:
    if checkpoint is None:
        return (
            "nothing was kept (no checkpoint was written; `checkpoint_dir` and `checkpoint_every` say where and when)"
        )
    return f"the last checkpoint is in {checkpoint} (the same call to `fit` goes on from there)"
