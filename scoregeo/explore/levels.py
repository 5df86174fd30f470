"""A score at each noise level of a page: its fields on the grid, and how strong each metric is to be."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_float, as_scalar
from .._protocols import KnowsNoiseLevel
from .._types import Point, Points
from ..metrics import AbstractMetric, ConformalMetric, ScoreJacobianMetric, SteinMetric, recommend_strength
from ..metrics.conformal import PowerFactor
from ..scores import AbstractScore
from ..scores.base import at_noise_level
from ..scores.line_integral import with_log_prob
from .grid import Grid, encode, values_on
from .plane import Plane, log_prob_on

# How many points tell how well splines fit the score, and what part of it they may miss.
_CHECKED, _MISSED = 256, 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class Level:
    """A score at one noise level, on a plane.

    - ``noise``: the noise level, or ``None`` where nobody knows it.
    - ``score``: in all dimensions.
    - ``log_prob``, ``slopes``: splines of log p, and of both components of the score on the plane, where the page needs
      them: where the score is not the gradient of log p, or its Jacobian is asked for.
    - ``stein``: the strength of the Stein metric with ratio 2 (it grows with ratio - 1).
    - ``power``: the exponent of the power of the density with ratio e (it grows with the logarithm of the ratio), and
      the energy -log p where that is one; or why there is none.
    - ``missed``: by what part of the score its spline differs from it, in the median.
    """

    noise: float | None
    score: AbstractScore
    log_prob: np.ndarray
    slopes: np.ndarray | None
    stein: float
    power: tuple[float, float] | str
    missed: float

    def metric(self, kind: str, data: Points, ratio: float) -> AbstractMetric:
        """The metric that the page calls ``kind``, of the library, in all dimensions."""
        if kind == "power":
            return ConformalMetric.power(self.score, data, ratio)
        if kind == "score-jacobian":
            return ScoreJacobianMetric(self.score, self.noise, ratio - 1)
        return SteinMetric(self.score, self.stein * (ratio - 1))

    def to_dict(self) -> dict[str, Any]:
        """What the page is told of it."""
        record: dict[str, Any] = {"noise": self.noise, "logDensity": encode(self.log_prob), "stein": self.stein}
        record["conservative"] = self.score.conservative
        if self.slopes is not None:
            record["score"] = [encode(part) for part in self.slopes]
        if not isinstance(self.power, str):
            record["power"] = {"exponent": self.power[0], "energy": self.power[1]}
        return record


def levels_of(score: AbstractScore, noise_levels: Any) -> list[tuple[float | None, AbstractScore]]:
    """The score at each noise level, from small to large; as it is where none are given."""
    if noise_levels is None:
        known = score.noise_level if isinstance(score, KnowsNoiseLevel) else None
        return [(None if known is None else float(cast(Any, known)), score)]
    given = np.atleast_1d(np.asarray(as_float(noise_levels, "noise_levels"), np.float64))
    if given.ndim > 1:
        raise ValueError(f"`noise_levels` must be a number or a list of numbers, got shape {given.shape}")
    levels = sorted({float(as_scalar(level, "noise_levels", positive=True)) for level in given.tolist()})
    if not levels:
        raise ValueError("`noise_levels` must hold at least one number, got none")
    return [(level, at_noise_level(score, level)) for level in levels]


def make_level(noise: float | None, score: AbstractScore, data: Points, plane: Plane, grid: Grid) -> Level:
    """Evaluate a score on the grid, and calibrate the metrics by ``data`` ``(n, d)`` in all dimensions.

    Raises ``ValueError`` where a value is not finite, or where the grid is too coarse for the score.
    """
    known = with_log_prob(score, data)
    places = grid.points()
    log_prob = grid.spline(values_on(jax.tree_util.Partial(log_prob_on, plane, known), places, "log p"))
    slopes, on_plane = None, jax.tree_util.Partial(_score_on, plane, score)
    if not score.conservative or (noise is not None and plane.dim == 2):
        values = values_on(on_plane, places, "the score")
        slopes = np.stack([grid.spline(part) for part in values.T])
    missed = _missed(grid, log_prob, None if score.conservative else slopes, on_plane, plane.coordinates(data))
    if missed > _MISSED:
        at = "" if noise is None else f" at noise level {noise:g}"
        raise ValueError(
            f"`resolution` is too coarse{at}: splines on this grid, of spacing {grid.step:.3g}, miss the score by "
            f"{missed:.0%}. Take a larger one, or larger noise levels"
        )
    stein = float(recommend_strength(SteinMetric, score, data, ratio=2.0))
    return Level(noise, score, log_prob, slopes, stein, _power(score, data), missed)


def _score_on(plane: Plane, score: Callable[[Point], Any], u: Float[Array, " 2"]) -> Any:
    return plane.pull(score(plane.point(u)))


def _power(score: AbstractScore, data: Points) -> tuple[float, float] | str:
    try:
        factor = cast(PowerFactor, ConformalMetric.power(score, data, float(np.e)).log_factor)
    except ValueError as error:
        return str(error)
    return float(factor.exponent), float(factor.energy)


def _missed(grid: Grid, log_prob: np.ndarray, slopes: Any, score: Callable, shown: np.ndarray) -> float:
    """By what part of itself the score differs from the spline, in the median over data in the picture, or over places
    at random where there are few."""
    low, high = np.array(grid.view).reshape(2, 2).T
    places = shown[((shown > low) & (shown < high)).all(1)][:_CHECKED]
    if len(places) < _CHECKED // 8:
        places = low + (high - low) * np.random.default_rng(0).random((_CHECKED, 2))
    exact = values_on(score, places, "the score")
    if slopes is None:
        found = grid.slope(log_prob, places)
    else:
        found = np.stack([grid.evaluate(part, places) for part in slopes], -1)
    size = float(np.median(np.linalg.norm(exact, axis=1)))
    return float(np.median(np.linalg.norm(found - exact, axis=1))) / size if size > 0 else 0.0
