"""The preconditioner of graph metrics G = floor I + lam F^T F whose feature has many values.

What such a path costs is the energy of its lift, whose velocity is F(gamma) gamma'. To first order, coefficients c
change that by F c'(t) + F' c(t), with F' = D^2 f(gamma', .), so that the Gauss-Newton Hessian of the path energy is

    P = floor I + A^T diag(lam w) A,      rows q of A:  c -> F_q c'(t_q) + F'_q c(t_q)                    (1)

In low dimension the elements are taken apart, as in `CondensedPreconditioner`: what vanishes at the ends of an element
couples with nothing outside it, and elimination leaves a block tridiagonal system for the displacements of the ends.
Here the matrix of an element is eliminated as it is, because (1) has more rows than columns.

In high dimension F is never formed, and Euclid is the preconditioner: F is of the size of one for features that
charge for leaving the data (``noise_level^2`` times a score), so that conjugate gradients need about the root of lam
steps, and fewer where few directions are charged for. Approximate inverses of G at each point know nothing of F'.
"""

from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._cholesky import solve_factored
from ..._types import Point, Points, Scalar
from ...metrics import GraphInnerProduct, as_low_rank_update
from .legendre import HIGHEST, Basis, Coefficients
from .preconditioners import (
    AbstractPreconditioner,
    EnergyProblem,
    answers,
    interface_factor,
    low_rank_preconditioner,
    preconditioner_for,
    shifted_factor,
)

# Coefficients of one element up to which its matrix is formed and eliminated.
_MAX_ELIMINATED = 512
# Numbers of the Jacobians that are held at once.
_MAX_HELD = 2**22


class ElementPreconditioner(AbstractPreconditioner):
    """Equation (1) for small d, from the products ``F^T F``, ``F^T F'`` and ``F'^T F'`` at the quadrature points, each
    ``(q, d, d)`` and weighted by lam and the quadrature, and the factor ``floor`` of the identity."""

    basis: Basis
    factors: Float[Array, "k n n"]  # of the inverses of the matrices of the elements, without their ends
    ends: Float[Array, "k n two_d"]  # how what is in an element couples with its ends
    solved_ends: Float[Array, "k n two_d"]
    interface: Float[Array, "e e"]  # factor of the inverse of what is left for the ends

    def __init__(
        self,
        basis: Basis,
        velocity: Float[Array, "q d d"],
        mixed: Float[Array, "q d d"],
        displacement: Float[Array, "q d d"],
        floor: Scalar,
    ):
        self.basis = basis
        d, k, points = velocity.shape[-1], basis.breaks.size - 1, basis.u.size
        h = basis.widths[:, None, None]
        one = jnp.ones_like(basis.u)
        # What each function of an element does to velocity and displacement at its points: first what vanishes at the
        # ends, then the displacements of these.
        inner = jnp.concatenate([basis.p[:, 1:] / jnp.sqrt(h), jnp.stack([-one, one], -1) / h], -1)
        late = jnp.broadcast_to(jnp.stack([1 - basis.u, basis.u], -1), (k, points, 2))
        outer = jnp.concatenate([basis.phi[:, 1:] * jnp.sqrt(h), late], -1)
        functions = inner.shape[-1]

        def local(a, b, product):
            pairs = (a[..., :, None] * b[..., None, :]).reshape(k, points, -1)
            sums = jnp.einsum("kqi,kqj->kij", pairs, product.reshape(k, points, -1), precision=HIGHEST)
            return sums.reshape(k, functions, functions, d, d)

        cross = local(inner, outer, mixed)
        total = local(inner, inner, velocity) + local(outer, outer, displacement)
        total = total + cross + cross.transpose(0, 2, 1, 4, 3)
        total = total.swapaxes(2, 3).reshape(k, functions * d, functions * d)
        n = (functions - 2) * d
        inside = total[:, :n, :n]
        self.factors = shifted_factor(inside, floor)
        self.ends = total[:, :n, n:]
        half = jnp.matmul(self.factors, self.ends, precision=HIGHEST)
        self.solved_ends = jnp.matmul(self.factors.swapaxes(1, 2), half, precision=HIGHEST)
        rest = total[:, n:, n:] - jnp.matmul(half.swapaxes(1, 2), half, precision=HIGHEST)
        self.interface = interface_factor(rest.reshape(k, 2, d, 2, d), floor / basis.widths)

    def solve(self, r: Coefficients) -> Coefficients:
        k, m, d = r.shape
        root = jnp.sqrt(self.basis.widths)[:, None]
        inside = solve_factored(self.factors, r[:, 1:].reshape(k, -1))
        moved = -jnp.einsum("knj,kn->kj", self.solved_ends, r[:, 1:].reshape(k, -1), precision=HIGHEST)
        moved, flux = moved.reshape(k, 2, d), r[:, 0] / root
        loads = (moved[:-1, 1] + flux[:-1]) + (moved[1:, 0] - flux[1:])
        displacements = solve_factored(self.interface, loads.reshape(-1)).reshape(k - 1, d)
        displacements = jnp.pad(displacements, ((1, 1), (0, 0)))
        ends = jnp.concatenate([displacements[:-1], displacements[1:]], 1)
        bubbles = inside - jnp.einsum("knj,kj->kn", self.solved_ends, ends, precision=HIGHEST)
        first = (displacements[1:] - displacements[:-1]) / root
        return jnp.concatenate([first[:, None], bubbles.reshape(k, m - 1, d)], 1)


class EuclideanPreconditioner(AbstractPreconditioner):
    """``scale`` times the Hessian of the Euclidean energy, which is the identity."""

    scale: Scalar

    def solve(self, r: Coefficients) -> Coefficients:
        return r / self.scale


@preconditioner_for.register
def _(
    structure: GraphInnerProduct, problem: EnergyProblem, basis: Basis, c: Coefficients, fraction: Scalar | float
) -> AbstractPreconditioner:
    points, velocities = basis.path(problem.x, problem.y, c)
    if answers(as_low_rank_update, structure):
        return low_rank_preconditioner(problem, basis, points, velocities, fraction)
    floor = jnp.ones((), problem.x.dtype)
    if structure.floor is not None:  # it may be another one at each point
        floors = problem.over_points(lambda x: _product(problem, x).floor, points)
        floor = (1 - fraction) + fraction * (basis.weights @ floors)
    if (basis.p.shape[1] - 1) * problem.x.size > _MAX_ELIMINATED:
        return EuclideanPreconditioner(floor)
    velocity, mixed, displacement = _grams(structure, problem, points, velocities)
    weights = (fraction * basis.weights)[:, None, None]
    return ElementPreconditioner(basis, weights * velocity, weights * mixed, weights * displacement, floor)


def _product(problem: EnergyProblem, x: Point) -> GraphInnerProduct:
    return cast(GraphInnerProduct, problem.inner_product(x))


def _grams(
    structure: GraphInnerProduct, problem: EnergyProblem, points: Points, velocities: Points
) -> tuple[Float[Array, "q d d"], Float[Array, "q d d"], Float[Array, "q d d"]]:
    """``F^T F``, ``F^T F'`` and ``F'^T F'``, times lam, at all points, with the Jacobians of few at a time where they
    are large."""

    def at_point(x, v):
        rows, turned = jax.jvp(lambda y: _product(problem, y).jacobian(), (x,), (v,))
        strength = jnp.reshape(_product(problem, x).strength, (-1, 1))
        charged = strength * turned
        return rows.T @ (strength * rows), rows.T @ charged, turned.T @ charged

    rank = jax.eval_shape(GraphInnerProduct.push, structure, structure.x).size
    held = max(1, _MAX_HELD // (rank * problem.x.size))
    if points.shape[0] <= held:
        return problem.over_points(at_point, points, velocities)
    return jax.lax.map(lambda arrays: at_point(*arrays), (points, velocities), batch_size=held)
