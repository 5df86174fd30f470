"""The energy of paths in a metric: what the spectral solver minimises.

    E(c) = sum_q w_q T(gamma(t_q), gamma'(t_q)),     T(x, v) = 1/2 <v, v>_f                               (1)

with f = 1 for the metric itself; smaller f lead from Euclid to the metric (continuation), on the way that `relaxed`
knows for its inner products: ``(1 - f) |v|^2 + f <v, v>_G(x)`` for most.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._batching import over_rows
from ..._function import depends_on_argument
from ..._numerics import frozen
from ..._types import Point, Points, Scalar
from ...metrics import (
    AbstractInnerProduct,
    AbstractMetric,
    as_diagonal,
    as_low_rank_update,
    at_least_identity,
    relaxed,
)
from . import gauss_newton as gauss_newton  # registers the preconditioner of graph metrics
from .legendre import Basis, Coefficients
from .preconditioners import (
    AbstractPreconditioner,
    LowRankRows,
    answers,
    low_rank_parts,
    low_rank_rows,
    preconditioner_for,
)


class PathEnergy(eqx.Module):
    """The energy (1) of paths from ``x`` to ``y``, both ``(d,)``; infinite for paths that leave the domain.

    The metric's functions are converted to closed expressions at construction: arrays that a score function closes over
    become explicit leaves of this pytree, so that derivatives with respect to them are not lost inside the solver's
    loops.

    ``rows`` are those of a metric of low rank at the points of one path, where they are known (`knowing`).
    ``batch_size`` bounds how many points of a path the metric is evaluated at side by side, and ``checkpoint``
    recomputes the metric in the backward pass instead of keeping its intermediate values: for large networks.
    """

    x: Point
    y: Point
    inner_product: Callable
    domain: Callable
    rows: LowRankRows | None
    batch_size: int | None = eqx.field(static=True)
    checkpoint: bool = eqx.field(static=True)

    def __init__(
        self, metric: AbstractMetric, x: Point, y: Point, batch_size: int | None = None, checkpoint: bool = False
    ):
        self.x, self.y = x, y
        self.inner_product = eqx.filter_closure_convert(metric.at, x)
        self.domain = eqx.filter_closure_convert(metric.domain, x)
        self.batch_size, self.checkpoint, self.rows = batch_size, checkpoint, None

    def frozen(self) -> "PathEnergy":
        """The same energy as a constant: no derivative flows through it."""
        return frozen(self)

    @property
    def structure(self) -> AbstractInnerProduct:
        """An inner product of the metric with shapes in place of values: its type says what the metric is made of."""
        return jax.eval_shape(self.inner_product, self.x)

    @property
    def above_euclid(self) -> bool:
        """Whether the metric is Euclid's plus something positive by its type: its preconditioners are then at least
        the identity."""
        return at_least_identity(self.structure)

    def inside(self, points: Points) -> Bool[Array, ""]:
        """Whether all ``points`` ``(n, d)`` are in the domain of the metric."""
        return jnp.all(jax.vmap(lambda point: self.domain(point) > 0)(points))

    def over_points(self, function: Callable, *arrays: Array) -> Any:
        """``function`` of one point each, over the points of a path."""
        if self.checkpoint:
            # Through a new function: `jax.checkpoint` hashes what it is given, and a method holds traced arrays.
            plain = function
            function = jax.checkpoint(lambda *point: plain(*point))
        if self.batch_size is None or arrays[0].shape[0] <= self.batch_size:
            return over_rows(function, *arrays)
        return jax.lax.map(lambda point: function(*point), arrays, batch_size=self.batch_size)

    def density(self, point: Point, velocity: Point, fraction: Scalar | float = 1.0) -> Scalar:
        """Kinetic energy ``T`` of one point of the path."""
        energy = 0.5 * relaxed(self.inner_product(point), fraction).squared_norm(velocity)
        return jnp.where(self.domain(point) > 0, energy, jnp.inf)

    def gradients(
        self, points: Points, velocities: Points, fraction: Scalar | float = 1.0
    ) -> tuple[Float[Array, " q"], tuple[Points, Points], LowRankRows | None]:
        """Kinetic energy at all points of a path, its derivatives with respect to point and velocity, and the rows that
        its preconditioner is made of, where these are what the derivatives are made of:

            T = s/2 (|v|^2 + w (u.v)^2),   dT/dx = s w (u.v) J^T v,   dT/dv = s (v + w (u.v) u)            (2)

        for one row u with Jacobian J, and a weight w and a scale s that are the same everywhere.
        """

        def by_rows(x, v):
            rows = low_rank_rows(self, x, v, fraction)
            u, jtv, (weight,) = rows.u[0], rows.jtv[0], rows.weights
            along = u @ v
            scale = 1 if rows.scale is None else rows.scale
            energy = 0.5 * scale * (v @ v + weight * along**2)
            energy = jnp.where(self.domain(x) > 0, energy, jnp.inf)
            return energy, (scale * weight * along * jtv, scale * (v + weight * along * u)), rows

        if self._is_one_row(fraction):
            return self.over_points(by_rows, points, velocities)
        density = jax.value_and_grad(lambda x, v: self.density(x, v, fraction), (0, 1))
        return *self.over_points(density, points, velocities), None

    def _is_one_row(self, fraction: Scalar | float) -> bool:
        """Whether (2) holds."""
        structure = self.structure
        if not answers(as_low_rank_update, structure) or answers(as_diagonal, structure):
            return False
        factors, _ = jax.eval_shape(lambda x: low_rank_parts(self, x, fraction), self.x)
        return factors.shape[0] == 1 and not depends_on_argument(lambda x: low_rank_parts(self, x, fraction)[1], self.x)

    def knowing(self, rows: LowRankRows | None) -> "PathEnergy":
        """The same energy, of a path at whose points these are the ``rows``."""
        return eqx.tree_at(lambda problem: problem.rows, self, rows, is_leaf=lambda leaf: leaf is None)

    def densities(self, basis: Basis, c: Coefficients, fraction: Scalar | float = 1.0) -> Float[Array, " q"]:
        """Kinetic energy at every time of ``basis``, of the path with coefficients ``c`` after projection: constant
        along a geodesic."""
        points, velocities = basis.path(self.x, self.y, basis.project(c))
        return self.over_points(lambda x, v: self.density(x, v, fraction), points, velocities)

    def __call__(self, basis: Basis, c: Coefficients, fraction: Scalar | float = 1.0) -> Scalar:
        """The energy ``E(c)`` by the quadrature of ``basis``."""
        return basis.weights @ self.densities(basis, c, fraction)

    def preconditioner(self, basis: Basis, c: Coefficients, fraction: Scalar | float = 1.0) -> AbstractPreconditioner:
        """The preconditioner that fits the structure of the metric, at the path with projected coefficients ``c``."""
        return preconditioner_for(self.structure, self, basis, c, fraction)
