"""The connection of a metric as linear maps: what explicit integrators of Lagrangian dynamics invert.

Half of the derivative of the acceleration of geodesics, which is quadratic in the velocity v, is the linear map

    Omega(v) w = Gamma(v, w) = - 1/2 d/dv a(x, v) [w]                                                    (1)

of which ``I + c Omega(v)`` is solved and its determinant taken. For a gradient field s with Jacobian J and for
``exp(2 phi) I`` with g = grad phi it is a multiple of the identity plus a matrix of rank one, and two:

    Omega(v) = (lam/L) s (J v)^T,      Omega(v) = (g.v) I + v g^T - g v^T                                (2)

Curl, A = J - J^T, adds to the acceleration ``c(v) = - lam (s.v) G^-1 A v``, whose matrix is of full rank. Where that is
too large, trajectories follow another acceleration of low rank: with b = A s,

    c(v) = lam / (L (d - 1)) [(b.v) v - <v, v> G^-1 b]                                                   (3)

does no work either, ``<v, c(v)> = 0``, and has the same divergence, ``div c = (lam/L) b.v``. These are the two
properties by which Lagrange's equation keeps the density of positions and velocities, so that a sampler which
accepts or rejects is exact with (3) and its acceptance still goes to 1 with the step size; the trajectories are no
geodesics.
"""

import abc
import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import Matrix, Point, Scalar, Vector
from ...metrics import AbstractMetric, ConformalMetric, EuclideanMetric, ScaledMetric, SteinMetric
from ...metrics.inner_products import MAX_DENSE
from ...scores.base import field


class AbstractMap(eqx.Module):
    """A linear map A on R^d, not symmetric."""

    @abc.abstractmethod
    def solve_shifted(self, c: Scalar, w: Vector) -> tuple[Vector, Scalar]:
        """``(I + c A)^-1 w`` and ``log |det(I + c A)|``."""


class DenseMap(AbstractMap):
    """A as an array ``(d, d)``."""

    array: Matrix

    def solve_shifted(self, c: Scalar, w: Vector) -> tuple[Vector, Scalar]:
        return eliminated(jnp.eye(w.size, dtype=w.dtype) + c * self.array, w)


class IdentityPlusLowRank(AbstractMap):
    """``A = scale I + left^T right`` with ``left`` and ``right`` of shape ``(k, d)``: O(k d), by Woodbury."""

    scale: Scalar
    left: Float[Array, "k d"]
    right: Float[Array, "k d"]

    def solve_shifted(self, c: Scalar, w: Vector) -> tuple[Vector, Scalar]:
        a = 1 + c * self.scale
        rank = self.left.shape[0]
        small = jnp.eye(rank, dtype=w.dtype) + (c / a) * (self.right @ self.left.T)
        rows, logdet = eliminated(small, self.right @ w)
        return (w - (c / a) * (rows @ self.left)) / a, w.size * jnp.log(jnp.abs(a)) + logdet


Connection = Callable[[Vector], AbstractMap]


@functools.singledispatch
def connection(metric: AbstractMetric, x: Point) -> Connection:
    """Equation (1) at ``x``, a function of v; a metric with a structure registers.

    The default is a matrix, made of d derivatives of ``metric.acceleration``; raises ``ValueError`` beyond d = 64.
    """
    if x.size > MAX_DENSE:
        raise ValueError(
            f"`metric` must have a connection of low rank in {x.size} dimensions, which a {type(metric).__name__} "
            f"has not (a Stein metric has): matrices are made up to {MAX_DENSE}. "
            "`Langevin` and `GeodesicSlice` need none"
        )

    def at_velocity(v: Vector) -> AbstractMap:
        _, derivative = jax.linearize(lambda u: metric.acceleration(x, u), v)
        return DenseMap(-jax.vmap(derivative, out_axes=1)(jnp.eye(x.size, dtype=x.dtype)) / 2)

    return at_velocity


@connection.register
def _(metric: EuclideanMetric, x: Point) -> Connection:
    nothing = jnp.zeros((0, x.size), x.dtype)
    return lambda v: IdentityPlusLowRank(jnp.zeros((), x.dtype), nothing, nothing)


@connection.register
def _(metric: ScaledMetric, x: Point) -> Connection:
    return connection(metric.metric, x)


@connection.register
def _(metric: ConformalMetric, x: Point) -> Connection:
    gradient = jax.grad(metric.phi)(x)
    return lambda v: IdentityPlusLowRank(gradient @ v, jnp.stack([v, gradient]), jnp.stack([gradient, -v]))


@connection.register
def _(metric: SteinMetric, x: Point) -> Connection:
    if not metric.score.conservative:
        return connection.dispatch(AbstractMetric)(metric, x) if x.size <= MAX_DENSE else without_work(metric, x)
    strength = metric.strength.astype(x.dtype)
    s, pushforward = jax.linearize(field(metric.score), x)
    part = strength / (1 + strength * (s @ s))
    return lambda v: IdentityPlusLowRank(jnp.zeros((), x.dtype), (part * s)[None], pushforward(v)[None])


def without_work(metric: SteinMetric, x: Point) -> Connection:
    """The connection of a Stein metric with (3) in place of what its curl adds: of rank three, in O(d)."""
    strength = metric.strength.astype(x.dtype)
    s, pushforward = jax.linearize(field(metric.score), x)
    pullback = jax.linear_transpose(pushforward, x)
    part = strength / (1 + strength * (s @ s))
    b = pushforward(s) - pullback(s)[0]
    b = part / max(1, x.size - 1) * b

    def at_velocity(v: Vector) -> AbstractMap:
        symmetric = (pushforward(v) + pullback(v)[0]) / 2
        # b is orthogonal to s, so that G^-1 b is b.
        left = jnp.stack([part * s, -v / 2, b])
        right = jnp.stack([symmetric, b, v + strength * (s @ v) * s])
        return IdentityPlusLowRank(-(b @ v) / 2, left, right)

    return at_velocity


def eliminated(matrix: Matrix, b: Vector) -> tuple[Vector, Scalar]:
    """``matrix^-1 b`` and ``log |det matrix|`` of a square matrix, by elimination with pivoting, in XLA: see
    `_cholesky` for why not by LAPACK.

    >>> import jax.numpy as jnp
    >>> x, logdet = eliminated(jnp.array([[0.0, 2.0], [1.0, 0.0]]), jnp.array([2.0, 3.0]))
    >>> x.tolist(), round(float(logdet), 4)
    ([3.0, 1.0], 0.6931)
    """
    n = matrix.shape[0]
    place = jnp.arange(n)

    def eliminate(k, carry):
        m, total = carry
        pivot = jnp.argmax(jnp.where(place >= k, jnp.abs(m[:, k]), -1))
        row, other = m[pivot], m[k]
        m = m.at[pivot].set(other).at[k].set(row)
        factors = jnp.where(place == k, 0, m[:, k] / row[k])
        return m - factors[:, None] * row, total + jnp.log(jnp.abs(row[k]))

    carry = jnp.concatenate([matrix, b[:, None]], 1), jnp.zeros((), matrix.dtype)
    if n == 0:
        return b, carry[1]
    m, total = eliminate(0, carry) if n == 1 else jax.lax.fori_loop(0, n, eliminate, carry)
    return m[:, n] / jnp.diagonal(m), total
