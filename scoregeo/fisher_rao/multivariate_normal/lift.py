"""Geodesics of normal distributions, by lifting them to positive definite matrices of size 2d + 1.

Let N(0, I) be the start (else whiten it: all affine maps are isometries) and N(m, S) the end, S = R R^T. For every skew
matrix A,

    G(A) = L L^T,   L = [[R^-T, 0, 0], [m^T R^-T, 1, 0], [(A - m m^T / 2) R^-T, -m, R]],                  (1)

lies over N(m, S): the lift is a symmetric space in which the geodesic from I to G has length 1/2 |log G|_F, and normal
distributions with their Fisher-Rao metric are its quotient by A. Hence

    dist = min over A of 1/2 |log G(A)|_F,   log G = [[-W, u, -C], [u^T, 0, -u^T], [C, -u, W]],             (2)

with u a vector, W symmetric and C skew; the derivative of dist^2 / 2 with respect to the entries of A below its
diagonal is those of C. Where C = 0 the path in the lift is horizontal, and lies over the geodesic with initial velocity
m' = u, S' = W:

    exp(t log G) = [[S^-1, S^-1 m, .], [m^T S^-1, ., .], [., ., .]]  at time t.                               (3)

The momenta of translations and of linear maps are constant along it:

    S^-1 m' = u,   S^-1 S' + u m^T = W.                                                                      (4)

(3) is due to P. S. Eriksen (1987); see Calvo & Oller (Statistics & Decisions 9, 1991), Imai, Takaesu & Wakayama (2011)
and Kobayashi (arXiv 2304.12575) for the lift.

The calls of LAPACK below depend on one another, one after the other, on purpose. In jaxlib 0.10 a batched call on the
CPU waits for the thread pool it runs in, and as many of them side by side as there are cores wait for ever.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from ..._batching import compacted_while_loop, select
from ..._numerics import with_own_settings
from ..._results import RESULTS, first_failure
from ..._types import Matrix, Scalar, Vector
from ..matrix_functions import LOG1P_RANGE, cholesky_gap, symmetric_log1p

# A is told by its e = d (d - 1) / 2 entries below the diagonal, and L has N = 2 d + 1 rows.
_Below = Float[Array, " e"]
_Lift = Float[Array, "N N"]
# The part of a Newton step below which no step is tried any more: it is where rounding hides that the function falls.
_SHORTEST = 1e-8


class Minimum(NamedTuple):
    """Where Newton's method ended: entries of A below the diagonal, squared length ``decrement`` of the next Newton
    step, largest singular value of L, evaluations, and the code of how it ended."""

    a: _Below
    decrement: Scalar
    largest: Scalar
    steps: Array
    result: RESULTS


class _Evaluated(NamedTuple):
    """The function at some A: its value, the Newton step from there with its squared length ``decrement``, and twice
    the logarithm of the largest singular value of L."""

    value: Scalar
    step: _Below
    decrement: Scalar
    largest: Scalar


class End(NamedTuple):
    """The end N(``m``, ``r r^T``), ``r`` lower triangular, with the ``inverse`` of ``r``; and, where the end is
    ``close`` to N(0, I), both minus the identity, to more digits: ``gap`` and ``inverse_gap``."""

    m: Vector
    r: Matrix
    inverse: Matrix
    gap: Matrix
    inverse_gap: Matrix
    close: Array

    @classmethod
    def of(cls, m: Vector, r: Matrix, excess: Matrix) -> "End":
        """The end, from its whitened covariance minus the identity, ``excess``, besides its factor ``r``."""
        size = 2 * m.size + 1
        close = jnp.maximum(jnp.max(jnp.abs(excess)), jnp.max(jnp.abs(m))) < LOG1P_RANGE / (4 * size)
        gap = cholesky_gap(jnp.where(close, excess, 0))
        near = jnp.where(close, jnp.eye(m.size, dtype=m.dtype) + gap, r)
        inverse = _triangular_inverse(near)
        return cls(m, near, inverse, gap, -inverse @ gap, close)


def minimise(end: End, tolerance: float, max_steps: int) -> Minimum:
    """The minimum of dist^2 / 2 of equation (2), from A = 0, for the given end.

    Newton's method with the absolute values of the eigenvalues of the Hessian, and steps shortened until the function
    falls. Far from the minimum the function grows like the squared logarithm of A, and is not convex; from random A it
    came to the same minimum always.
    """
    eps = jnp.finfo(end.m.dtype).eps

    def is_small(at):
        # Points that are equal up to rounding have a distance of about eps, and a step in any direction.
        return at.decrement <= jnp.maximum(tolerance**2 * 2 * at.value, (100 * eps) ** 2)

    def unfinished(state):
        _, at, fraction, steps = state
        return _is_finite(at) & ~is_small(at) & (fraction > _SHORTEST) & (steps < max_steps)

    def body(end, state):
        a, at, fraction, steps = state
        trial = a + fraction * at.step
        new = _evaluate(end, trial)
        # The value may rise by its rounding error, which near the minimum is all that is left of its changes.
        falls = new.value <= at.value - 1e-4 * fraction * at.decrement + 10 * eps * at.value
        a, at = select(falls, (trial, new), (a, at))
        return a, at, jnp.where(falls, 1, fraction / 4).astype(a.dtype), steps + 1

    m = end.m
    a = jnp.zeros(m.size * (m.size - 1) // 2, m.dtype)
    state = (a, _evaluate(end, a), jnp.ones((), m.dtype), jnp.ones((), jnp.int32))
    size = (2 * m.size + 1) ** 2
    a, at, fraction, steps = compacted_while_loop(unfinished, body, state, end, numbers_per_lane=size)
    failures = [
        (~_is_finite(at), RESULTS.metric_nonfinite),
        (fraction <= _SHORTEST, RESULTS.stalled),
        (~is_small(at), RESULTS.solver_steps_reached),
    ]
    return Minimum(a, at.decrement, jnp.exp(at.largest / 2), steps, first_failure(failures))


def _evaluate(end: End, a: _Below) -> _Evaluated:
    """The function of equation (2) at ``a``."""
    m, at = end.m, _logarithm(_lift(end.m, end.r, end.inverse, a))
    value = jnp.sum(at.logs[: m.size] ** 2) / 4
    if m.size == 1:
        return _Evaluated(value, a, jnp.zeros_like(value), at.logs[0])
    gradient = _below(at.matrix()[m.size + 1 :, : m.size])
    curvatures, directions = jnp.linalg.eigh(at.hessian())
    size = jnp.abs(curvatures)
    size = jnp.maximum(size, jnp.finfo(m.dtype).eps * jnp.max(size))
    components = directions.T @ gradient
    return _Evaluated(value, -directions @ (components / size), jnp.sum(components**2 / size), at.logs[0])


def _is_finite(at: _Evaluated) -> Array:
    return jnp.isfinite(at.value) & jnp.isfinite(at.decrement)


@jax.custom_jvp
def initial_velocity(m: Vector, r: Matrix, a: _Below, end: End) -> tuple[Vector, Matrix, _Below]:
    """``u`` and ``W`` of equation (2) at the minimum ``a``, and ``a`` itself, as functions of ``m`` and ``r``; ``end``
    is the same end, as a constant."""
    d = m.size
    log = _logarithm(_lift(m, r, end.inverse, a)).matrix()
    # The singular values of close points would have lost the digits of their logarithms.
    change = _blocks(m, end.gap, end.inverse_gap, end.inverse, a, 0)
    excess = change + change.T + change @ change.T
    close = end.close & (jnp.max(jnp.abs(excess)) < LOG1P_RANGE / log.shape[0])
    log = jnp.where(close, symmetric_log1p(jnp.where(close, excess, 0)), log)
    return log[d, :d], -log[:d, :d], a


@initial_velocity.defjvp
@with_own_settings
def _initial_velocity_jvp(primals, tangents):
    """The implicit function theorem: A moves so that C stays zero."""
    m, r, a, end = primals
    d = m.size
    out = initial_velocity(m, r, a, end)
    a = out[2]  # and not primals[2]: second derivatives must see that it depends on m and r
    lift, dlift = jax.jvp(lambda m, r: _lift(m, r, _triangular_inverse(r), a), (m, r), tangents[:2])
    at = _logarithm(lift)
    change = at.change((at.left.T @ dlift @ at.right.T) * jnp.exp(-at.logs / 2))
    da = jnp.zeros_like(a)
    if d > 1:
        c = at.left[d + 1 :] @ change @ at.left[:d].T
        da = -jnp.linalg.solve(at.hessian(), _below((c - c.T) / 2))
        change = change + at.change(at.left[d + 1 :].T @ _skew(da, d) @ at.left[:d])
    dlog = at.left @ change @ at.left.T
    return out, (dlog[d, :d], -dlog[:d, :d], da)


@jax.custom_jvp
def energy(m: Vector, r: Matrix, u: Vector, w: Matrix) -> Scalar:
    """``dist^2 / 2`` as a function of ``m`` and ``r``, where ``u`` and ``w`` are the initial velocity."""
    return (u @ u + jnp.sum(w**2) / 2) / 2


@energy.defjvp
@with_own_settings
def _energy_jvp(primals, tangents):
    """The envelope theorem: the momentum (4) at the end, u and (W - u m^T) S^-1 / 2, is applied to its motion."""
    m, r, u, w = primals
    momentum = (w - jnp.outer(u, m)) @ _triangular_inverse(r).T
    return energy(*primals), u @ tangents[0] + jnp.sum(momentum * tangents[1])


def geodesic_from_identity(u: Vector, w: Matrix, t: Scalar) -> tuple[Vector, Matrix, Vector, Matrix]:
    """``m``, ``S``, ``m'`` and ``S'`` at time ``t`` of the geodesic from N(0, I) with velocity ``u``, ``w``: (3), (4).

    With E = exp(t X / 2), exp(t X) = E E^T: a QR factorisation of rows of E loses half the digits that one of exp(t X)
    would.
    """
    d = u.size
    row, zero = u[None], jnp.zeros_like(w)
    generator = jnp.block([[-w, row.T, zero], [row, jnp.zeros((1, 1), u.dtype), -row], [zero, -row.T, w]])
    root = _exponential(generator, t / 2)
    q, triangle = jnp.linalg.qr(root[:d].T)
    right = jnp.concatenate([(q.T @ root[d])[:, None], jnp.eye(d, dtype=u.dtype)], 1)
    solved = solve_triangular(triangle, right)
    m, s = solved[:, 0], solved[:, 1:] @ solved[:, 1:].T
    return m, s, s @ u, s @ (w - jnp.outer(u, m))


@jax.custom_jvp
def _exponential(x: Matrix, t: Scalar) -> Matrix:
    """``exp(t x)`` of a symmetric matrix. Many times ``t`` (`jax.vmap`) need one eigenvalue decomposition."""
    values, vectors = jnp.linalg.eigh(x)
    return (vectors * jnp.exp(t * values)) @ vectors.T


@_exponential.defjvp
@with_own_settings
def _exponential_jvp(primals, tangents):
    """The formula of Daleckii and Krein: divided differences of exp, smooth at repeated eigenvalues."""
    (x, t), (dx, dt) = primals, tangents
    values, vectors = jnp.linalg.eigh(x)
    powers = jnp.exp(t * values)
    out = (vectors * powers) @ vectors.T
    gaps = t * (values[:, None] - values)
    small = jnp.abs(gaps) < 1e-6
    quotients = powers * jnp.where(small, 1 + gaps / 2, jnp.expm1(gaps) / jnp.where(small, 1, gaps))
    return out, vectors @ (quotients * (vectors.T @ (t * dx) @ vectors)) @ vectors.T + dt * (x @ out)


class _Logarithm(NamedTuple):
    """``log G`` (2) from the singular value decomposition ``left diag(exp(logs / 2)) right`` of L, which keeps twice
    as many digits as the eigenvalues of G = L L^T. These come in pairs of opposite signs, of which only the positive
    ones are taken from it: the others are lost to rounding first.

    In the basis ``left``, a change ``dL L^-1 = E`` changes log G by ``kernel * E + (kernel * E)^T``, with ``kernel_ij =
    b(logs_i - logs_j)``, b(x) = x / (exp(x) - 1): the formula of Daleckii and Krein, smooth at repeated eigenvalues. A
    change of A is the lower left block of E.
    """

    left: _Lift
    logs: Float[Array, " N"]
    right: _Lift
    kernel: _Lift

    def matrix(self) -> _Lift:
        """``log G``: the part of its positive eigenvalues, minus that with the first and last d rows and columns
        exchanged."""
        d = self.logs.size // 2
        positive = (self.left[:, :d] * self.logs[:d]) @ self.left[:, :d].T
        mirror = np.r_[d + 1 : 2 * d + 1, d, :d]
        return positive - positive[mirror][:, mirror]

    def change(self, e: _Lift) -> _Lift:
        """The change of log G, in the basis ``left``, that belongs to ``e``."""
        half = self.kernel * e
        return half + half.T

    def hessian(self) -> Float[Array, "e e"]:
        """The Hessian of dist^2 / 2 in the entries of A below its diagonal: how C changes with A."""
        d = self.logs.size // 2
        top, bottom = self.left[:d], self.left[d + 1 :]
        same = jnp.einsum("pi,ri,ij,qj,sj->pqrs", bottom, bottom, self.kernel, top, top)
        turned = jnp.einsum("pi,si,ji,rj,qj->pqrs", bottom, top, self.kernel, bottom, top)
        change = same + turned
        change = change - jnp.swapaxes(change, 2, 3)
        change = (change - jnp.swapaxes(change, 0, 1)) / 2
        p, q = np.tril_indices(d, -1)
        return change[p[:, None], q[:, None], p, q]


def _logarithm(lift: _Lift) -> _Logarithm:
    d = lift.shape[0] // 2
    left, singular, right = jnp.linalg.svd(lift)
    positive = 2 * jnp.log(singular[:d])
    logs = jnp.concatenate([positive, jnp.zeros_like(positive[:1]), -positive[::-1]])
    x = logs[:, None] - logs
    small = jnp.abs(x) < 1e-6
    kernel = jnp.where(small, 1 - x / 2, x / jnp.expm1(jnp.where(small, 1, x)))
    return _Logarithm(left, logs, right, kernel)


def _lift(m: Vector, r: Matrix, inverse: Matrix, a: _Below) -> _Lift:
    """The factor L of equation (1); ``inverse`` of ``r``."""
    return _blocks(m, r, inverse, inverse, a, 1)


def _blocks(m: Vector, last: Matrix, first: Matrix, inverse: Matrix, a: _Below, one: float) -> _Lift:
    """L with these on its diagonal: R^-1 and R, or both minus the identity and zero for ``one``."""
    d = m.size
    column, zero = jnp.zeros((d, 1), m.dtype), jnp.zeros((d, d), m.dtype)
    return jnp.block(
        [
            [first.T, column, zero],
            [(inverse @ m)[None], jnp.full((1, 1), one, m.dtype), column.T],
            [(_skew(a, d) - jnp.outer(m, m) / 2) @ inverse.T, -m[:, None], last],
        ]
    )


def _skew(a: _Below, d: int) -> Matrix:
    """The skew matrix with entries ``a`` below its diagonal."""
    lower = jnp.zeros((d, d), a.dtype).at[np.tril_indices(d, -1)].set(a, unique_indices=True)
    return lower - lower.T


def _below(matrix: Matrix) -> _Below:
    """The entries below the diagonal."""
    return matrix[np.tril_indices(matrix.shape[0], -1)]


def _triangular_inverse(r: Matrix) -> Matrix:
    return solve_triangular(r, jnp.eye(r.shape[0], dtype=r.dtype), lower=True)
