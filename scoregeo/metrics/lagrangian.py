"""Geodesic acceleration and Christoffel symbols of any metric, by automatic differentiation.

With kinetic energy T = 1/2 <v, G(x) v>, the Euler-Lagrange equation reads (MATH: geodesic equation)

    G x'' = 1/2 grad_x <v, G(x) v> - (dG[v]) v                                                          (1)

which costs one gradient, one Jacobian-vector product and one solve; no array with d^3 entries is formed.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import as_point
from .._types import Point, Vector
from .base import AbstractMetric


def lagrangian_acceleration(metric: AbstractMetric, x: Point, v: Vector) -> Vector:
    """The geodesic acceleration at ``x`` for velocity ``v``, both ``(d,)``, by equation (1); needs only
    ``metric.at``."""
    _, momentum_rate = jax.jvp(lambda y: metric.at(y).mv(v), (x,), (v,))
    force = jax.grad(lambda y: 0.5 * metric.at(y).squared_norm(v))(x)
    return metric.at(x).solve(force - momentum_rate)


def christoffels(metric: AbstractMetric, x: Point) -> Float[Array, "d d d"]:
    """The Christoffel symbols of the second kind at ``x``: ``[k, i, j]``, upper index first. For small d (d^3 entries).

    Computed from their definition with the derivatives of the metric matrix, independently of `metric.acceleration`:
    ``acceleration(x, v)[k] == -sum_ij christoffels[k, i, j] v[i] v[j]``.
    """
    x = as_point(x, "x")

    def matrix(y):
        return metric.at(y).matrix(x.size).astype(x.dtype)

    derivative = jax.jacfwd(matrix)(x)  # [i, j, k] = d G_ij / dx_k
    # Gamma_kij = (d_i G_kj + d_j G_ki - d_k G_ij) / 2
    first_kind = 0.5 * (jnp.einsum("kji->kij", derivative) + derivative - jnp.einsum("ijk->kij", derivative))
    return jnp.einsum("lk,kij->lij", jnp.linalg.inv(matrix(x)), first_kind)
