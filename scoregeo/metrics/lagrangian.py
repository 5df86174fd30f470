"""Geodesic acceleration and Christoffel symbols of any metric, by automatic differentiation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import as_point
from .._types import Point, Vector
from .base import AbstractMetric


def lagrangian_acceleration(metric: AbstractMetric, x: Point, v: Vector) -> Vector:
    """The geodesic acceleration at ``x`` for velocity ``v``, both ``(d,)``, by the Lagrangian equation; needs only
    ``metric.at``.

    This is what ``metric.acceleration`` is by default; for a metric with a formula of its own, it is another way to it.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianScore, SteinMetric
    >>> from scoregeo.metrics import lagrangian_acceleration
    >>> metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)))
    >>> lagrangian_acceleration(metric, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])).round(4).tolist()
    [-0.5, 0.0]
    """
    return AbstractMetric.acceleration(metric, x, v)


def christoffels(metric: AbstractMetric, x: Point) -> Float[Array, "d d d"]:
    """The Christoffel symbols of the second kind at ``x``: ``[k, i, j]``, upper index first. For small d (d^3 entries).

    Computed from their definition with the derivatives of the metric matrix, independently of `metric.acceleration`:
    ``acceleration(x, v)[k] == -sum_ij christoffels[k, i, j] v[i] v[j]``.

    >>> import jax.numpy as jnp
    >>> from scoregeo.metrics import christoffels
    >>> from scoregeo.metrics.models import HyperbolicHalfSpace
    >>> christoffels(HyperbolicHalfSpace(), jnp.array([0.0, 2.0]))[1].tolist()
    [[0.5, 0.0], [0.0, -0.5]]
    """
    x = as_point(x, "x")

    def matrix(y):
        return metric.at(y).matrix(x.size).astype(x.dtype)

    derivative = jax.jacfwd(matrix)(x)  # [i, j, k] = d G_ij / dx_k
    # Gamma_kij = (d_i G_kj + d_j G_ki - d_k G_ij) / 2
    first_kind = 0.5 * (jnp.einsum("kji->kij", derivative) + derivative - jnp.einsum("ijk->kij", derivative))
    return jnp.einsum("lk,kij->lij", jnp.linalg.inv(matrix(x)), first_kind)
