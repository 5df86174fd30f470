"""The noise level and the ratio of a metric, judged by where its geodesics go."""

import dataclasses
import os
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial import KDTree

from ..._checks import as_float, as_points, check_count, check_finite, is_number
from ..._numerics import with_own_settings
from ..._protocols import ScoreModel
from ..._results import RESULTS
from ..._types import Points
from ...geodesics import AbstractBoundarySolver, AbstractStart, SpectralNewton, StraightLine, geodesic
from ...geodesics.base import default_solver
from ...metrics import AbstractMetric, ConformalMetric, ScoreJacobianMetric, recommend_strength
from ...scores import AbstractScore, at_noise_level
from .report import SearchReport
from .study import Trial, best_of, identity, load_optuna, log_range, run_study

# Geodesics that are only compared need no more digits than this.
_RTOL, _PATH_RTOL = 1e-3, 1e-2
# The smallest noise level by default, in parts of the spread of the data, and how many data are asked for neighbours.
_LEAST, _ASKED = 0.02, 1000

Family = Callable[..., Any]
Objective = Callable[[Float[np.ndarray, "b k d"], np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class MetricSearch(SearchReport):
    """What `search_metric` found.

    **Fields**, beside those of `SearchReport`: ``metric``, the one of the best settings, ready to use; ``converged``,
    the share of the pairs that were solved with it.
    """

    metric: AbstractMetric
    converged: float

    def _caption(self) -> str:
        return f"{super()._caption()}; {self.converged:.0%} of its pairs were solved"

    def to_dict(self) -> dict[str, Any]:
        """As `SearchReport.to_dict`, and ``converged``; without the metric."""
        return super().to_dict() | {"converged": self.converged}


class DistanceToData:
    """An objective: the mean over the frames of a path, its ends not counted, of the distance to the nearest of
    ``points`` ``(m, d)``, data that neither the score nor the metric has seen.

    >>> import numpy as np
    >>> from scoregeo.adapters.optuna import DistanceToData
    >>> path = np.array([[0.0, 0.0], [0.5, 2.0], [1.0, 0.0]])
    >>> DistanceToData(np.array([[0.5, 0.0], [9.0, 9.0]]))(path[None], np.arange(1)).tolist()
    [2.0]
    """

    def __init__(self, points: Points | np.ndarray):
        self.points = np.asarray(as_points(points, "points"))

    def __call__(self, paths: Float[np.ndarray, "b k d"], pairs: np.ndarray) -> Float[np.ndarray, " b"]:
        """The figure of every path."""
        return KDTree(self.points).query(paths[:, 1:-1])[0].mean(1)

    def __str__(self) -> str:
        return "distance to held-out data"


def metric_of(
    model: ScoreModel | AbstractScore, family: Family, data: Points | np.ndarray, noise_level: float, ratio: float
) -> AbstractMetric:
    """The metric of a ``family`` at a noise level, calibrated on ``data`` to a ratio: what `search_metric` tries.

    Arguments are as there; raises what the family raises, as ``ValueError`` for a density that does not tell the data
    from what lies between them, and warns where a ratio is out of reach.

    >>> import jax
    >>> from scoregeo import ConformalMetric, datasets
    >>> from scoregeo.adapters.optuna import metric_of
    >>> moons = datasets.two_moons(jax.random.key(0), 100)
    >>> metric = metric_of(moons.score, ConformalMetric.power, moons.points, 0.1, 100.0)
    """
    score = model.score_at(noise_level) if isinstance(model, ScoreModel) else at_noise_level(model, noise_level)
    points = as_points(data, "data")
    if getattr(family, "__self__", None) is ConformalMetric:  # its classmethods calibrate themselves
        return family(score, points, ratio=ratio)
    if family is ScoreJacobianMetric:
        return family(score, noise_level, ratio - 1)
    if isinstance(family, type):
        return family(score, recommend_strength(family, score, points, ratio=ratio))
    if getattr(family, "__self__", None) is not None and isinstance(family.__self__, type):
        raise TypeError(
            f"`family` must be a class of metrics of a score, a classmethod of ConformalMetric, or a function "
            f"(score, noise_level, data, ratio) -> metric, got {getattr(family, '__qualname__', family)}"
        )
    metric = family(score, noise_level, points, ratio)
    if not isinstance(metric, AbstractMetric):
        raise TypeError(f"`family` must make an AbstractMetric, got {type(metric).__name__}")
    return metric


def search_metric(
    model: ScoreModel | AbstractScore,
    family: Family,
    data: Points | np.ndarray,
    pairs: Float[Array, "n 2 d"] | np.ndarray,
    objective: Objective,
    *,
    noise_levels: tuple[float, float] | None = None,
    ratios: tuple[float, float] = (3.0, 1e6),
    n_trials: int = 30,
    storage: str | os.PathLike | None = None,
    seed: int = 0,
    solver: AbstractBoundarySolver | None = None,
    init: AbstractStart | None = None,
    frames: int = 31,
    batch_size: int = 4,
    failure: float = 2.0,
    pruner: Any = None,
    progress: bool = True,
) -> MetricSearch:
    """The noise level and the ratio at which the geodesics of a metric have the smallest ``objective``.

    **Arguments**

    - ``model``: has ``score_at(sigma)``, as a `DiffusionModel`; or a score that is known at every noise level, as a
      mixture or a kernel density.
    - ``family``: the metrics to choose from: a class with a strength, as ``SteinMetric`` or ``ScoreJacobianMetric``; a
      classmethod, as ``ConformalMetric.power``; or a function ``(score, noise_level, data, ratio) -> metric``.
    - ``data``: points ``(n, d)`` by which metrics are calibrated (`recommend_strength`), as those trained on.
    - ``pairs``: ends of the geodesics, ``(n, 2, d)``. Judge what is found on others.
    - ``objective``: what is to be small, as ``DistanceToData(held_out)``; or a function ``(paths, indices) -> values``
      of paths ``(b, frames + 2, d)``, NumPy, and of the indices ``(b,)`` of their pairs, whose ``b`` values are finite
      and not negative. The mean over all pairs counts.
    - ``noise_levels``, ``ratios``: ranges ``(low, high)``, both searched on a logarithmic scale. By default the noise
      level goes from half the median distance between neighbouring data (a fiftieth to an eighth of their spread, the
      standard deviation of a coordinate) to their spread, as far as the model knows these levels.
    - ``n_trials``: trials in all, those in ``storage`` included.
    - ``storage``: a SQLite file, made if needed. The same call goes on with it, also to more ``n_trials``; a file of
      another search, or of other data, ranges or settings, is refused. One process at a time. Default: memory.
    - ``seed``: of the sampler, `optuna.samplers.TPESampler`. A search that goes on makes the same trials as one that
      was not interrupted.
    - ``solver``, ``init``: as for `geodesic`; by default the metric's solver to three digits, and the straight line.
    - ``frames``: points of a path between its ends, at equal times.
    - ``batch_size``: pairs that are solved side by side. After the first batch, then after two, four and so on, the
      mean until there is compared with that of the other trials, and ``pruner`` may end the trial.
    - ``failure``: a pair whose solve does not converge, or whose metric cannot be calibrated, counts as so many times
      the straight line between its ends, or so many times the mean of all straight lines if that is more.
    - ``pruner``: one of Optuna's; default its ``MedianPruner``.
    - ``progress``: report on standard error, as a bar on a terminal and as lines elsewhere.

    **Returns** a `MetricSearch`.

    **Raises** ``ImportError`` without Optuna, ``ValueError`` for unusable arguments or a ``storage`` of another search,
    ``RuntimeError`` if the best of the trials has solved no pair at all. An error of ``objective`` and Ctrl-C end the
    search; what was completed is in ``storage``.
    """
    load_optuna()
    xs, ys = _ends(pairs)
    points = as_points(data, "data", dim=xs.shape[1])
    setting = _Setting(model, family, points, xs, ys, objective, solver, StraightLine() if init is None else init)
    how = _How(check_count("frames", frames), check_count("batch_size", batch_size), _factor(failure))
    levels = default_noise_levels(model, points) if noise_levels is None else log_range("noise_levels", noise_levels)
    space = {"noise_level": levels, "ratio": log_range("ratios", ratios)}
    if space["ratio"][0] < 1:
        raise ValueError(f"`ratios` must be at least 1, got {ratios}")
    straight = _judged(objective, _straight(xs, ys, how.frames), np.arange(len(xs)))
    penalties = how.failure * np.maximum(straight, straight.mean())

    def known_by():
        plain = {"search": "metric", "noise_levels": levels, "ratios": space["ratio"], "seed": seed}
        some = model.score_at(levels[0]) if isinstance(model, ScoreModel) else model
        objects = {"data": points, "pairs": (xs, ys), "objective": objective, "solver": solver, "init": setting.init}
        return identity(plain | dataclasses.asdict(how), model=some, family=family, **objects)

    trials = run_study(
        lambda trial: _evaluate(trial, setting, how, penalties),
        space,
        known_by,
        n_trials=n_trials,
        storage=storage,
        seed=seed,
        pruner=pruner,
        progress=progress,
    )
    best = best_of(trials)
    if not best.facts["converged"]:
        why = best.facts.get("error", "no solve converged")
        raise RuntimeError(f"none of {len(trials)} trials solved any pair: {why}; try other ranges, or another solver")
    name = f"{objective}" if type(objective).__str__ is not object.__str__ else getattr(objective, "__name__", "")
    metric = metric_of(model, family, points, **best.settings)
    return MetricSearch(name or "objective", best.settings, best.value, trials, metric, best.facts["converged"])


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What is searched for, and what it is searched on."""

    model: ScoreModel | AbstractScore
    family: Family
    data: Points
    xs: Float[Array, "pairs d"]
    ys: Float[Array, "pairs d"]
    objective: Objective
    solver: AbstractBoundarySolver | None
    init: AbstractStart


@dataclasses.dataclass(frozen=True)
class _How:
    """How a trial is made; arguments of `search_metric`."""

    frames: int
    batch_size: int
    failure: float


def _evaluate(trial: Trial, setting: _Setting, how: _How, penalties: np.ndarray) -> float:
    """The mean objective over all pairs, with reports after growing groups of them."""
    n = len(setting.xs)
    metric = _metric_or_none(trial, setting)
    solver = setting.solver if metric is None or setting.solver is not None else _default(metric)
    values, solved = penalties.copy(), np.zeros(n, bool)
    ts, done, due = jnp.linspace(0, 1, how.frames + 2, dtype=setting.xs.dtype), 0, how.batch_size
    while metric is not None and done < n:
        mine = np.arange(done, min(done + how.batch_size, n))
        some = np.resize(mine, how.batch_size)  # the last batch is filled, so that it has the same program
        paths, converged = _solve(metric, solver, setting.init, setting.xs[some], setting.ys[some], ts)
        good = mine[np.asarray(converged)[: len(mine)]]
        if len(good):
            values[good] = _judged(setting.objective, np.asarray(paths)[good - done], good)
        solved[good] = True
        done = int(mine[-1]) + 1
        trial.note(converged=float(solved[:done].mean()))
        if due <= done < n:
            due *= 2
            trial.report(float(values[:done].mean()), done)
    return trial.end(float(values.mean()), n)


def _metric_or_none(trial: Trial, setting: _Setting) -> AbstractMetric | None:
    """The metric of a trial, with what it warns of kept beside the trial; ``None`` where it cannot be calibrated."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            metric = metric_of(setting.model, setting.family, setting.data, **trial.settings)
        except ValueError as error:
            trial.note(error=str(error), converged=0.0)
            return None
    if caught:
        trial.note(warning=str(caught[0].message))
    return metric


def _default(metric: AbstractMetric) -> AbstractBoundarySolver:
    """The solver where none is given."""
    solver = default_solver(metric)
    if isinstance(solver, SpectralNewton):
        return dataclasses.replace(solver, rtol=_RTOL, path_rtol=_PATH_RTOL)
    return solver


@eqx.filter_jit
@with_own_settings
def _solve(metric, solver, init, xs, ys, ts):
    """Paths ``(b, k, d)``, and whether they are geodesics; metrics of one family share a program."""

    def one(x, y):
        path = geodesic(metric, x, y, solver=solver, init=init, ts=ts, throw=False)
        return path.points, (path.result == RESULTS.successful) & jnp.all(jnp.isfinite(path.points))

    return jax.vmap(one)(xs, ys)


def _judged(objective: Objective, paths: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The objective of paths; raises ``ValueError`` for what cannot be averaged and compared."""
    values = np.asarray(objective(paths, indices), float)
    if values.shape != (len(paths),) or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(
            f"`objective` must return a finite value of at least 0 for each of {len(paths)} paths, got {values}"
        )
    return values


def _straight(xs: Points, ys: Points, frames: int) -> np.ndarray:
    t = np.linspace(0, 1, frames + 2)[:, None]
    return (1 - t) * np.asarray(xs)[:, None] + t * np.asarray(ys)[:, None]


def _ends(pairs: Any) -> tuple[Points, Points]:
    values = as_float(pairs, "pairs")
    if values.ndim != 3 or values.shape[1] != 2 or not values.size:
        raise ValueError(f"`pairs` must have shape (n, 2, d) with n, d >= 1, got {values.shape}")
    check_finite(values, "pairs")
    return values[:, 0], values[:, 1]


def _factor(failure: Any) -> float:
    if not (is_number(failure) and failure >= 1):
        raise ValueError(f"`failure` must be a number of at least 1, got {failure!r}")
    return float(failure)


def default_noise_levels(model: Any, data: Points) -> tuple[float, float]:
    """The range of noise levels that `search_metric` looks at by default; raises ``ValueError`` for data that are all
    the same."""
    points = np.asarray(data, float)
    spread = float(np.sqrt(points.var(0).mean()))
    if len(points) < 2 or spread == 0:
        raise ValueError(f"`data` must be at least two different points, got {len(points)}")
    asked = points[np.linspace(0, len(points) - 1, min(len(points), _ASKED)).astype(int)]
    neighbour = float(np.median(KDTree(points).query(asked, k=2)[0][:, 1]))
    low, high = max(min(neighbour / 2, spread / 8), _LEAST * spread), spread
    if (schedule := getattr(model, "schedule", None)) is not None:
        least, most = map(float, schedule.noise_range())
        low, high = max(low, least), min(high, most)
    if not low < high:
        raise ValueError(
            f"`noise_levels` must be given: those of the model begin at {low:.4g}, and data with a standard deviation "
            f"of {spread:.4g} ask for at most {high:.4g}"
        )
    return low, high
