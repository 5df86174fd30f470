"""Preconditioners for the Hessian of the path energy, chosen by the structure that the metric declares.

In the coefficients of `basis`, the Euclidean energy has the identity as Hessian. For G = I + lam u u^T the
Gauss-Newton Hessian is

    P = I + A^T diag(lam w) A,      row q of A:  c -> u_q . c'(t_q) + (J^T v)_q . c(t_q)                  (1)

"identity plus rank Q", where c(t), c'(t) are what the coefficients add to point and velocity. In high dimension its
solve needs, by Woodbury, only the Q x Q Gram matrix A A^T, assembled from inner products of the u_q and (J^T v)_q;
nothing d x d is formed. In low dimension the elements are taken apart: what vanishes at the ends of an element couples
with nothing outside it, so that, again by Woodbury, one small Gram matrix for each element leaves a system for the
displacements X of the ends alone (static condensation).

A metric of rank k has k rows at each quadrature point, and a scale of the identity that is averaged over the path.

For any other metric, P is the energy of the velocities alone, int c'^T G(gamma(t)) c' dt. Without the condition that
the path ends at y, its inverse would be multiplication by G^-1 at each time; with it, a constant covector is added:

    P^-1 r = B r - B e (e^T B e)^-1 e^T B r,      B = projection of multiplication by G(gamma(t))^-1           (2)

with e the constant velocities, so that e^T B e = int G^-1 dt is d x d, or diagonal where G is. In high dimension, for a
metric that is neither, G^-1 is averaged over each element, and the constant covector left out.

`preconditioner_for` chooses, by the type of the inner product and what it answers to the questions of
`scoregeo.metrics`.
"""

import abc
import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._batching import sum_over_columns
from ..._cholesky import inverse_factor, solve_factored
from ..._types import Matrix, Point, Points, Scalar
from ...metrics import AbstractInnerProduct, as_dense, as_diagonal, as_low_rank_update, relaxed
from ..certificate import PathProblem
from .legendre import HIGHEST, Basis, Coefficients

# Dimension up to which the inverse of a metric of no known structure is kept as a matrix for every point.
_MAX_DENSE = 32
# Above, the average over so many points of each element is applied, through the metric's own `solve`.
_POINTS_AVERAGED = 4


class LowRankRows(NamedTuple):
    """What (1) is made of, at one point of a path or at all of them: the factors ``u`` and ``jtv`` ``(..., n, d)``,
    their ``weights`` ``(..., n)``, and the ``scale`` of all of the metric, ``None`` for one."""

    u: Array
    jtv: Array
    weights: Array
    scale: Array | None


class EnergyProblem(PathProblem, Protocol):
    """A problem whose energy is to be preconditioned; ``rows`` are those at the points of the path, where known."""

    rows: LowRankRows | None


class AbstractPreconditioner(eqx.Module):
    """A symmetric positive definite approximation P of the Hessian of the path energy."""

    @abc.abstractmethod
    def solve(self, r: Coefficients) -> Coefficients:
        """``P^-1 r``."""


def _repeated(a: Float[Array, "n m"], times: int) -> Float[Array, "n_times m"]:
    """Each row of ``a`` so many times."""
    return jnp.broadcast_to(a[:, None], (a.shape[0], times, a.shape[1])).reshape(-1, a.shape[1])


def shifted_factor(gram: Float[Array, "*k n n"], shift: Scalar | float) -> Float[Array, "*k n n"]:
    """The `inverse_factor` of ``shift`` times the identity plus matrices that are positive but for rounding, which
    makes large ones slightly indefinite: a preconditioner may be off by that much."""
    n = gram.shape[-1]
    largest = jnp.max(jnp.diagonal(gram, axis1=-2, axis2=-1), -1)
    jitter = shift + n * jnp.finfo(gram.dtype).eps * largest
    return inverse_factor(gram + jitter[..., None, None] * jnp.eye(n, dtype=gram.dtype))


class WoodburyPreconditioner(AbstractPreconditioner):
    """Equation (1), from ``u`` and ``jtv``, ``n`` rows at each of the ``q`` quadrature points, each ``(q, n, d)``, and
    ``strengths`` lam ``(q, n)``."""

    basis: Basis
    u: Float[Array, "qn d"]
    jtv: Float[Array, "qn d"]
    scale: Float[Array, " qn"]
    factor: Float[Array, "qn qn"]  # of the inverse of I + A A^T

    def __init__(
        self,
        basis: Basis,
        u: Float[Array, "q n d"],
        jtv: Float[Array, "q n d"],
        strengths: Float[Array, "q n"],
    ):
        q, n, d = u.shape
        self.basis, self.u, self.jtv = basis, u.reshape(-1, d), jtv.reshape(-1, d)
        self.scale = jnp.sqrt(strengths * basis.weights[:, None]).reshape(-1)
        # All rows of one point have the basis functions of its time.
        grams = jax.tree.map(
            lambda gram: jnp.broadcast_to(gram[:, None, :, None], (q, n, q, n)).reshape(q * n, q * n), basis.grams()
        )

        def products(u, jtv):
            return u @ u.T, u @ jtv.T, jtv @ jtv.T

        u_u, u_jtv, jtv_jtv = sum_over_columns(products, self.u, self.jtv)
        cross = u_jtv * grams.p_phi
        gram = u_u * grams.p_p + cross + cross.T + jtv_jtv * grams.phi_phi
        gram = gram * self.scale[:, None] * self.scale
        self.factor = shifted_factor(gram, 1)

    def solve(self, r: Coefficients) -> Coefficients:
        points, velocities = self.basis.deviation(r)
        q, d = points.shape
        n = self.scale.size // q
        rows = jnp.sum(self.u * _repeated(velocities, n), -1) + jnp.sum(self.jtv * _repeated(points, n), -1)
        b = self.scale * solve_factored(self.factor, self.scale * rows)

        def add_rows(a):
            return jnp.sum((b[:, None] * a).reshape(q, n, d), 1)

        return r - self.basis.adjoint(add_rows(self.jtv), add_rows(self.u))


class CondensedPreconditioner(AbstractPreconditioner):
    """Equation (1), as `WoodburyPreconditioner`, element by element; for ``(k - 1) d`` small against the number of
    rows. ``q`` below are the rows of one element.

    With A_b the rows of A for coefficients j >= 1 and A_x those for the displacements of the ends of the element, the
    system for the displacements is S = Euclid + A_x^T (I + A_b A_b^T)^-1 A_x, summed over elements.
    """

    basis: Basis
    rows: Float[Array, "k q n"]  # A_b, scaled by sqrt(lam w)
    ends: Float[Array, "k q n"]  # A_x, likewise
    factors: Float[Array, "k q q"]  # of the inverses of I + A_b A_b^T
    solved_ends: Float[Array, "k q n"]  # (I + A_b A_b^T)^-1 A_x
    schur: Matrix  # and that of the inverse of S

    def __init__(
        self,
        basis: Basis,
        u: Float[Array, "q n d"],
        jtv: Float[Array, "q n d"],
        strengths: Float[Array, "q n"],
    ):
        self.basis = basis
        _, rank, d = u.shape
        k, n = basis.breaks.size - 1, basis.u.size * rank
        scale = jnp.sqrt(strengths * basis.weights[:, None])[..., None]
        u, jtv = (scale * u).reshape(k, n, 1, d), (scale * jtv).reshape(k, n, 1, d)
        h = basis.widths[:, None, None, None]
        # All rows of one point have the basis functions of its time.
        p, phi = (_repeated(a, rank)[..., None] for a in (basis.p[:, 1:], basis.phi[:, 1:]))
        self.rows = (u * p / jnp.sqrt(h) + jtv * phi * jnp.sqrt(h)).reshape(k, n, -1)
        self.factors = shifted_factor(self.rows @ self.rows.swapaxes(1, 2), 1)
        late = _repeated(jnp.stack([1 - basis.u, basis.u], -1), rank)[..., None]
        sign = jnp.asarray([[-1.0], [1.0]], h.dtype)
        self.ends = (late * jtv + sign * u / h).reshape(k, n, -1)

        half = jnp.matmul(self.factors, self.ends, precision=HIGHEST)
        self.solved_ends = jnp.matmul(self.factors.swapaxes(1, 2), half, precision=HIGHEST)
        local = (self.ends.swapaxes(1, 2) @ self.solved_ends).reshape(k, 2, d, 2, d)
        self.schur = interface_factor(local, 1 / basis.widths)

    def solve(self, r: Coefficients) -> Coefficients:
        k, m, d = r.shape
        root = jnp.sqrt(self.basis.widths)[:, None]
        inside = r[:, 1:].reshape(k, -1)
        b = solve_factored(self.factors, jnp.einsum("kqn,kn->kq", self.rows, inside, precision=HIGHEST))
        moved = -jnp.einsum("kqn,kq->kn", self.ends, b).reshape(k, 2, d)
        flux = r[:, 0] / root
        loads = (moved[:-1, 1] + flux[:-1]) + (moved[1:, 0] - flux[1:])
        displacements = solve_factored(self.schur, loads.reshape(-1)).reshape(k - 1, d)
        displacements = jnp.pad(displacements, ((1, 1), (0, 0)))
        ends = jnp.concatenate([displacements[:-1], displacements[1:]], 1)
        b = b + jnp.einsum("kqn,kn->kq", self.solved_ends, ends)
        bubbles = inside - jnp.einsum("kqn,kq->kn", self.rows, b)
        first = (displacements[1:] - displacements[:-1]) / root
        return jnp.concatenate([first[:, None], bubbles.reshape(k, m - 1, d)], 1)


def interface_factor(local: Float[Array, "k 2 d 2 d"], stiffness: Float[Array, " k"]) -> Float[Array, "e e"]:
    """The `inverse_factor` of the system for the displacements of the ends that elements share: the matrices ``local``
    of the elements for their two ends, plus ``stiffness`` times that of a straight element, summed."""
    k, _, d = local.shape[:3]
    sign = jnp.asarray([[-1.0], [1.0]], local.dtype)
    euclid = (sign * sign.T)[:, None, :, None] * jnp.eye(d, dtype=local.dtype)[:, None]
    local = local + euclid * stiffness[:, None, None, None, None]
    # Block tridiagonal, as a sum of shifted diagonals: scattering blocks takes longer to run and to compile.
    blocks = {
        0: local[1:, 0, :, 0] + local[:-1, 1, :, 1],
        1: local[1:, 0, :, 1],
        -1: local[:-1, 1, :, 0],
    }
    shifts = {offset: jnp.eye(k - 1, k=offset, dtype=local.dtype)[:, None, :, None] for offset in blocks}
    # A sum of Python is 0 for nothing, and never here.
    total = cast(Array, sum(block[:, :, None, :] * shifts[offset] for offset, block in blocks.items()))
    return inverse_factor(total.reshape((k - 1) * d, (k - 1) * d))


class DiagonalPreconditioner(AbstractPreconditioner):
    """Equation (2) for diagonal metrics: ``inverse`` holds the diagonals of G^-1 at the quadrature points ``(q,
    d)``."""

    basis: Basis
    inverse: Points

    def solve(self, r: Coefficients) -> Coefficients:
        weights = self.basis.weights[:, None]
        velocity = self.inverse * self.basis.deviation(r)[1]
        mean = jnp.sum(weights * velocity, 0) / jnp.sum(weights * self.inverse, 0)
        return self.basis.adjoint(jnp.zeros_like(velocity), weights * (velocity - self.inverse * mean))


class DensePreconditioner(AbstractPreconditioner):
    """Equation (2) for small d: ``inverse`` holds G^-1 at the quadrature points ``(q, d, d)``."""

    basis: Basis
    inverse: Float[Array, "q d d"]
    mean: Matrix  # factor of the inverse of their mean

    def __init__(self, basis: Basis, inverse: Float[Array, "q d d"]):
        self.basis, self.inverse = basis, inverse
        self.mean = inverse_factor(jnp.tensordot(basis.weights, inverse, 1, precision=HIGHEST))

    def solve(self, r: Coefficients) -> Coefficients:
        weights = self.basis.weights[:, None]
        velocity = jnp.einsum("qij,qj->qi", self.inverse, self.basis.deviation(r)[1])
        constant = solve_factored(self.mean, jnp.sum(weights * velocity, 0))
        velocity = velocity - self.inverse @ constant
        return self.basis.adjoint(jnp.zeros_like(velocity), weights * velocity)


class AveragedPreconditioner(AbstractPreconditioner):
    """Equation (2) in high dimension: multiplication, on each element, by the average of G^-1 over the ``n`` points at
    which ``products`` are given, through `AbstractInnerProduct.solve`: no matrix is formed that the metric does not
    form."""

    basis: Basis
    products: AbstractInnerProduct  # leaves (k, n, ...)
    fraction: Scalar

    def solve(self, r: Coefficients) -> Coefficients:
        def average(some, rows):
            return jnp.mean(jax.vmap(lambda product: jax.vmap(product.solve)(rows))(some), 0)

        # (1 - f) Euclid + f G has no `solve`; this is its inverse for f = 0 and 1, and larger between.
        return self.basis.project((1 - self.fraction) * r + self.fraction * jax.vmap(average)(self.products, r))


class ScaledPreconditioner(AbstractPreconditioner):
    """``scale`` times another preconditioner, for a positive scalar."""

    preconditioner: AbstractPreconditioner
    scale: Scalar

    def solve(self, r: Coefficients) -> Coefficients:
        return self.preconditioner.solve(r) / self.scale


@functools.singledispatch
def preconditioner_for(
    structure: AbstractInnerProduct, problem: EnergyProblem, basis: Basis, c: Coefficients, fraction: Scalar | float
) -> AbstractPreconditioner:
    """The preconditioner for metrics whose inner products have the type of ``structure``, at the path with projected
    coefficients ``c``, for the part ``fraction`` of the metric.

    ``structure`` is an inner product without values, which says by its type, and by what it answers to `as_diagonal`,
    `as_low_rank_update` and `as_dense`, which preconditioner fits. A type that answers is served; one that needs
    another preconditioner registers a function on this one.
    """
    points, velocities = basis.path(problem.x, problem.y, c)
    d = problem.x.size
    if answers(as_diagonal, structure):
        diagonals = problem.over_points(lambda z: as_diagonal(relaxed(problem.inner_product(z), fraction)), points)
        return DiagonalPreconditioner(basis, 1 / diagonals)
    if answers(as_low_rank_update, structure):
        return low_rank_preconditioner(problem, basis, points, velocities, fraction)
    if d > _MAX_DENSE and not answers(as_dense, structure):
        k, n = basis.breaks.size - 1, basis.u.size
        step = max(1, n // _POINTS_AVERAGED)
        some = points.reshape(k, n, -1)[:, step // 2 :: step]
        products = jax.vmap(jax.vmap(problem.inner_product))(some)
        return AveragedPreconditioner(basis, products, jnp.asarray(fraction, problem.x.dtype))
    factors = inverse_factor(
        problem.over_points(lambda z: relaxed(problem.inner_product(z), fraction).matrix(d), points)
    )
    return DensePreconditioner(basis, jnp.matmul(factors.swapaxes(1, 2), factors, precision=HIGHEST))


def answers(question: Callable, structure: AbstractInnerProduct) -> bool:
    """Whether an inner product of this ``structure``, which has no values, answers ``question``."""
    return jax.eval_shape(question, structure) is not None


def low_rank_parts(
    problem: EnergyProblem, point: Point, fraction: Scalar | float
) -> tuple[Float[Array, "n d"], tuple[Scalar | None, Float[Array, " n"]]]:
    """Factors at ``point``, and scale and weights, of the part ``fraction`` of a metric that answers
    `as_low_rank_update`."""
    answer = as_low_rank_update(relaxed(problem.inner_product(point), fraction))
    assert answer is not None  # its structure has answered
    scale, update = answer
    return update.factors, (scale, update.weights)


def low_rank_rows(problem: EnergyProblem, point: Point, velocity: Point, fraction: Scalar | float) -> LowRankRows:
    """The rows at one point of a path, for `low_rank_parts` there."""

    u, pullback, (scale, weights) = jax.vjp(lambda z: low_rank_parts(problem, z, fraction), point, has_aux=True)

    def pulled(row):
        return pullback(row[:, None] * velocity)[0]

    # One row needs no batch of one, which would be other operations.
    rank = u.shape[0]
    jtv = pullback(velocity[None])[0][None] if rank == 1 else jax.vmap(pulled)(jnp.eye(rank, dtype=u.dtype))
    return LowRankRows(u, jtv, weights, scale)


def low_rank_preconditioner(
    problem: EnergyProblem, basis: Basis, points: Points, velocities: Points, fraction: Scalar | float
) -> AbstractPreconditioner:
    """Equation (1) with as many rows at each point as the rank of the metric."""
    rows = problem.rows
    if rows is None:
        rows = problem.over_points(lambda x, v: low_rank_rows(problem, x, v, fraction), points, velocities)
    u, jtv, weights, scale = rows
    strengths = weights
    if scale is not None:
        # P = s (I + U^T C U), with the average of its factor of the identity taken out.
        mean = basis.weights @ scale
        strengths = scale[:, None] * strengths / mean
    # The cost is that of factors of this size: all rows, or the ends of all elements.
    condensed = 2 * max(basis.breaks.size - 2, 1) * problem.x.size <= strengths.size
    kind = CondensedPreconditioner if condensed else WoodburyPreconditioner
    preconditioner = kind(basis, u, jtv, strengths)
    return preconditioner if scale is None else ScaledPreconditioner(preconditioner, mean)
