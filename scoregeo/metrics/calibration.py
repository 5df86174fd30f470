"""How strong a metric is to be: one meaning for the settings of every family.

    ratio = (what the dearest direction costs off the data) / (what the cheapest direction costs on them)  (1)

"On" is the median over the data, "off" the 90th percentile along straight lines between random pairs of them: where a
straight line leaves the data, it pays ``ratio`` times. (The middle of such lines alone says little: between two moons
half of them are on a moon.) Costs are those of squared lengths, G.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import as_float, as_points, check_count, check_finite, is_concrete, warn
from .._numerics import program
from .._types import Point, Points, Scalar
from ..scores import AbstractScore

# Points at which the data are looked at, places on each straight line, and how many points are evaluated side by side.
_MOST_POINTS, _PLACES, _SIDE_BY_SIDE = 1000, 17, 256
_OFF = 90.0
# Where a ratio is out of reach, so much of the way to the largest one is gone.
_NEARLY = 0.9
_Rule = TypeVar("_Rule", bound=Callable)


class Contrast(NamedTuple):
    """Points ``on`` the data ``(n, d)``, and points ``off`` them ``(m, d)``, on straight lines between random pairs."""

    on: Points
    off: Points

    def median_on(self, fn: Callable[[Point], Scalar], name: str) -> Scalar:
        """The median of ``fn`` over the data; raises ``ValueError`` that begins with ``name`` where it is not
        finite."""
        return _finite(jnp.median(_values(fn, self.on)), f"{name} at the data")

    def percentile_on(self, fn: Callable[[Point], Scalar], percentile: float, name: str) -> Scalar:
        """A percentile of ``fn`` over the data; raises as `median_on`."""
        return _finite(jnp.percentile(_values(fn, self.on), percentile), f"{name} at the data")

    def high_off(self, fn: Callable[[Point], Scalar], name: str) -> Scalar:
        """The 90th percentile of ``fn`` off the data; raises as `median_on`."""
        return _finite(
            jnp.percentile(_values(fn, self.off), _OFF), f"{name} along straight lines between pairs of data"
        )


def contrast(data: Points, key: PRNGKeyArray | None = None, pairs: int = 64) -> Contrast:
    """Places on ``data`` ``(n, d)`` and off them, on straight lines between ``pairs`` random pairs.

    ``key`` draws the pairs; without one they are the same for the same data. Raises ``ValueError`` for fewer than two
    points.
    """
    data = as_points(data, "data")
    n = len(data)
    if n < 2:
        raise ValueError(f"`data` must have at least two points, got {n}")
    first, step, some = jax.random.split(jax.random.key(0) if key is None else key, 3)
    i = jax.random.randint(first, (check_count("pairs", pairs),), 0, n)
    j = (i + jax.random.randint(step, i.shape, 1, n)) % n
    t = jnp.linspace(0, 1, _PLACES, dtype=data.dtype)[:, None, None]
    lines = (1 - t) * data[i] + t * data[j]
    on = data if n <= _MOST_POINTS else jax.random.permutation(some, data)[:_MOST_POINTS]
    return Contrast(on, lines.reshape(-1, data.shape[1]))


@program
def _values(fn: Callable[[Point], Scalar], points: Points) -> Float[Array, " n"]:
    return jax.lax.map(fn, points, batch_size=min(_SIDE_BY_SIDE, len(points)))


def _finite(value: Scalar, what: str) -> Scalar:
    if is_concrete(value) and not np.isfinite(value):
        raise ValueError(f"{what} must be finite, got {float(value)}: the metric cannot be calibrated by them")
    return value


def check_ratio(ratio: Any) -> Scalar:
    """``ratio`` as a finite scalar of at least 1; a smaller one that is traced becomes NaN."""
    ratio = as_float(ratio, "ratio").astype(jnp.result_type(float))
    if ratio.ndim != 0:
        raise ValueError(f"`ratio` must be a scalar, got shape {ratio.shape}")
    check_finite(ratio, "ratio")
    if is_concrete(ratio) and float(ratio) < 1:
        raise ValueError(
            f"`ratio` must be at least 1, got {float(ratio)}: it says how many times as much the metric costs off the "
            "data as on them"
        )
    return jnp.where(ratio < 1, jnp.nan, ratio)


class Reached(NamedTuple):
    """A strength, and the ratio that it reaches: the one asked for, or less where that is out of reach."""

    strength: Scalar
    ratio: Scalar


def saturating(
    on: Scalar, off: Scalar, ratio: Scalar, name: str, *, places: tuple[str, str] = ("on the data", "off the data")
) -> Reached:
    """The strength c with ``(1 + c off) / (1 + c on) = ratio``, for costs ``1 + c h`` with h >= 0 on and off the data.

    Whatever c, the ratio stays below ``off / on``. Where one is asked for that is out of reach, the strength reaches 90
    percent of the way to that bound, with a ``UserWarning`` that says so. Raises ``ValueError`` where ``off <= on``.
    ``name`` is that of h, and ``places`` those of ``on`` and ``off``, for these messages.
    """
    bound = off / jnp.where(on > 0, on, 1)
    bound = jnp.where(on > 0, bound, jnp.inf)
    if is_concrete(bound) and not float(off) > float(on) and float(ratio) > 1:
        raise ValueError(
            f"{name} must be larger {places[1]} than {places[0]}, got {float(off):.4g} and {float(on):.4g}: the metric "
            "would not tell the data from what lies on straight lines between pairs of them"
        )
    most = 1 + _NEARLY * (bound - 1)
    reached = jnp.minimum(ratio, most)
    if is_concrete(reached) and float(reached) < float(ratio):
        warn(
            f"`ratio` {float(ratio):.4g} is out of reach: {name} is {float(bound):.4g} times as large "
            f"{places[1]} as {places[0]}; the metric is calibrated to {float(reached):.4g}",
        )
    return Reached((reached - 1) / (off - reached * on), reached)


# What recommends the strength of a metric: a function of a score, a `Contrast`, and a ratio.
_RULES: dict[Any, Callable[..., Scalar]] = {}


def strength_rule(metric_type: Any) -> Callable[[_Rule], _Rule]:
    """Registers, as a decorator, the function ``(score, contrast, ratio) -> strength`` that `recommend_strength` asks
    for metrics of this type: a class, or a classmethod that makes metrics. ``score`` is what the caller gave,
    unchecked.

    >>> from scoregeo import AbstractMetric, recommend_strength
    >>> from scoregeo.metrics import strength_rule
    >>> class Mine(AbstractMetric):
    ...     def at(self, x):
    ...         return None
    >>> rule = strength_rule(Mine)(lambda score, contrast, ratio: ratio - 1)  # 1 on the data, 1 + strength off them
    >>> float(recommend_strength(Mine, None, [[0.0, 1.0], [2.0, 3.0]], ratio=100.0))
    99.0
    """

    def register(rule: _Rule) -> _Rule:
        _RULES[metric_type] = rule
        return rule

    return register


def recommend_strength(
    metric_type: Any,
    score: AbstractScore | Callable | None,
    data: Points,
    *,
    ratio: float | Scalar = 100.0,
    key: PRNGKeyArray | None = None,
    pairs: int = 64,
) -> Scalar:
    """The strength with which a metric of ``metric_type`` costs ``ratio`` times as much off the data as on them.

    **Arguments**

    - ``metric_type``: the class, as `SteinMetric`, or the classmethod that makes the metric, as
      ``ConformalMetric.power``; the strength is then the exponent b, or the weight c, of its factor.
    - ``score``: an `AbstractScore`, or a function ``x -> s(x)``, as the metric takes it; ``None`` for a metric that has
      none.
    - ``data``: ``(n, d)``, at least two points; where there are more than 1,000, so many of them are looked at.
    - ``ratio``: what the dearest direction costs off the data, in units of what the cheapest costs on them, in terms of
      squared lengths; at least 1. "On" is the median over the data, "off" the 90th percentile along straight lines
      between random pairs.
    - ``key``: draws the pairs; without one they are the same for the same data.
    - ``pairs``: how many straight lines are looked at, at 17 places each.

    **Returns** a scalar. Where no strength reaches ``ratio``, one that comes near to what can be reached, with a
    ``UserWarning`` that says so.

    **Raises** ``ValueError`` for a ratio below 1, data with NaN, or a score that is not finite there; ``TypeError`` for
    a type of metric that has registered no rule (`strength_rule`).

    >>> import jax
    >>> from scoregeo import SteinMetric, datasets, recommend_strength
    >>> moons = datasets.two_moons(jax.random.key(0), 100)
    >>> strength = recommend_strength(SteinMetric, moons.score, moons.points, ratio=10.0)
    >>> metric = SteinMetric(moons.score, strength)
    """
    if metric_type not in _RULES:
        known = ", ".join(sorted(getattr(known, "__qualname__", repr(known)) for known in _RULES))
        name = getattr(metric_type, "__qualname__", repr(metric_type))
        raise TypeError(f"`metric_type` must be one that has a `strength_rule` ({known}), got {name}")
    ratio = check_ratio(ratio)
    return jnp.asarray(_RULES[metric_type](score, contrast(data, key, pairs), ratio))


def squared_score(score: AbstractScore) -> Callable[[Point], Scalar]:
    """``|s(x)|^2`` as a function of the point, whose score is traced."""
    return jax.tree_util.Partial(_squared_score, score)


def _squared_score(score: AbstractScore, x: Point) -> Scalar:
    s = score(x)
    return s @ s


def energy(score: AbstractScore) -> Callable[[Point], Scalar]:
    """``-log p(x)`` as a function of the point, of a score that has ``log_prob``."""
    return jax.tree_util.Partial(_energy, score)


def _energy(score: Any, x: Point) -> Scalar:
    return -score.log_prob(x)
