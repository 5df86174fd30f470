"""Paths between fixed end points as piecewise polynomials: velocities in orthonormal Legendre polynomials.

[0, 1] is divided into K elements of width h_e. With p_j the Legendre polynomials orthonormal on [0, 1] and u the local
time of an element, the velocity of a path from x to y is

    gamma'(t) = (y - x) + sum_{j<m} c_ej p_j(u) / sqrt(h_e)      on element e,                               (1)

an orthonormal expansion. That the path ends at y means that sum_e sqrt(h_e) c_e0 = 0; "projected" coefficients are in
that subspace, into which ``project`` takes others. The Euclidean energy is 1/2 |y - x|^2 + 1/2 sum |c|^2: its Hessian
is the identity whatever the elements, so no stiffness comes from the discretisation. With elements drawn together where
the path bends, sharp bends cost no more than gentle ones.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import legendre

from ..._batching import over_columns
from ..._types import Point, Points

# The precision of matrix products, because accelerators round float32 to ten bits or fewer by default.
HIGHEST = jax.lax.Precision.HIGHEST

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
    """The expansion (1) on ``breaks`` ``(k + 1,)``, with a Gauss rule of ``points`` nodes on each element, or another
    ``rule``: local times, weights, and there p and phi, ``(points, m)`` each.

    ``weights`` ``(k * points,)`` are those of all nodes, in order of time.
    """

    breaks: Breaks
    u: Float[Array, " points"]
    local_weights: Float[Array, " points"]
    p: Float[Array, "points m"]
    phi: Float[Array, "points m"]
    _local: Float[Array, "two_points m"]  # both
    _scales: Float[Array, "k two_points 1"]  # of velocities and points on each element, after the product with _local
    # From the first coefficients of all elements to those after `project`, and to what these add where elements start.
    _across: Float[Array, "two_k k"]

    def __init__(self, breaks: Breaks, m: int, points: int, rule: tuple[np.ndarray, ...] | None = None):
        self.breaks = breaks
        tables = _tables(m, points) if rule is None else rule
        self.u, self.local_weights, self.p, self.phi = (jnp.asarray(a, breaks.dtype) for a in tables)
        self._local = jnp.concatenate([self.p, self.phi])
        h = self.widths
        # Elements of width zero are unused.
        root = jnp.sqrt(jnp.where(h > 0, h, 1))
        scales = jnp.where(h[:, None] > 0, jnp.stack([1 / root, root], 1), 0)
        self._scales = jnp.repeat(scales, points, 1)[..., None]
        root = jnp.sqrt(h)
        projection = jnp.eye(h.size, dtype=h.dtype) - root[:, None] * root
        earlier = jnp.tril(jnp.ones((h.size, h.size), h.dtype), -1)
        self._across = jnp.concatenate([projection, (earlier - self.breaks[:-1, None]) * root])

    @property
    def widths(self) -> Float[Array, " k"]:
        """Widths of the elements."""
        return jnp.diff(self.breaks)

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
        first = jnp.matmul(self._across[: c.shape[0]], c[:, 0], precision=HIGHEST)
        return jnp.concatenate([first[:, None], c[:, 1:]], 1)

    def path(self, x: Point, y: Point, c: Coefficients) -> tuple[Points, Points]:
        """Points and velocities at all quadrature times, each ``(q, d)``, of the path with projected coefficients
        ``c``."""
        displacement, deviation = self.deviation(c)
        return x + self.times[:, None] * (y - x) + displacement, (y - x) + deviation

    # The next two are what solvers do most often. They are written for few and simple operations, as each of these is
    # compiled for a while and called at a cost.

    def deviation(self, c: Coefficients) -> tuple[Points, Points]:
        """What projected coefficients ``c`` add to points and velocities of the straight path, ``(q, d)``."""
        k, n, d = self.breaks.size - 1, self.u.size, c.shape[-1]

        def of_columns(c):
            starts = jnp.matmul(self._across[k:], c[:, 0], precision=HIGHEST)
            values = self._scales * jnp.einsum("qm,kmd->kqd", self._local, c, precision=HIGHEST)
            return starts[:, None] + values[:, n:], values[:, :n]

        points, velocities = over_columns(of_columns, c)
        return points.reshape(-1, d), velocities.reshape(-1, d)

    def adjoint(self, points: Points, velocities: Points) -> Coefficients:
        """The transpose of `deviation`: from ``(q, d)`` each to projected coefficients."""
        k, n, d = self.breaks.size - 1, self.u.size, points.shape[-1]

        def of_columns(points, velocities):
            values = self._scales * jnp.concatenate([velocities, points], 1)
            c = jnp.einsum("qm,kqd->kmd", self._local, values, precision=HIGHEST)
            first = jnp.matmul(self._across.T, jnp.concatenate([c[:, 0], jnp.sum(points, 1)]), precision=HIGHEST)
            return jnp.concatenate([first[:, None], c[:, 1:]], 1)

        return over_columns(of_columns, points.reshape(k, n, d), velocities.reshape(k, n, d))

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


def uniform(elements: int) -> Float[np.ndarray, " breaks"]:
    """``elements`` equal elements of [0, 1]."""
    return np.linspace(0, 1, elements + 1)


def uniform_breaks(elements: int, dtype) -> Breaks:
    """`uniform` elements as an array of JAX."""
    return jnp.asarray(uniform(elements), dtype)
