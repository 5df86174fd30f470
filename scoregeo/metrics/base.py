"""The interface of a metric: a field of inner products, and the acceleration of its geodesics."""

import abc

import equinox as eqx
import jax.numpy as jnp

from .._types import Point, Scalar, Vector
from .inner_products import AbstractInnerProduct


class AbstractMetric(eqx.Module):
    """A Riemannian metric on R^d (or on a chart of a manifold), as an immutable pytree whose parameters are traced.

    The primitives are the inner product at a point and the acceleration of geodesics. Christoffel symbols are not: they
    have d^3 entries (`christoffels` computes them where d is small).
    """

    @abc.abstractmethod
    def at(self, x: Point) -> AbstractInnerProduct:
        """The inner product ``G(x)`` on tangent vectors at ``x``; one evaluation of the score serves all its
        methods."""

    @abc.abstractmethod
    def acceleration(self, x: Point, v: Vector) -> Vector:
        """``gamma''`` of the geodesic through ``x`` with velocity ``v``: minus Gamma(x)(v, v), shape ``(d,)``."""

    def domain(self, x: Point) -> Scalar:
        """Positive inside the domain of the metric, zero on its boundary, negative outside; continuous. All of R^d by
        default.

        Solvers keep paths inside, and say so (``RESULTS.outside_domain``) where that cannot be done.
        """
        return jnp.ones((), x.dtype)

    def check(self, x: Point) -> None:
        """Raise or warn if the metric at ``x`` is not to be relied on, for a reason that solvers cannot see; outside of
        ``jit``, before anything is solved. Nothing by default."""
        return

    def inner(self, x: Point, v: Vector, w: Vector) -> Scalar:
        """``<v, w>`` at ``x``."""
        return self.at(x).inner(v, w)

    def norm(self, x: Point, v: Vector) -> Scalar:
        """The length of the tangent vector ``v`` at ``x``."""
        return self.at(x).norm(v)
