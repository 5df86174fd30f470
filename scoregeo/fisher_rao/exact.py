"""Families whose geodesics are known in closed form, and that closed form as a solver."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._numerics import safe_sqrt
from .._results import RESULTS
from .._types import Point, Scalar, Vector
from ..geodesics import AbstractBoundarySolver, Geodesic
from ..geodesics.certificate import Measurement, speed_deviation
from ..geodesics.curves import AbstractCurve
from ..metrics import AbstractMetric
from .base import AbstractFamily
from .metric import FisherRaoMetric, family_solver


class AbstractExactFamily(AbstractFamily):
    """A family whose geodesics are known in closed form. Everything below is differentiable, costs a handful of
    operations, and is exact up to rounding, which includes the rounding of the coordinates.

    The coordinates lose digits where a parameter says little about its distribution: covariances lose those of their
    condition number (paths of `CenteredNormal` all of them, from about 1e14, in float32 from 1e6), probabilities next
    to one those of ``1 - p``. The squares of numbers below 1e-154 or above 1e154 (float32: 1e-19 and 1e19) overflow or
    vanish. A `geodesic` measures how constant its speed is, and its result is ``accuracy_not_reached`` if it is not.

    A subclass writes three formulas, `path`, `closed_squared_dist` and `closed_exp`; the rest follows from them.
    """

    @abc.abstractmethod
    def path(self, a: Point, b: Point, t: Scalar) -> Point:
        """The geodesic from ``a`` to ``b`` at time ``t``: ``a`` at 0, ``b`` at 1, of constant speed."""

    @abc.abstractmethod
    def closed_squared_dist(self, a: Point, b: Point) -> Scalar:
        """The formula of `squared_dist`, for points that have been checked: smooth at coincident points too."""

    @abc.abstractmethod
    def closed_exp(self, theta: Point, v: Vector) -> Point:
        """The formula of `exp`, for a point and a vector that have been checked; NaN if the geodesic has left the
        family, or starts on its boundary."""

    def _known_dist(self, a: Point, b: Point) -> Scalar:
        return safe_sqrt(self._known_squared_dist(a, b))

    def _known_squared_dist(self, a: Point, b: Point) -> Scalar:
        inside = jnp.all(jax.vmap(self.contains)(jnp.stack([a, b])))
        # The formula is made to wait for `inside`: both may factorise matrices, and batched factorisations that run
        # side by side can block each other in jaxlib 0.10 (see `multivariate_normal.lift`).
        squared = self.closed_squared_dist(jnp.where(inside, a, jnp.nan), b)
        return jnp.where(inside, squared, jnp.nan)

    def _known_log(self, a: Point, b: Point) -> Vector:
        zero = jnp.zeros((), a.dtype)
        velocity = jax.jvp(lambda t: self.path(a, b, t), (zero,), (jnp.ones_like(zero),))[1]
        if any(support.closed for support in self.parameters.values()):
            return jnp.where(self.domain(a) > 0, velocity, jnp.nan)
        return velocity

    def _known_geodesic(self, a: Point, b: Point, ts: Float[Array, " n"]) -> Geodesic:
        return closed_geodesic(self, a, b, ts)

    def contains(self, theta: Point) -> Bool[Array, ""]:
        """Whether ``theta`` is in the family, or on its boundary; what `check` raises for where values are known."""
        return self.domain(theta) >= 0


class ClosedCurve(AbstractCurve):
    """The geodesic of a family between two points, from its closed form."""

    family: AbstractExactFamily
    a: Point
    b: Point

    def __call__(self, t: Scalar) -> tuple[Point, Vector]:
        return jax.jvp(lambda t: self.family.path(self.a, self.b, t), (t,), (jnp.ones_like(t),))

    def reverse(self) -> "ClosedCurve":
        return ClosedCurve(self.family, self.b, self.a)


def closed_geodesic(family: AbstractExactFamily, a: Point, b: Point, ts: Float[Array, " n"]) -> Geodesic:
    """The geodesic of ``family``, with the status and the residual that its own numbers give."""
    curve = ClosedCurve(family, a, b)
    points, velocities = jax.vmap(curve)(ts)
    length, squared = family.dist(a, b), family.closed_squared_dist(a, b)
    squared_speed = jax.vmap(lambda x, v: family.inner_product(x).squared_norm(v))(points, velocities)
    # Some families have distributions on their boundary (probabilities that are zero), but no Fisher matrix there.
    inner = jax.vmap(family.domain)(points) > 0
    mean = jnp.mean(squared_speed, where=inner)
    residual = speed_deviation(squared_speed, mean, inner)
    # The test is one of the path (the length is known to many more digits), and NaN does not pass it.
    accurate = (residual <= 10 * jnp.finfo(a.dtype).eps ** 0.25) & jnp.all(jax.vmap(family.contains)(points))
    measurement = Measurement(
        residual=residual,
        inside=family.contains(a) & family.contains(b),
        finite=jnp.isfinite(length) & jnp.all(jnp.isfinite(points)),
    )
    return Geodesic.from_curve(
        curve,
        ts,
        lambda *_: measurement,
        ends=(a, b),
        energy=squared / 2,
        length=length,
        # Both terms are rounding: that of the length itself, and that of the point where the speed varies most.
        error=length * (jnp.finfo(a.dtype).eps + residual),
        samples=(points, velocities),
        failures=[(~accurate, RESULTS.accuracy_not_reached)],
        stats={"path_error": safe_sqrt(residual)},
    )


class ClosedForm(AbstractBoundarySolver):
    """The closed form of geodesics of a `FisherRaoMetric` whose family has one; exact up to rounding.

    Raises ``TypeError`` for any other metric. The starting path is not used.
    """

    uses_init: ClassVar[bool] = False

    def solve(
        self, metric: AbstractMetric, x: Point, y: Point, init: AbstractCurve, ts: Float[Array, " n"]
    ) -> Geodesic:
        """The geodesic from ``x`` to ``y``, sampled at ``ts``."""
        if not isinstance(metric, FisherRaoMetric) or metric.unconstrained:
            raise TypeError("`ClosedForm` solves for a FisherRaoMetric in the parameters of its family only")
        if not isinstance(metric.family, AbstractExactFamily):
            raise TypeError(
                f"the geodesics of {type(metric.family).__name__} have no closed form: use SpectralNewton(), or "
                "FibreSolver() for MultivariateNormal"
            )
        return closed_geodesic(metric.family, x, y, ts)


@family_solver.register(AbstractExactFamily)
def _(family: AbstractExactFamily) -> ClosedForm:
    return ClosedForm()
