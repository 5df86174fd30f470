"""The energy of polynomial paths in a metric: what the spectral solver minimises.

    E(c) = sum_q w_q T(gamma(t_q), gamma'(t_q)),     T(x, v) = 1/2 ( (1 - f) |v|^2 + f <v, v>_G(x) )          (1)

with f = 1 for the metric itself; smaller f lead from Euclid to the metric (continuation).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Point, Scalar
from ..metrics import AbstractMetric, DiagonalInnerProduct, IdentityPlusRankOne
from .basis import Basis
from .preconditioner import (
    AbstractPreconditioner,
    BasisGrams,
    Coefficients,
    DensePreconditioner,
    DiagonalPreconditioner,
    WoodburyPreconditioner,
)


class PathEnergy(eqx.Module):
    """The energy (1) of paths from ``x`` to ``y``, both ``(d,)``.

    The metric's functions are converted to closed expressions at construction: arrays that a score function closes over
    become explicit leaves of this pytree, so that derivatives with respect to them are not lost inside the solver's
    loops.
    """

    x: Point
    y: Point
    inner_product: Callable

    def __init__(self, metric: AbstractMetric, x: Point, y: Point):
        self.x, self.y = x, y
        self.inner_product = eqx.filter_closure_convert(metric.at, x)

    def frozen(self) -> "PathEnergy":
        """The same energy as a constant: no derivative flows through it."""
        return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, self)

    def density(self, point: Point, velocity: Point, fraction: Scalar | float = 1.0) -> Scalar:
        """Kinetic energy ``T`` of one point of the path."""
        curved = self.inner_product(point).squared_norm(velocity)
        return 0.5 * ((1 - fraction) * (velocity @ velocity) + fraction * curved)

    def densities(self, basis: Basis, c: Coefficients, fraction: Scalar | float = 1.0) -> Float[Array, " q"]:
        """Kinetic energy at every time of ``basis``: constant along a geodesic."""
        points, velocities = basis.path(self.x, self.y, c)
        return jax.vmap(self.density, in_axes=(0, 0, None))(points, velocities, fraction)

    def __call__(self, basis: Basis, c: Coefficients, fraction: Scalar | float = 1.0) -> Scalar:
        """The energy ``E(c)`` by the quadrature of ``basis``."""
        return basis.weights @ self.densities(basis, c, fraction)

    def preconditioner(
        self, basis: Basis, grams: BasisGrams, c: Coefficients, fraction: Scalar | float = 1.0
    ) -> AbstractPreconditioner:
        """The preconditioner that fits the structure of the metric, at the path with coefficients ``c``."""
        points, velocities = basis.path(self.x, self.y, c)
        structure = jax.eval_shape(self.inner_product, self.x)
        if isinstance(structure, IdentityPlusRankOne):

            def row(point, velocity):
                u, pullback = jax.vjp(lambda z: self.inner_product(z).vector, point)
                return u, pullback(velocity)[0], self.inner_product(point).strength

            u, jtv, strengths = jax.vmap(row)(points, velocities)
            return WoodburyPreconditioner(basis, grams, u, jtv, fraction * strengths)
        if isinstance(structure, DiagonalInnerProduct):
            diagonals = jax.vmap(lambda z: self.inner_product(z).diagonal)(points)
            return DiagonalPreconditioner((1 - fraction) + fraction * (basis.weights @ diagonals))
        matrices = jax.vmap(lambda z: self.inner_product(z).matrix(self.x.size))(points)
        mean = jnp.tensordot(basis.weights, matrices, 1)
        identity = jnp.eye(self.x.size, dtype=self.x.dtype)
        return DensePreconditioner(jnp.linalg.cholesky((1 - fraction) * identity + fraction * mean))
