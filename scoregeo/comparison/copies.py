"""Whether a copy of a learned score - a smaller network, or one in a shorter type - is good enough for geometry.

Scores that agree need not have Jacobians that agree, and it is these that geodesics feel: so the errors of the score,
of ``J v`` and of distances are reported side by side, with what the copy saves.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import as_points, check_count
from .._protocols import ScoreModel
from .._types import Points
from ..diffusion.evaluation.base import AbstractReport, check_levels
from ..geodesics import AbstractBoundarySolver
from ..geodesics.base import default_solver
from ..metrics import AbstractMetric, SteinMetric, recommend_strength
from ..operations import dist
from ..scores import AbstractScore

# A copy whose median distance is off by more than this is not one for geometry.
_GOOD = 0.05
# Calls of each program that are timed, in turn.
_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class CopyReport(AbstractReport):
    """How a copy of a score differs from the original; arrays have shape ``(k,)`` and no unit.

    **Fields**

    - ``sigmas``: noise levels. At points with that much noise, with ``v ~ N(0, I)``: ``score_error``,
      ``sqrt(E|s' - s|^2 / E|s|^2)``; ``jvp_error``, ``sqrt(E|J'v - Jv|^2 / E|Jv|^2)``; ``speed_up``, the seconds that
      the original takes for ``J v`` of all points over those of the copy (medians of calls in turn).
    - ``distance_sigma``: the noise level of the metric. Over ``pairs`` pairs of points, of which both solves of
      ``solved`` converged: ``distance_errors`` ``(solved,)``, ``|d' - d| / d``; ``distance_speed_up``, seconds
      likewise.
    - ``good_enough``: whether the median of ``distance_errors`` is at most 5%, and that for at least 90% of the pairs.
    """

    sigmas: np.ndarray
    score_error: np.ndarray
    jvp_error: np.ndarray
    speed_up: np.ndarray
    distance_sigma: float
    pairs: int
    solved: int
    distance_errors: np.ndarray
    distance_speed_up: float

    @property
    def distance_error(self) -> float:
        """The median relative error of a distance; NaN if no pair was solved."""
        return float(np.median(self.distance_errors)) if self.solved else float("nan")

    @property
    def good_enough(self) -> bool:
        """See the fields."""
        return self.distance_error <= _GOOD and self.solved >= 0.9 * self.pairs

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists of numbers, for JSON."""
        return super().to_dict() | {"distance_error": self.distance_error, "good_enough": self.good_enough}

    def _title(self) -> str:
        return f"relative errors of a copy that is {'good' if self.good_enough else 'NOT good'} enough for geometry"

    def _columns(self) -> tuple[str, ...]:
        return "sigma", "score", "J v", "times faster"

    def _rows(self) -> list[list[str]]:
        columns = self.sigmas, self.score_error, self.jvp_error, self.speed_up
        return [[f"{s:g}", f"{a:.4f}", f"{b:.4f}", f"{t:.1f}"] for s, a, b, t in zip(*columns, strict=True)]

    def _caption(self) -> str:
        worst = max(self.distance_errors) if self.solved else float("nan")
        return (
            f"distances at sigma {self.distance_sigma:g}: median error {self.distance_error:.2%}, worst {worst:.2%},\n"
            f"{self.distance_speed_up:.1f} times faster ({self.solved} of {self.pairs} pairs solved)"
        )


def evaluate_copy(
    original: ScoreModel,
    copy: ScoreModel,
    points: Float[Array, "n d"] | np.ndarray,
    sigmas: Sequence[float] | np.ndarray,
    *,
    key: PRNGKeyArray,
    pairs: int = 50,
    metric: Callable[[AbstractScore], AbstractMetric] | None = None,
    distance_sigma: float | None = None,
    solver: AbstractBoundarySolver | None = None,
) -> CopyReport:
    """Compare the scores of ``copy`` with those of ``original``, their Jacobians, and distances in their metrics.

    **Arguments**

    - ``original``, ``copy``: have ``score_at(sigma)``: a `DiffusionModel` and its `scoregeo.diffusion.distill`\\ ed
      student, or ``model.with_compute_dtype("bfloat16")``.
    - ``points``: held-out points ``(n, d)`` in the coordinates of both, at least two.
    - ``sigmas``: positive noise levels at which scores are compared.
    - ``key``: of noise, directions and pairs; ``pairs``: how many pairs of ``points`` distances are solved for.
    - ``metric``: makes the metric of a score; default the Stein metric of ratio 10 on ``points``, of the same strength
      for both. ``distance_sigma``: the noise level of its score, default the first of ``sigmas``. ``solver``: default
      that of the metric for lengths.

    **Returns** a `CopyReport`, which prints as a table; solves that fail are counted, and raise nothing.

    **Raises** ``ValueError`` for unusable points or noise levels, ``TypeError`` for models without ``score_at``.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.comparison import evaluate_copy
    >>> from scoregeo.diffusion import Denoiser, DiffusionModel, FitConfig, MLP
    >>> model = DiffusionModel(Denoiser(MLP(2, key=jax.random.key(0)), 1.0), FitConfig())
    >>> points = jax.random.normal(jax.random.key(1), (20, 2))
    >>> report = evaluate_copy(model, model, points, (0.5,), key=jax.random.key(2), pairs=2)
    >>> report.distance_error, report.good_enough
    (0.0, True)
    """
    for name, model in (("original", original), ("copy", copy)):
        if not isinstance(model, ScoreModel):
            raise TypeError(f"`{name}` must have score_at(sigma), as a DiffusionModel has, got {type(model).__name__}")
    sigmas, points = check_levels(sigmas), as_points(points, "points", dim=getattr(original, "dim", None))
    if len(points) < 2:
        raise ValueError(f"`points` must be at least two, got {len(points)}")
    level = float(sigmas[0]) if distance_sigma is None else float(check_levels([distance_sigma])[0])
    noise_key, direction_key, pair_key = jax.random.split(key, 3)
    noise, v = (jax.random.normal(k, points.shape, points.dtype) for k in (noise_key, direction_key))
    rows = []
    for sigma in jnp.asarray(sigmas, points.dtype):
        scores, x = (original.score_at(sigma), copy.score_at(sigma)), points + sigma * noise
        (exact, found), speed_up = _in_turn(_products, [(score, x, v) for score in scores])
        errors = [float(jnp.linalg.norm(b - a) / jnp.linalg.norm(a)) for a, b in zip(exact, found, strict=True)]
        rows.append([*errors, speed_up])
    score_error, jvp_error, speed_up = np.array(rows).T

    if metric is None:
        strength = recommend_strength(SteinMetric, original.score_at(level), points, ratio=10.0)
        metric = _Stein(strength)
    metrics = [metric(model.score_at(level)) for model in (original, copy)]
    solver = default_solver(metrics[0], length_only=True) if solver is None else solver
    x, y = _draw_pairs(pair_key, points, check_count("pairs", pairs))
    (exact, found), distance_speed_up = _in_turn(_lengths, [(m, x, y, solver) for m in metrics])
    exact, found = np.asarray(exact), np.asarray(found)
    good = np.isfinite(exact) & np.isfinite(found) & (exact > 0)
    errors = np.abs(found - exact)[good] / exact[good]
    return CopyReport(
        sigmas, score_error, jvp_error, speed_up, level, pairs, int(good.sum()), errors, distance_speed_up
    )


@dataclasses.dataclass(frozen=True)
class _Stein:
    strength: Any

    def __call__(self, score: AbstractScore) -> SteinMetric:
        return SteinMetric(score, self.strength)


def _draw_pairs(key: PRNGKeyArray, points: Points, pairs: int) -> tuple[Float[Array, "p d"], Float[Array, "p d"]]:
    """Ends of ``pairs`` pairs, each of two different points."""
    n = len(points)
    first, other = jax.random.split(key)
    i = jax.random.randint(first, (pairs,), 0, n)
    j = (i + jax.random.randint(other, (pairs,), 1, n)) % n
    return points[i], points[j]


def _in_turn(function: Callable, arguments: list[tuple]) -> tuple[list, float]:
    """What ``function`` gives for each of two arguments, and the seconds of the first over those of the second.

    Called in turn, so that what else the machine does hits both alike; the first calls compile.
    """
    results = [jax.block_until_ready(function(*some)) for some in arguments]
    seconds = np.empty((_ROUNDS, len(arguments)))
    for row in seconds:
        for k, some in enumerate(arguments):
            start = time.perf_counter()
            jax.block_until_ready(function(*some))
            row[k] = time.perf_counter() - start
    first, second = np.median(seconds, 0)
    return results, float(first / second)


@eqx.filter_jit
def _products(score: AbstractScore, points: Points, directions: Points) -> tuple[Points, Points]:
    """Scores and products ``J v``; scores in lower precision come out in that of the points."""
    return jax.vmap(lambda x, v: jax.jvp(score, (x,), (v,)))(points, directions)


@eqx.filter_jit
def _lengths(metric: AbstractMetric, xs: Points, ys: Points, solver: AbstractBoundarySolver) -> Float[Array, " p"]:
    """Distances; NaN where a solve failed."""
    return jax.vmap(lambda x, y: dist(metric, x, y, solver=solver))(xs, ys)
