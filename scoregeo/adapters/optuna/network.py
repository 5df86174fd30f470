"""The size and the learning rate of a network, judged by the held-out loss of J v."""

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ..._checks import as_points, check_count
from ...datasets import Dataset
from ...diffusion import FitConfig, TrainingDiverged, TrainingHistory, evaluate_jacobian, fit
from ...diffusion.evaluation.base import check_levels
from .report import SearchReport
from .study import Trial, best_of, count_range, identity, load_optuna, log_range, run_study


@dataclasses.dataclass(frozen=True)
class NetworkSearch(SearchReport):
    """What `search_network` found.

    **Fields**, beside those of `SearchReport`: ``config``, the settings of the search with the best size and learning
    rate: ``fit(points, result.config)`` trains that network again.
    """

    config: FitConfig

    def to_dict(self) -> dict[str, Any]:
        """As `SearchReport.to_dict`, with ``config``."""
        return super().to_dict() | {"config": self.config.to_dict()}


def search_network(
    data: Float[Array, "n d"] | np.ndarray | Dataset,
    held_out: Float[Array, "m d"] | np.ndarray,
    sigmas: Sequence[float] | np.ndarray,
    config: FitConfig | None = None,
    *,
    widths: tuple[int, int] = (16, 256),
    depths: tuple[int, int] = (1, 5),
    learning_rates: tuple[float, float] = (3e-4, 1e-2),
    n_trials: int = 30,
    storage: str | os.PathLike | None = None,
    seed: int = 0,
    looks: int = 3,
    draws: int = 4,
    pruner: Any = None,
    progress: bool = True,
) -> NetworkSearch:
    """The width, depth and learning rate of the network whose Jacobian is best on held-out data.

    The objective is the mean over ``sigmas`` of the held-out loss of J v (`evaluate_jacobian`): 1 for a score of zero,
    and differences of it are those of the squared errors of ``sigma^2 J v``. All trials train for the same
    ``config.steps`` and see the same noise.

    **Arguments**

    - ``data``: what is trained on, an array ``(n, d)`` or a `Dataset`.
    - ``held_out``: at least two points ``(m, d)`` in the same coordinates, which are not among them.
    - ``sigmas``: noise levels at which geometry is wanted.
    - ``config``: all other settings of the training, its ``steps`` and ``seed`` too.
    - ``widths``, ``depths``, ``learning_rates``: ranges ``(low, high)``, searched on a logarithmic scale.
    - ``n_trials``, ``storage``, ``seed``, ``pruner``, ``progress``: as for `search_metric`. The ``seed`` also draws
      the noise of the objective.
    - ``looks``: how often a training is judged: at its end, half-way, at a quarter and so on. Before the end the
      ``pruner`` may end it. (The learning rate has not fallen to zero there: trials are compared with others at the
      same step only.)
    - ``draws``: how often each held-out point gets another noise.

    A training that diverges counts as ended early, with no value.

    **Returns** a `NetworkSearch`. **Raises** as `search_metric`, and what `fit` raises for unusable data.
    """
    load_optuna()
    config = FitConfig() if config is None else config
    if not isinstance(config, FitConfig):
        raise TypeError(f"`config` must be a FitConfig, got {type(config).__name__}")
    if config.ema.snapshots:
        raise ValueError(f"`config` must have an `ema` without snapshots, whose files nobody would keep: {config.ema}")
    levels = check_levels(sigmas)
    points = data.points if isinstance(data, Dataset) else data
    given = as_points(held_out, "held_out", dim=np.shape(points)[-1])
    check_count("draws", draws)
    stops = _stops(config, check_count("looks", looks))
    space = {
        "width": count_range("widths", widths),
        "depth": count_range("depths", depths),
        "learning_rate": log_range("learning_rates", learning_rates),
    }

    def known_by():
        plain = {"search": "network", "sigmas": levels.tolist(), "looks": looks, "draws": draws, "seed": seed}
        plain |= {f"config.{name}": value for name, value in config.to_dict().items() if name not in space}
        return identity(plain | {f"{name}s": ends for name, ends in space.items()}, data=points, held_out=given)

    def evaluate(trial: Trial) -> float:
        return _train(trial, dataclasses.replace(config, **trial.settings), data, held_out, levels, stops, draws, seed)

    trials = run_study(
        evaluate,
        space,
        known_by,
        n_trials=n_trials,
        storage=storage,
        seed=seed,
        pruner=pruner,
        progress=progress,
    )
    best = best_of(trials)
    found = dataclasses.replace(config, **best.settings)
    return NetworkSearch("held-out loss of J v", best.settings, best.value, trials, found)


def _train(trial: Trial, config: FitConfig, data, held_out, levels, stops: list[int], draws: int, seed: int) -> float:
    """The objective after the last step; the training goes on from one look to the next through its checkpoint."""
    loss = float("nan")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for stop in stops:
            try:
                model = fit(data, config, checkpoint_dir=folder, callbacks=[_StopAt(stop)], progress=False)
            except TrainingDiverged as error:
                trial.give_up(diverged=error.step)
            report = evaluate_jacobian(model, held_out, levels, key=jax.random.key(seed), draws=draws)
            loss = float(report.loss.mean())
            trial.note(loss=report.loss.tolist(), loss_error=report.loss_error.tolist())
            if not np.isfinite(loss):
                trial.give_up(diverged=stop)
            if stop < config.steps:
                trial.report(loss, stop)
    return trial.end(loss, config.steps)


@dataclasses.dataclass(frozen=True)
class _StopAt:
    """Ends a training after so many steps."""

    step: int

    def __call__(self, history: TrainingHistory) -> bool:
        return history.last_step >= self.step


def _stops(config: FitConfig, looks: int) -> list[int]:
    """The steps after which a training is judged: the ends of chunks, the last of all included."""
    chunk = config.chunk_steps
    wanted = (-(-config.steps // 2**k) for k in range(looks))
    return sorted({min(-(-stop // chunk) * chunk, config.steps) for stop in wanted})
