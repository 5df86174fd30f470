"""The interface of a metric: a field of inner products, and the acceleration of its geodesics.

With kinetic energy T = 1/2 <v, G(x) v>, the Euler-Lagrange equation reads (see the mathematics page, geodesic equation)

    G x'' = 1/2 grad_x <v, G(x) v> - (dG[v]) v                                                          (1)

which costs one gradient, one Jacobian-vector product and one solve; no array with d^3 entries is formed.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Point, Scalar, Vector
from .inner_products import AbstractInnerProduct
from .structure import add, scale


class AbstractMetric(eqx.Module):
    """A Riemannian metric on R^d (or on a chart of a manifold), as an immutable pytree whose parameters are traced.

    `at`, the inner product at a point, is the one method to write. `acceleration` has a default, which a metric with a
    cheaper formula replaces. Christoffel symbols are no method: they have d^3 entries (`christoffels` computes them
    where d is small).

    ``metric + metric`` and ``0.5 * metric`` are metrics too, see `SumMetric` and `ScaledMetric`.

    >>> import jax.numpy as jnp
    >>> from scoregeo import AbstractMetric, dist
    >>> from scoregeo.metrics import DiagonalInnerProduct
    >>> class HalfPlane(AbstractMetric):
    ...     def at(self, x):
    ...         return DiagonalInnerProduct(jnp.ones(2) / x[1] ** 2)
    >>> round(float(dist(HalfPlane(), jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))), 4)  # log 2
    0.6931
    """

    # NumPy's numbers leave ``number * metric`` to the metric, and do not take it for an array.
    __array_ufunc__ = None

    @abc.abstractmethod
    def at(self, x: Point) -> AbstractInnerProduct:
        """The inner product ``G(x)`` on tangent vectors at ``x``; one evaluation of the score serves all its
        methods."""

    def acceleration(self, x: Point, v: Vector) -> Vector:
        """``gamma''`` of the geodesic through ``x`` with velocity ``v``: minus Gamma(x)(v, v), shape ``(d,)``.

        The default is equation (1).
        """
        _, momentum_rate = jax.jvp(lambda y: self.at(y).mv(v), (x,), (v,))
        force = jax.grad(lambda y: 0.5 * self.at(y).squared_norm(v))(x)
        return self.at(x).solve(force - momentum_rate)

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

    def __add__(self, other: "AbstractMetric") -> "AbstractMetric":
        return add(self, other) if isinstance(other, AbstractMetric) else NotImplemented

    def __mul__(self, factor: float | Scalar) -> "AbstractMetric":
        return scale(self, factor)

    __rmul__ = __mul__
