"""Paths between fixed end points as polynomials: velocities in orthonormal Legendre polynomials.

With p_k the Legendre polynomials orthonormal on [0, 1] and phi_k(t) = int_0^t p_k, which vanishes at both ends for k
>= 1,

    gamma(t) = x + t (y - x) + sum_{k=1}^{m} c_k phi_k(t),      gamma'(t) = (y - x) + sum_k c_k p_k(t)       (1)

is any polynomial path of degree m + 1 from x to y. The Euclidean energy is 1/2 |y - x|^2 + 1/2 sum_k |c_k|^2: its
Hessian in the coefficients is the identity, so no stiffness comes from the discretisation, and raising the degree only
appends zeros.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import legendre

from .._types import Point, Points


def _values(t: np.ndarray, modes: int) -> tuple[np.ndarray, np.ndarray]:
    """phi_k(t) and p_k(t) for k = 1..modes, each ``(len(t), modes)``."""
    vander = legendre.legvander(2 * t - 1, modes + 1)
    root = np.sqrt(2 * np.arange(1, modes + 1) + 1)
    return (vander[:, 2:] - vander[:, :-2]) / (2 * root), vander[:, 1:-1] * root


@functools.lru_cache(maxsize=64)
def _quadrature(modes: int, points: int) -> tuple[np.ndarray, ...]:
    nodes, weights = legendre.leggauss(points)
    t = (nodes + 1) / 2
    return t, weights / 2, *_values(t, modes)


class Basis(eqx.Module):
    """Values of (1) at times ``t`` ``(q,)``: ``phi``, ``p`` of shape ``(q, m)``, and quadrature weights ``(q,)``."""

    t: Float[Array, " q"]
    weights: Float[Array, " q"]
    phi: Float[Array, "q m"]
    p: Float[Array, "q m"]

    def path(self, x: Point, y: Point, c: Float[Array, "m d"]) -> tuple[Points, Points]:
        """Points and velocities of the path with coefficients ``c``, each ``(q, d)``."""
        return x + self.t[:, None] * (y - x) + self.phi @ c, (y - x) + self.p @ c

    def adjoint(self, points: Points, velocities: Points) -> Float[Array, "m d"]:
        """The transpose of the linear map from coefficients to (points, velocities)."""
        return self.phi.T @ points + self.p.T @ velocities


def gauss_basis(modes: int, points: int, dtype, after: Array | None = None) -> Basis:
    """The basis of ``modes`` coefficients at ``points`` Gauss-Legendre nodes of [0, 1].

    The barrier keeps XLA from multiplying these constants with each other at compile time (minutes for high degrees);
    ``after``, any array, keeps what is computed from them from being moved in front of the loop that produced it.
    """
    tables = tuple(jnp.asarray(a, dtype) for a in _quadrature(modes, points))
    return Basis(*jax.lax.optimization_barrier((tables, after))[0])


def evaluation_basis(modes: int, t: Float[Array, " q"]) -> Basis:
    """The basis at any times ``t`` ``(q,)``, which may be traced (three-term recurrence); the weights are zero."""
    u = 2 * t - 1

    def recur(carry, k):
        older, old = carry
        new = ((2 * k + 1) * u * old - k * older) / (k + 1)
        return (old, new), new

    first = (jnp.ones_like(u), u)
    _, rest = jax.lax.scan(recur, first, jnp.arange(1, modes + 1, dtype=u.dtype))
    vander = jnp.concatenate([jnp.stack(first), rest]).T
    root = jnp.sqrt(2 * jnp.arange(1, modes + 1, dtype=u.dtype) + 1)
    return Basis(t, jnp.zeros_like(t), (vander[:, 2:] - vander[:, :-2]) / (2 * root), vander[:, 1:-1] * root)


def path_coefficients(nodes: Points, modes: int) -> Float[Array, "m d"]:
    """Coefficients of the best approximation, in energy, of the piecewise linear path through ``nodes`` ``(k, d)``.

    ``nodes`` are visited at equally spaced times. The velocity is piecewise constant, so its products with p_k are
    differences of phi_k: the projection is exact.
    """
    times = np.linspace(0, 1, nodes.shape[0])
    differences = jnp.asarray(np.diff(_values(times, modes)[0], axis=0), nodes.dtype)
    return differences.T @ (jnp.diff(nodes, axis=0) * (nodes.shape[0] - 1))
