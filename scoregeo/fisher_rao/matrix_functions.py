"""Functions of symmetric matrices: exponential and logarithm, accurate for close and for far eigenvalues."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from .._numerics import with_own_settings
from .._types import Matrix, Scalar, Vector

# Largest entry, times the dimension, up to which `symmetric_log1p` has all digits.
LOG1P_RANGE = 0.1


def symmetric_log1p(matrix: Matrix) -> Matrix:
    """``logm(I + matrix)`` of a symmetric matrix within `LOG1P_RANGE`, relative to ``matrix``: by its series."""
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    series = identity / 16
    for order in range(15, 0, -1):
        series = identity / order - matrix @ series
    return matrix @ series


def cholesky_gap(excess: Matrix) -> Matrix:
    """``R - I`` with the lower triangular R of ``R R^T = I + excess``, relative to a small ``excess``: by elimination
    on what is small."""
    index = jnp.arange(excess.shape[0])

    def eliminate(rest, k):
        first = rest[k, k] / (1 + jnp.sqrt(1 + rest[k, k]))
        below = jnp.where(index > k, rest[:, k] / (1 + first), 0)
        return rest - jnp.outer(below, below), jnp.where(index == k, first, below)

    return jax.lax.scan(eliminate, excess, index)[1].T


def symmetric_expm(matrix: Matrix) -> Matrix:
    """``expm`` of a symmetric matrix, differentiable to any order also where eigenvalues coincide.

    With the largest eigenvalue taken off, which makes the result at most I, it is a Taylor polynomial of ``expm - I``
    of the matrix divided by 2^10 and ten doublings ``E -> 2 E + E^2``, in which rounding errors do not grow.
    `jax.scipy.linalg.expm` loses up to seven digits of such matrices.
    """
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    # The result does not depend on the shift `largest`, so no derivative flows through it.
    largest = jax.lax.stop_gradient(jnp.linalg.eigvalsh(jax.lax.stop_gradient(matrix))[-1])
    step = (matrix - largest * identity) / 2**10
    taylor = identity
    for order in range(10, 1, -1):
        taylor = identity + step @ taylor / order
    excess = step @ taylor
    for _ in range(10):
        excess = 2 * excess + excess @ excess
    return jnp.exp(largest) * (identity + excess)


@jax.custom_jvp
def gram_log(factor: Matrix, excess: Matrix) -> Matrix:
    """``logm(C C^T)`` for ``factor`` C, given together with ``excess``, which is ``C C^T - I``.

    Far points have singular values of C to more digits than eigenvalues of ``C C^T``; for close points ``excess`` is
    small and is known to more digits than C. Differentiable also where eigenvalues coincide, as they do at coincident
    points (once: not twice).
    """
    return _gram_log(factor, excess)[0]


def _gram_log(factor: Matrix, excess: Matrix) -> tuple[Matrix, Vector, Vector, Matrix]:
    close = jnp.max(jnp.abs(excess)) < 0.1 / excess.shape[0]
    near_values, near_vectors = jnp.linalg.eigh(jnp.where(close, excess, 0))
    # The second factorisation is made to wait for the first: batched ones that run side by side can block each other in
    # jaxlib 0.10 (see `multivariate_normal.lift`).
    far_vectors, far_values, _ = jnp.linalg.svd(factor + 0 * near_values[0])
    logs = jnp.where(close, jnp.log1p(near_values), 2 * jnp.log(far_values))
    vectors = jnp.where(close, near_vectors, far_vectors)
    return (vectors * logs) @ vectors.T, jnp.exp(logs), logs, vectors


@gram_log.defjvp
@with_own_settings
def _gram_log_jvp(primals, tangents):
    result, values, logs, vectors = _gram_log(*primals)
    # Divided differences of the logarithm (Daleckii & Krein): (log x - log y) / (x - y), which is 2 arctanh(u) / (u (x
    # + y)) with u = (x - y) / (x + y) = tanh(h), h = (log x - log y) / 2; h / tanh(h) has a series where h is small.
    h = (logs[:, None] - logs[None]) / 2
    small = jnp.abs(h) < 0.02
    s = jnp.where(small, h, 0) ** 2
    quotient = jnp.where(small, 1 + s / 3 * (1 - s / 15 * (1 - 2 * s / 21)), h / jnp.tanh(jnp.where(small, 1, h)))
    change = vectors.T @ tangents[1] @ vectors
    return result, vectors @ (2 * quotient / (values[:, None] + values[None]) * change) @ vectors.T


@jax.custom_jvp
def squared_log_norm(factor: Matrix, excess: Matrix) -> Scalar:
    """``1/2 |logm(C C^T)|_F^2``, with arguments as in `gram_log` and ``factor`` lower triangular: the squared
    Fisher-Rao distance of the normal distributions N(0, I) and N(0, C C^T). Differentiable twice."""
    return jnp.sum(_gram_log(factor, excess)[2] ** 2) / 2


@squared_log_norm.defjvp
@with_own_settings
def _squared_log_norm_jvp(primals, tangents):
    factor, excess = primals
    logarithm = gram_log(factor, excess)
    gradient = cho_solve((factor, True), logarithm)
    return jnp.sum(logarithm**2) / 2, jnp.sum((gradient + gradient.T) / 2 * tangents[1])
