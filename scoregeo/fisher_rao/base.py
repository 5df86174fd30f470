"""Parametric families of distributions, as manifolds: the points are parameters, the metric is Fisher information.

For a family p(x; theta) the Fisher information

    F(theta) = E[ u u^T ],   u = grad_theta log p(x; theta)   (the Fisher score),                          (1)

is a Riemannian metric on the parameters (Rao 1945), the only one, up to scale, that no change of the sample space
can tell from another (Chentsov).

A point is a flat vector ``theta``: the coordinates of the parameters, one after the other. `AbstractFamily.pack` makes
it from the parameters that users know, `AbstractFamily.unpack` gives them back. Batches are made by ``jax.vmap``.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

from .._checks import as_point, is_concrete
from .._numerics import safe_sqrt
from .._results import RESULTS
from .._types import Matrix, Point, Scalar, Vector
from ..geodesics import Geodesic
from ..geodesics.checks import check_times
from ..geodesics.curves import AbstractCurve
from ..geodesics.solution import speed_deviation
from ..metrics.inner_products import AbstractInnerProduct
from .supports import AbstractSupport


class AbstractFamily(eqx.Module):
    """A family of distributions with parameters ``theta``, flat ``(size,)``.

    Families are pytrees, some with traced arrays (numbers of trials, outcomes): compile a method with
    ``equinox.filter_jit(family.dist)`` or ``jax.jit(lambda a, b: family.dist(a, b))``, not ``jax.jit(family.dist)``.
    """

    @property
    @abc.abstractmethod
    def parameters(self) -> dict[str, AbstractSupport]:
        """The parameters by name, in the order of `pack`, and where each may be."""

    @property
    @abc.abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample ``x``: ``()`` for univariate families."""

    @abc.abstractmethod
    def log_prob(self, theta: Point, x: Num[Array, "..."]) -> Scalar:
        """The log density (or log probability) of one sample; minus infinity outside the support."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, theta: Point, n: int) -> Num[Array, "n ..."]:
        """``n`` independent samples, shape ``(n, *sample_shape)``; integers from families of counts."""

    @abc.abstractmethod
    def inner_product(self, theta: Point) -> AbstractInnerProduct:
        """The Fisher information (1) at ``theta``, as an operator with its structure (diagonal, dense)."""

    def acceleration(self, theta: Point, v: Vector) -> Vector | None:
        """The geodesic equation ``theta'' = acceleration(theta, theta')`` where it is known in closed form, else
        ``None``."""
        return None

    def fisher(self, theta: Point) -> Matrix:
        """The Fisher information (1) at ``theta``, shape ``(size, size)``."""
        return self.inner_product(self.check(theta)).matrix(self.size)

    @property
    def size(self) -> int:
        """The number of coordinates of ``theta``."""
        return sum(support.size for support in self.parameters.values())

    @property
    def dof(self) -> int:
        """The number of degrees of freedom: of unconstrained coordinates."""
        return sum(support.free for support in self.parameters.values())

    def pack(self, *values: Any, **named: Any) -> Point:
        """``theta`` from the parameters, in order or by name.

        Raises ``ValueError`` naming the parameter, what it must be and what it is, and ``TypeError`` for missing or
        unknown names.
        """
        supports = self.parameters
        given = dict(zip(supports, values, strict=False))
        wrong = [name for name in named if name not in supports or name in given]
        missing = [name for name in supports if name not in given and name not in named]
        if len(values) > len(supports) or wrong or missing:
            raise TypeError(
                f"{type(self).__name__} has the parameters {', '.join(supports)}: got {len(values)} by position and "
                f"{', '.join(named) or 'none'} by name"
            )
        given |= named
        coordinates = [s.coordinates(s.check(given[name], name)) for name, s in supports.items()]
        dtype = jnp.result_type(*coordinates)
        return jnp.concatenate([c.astype(dtype) for c in coordinates])

    def unpack(self, theta: Point) -> tuple[Array, ...]:
        """The parameters at ``theta``, each in its shape, in the order of `pack`."""
        return tuple(s.value(c) for s, c in self._parts(theta))

    def check(self, theta: Any, name: str = "theta") -> Point:
        """``theta`` as a point ``(size,)``; raises ``ValueError`` if a parameter is outside its domain.

        Values are checked where they are known, so not under ``jit``.
        """
        theta = as_point(theta, name, dim=self.size)
        if is_concrete(theta):
            for (support, part), parameter in zip(self._parts(theta), self.parameters, strict=True):
                support.check(support.value(part), f"{parameter}` of `{name}")
        return theta

    def check_information(self, theta: Point) -> None:
        """Raise or warn if the Fisher information at ``theta`` is degenerate or a coarse estimate, where values are
        known. It never is in a family that has it in closed form, so this does nothing there."""
        return

    def check_tangent(self, theta: Any, v: Any) -> tuple[Point, Vector]:
        """``theta`` as a point of the family and ``v`` as a vector at it, of the same dtype."""
        theta, v = self.check(theta), as_point(v, "v", dim=self.size)
        dtype = jnp.result_type(theta, v)
        return theta.astype(dtype), v.astype(dtype)

    def domain(self, theta: Point) -> Scalar:
        """Positive where all parameters are inside their domains, zero at the boundary, negative outside."""
        return jnp.min(jnp.stack([s.margin(c) for s, c in self._parts(theta)]))

    def to_unconstrained(self, theta: Point) -> Vector:
        """Coordinates ``(dof,)`` in which every vector is allowed: logarithms, logits, log-Cholesky factors."""
        return jnp.concatenate([s.to_unconstrained(c) for s, c in self._parts(theta)])

    def from_unconstrained(self, u: Vector) -> Point:
        """The inverse of `to_unconstrained`."""
        supports = list(self.parameters.values())
        cuts = np.cumsum([s.free for s in supports])[:-1]
        return jnp.concatenate(
            [s.from_unconstrained(part) for s, part in zip(supports, jnp.split(u, cuts), strict=True)]
        )

    def _parts(self, theta: Point) -> list[tuple[AbstractSupport, Vector]]:
        supports = list(self.parameters.values())
        cuts = np.cumsum([s.size for s in supports])[:-1]
        return list(zip(supports, jnp.split(theta, cuts), strict=True))


class AbstractExactFamily(AbstractFamily):
    """A family whose geodesics are known in closed form. Everything below is differentiable, costs a handful of
    operations, and is exact up to rounding: that of the coordinates included.

    Which loses digits where one parameter says little about its distribution: covariances lose those of their condition
    number (paths of `CenteredNormal` all of them, from about 1e14, in float32 from 1e6), probabilities next to one
    those of ``1 - p``. The squares of numbers below 1e-154 or above 1e154 (float32: 1e-19 and 1e19) do not exist. A
    `geodesic` measures how constant its speed is, and its result is ``accuracy_not_reached`` if it is not.
    """

    @abc.abstractmethod
    def path(self, a: Point, b: Point, t: Scalar) -> Point:
        """The geodesic from ``a`` to ``b`` at time ``t``: ``a`` at 0, ``b`` at 1, of constant speed."""

    @abc.abstractmethod
    def squared_dist(self, a: Point, b: Point) -> Scalar:
        """The square of `dist`, of points of the family: smooth at coincident points too, where its Hessian is twice
        the Fisher information."""

    def dist(self, a: Point, b: Point) -> Scalar:
        """The Fisher-Rao distance; its gradient at coincident points is zero. NaN outside the family."""
        a, b = self.check_pair(a, b)
        inside = jnp.all(jax.vmap(self.contains)(jnp.stack([a, b])))
        # The second is made to wait for the first: both may factorise matrices, which jaxlib does not bear side by side
        # in batches (see `normal_lift`).
        distance = safe_sqrt(self.squared_dist(jnp.where(inside, a, jnp.nan), b))
        return jnp.where(inside, distance, jnp.nan)

    @abc.abstractmethod
    def exp(self, theta: Point, v: Vector) -> Point:
        """The exponential map: where the geodesic with velocity ``v`` is at time 1; NaN if it has left the family, or
        starts on its boundary."""

    def log(self, a: Point, b: Point) -> Vector:
        """The logarithmic map: the velocity at ``a`` of the geodesic to ``b``; NaN where ``a`` is on the boundary of
        the family (a probability that is zero), where no velocity tells geodesics apart."""
        a, b = self.check_pair(a, b)
        zero = jnp.zeros((), a.dtype)
        velocity = jax.jvp(lambda t: self.path(a, b, t), (zero,), (jnp.ones_like(zero),))[1]
        if any(support.closed for support in self.parameters.values()):
            return jnp.where(self.domain(a) > 0, velocity, jnp.nan)
        return velocity

    def geodesic(self, a: Point, b: Point, ts: Float[Array, " n"] | None = None) -> Geodesic:
        """The geodesic from ``a`` to ``b``, sampled at ``ts`` (default 65 equal times), as solvers return it."""
        a, b = self.check_pair(a, b)
        return closed_geodesic(self, a, b, check_times(ts, a.dtype))

    def contains(self, theta: Point) -> Bool[Array, ""]:
        """Whether ``theta`` is in the family, or on its boundary; what `check` raises for where values are known."""
        return self.domain(theta) >= 0

    def check_pair(self, a: Any, b: Any) -> tuple[Point, Point]:
        """``a`` and ``b`` as points of the family, of the same dtype."""
        a, b = self.check(a, "a"), self.check(b, "b")
        dtype = jnp.result_type(a, b)
        return a.astype(dtype), b.astype(dtype)


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
    length, squared = family.dist(a, b), family.squared_dist(a, b)
    squared_speed = jax.vmap(lambda x, v: family.inner_product(x).squared_norm(v))(points, velocities)
    # Some families have distributions on their boundary (probabilities that are zero), but no Fisher matrix there.
    inner = jax.vmap(family.domain)(points) > 0
    mean = jnp.mean(squared_speed, where=inner)
    residual = speed_deviation(squared_speed, mean, inner)
    # NaN is not accurate either. Of the path: the length is known to many more digits.
    accurate = (residual <= 10 * jnp.finfo(a.dtype).eps ** 0.25) & jnp.all(jax.vmap(family.contains)(points))
    inside = family.contains(a) & family.contains(b)
    finite = jnp.isfinite(length) & jnp.all(jnp.isfinite(points))
    result = RESULTS.where(accurate, RESULTS.successful, RESULTS.accuracy_not_reached)
    result = RESULTS.where(finite, result, RESULTS.metric_nonfinite)
    result = RESULTS.where(inside, result, RESULTS.outside_domain)
    # Rounding: of the length, and of the point where the speed varies most.
    error = length * (jnp.finfo(a.dtype).eps + residual)
    return Geodesic(
        ts,
        points,
        velocities,
        length,
        squared / 2,
        error,
        residual,
        result,
        {"path_error": safe_sqrt(residual)},
        curve,
    )


class AbstractExponentialFamily(AbstractFamily):
    """A family with densities ``h(x) exp(<eta, T(x)> - A(eta))``: it has natural parameters ``eta`` and expectation
    parameters ``mu = E[T(x)] = grad A(eta)``, dual affine coordinates of the same manifold.

    The Fisher matrix is the Hessian of A in natural coordinates, and its inverse in expectation coordinates.
    """

    @abc.abstractmethod
    def sufficient_statistic(self, x: Num[Array, "..."]) -> Vector:
        """``T(x)`` of one sample, shape ``(dof,)``."""

    @abc.abstractmethod
    def log_partition(self, eta: Vector) -> Scalar:
        """``A(eta)``, convex."""

    @abc.abstractmethod
    def natural(self, theta: Point) -> Vector:
        """The natural parameters ``eta`` at ``theta``, shape ``(dof,)``."""

    @abc.abstractmethod
    def from_natural(self, eta: Vector) -> Point:
        """The point with natural parameters ``eta``."""

    @abc.abstractmethod
    def expectation(self, theta: Point) -> Vector:
        """The expectation parameters ``mu = E[T(x)]`` at ``theta``, shape ``(dof,)``."""
