"""What is sampled: densities with respect to Lebesgue's measure, or to the volume of a metric.

Samplers take the density pi(x) dx of Lebesgue's measure. A density p with respect to the Riemannian volume is
``pi = p sqrt(det G)``: the metric, not the coordinates, says what is uniform.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from ..._checks import as_point, as_scalar
from ..._function import TracedFunction
from ..._types import Point, Scalar, Vector
from ...geodesics import AbstractBoundarySolver
from ...geodesics.checks import check_metric, check_solver
from ...metrics import AbstractMetric
from ...operations import squared_dist
from ...scores import AbstractScore, DensityScore
from .divergence import logdet, logdet_and_gradient

# A log density, or a score that may know one.
Target = AbstractScore | Callable[[Point], Scalar]


class VolumeScore(AbstractScore):
    """The score of ``p sqrt(det G)``: that of p, ``score``, plus half the gradient of log det G."""

    metric: AbstractMetric
    score: AbstractScore
    conservative: bool = eqx.field(static=True)

    def __init__(self, metric: AbstractMetric, score: AbstractScore):
        self.metric, self.score, self.conservative = metric, score, score.conservative

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``."""
        return self.score(x) + logdet_and_gradient(self.metric, x)[1] / 2


class VolumeDensity(AbstractScore):
    """The density ``p sqrt(det G)`` and its score, for a ``density`` p that knows ``log_prob``."""

    metric: AbstractMetric
    density: Any
    conservative: bool = eqx.field(static=True)

    def __init__(self, metric: AbstractMetric, density: AbstractScore):
        self.metric, self.density, self.conservative = metric, density, density.conservative

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``."""
        return VolumeScore(self.metric, self.density)(x)

    def log_prob(self, x: Point) -> Scalar:
        """Log density at ``x`` with respect to Lebesgue's measure, up to a constant."""
        return self.density.log_prob(x) + logdet(self.metric.at(x), x) / 2


def with_volume(
    metric: AbstractMetric, log_prob: Target | None = None, *, region: Callable[[Point], Scalar] | None = None
) -> AbstractScore:
    """The target of a density given with respect to the volume of ``metric``: ``log p + 1/2 log det G``.

    **Arguments**

    - ``log_prob``: log p, a function ``x -> scalar`` or a score (one without ``log_prob`` serves unadjusted `Langevin`
      alone); default zero, the uniform distribution by volume.
    - ``region``: a function of a point, positive inside the region to which the distribution is restricted; default
      everywhere that the metric is defined, and then the volume must be finite for there to be a distribution. It is
      where the density is zero outside, so it needs one: of a score alone samplers would leave the region.

    Raises ``ValueError`` for a ``region`` with a score that does not know its density.

    >>> import jax.numpy as jnp
    >>> from scoregeo import models
    >>> from scoregeo.statistics import with_volume
    >>> uniform = with_volume(models.Sphere())
    >>> round(float(uniform.log_prob(jnp.zeros(2))), 4)  # log 4
    1.3863
    >>> float(with_volume(models.Sphere(), region=lambda x: 1 - x @ x).log_prob(jnp.array([2.0, 0.0])))
    -inf
    """
    if not isinstance(metric, AbstractMetric):
        raise TypeError(f"`metric` must be an AbstractMetric such as SteinMetric(score), got {type(metric).__name__}")
    density = DensityScore(_nothing) if log_prob is None else as_target(log_prob)
    if region is not None:
        if not knows_density(density):
            raise ValueError(
                f"`region` needs a `log_prob` that knows the log density, which a {type(density).__name__} does not: "
                "give a function x -> log p(x), or `scoregeo.scores.with_log_prob(score, points)`"
            )
        density = _Restricted(density, TracedFunction(region, "region"))
    return VolumeDensity(metric, density) if knows_density(density) else VolumeScore(metric, density)


def riemannian_normal(
    metric: AbstractMetric, mean: Point, scale: ArrayLike, *, solver: AbstractBoundarySolver | None = None
) -> AbstractScore:
    """The Riemannian normal distribution, with density ``exp(-dist(x, mean)^2 / (2 scale^2))`` with respect to the
    volume of ``metric``, as a target of samplers (Pennec 2006; Said et al. 2017).

    **Arguments**: ``mean`` ``(d,)``; ``scale`` a positive scalar, in the units of the metric; both are traced.
    ``solver`` finds the distances, default that of `dist`; where it fails the log density is NaN, and nothing is
    accepted.

    Each evaluation is a boundary value problem, its gradient is the envelope theorem. Raises ``ValueError`` for a scale
    that is not positive.

    >>> import jax.numpy as jnp
    >>> from scoregeo import EuclideanMetric
    >>> from scoregeo.statistics import riemannian_normal
    >>> target = riemannian_normal(EuclideanMetric(), jnp.zeros(2), 2.0)
    >>> round(float(target.log_prob(jnp.array([2.0, 0.0]))), 4)
    -0.5
    """
    mean = as_point(mean, "mean")
    check_metric(metric, mean)
    if solver is not None:
        check_solver(solver)
    scale = as_scalar(scale, "scale", positive=True)
    return with_volume(metric, _RiemannianNormal(metric, mean, scale, solver))


class _RiemannianNormal(eqx.Module):
    """``-dist(x, mean)^2 / (2 scale^2)``; of the positions of a chain, which may not be of the type of ``mean``."""

    metric: AbstractMetric
    mean: Point
    scale: Scalar
    solver: AbstractBoundarySolver | None

    def __call__(self, x: Point) -> Scalar:
        distance = squared_dist(self.metric, self.mean.astype(x.dtype), x, solver=self.solver)
        return -distance / (2 * self.scale.astype(x.dtype) ** 2)


class _Restricted(AbstractScore):
    """A density that is zero outside of a region."""

    density: Any
    region: TracedFunction
    conservative: bool = eqx.field(static=True)

    def __init__(self, density: AbstractScore, region: TracedFunction):
        self.density, self.region, self.conservative = density, region, density.conservative

    def __call__(self, x: Point) -> Vector:
        return self.density(x)

    def log_prob(self, x: Point) -> Scalar:
        return jnp.where(self.region(x) > 0, self.density.log_prob(x), -jnp.inf)


def _nothing(x: Point) -> Scalar:
    return jnp.zeros((), x.dtype)


def as_target(log_prob: Any) -> AbstractScore:
    """``log_prob`` itself if it is a score, a `DensityScore` of it if it is a function."""
    if isinstance(log_prob, AbstractScore):
        return log_prob
    if callable(log_prob):
        return DensityScore(cast(Callable[..., Scalar], log_prob))  # what it returns is checked when it is called
    raise TypeError(
        f"`log_prob` must be a function x -> log p(x), or a score such as GaussianScore, got {type(log_prob).__name__}"
    )


def knows_density(target: AbstractScore) -> bool:
    """Whether ``target`` has a log density, by its type."""
    return callable(getattr(target, "log_prob", None))


def as_density(log_prob: Any, sampler: str) -> Any:
    """`as_target` of something that knows its log density; raises ``TypeError`` for anything else."""
    target = as_target(log_prob)
    if not knows_density(target):
        raise TypeError(
            f"`log_prob` of {sampler} must know the log density, which a {type(target).__name__} does not: give a "
            "function x -> log p(x), or `scoregeo.scores.with_log_prob(score, points)`; from the score alone, "
            "Langevin(metric, score, step_size, adjusted=False)"
        )
    return target


@functools.singledispatch
def density_and_score(target: Any, x: Point) -> tuple[Scalar, Vector]:
    """``log_prob`` and its gradient at ``x``. The default asks for each; where one comes with the other, register."""
    return jnp.asarray(target.log_prob(x), x.dtype), target(x).astype(x.dtype)


@density_and_score.register
def _(target: DensityScore, x: Point) -> tuple[Scalar, Vector]:
    return jax.value_and_grad(target.log_prob)(x)


@density_and_score.register
def _(target: VolumeDensity, x: Point) -> tuple[Scalar, Vector]:
    value, score = density_and_score(target.density, x)
    volume, gradient = logdet_and_gradient(target.metric, x)
    return value + volume / 2, score + gradient / 2


@density_and_score.register
def _(target: _Restricted, x: Point) -> tuple[Scalar, Vector]:
    value, score = density_and_score(target.density, x)
    return jnp.where(target.region(x) > 0, value, -jnp.inf), score
