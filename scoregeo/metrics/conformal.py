"""Conformal metrics: one factor for all directions, large where data are rare.

    G(x) = exp(2 phi(x)) I,      x'' = |v|^2 grad phi - 2 (grad phi . v) v                                 (1)

Whatever phi is, the acceleration is the derivative of the function that `at` evaluates: with -b s for the gradient of a
line integral of a learned score, which has curl, speed would drift.
"""

import abc
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import is_concrete
from .._function import TracedFunction, as_arguments
from .._numerics import safe_sqrt
from .._types import Matrix, Point, Points, Scalar, Vector
from ..scores import AbstractScore
from ..scores.base import highest_log_prob
from ..scores.density import as_score
from ..scores.line_integral import with_log_prob
from .base import AbstractMetric, metric_at_noise_level
from .calibration import Contrast, Reached, check_ratio, contrast, energy, saturating, squared_score, strength_rule
from .inner_products import AbstractInnerProduct
from .structure import add, as_diagonal, lifted, relaxed, scale

# The onset of the energy type lies above this percentile of the data; its width is this part of the contrast of E.
_BULK, _WIDTH = 95.0, 0.05
# `relaxed` is asked for fractions from this one, at which a metric is to be about Euclid's.
_LEAST_FRACTION_DIGITS = 3


class ConformalInnerProduct(AbstractInnerProduct):
    """``G = exp(2 log_factor) I`` on R^``size``, kept as its logarithm: determinants and square roots do not overflow.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import ConformalInnerProduct
    >>> product = ConformalInnerProduct(jnp.log(3.0), size=2)
    >>> product.mv(jnp.array([1.0, 2.0])).round(4).tolist()
    [9.0, 18.0]
    """

    log_factor: Float[Array, ""]
    size: int = eqx.field(static=True)

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.size

    def mv(self, v: Vector) -> Vector:
        return jnp.exp(2 * self.log_factor) * v

    def squared_norm(self, v: Vector) -> Scalar:
        return jnp.exp(2 * self.log_factor) * (v @ v)

    def norm(self, v: Vector) -> Scalar:
        return jnp.exp(self.log_factor) * safe_sqrt(v @ v)

    def solve(self, w: Vector) -> Vector:
        return jnp.exp(-2 * self.log_factor) * w

    def logdet(self, dim: int | None = None) -> Scalar:
        return 2 * self.size * self.log_factor

    def sqrt_mv(self, v: Vector) -> Vector:
        return jnp.exp(self.log_factor) * v

    def inv_sqrt_mv(self, v: Vector) -> Vector:
        return jnp.exp(-self.log_factor) * v

    def matrix(self, dim: int) -> Matrix:
        return jnp.exp(2 * self.log_factor) * jnp.eye(dim, dtype=self.log_factor.dtype)


@as_diagonal.register
def _(inner_product: ConformalInnerProduct) -> Vector:
    return jnp.broadcast_to(jnp.exp(2 * inner_product.log_factor), (inner_product.size,))


@scale.register
def _(thing: ConformalInnerProduct, factor: Scalar | float) -> ConformalInnerProduct:
    # The logarithm of a factor that is not positive is NaN, or has no finite inverse: neither passes for a metric.
    return ConformalInnerProduct(thing.log_factor + jnp.log(factor) / 2, thing.size)


@add.register
def _(left: ConformalInnerProduct, right: AbstractInnerProduct) -> AbstractInnerProduct:
    if isinstance(right, ConformalInnerProduct):
        return ConformalInnerProduct(jnp.logaddexp(2 * left.log_factor, 2 * right.log_factor) / 2, left.size)
    return add.dispatch(AbstractInnerProduct)(left, right)


@relaxed.register
def _(inner_product: ConformalInnerProduct, fraction: Scalar | float) -> ConformalInnerProduct:
    """The exponent grows linearly from Euclid to the metric: the ratio of costs by the same factor with every step. A
    sum with Euclid would have nearly all of its largest values at once."""
    exponent = jnp.maximum(0, 1 + jnp.log10(fraction) / _LEAST_FRACTION_DIGITS).astype(inner_product.log_factor.dtype)
    return ConformalInnerProduct(exponent * inner_product.log_factor, inner_product.size)


class AbstractLogFactor(eqx.Module):
    """``phi`` of a conformal metric, from a score: a function of a point, with the ``ratio`` of costs off and on the
    data that it was calibrated to."""

    ratio: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def __call__(self, x: Point) -> Scalar:
        """``phi(x)``, half the logarithm of the factor of squared lengths."""


class PowerFactor(AbstractLogFactor):
    """``phi = exponent (E - energy)`` with E = -log p: the metric is a power of the density, ``p^(-2 exponent) I``, and
    one where E is ``energy``."""

    ratio: Float[Array, ""]
    score: AbstractScore
    exponent: Float[Array, ""]
    energy: Float[Array, ""]

    def __call__(self, x: Point) -> Scalar:
        return self.exponent.astype(x.dtype) * (energy(self.score)(x) - self.energy.astype(x.dtype))


class EnergyFactor(AbstractLogFactor):
    """``exp(2 phi) = 1 + weight softplus((E - onset) / width)`` with E = -log p: one on the data, linear in E off
    them."""

    ratio: Float[Array, ""]
    score: AbstractScore
    weight: Float[Array, ""]
    onset: Float[Array, ""]
    width: Float[Array, ""]

    def __call__(self, x: Point) -> Scalar:
        excess = _excess_energy(self.score, self.onset.astype(x.dtype), self.width.astype(x.dtype), x)
        return 0.5 * jnp.log1p(self.weight.astype(x.dtype) * excess)


class ScoreNormFactor(AbstractLogFactor):
    """``exp(2 phi) = 1 + weight |s|^2``: from the score alone, no log density."""

    ratio: Float[Array, ""]
    score: AbstractScore
    weight: Float[Array, ""]

    def __call__(self, x: Point) -> Scalar:
        return 0.5 * jnp.log1p(self.weight.astype(x.dtype) * squared_score(self.score)(x))


def _excess_energy(score: AbstractScore, onset: Scalar, width: Scalar, x: Point) -> Scalar:
    return jax.nn.softplus((energy(score)(x) - onset) / width)


class ConformalMetric(AbstractMetric):
    """``G(x) = exp(2 phi(x)) I``: lengths times a factor exp(phi) that depends on the place, not on the direction.

    **Arguments**

    - ``log_factor``: function ``(x, *args) -> phi(x)``, a scalar; it must be differentiable. Where it is infinite or
      NaN a solve ends with ``RESULTS.metric_nonfinite``, and so where ``exp(2 phi)`` overflows.
    - ``*args``: arrays or pytrees of arrays passed on to it; traced, so new values do not compile again.
    - ``domain``: function of a point, positive where the metric is defined, and continuous; default everywhere.

    The classmethods make the factors that are used with scores, calibrated by what leaving the data is to cost
    (``ratio``, see `recommend_strength`; the one that is reached is ``metric.log_factor.ratio``): `power`, `energy` and
    `score_norm`.

    >>> import jax.numpy as jnp
    >>> from scoregeo import ConformalMetric, dist
    >>> half_plane = ConformalMetric(lambda x: -jnp.log(x[1]))
    >>> round(float(dist(half_plane, jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))), 4)  # log 2
    0.6931
    """

    log_factor: Callable[..., Scalar]
    args: tuple
    boundary: TracedFunction | None

    def __init__(self, log_factor: Callable[..., Scalar], *args: Any, domain: Callable[[Point], Scalar] | None = None):
        calibrated = isinstance(log_factor, AbstractLogFactor)
        self.log_factor = log_factor if calibrated else TracedFunction(log_factor, "log_factor")
        self.args = as_arguments(args, "args")
        self.boundary = None if domain is None else TracedFunction(domain, "domain")

    def phi(self, x: Point) -> Scalar:
        """The logarithm of the factor of lengths at ``x``."""
        value = jnp.asarray(self.log_factor(x, *self.args))
        if value.shape != ():
            raise ValueError(
                f"`log_factor` must return a scalar for a point of shape {x.shape}, got shape {value.shape}"
            )
        return value.astype(x.dtype)

    def at(self, x: Point) -> ConformalInnerProduct:
        """The inner product at ``x``, from one evaluation of ``phi``."""
        return ConformalInnerProduct(self.phi(x), x.size)

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """Equation (1), with the gradient of the same function that `at` evaluates."""
        gradient = jax.grad(self.phi)(x)
        return (v @ v) * gradient - 2 * (gradient @ v) * v

    def domain(self, x: Point) -> Scalar:
        """The function given as ``domain``."""
        return super().domain(x) if self.boundary is None else jnp.asarray(self.boundary(x), x.dtype)

    @classmethod
    def power(
        cls,
        score: AbstractScore | Callable[[Point], Vector],
        data: Points,
        ratio: float | Scalar = 1e3,
        *,
        key: PRNGKeyArray | None = None,
        pairs: int = 64,
        nodes: int = 32,
    ) -> "ConformalMetric":
        """``p(x)^(-2b) I``, a power of the density: geodesics keep to where data are dense.

        **Arguments**

        - ``score``: an `AbstractScore`, or a function ``x -> s(x)``. Its ``log_prob`` is used where it has one
          (mixtures, kernel densities, `Potential` networks); else log p up to a constant by line integrals of the score
          from a point among the data, at ``nodes`` evaluations each. These depend on the point where the score is not a
          gradient field: `LineIntegralScore.spread` of ``metric.log_factor.score`` says by how much.
        - ``data``, ``ratio``, ``key``, ``pairs``: as for `recommend_strength`. On the data (where E is the median) G is
          one; at the 90th percentile of E = -log p along straight lines between pairs of data it is ``ratio``, for
          ``b = log(ratio) / (2 dE)``, with dE the difference.

        Raises ``ValueError`` where E is not finite at the data, or no larger between than at them, and for a ratio
        below 1. Source: Yu et al., CVPR 2025; the calibration is ours.

        >>> import jax
        >>> from scoregeo import ConformalMetric, datasets
        >>> moons = datasets.two_moons(jax.random.key(0), 100)
        >>> metric = ConformalMetric.power(moons.score, moons.points, ratio=1e4)
        """
        ratio, places = check_ratio(ratio), contrast(data, key, pairs)
        score = with_log_prob(as_score(score), places.on, nodes)
        exponent = _power_strength(score, places, ratio)
        return cls(PowerFactor(ratio, score, exponent, _median_energy(score, places)))

    @classmethod
    def energy(
        cls,
        score: AbstractScore | Callable[[Point], Vector],
        data: Points,
        ratio: float | Scalar = 100.0,
        *,
        key: PRNGKeyArray | None = None,
        pairs: int = 64,
        nodes: int = 32,
    ) -> "ConformalMetric":
        """``(1 + c softplus((E - E1) / tau)) I`` with E = -log p: one on the data, linear in E off them.

        E1 is the 95th percentile of E over the data, and tau a twentieth of the contrast of E. Arguments and errors are
        those of `power`. Not every ratio can be reached: a ``UserWarning`` says which was, and
        ``metric.log_factor.ratio``. Source: Bethune et al. 2025, arXiv 2505.18230, for a factor linear in E; the onset
        and the calibration are ours.
        """
        ratio, places = check_ratio(ratio), contrast(data, key, pairs)
        score = with_log_prob(as_score(score), places.on, nodes)
        onset, width, reached = _energy_strength(score, places, ratio)
        return cls(EnergyFactor(reached.ratio, score, reached.strength, onset, width))

    @classmethod
    def score_norm(
        cls,
        score: AbstractScore | Callable[[Point], Vector],
        data: Points,
        ratio: float | Scalar = 100.0,
        *,
        key: PRNGKeyArray | None = None,
        pairs: int = 64,
    ) -> "ConformalMetric":
        """``(1 + c |s(x)|^2) I``: from the score alone, without a log density.

        Arguments as for `power`. The ratio is bounded by that of ``|s|^2`` off and on the data, which falls with the
        noise level; a ``UserWarning`` says which was reached, and ``metric.log_factor.ratio``. Raises ``ValueError``
        where the score is not finite at the data, or no larger between than at them.
        """
        score = as_score(score)
        reached = _score_norm_strength(score, contrast(data, key, pairs), check_ratio(ratio))
        return cls(ScoreNormFactor(reached.ratio, score, reached.strength))


@metric_at_noise_level.register
def _(metric: ConformalMetric, noise_level: Scalar | float) -> AbstractMetric:
    if isinstance(metric.log_factor, EnergyFactor):
        # E is known up to a constant, which is another one at another level.
        raise TypeError("`metric` must be known at other noise levels, but the onset of an EnergyFactor belongs to one")
    return metric_at_noise_level.dispatch(AbstractMetric)(metric, noise_level)


@functools.singledispatch
def least_log_factor(log_factor: Any, dim: int) -> Scalar | float:
    """A number that ``phi`` does not fall below in R^``dim``; minus infinity where none is known. A factor that knows
    registers."""
    return -jnp.inf


@least_log_factor.register(EnergyFactor)
@least_log_factor.register(ScoreNormFactor)
def _(log_factor: Any, dim: int) -> float:
    return 0.0


@least_log_factor.register
def _(log_factor: PowerFactor, dim: int) -> Scalar:
    """At the mode, if it is known what p is at most there; no less elsewhere."""
    least = log_factor.exponent * (-highest_log_prob(log_factor.score, dim) - log_factor.energy)
    return jnp.where(log_factor.exponent > 0, least, jnp.where(log_factor.exponent == 0, 0, -jnp.inf))


@lifted.register
def _(metric: ConformalMetric, x: Point) -> Float[Array, " m"]:
    """Euclid's lengths, times the least factor that there is anywhere."""
    return jnp.exp(jnp.asarray(least_log_factor(metric.log_factor, x.size), x.dtype)) * x


# --- Calibration ------------------------------------------------------------------------------------------------------

_ENERGY, _SQUARED_SCORE = "E = -log p", "|s|^2"


def _median_energy(score: AbstractScore, places: Contrast) -> Scalar:
    return places.median_on(energy(score), _ENERGY)


def _energy_contrast(score: AbstractScore, places: Contrast, ratio: Scalar) -> Scalar:
    """dE; 1 where no contrast is asked for."""
    on, off = _median_energy(score, places), places.high_off(energy(score), _ENERGY)
    if is_concrete(off) and not float(off) > float(on) and float(ratio) > 1:
        raise ValueError(
            f"{_ENERGY} must be larger off the data than on the data, got {float(off):.4g} and {float(on):.4g}: the "
            "metric would not tell the data from what lies on straight lines between pairs of them"
        )
    return jnp.where(ratio > 1, off - on, 1)


def _power_strength(score: AbstractScore, places: Contrast, ratio: Scalar) -> Scalar:
    return jnp.log(ratio) / (2 * _energy_contrast(score, places, ratio))


def _energy_strength(score: AbstractScore, places: Contrast, ratio: Scalar) -> tuple[Scalar, Scalar, Reached]:
    """Onset, width, and the weight with the ratio that it reaches."""
    width = _WIDTH * _energy_contrast(score, places, ratio)
    onset = places.percentile_on(energy(score), _BULK, _ENERGY)
    excess = jax.tree_util.Partial(_excess_energy, score, onset, width)
    name = "softplus((E - E1) / tau)"
    return onset, width, saturating(places.median_on(excess, name), places.high_off(excess, name), ratio, name)


def _score_norm_strength(score: AbstractScore, places: Contrast, ratio: Scalar) -> Reached:
    squared = squared_score(score)
    on, off = places.median_on(squared, _SQUARED_SCORE), places.high_off(squared, _SQUARED_SCORE)
    return saturating(on, off, ratio, _SQUARED_SCORE)


@strength_rule(ConformalMetric.power)
def _(score: Any, places: Contrast, ratio: Scalar) -> Scalar:
    return _power_strength(with_log_prob(as_score(score), places.on), places, ratio)


@strength_rule(ConformalMetric.energy)
def _(score: Any, places: Contrast, ratio: Scalar) -> Scalar:
    return _energy_strength(with_log_prob(as_score(score), places.on), places, ratio)[2].strength


@strength_rule(ConformalMetric.score_norm)
def _(score: Any, places: Contrast, ratio: Scalar) -> Scalar:
    return _score_norm_strength(as_score(score), places, ratio).strength
