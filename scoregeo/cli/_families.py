"""The metrics that the command line can make of the score of a model, by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._types import Points
from ..metrics import AbstractMetric, ConformalMetric, InverseSteinMetric, ScoreJacobianMetric, SteinMetric
from ..metrics import recommend_strength as recommend
from ..scores import AbstractScore

# A ratio that every metric reaches, for one whose strength is then set to another one.
_BARELY = 1.001


class Family(NamedTuple):
    """One kind of metric.

    - ``type``: what `recommend_strength` knows it by.
    - ``formula``: what it is, for titles.
    - ``make``: function of a score, its noise level, a strength, and the points that the score was learned from.
    - ``needs_points``: whether ``make`` asks for the points.
    """

    type: Any
    formula: str
    make: Callable[[AbstractScore, float, float, Points | None], AbstractMetric]
    needs_points: bool = False


def _conformal(calibrated: Callable[..., ConformalMetric], strength_of: Callable[[Any], Any], formula: str) -> Family:
    """A conformal family, of which ``calibrated`` makes the member of a ratio, whose strength is ``strength_of`` it."""

    def make(score: AbstractScore, sigma: float, strength: float, points: Points | None) -> AbstractMetric:
        metric = calibrated(score, points, _BARELY)
        values = (jnp.asarray(value, strength_of(metric).dtype) for value in (strength, jnp.nan))
        return eqx.tree_at(lambda m: (strength_of(m), m.log_factor.ratio), metric, tuple(values))

    return Family(calibrated, formula, make, needs_points=True)


FAMILIES = {
    "stein": Family(SteinMetric, "I + strength s s^T", lambda score, sigma, c, points: SteinMetric(score, c)),
    "inverse-stein": Family(
        InverseSteinMetric, "(I + strength s s^T)^-1", lambda score, sigma, c, points: InverseSteinMetric(score, c)
    ),
    "score-jacobian": Family(
        ScoreJacobianMetric,
        "I + strength sigma^4 J^T J",
        lambda score, sigma, c, points: ScoreJacobianMetric(score, sigma, c),
    ),
    "power": _conformal(ConformalMetric.power, lambda m: m.log_factor.exponent, "p^(-2 strength) I"),
    "energy": _conformal(ConformalMetric.energy, lambda m: m.log_factor.weight, "(1 + strength softplus(E)) I"),
    "score-norm": _conformal(ConformalMetric.score_norm, lambda m: m.log_factor.weight, "(1 + strength |s|^2) I"),
}


def strength_for(kind: str, score: AbstractScore, points: Points | np.ndarray, ratio: float) -> float:
    """The strength at which the metric called ``kind`` costs ``ratio`` times as much off ``points`` as on them."""
    return float(recommend(FAMILIES[kind].type, score, jnp.asarray(points), ratio=ratio))


def score_of(metric: AbstractMetric) -> AbstractScore:
    """The score that a metric of one of the `FAMILIES` was made of."""
    return metric.log_factor.score if isinstance(metric, ConformalMetric) else metric.score  # pyright: ignore
