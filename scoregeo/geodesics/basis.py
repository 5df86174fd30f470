"""Paths between fixed end points as piecewise polynomials: velocities in orthonormal Legendre polynomials.

[0, 1] is divided into K elements of width h_e. With p_j the Legendre polynomials orthonormal on [0, 1] and u the local
time of an element, the velocity of a path from x to y is

    gamma'(t) = (y - x) + sum_{j<m} c_ej p_j(u) / sqrt(h_e)      on element e,                               (1)

an orthonormal expansion. That the path ends at y means that sum_e sqrt(h_e) c_e0 = 0: coefficients are used only after
projection to that subspace, ``project``. The Euclidean energy is 1/2 |y - x|^2 + 1/2 sum |c|^2: its Hessian is the
identity whatever the elements, so no stiffness comes from the discretisation. With elements drawn together where the
path bends, sharp bends cost no more than gentle ones.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import legendre

from .._types import Point, Points

Coefficients = Float[Array, "k m d"]
Breaks = Float[Array, " k_plus_1"]


def legendre_values(m: int, u: Float[Array, "..."]) -> tuple[Float[Array, "... m"], Float[Array, "... m"]]:
    """``p_j(u)`` and ``phi_j(u) = int_0^u p_j`` for j < m, at any ``u``, which may be traced."""
    z = 2 * u - 1

    def recur(carry, k):
        older, old = carry
        new = ((2 * k + 1) * z * old - k * older) / (k + 1)
        return (old, new), new

    # A loop, not an expression for each j: those would make up a good part of what is compiled.
    ones = jnp.ones_like(z)
    _, rest = jax.lax.scan(recur, (ones, z), jnp.arange(1, m, dtype=z.dtype))
    vander = jnp.moveaxis(jnp.concatenate([jnp.stack([-ones, ones, z]), rest]), 0, -1)  # P_-1 := -1, P_0, ..., P_m
    root = jnp.sqrt(2 * jnp.arange(m, dtype=z.dtype) + 1)
    return vander[..., 1:-1] * root, (vander[..., 2:] - vander[..., :-2]) / (2 * root)


@functools.lru_cache(maxsize=64)
def _tables(m: int, points: int) -> tuple[np.ndarray, ...]:
    """Local times, weights, p (points, m) and phi (points, m) at the Gauss-Legendre nodes of one element."""
    nodes, weights = legendre.leggauss(points)
    u = (nodes + 1) / 2
    vander = legendre.legvander(nodes, m)
    root = np.sqrt(2 * np.arange(m) + 1)
    before = np.concatenate([-np.ones((points, 1)), vander[:, : m - 1]], 1)
    return u, weights / 2, vander[:, :m] * root, (vander[:, 1:] - before) / (2 * root)


class Grams(NamedTuple):
    """Products of the basis functions at pairs of quadrature points, each ``(q, q)``: once a solve."""

    p_p: Float[Array, "q q"]
    p_phi: Float[Array, "q q"]
    phi_phi: Float[Array, "q q"]


class Basis(eqx.Module):
    """The expansion (1) on ``breaks`` ``(k + 1,)``, with a Gauss rule of ``points`` nodes on each element.

    ``weights`` ``(k * points,)`` are those of all nodes, in order of time.
    """

    breaks: Breaks
    u: Float[Array, " points"]
    local_weights: Float[Array, " points"]
    p: Float[Array, "points m"]
    phi: Float[Array, "points m"]

    def __init__(self, breaks: Breaks, m: int, points: int):
        self.breaks = breaks
        self.u, self.local_weights, self.p, self.phi = (jnp.asarray(a, breaks.dtype) for a in _tables(m, points))

    @property
    def widths(self) -> Float[Array, " k"]:
        """Widths of the elements."""
        return jnp.diff(self.breaks)

    def _over_root(self, values: Float[Array, "k n d"]) -> Float[Array, "k n d"]:
        """``values`` over the square roots of the widths; zero on elements of width zero, which are unused."""
        used = self.widths > 0
        return jnp.where(used, 1 / jnp.sqrt(jnp.where(used, self.widths, 1)), 0)[:, None, None] * values

    @property
    def times(self) -> Float[Array, " q"]:
        """All quadrature times."""
        return (self.breaks[:-1, None] + self.widths[:, None] * self.u).reshape(-1)

    @property
    def weights(self) -> Float[Array, " q"]:
        """All quadrature weights; they sum to one."""
        return (self.widths[:, None] * self.local_weights).reshape(-1)

    def project(self, c: Coefficients) -> Coefficients:
        """The nearest coefficients of a path that ends where it should."""
        root = jnp.sqrt(self.widths)
        return c.at[:, 0].add(-root[:, None] * (root @ c[:, 0]))

    def _ends(self, c: Coefficients) -> Points:
        """Displacement up to the start of each element, relative to the straight path, ``(k, d)``."""
        steps = jnp.sqrt(self.widths)[:, None] * c[:, 0]
        return jnp.cumsum(steps, 0) - steps

    def path(self, x: Point, y: Point, c: Coefficients) -> tuple[Points, Points]:
        """Points and velocities of the path with coefficients ``c`` at all quadrature times, each ``(q, d)``."""
        displacement, deviation = self.deviation(self.project(c))
        return x + self.times[:, None] * (y - x) + displacement, (y - x) + deviation

    def deviation(self, c: Coefficients) -> tuple[Points, Points]:
        """What the projected coefficients ``c`` add to points and velocities of the straight path, each ``(q, d)``."""
        root = jnp.sqrt(self.widths)[:, None, None]
        points = self._ends(c)[:, None] + root * jnp.einsum("qm,kmd->kqd", self.phi, c)
        velocities = self._over_root(jnp.einsum("qm,kmd->kqd", self.p, c))
        return points.reshape(-1, c.shape[-1]), velocities.reshape(-1, c.shape[-1])

    def adjoint(self, points: Points, velocities: Points) -> Coefficients:
        """The transpose of `deviation` after `project`: from ``(q, d)`` each to coefficients."""
        k, d = self.breaks.size - 1, points.shape[-1]
        root = jnp.sqrt(self.widths)
        points, velocities = points.reshape(k, -1, d), velocities.reshape(k, -1, d)
        c = root[:, None, None] * jnp.einsum("qm,kqd->kmd", self.phi, points)
        c = c + self._over_root(jnp.einsum("qm,kqd->kmd", self.p, velocities))
        sums = jnp.sum(points, 1)
        later = jnp.cumsum(sums[::-1], 0)[::-1] - sums
        return self.project(c.at[:, 0].add(root[:, None] * later))

    def project_velocity(self, velocity: Points, x: Point, y: Point) -> Coefficients:
        """Coefficients of the path from ``x`` to ``y`` nearest, in energy, to one with ``velocity`` ``(q, d)``."""
        weighted = self.weights[:, None] * (velocity - (y - x))
        return self.adjoint(jnp.zeros_like(weighted), weighted)

    def grams(self) -> Grams:
        """Products of the (projected) basis functions at pairs of quadrature points, in closed form.

        With Pi_e the orthogonal projection to polynomials on element e, sum_k p_k(t) p_k(t') is the kernel of Pi minus
        1, and phi_k(t') is the product of p_k with the indicator of [0, t'].
        """
        k, n = self.breaks.size - 1, self.u.size
        h, t = self.widths, self.times
        same = jnp.eye(k, dtype=t.dtype)
        earlier = jnp.triu(jnp.ones((k, k), t.dtype), 1)

        def blocks(coarse, scale, local):
            full = jnp.repeat(jnp.repeat(coarse, n, 0), n, 1)
            diagonal = (same * scale)[:, None, :, None] * local[None, :, None, :]
            return full + diagonal.reshape(k * n, k * n)

        p_p = blocks(0 * same, 1 / h, self.p @ self.p.T) - 1
        p_phi = blocks(earlier, jnp.ones_like(h), self.p @ self.phi.T) - t
        first = jnp.minimum(t[:, None], t)
        off = first * (1 - jnp.repeat(jnp.repeat(same, n, 0), n, 1))
        inside = blocks(same * self.breaks[:-1], h, self.phi @ self.phi.T)
        return Grams(p_p, p_phi, off + inside - t[:, None] * t)


def uniform_breaks(elements: int, dtype) -> Breaks:
    """``elements`` equal elements of [0, 1]."""
    return jnp.asarray(np.linspace(0, 1, elements + 1), dtype)
