"""Inverses of small positive definite matrices, written in XLA: no LAPACK inside compiled solvers.

jaxlib's LAPACK is SciPy's OpenBLAS. Above 128 rows it spins on a thread for each core, which takes hundreds of times as
long wherever another process holds one of them; and batched calls that run side by side wait for room in one thread
pool, sometimes forever (jaxlib 0.10). On accelerators such calls leave the compiled program.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_HIGHEST = jax.lax.Precision.HIGHEST
# Rows that are eliminated one by one; blocks of so many rows are eliminated by matrix products.
_BLOCK = 32


def inverse_factor(matrix: Float[Array, "... n n"]) -> Float[Array, "... n n"]:
    """The lower triangular ``W`` with ``W^T W = matrix^-1``, of symmetric positive definite ``matrix``; NaN where a
    matrix is not. Only lower triangles are read. Not to be differentiated: see `solve_positive`.

    Row by row of ``W A``, in place: where a column of A has been eliminated, one of W takes its room.

    >>> import jax.numpy as jnp
    >>> inverse_factor(jnp.array([[4.0, 0.0], [0.0, 16.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    if matrix.ndim > 2:
        return jax.vmap(inverse_factor)(matrix)
    n = matrix.shape[0]
    if n == 0:
        return matrix
    size = min(n, _BLOCK)
    blocks = -(-n // size)
    padded = blocks * size
    a = jnp.tril(matrix) + jnp.tril(matrix, -1).T
    if padded > n:
        a = jnp.eye(padded, dtype=a.dtype).at[:n, :n].set(a)
    if blocks == 1:
        return jnp.tril(_eliminated(a))
    place = jnp.arange(padded) // size

    def eliminate(k, m):
        start = k * size
        rows = jax.lax.dynamic_slice(m, (start, 0), (size, padded))
        factor = jnp.tril(_eliminated(jax.lax.dynamic_slice(rows, (0, start), (size, size))))
        rows = jax.lax.dynamic_update_slice(jnp.matmul(factor, rows, precision=_HIGHEST), factor, (0, start))
        columns = jax.lax.dynamic_slice(m, (0, start), (padded, size))
        below = (place > k)[:, None]
        columns = jnp.where(below, jnp.matmul(columns, factor.T, precision=_HIGHEST), 0)
        m = jnp.where(below & (place == k), 0, m) - jnp.matmul(columns, rows, precision=_HIGHEST)
        return jax.lax.dynamic_update_slice(m, rows, (start, 0))

    return jnp.tril(jax.lax.fori_loop(0, blocks, eliminate, a)[:n, :n])


def _eliminated(a: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """`inverse_factor` with leftovers above its diagonal."""
    place = jnp.arange(a.shape[0])

    def eliminate(k, m):
        row, column, here = m[k], m[:, k], place == k
        root = jax.lax.rsqrt(row[k])
        row = jnp.where(here, root, row * root)
        below = place > k
        m = jnp.where(below[:, None] & here, 0, m) - jnp.where(below, column * root, 0)[:, None] * row
        return jnp.where(here[:, None], row, m)

    return jax.lax.fori_loop(0, a.shape[0], eliminate, a)


def solve_factored(factor: Float[Array, "... n n"], b: Float[Array, "... n"]) -> Float[Array, "... n"]:
    """``A^-1 b``, for the `inverse_factor` of A."""
    half = jnp.einsum("...ij,...j->...i", factor, b, precision=_HIGHEST)
    return jnp.einsum("...ji,...j->...i", factor, half, precision=_HIGHEST)


def solve_positive(matrix: Float[Array, "n n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """``matrix^-1 b`` for a symmetric positive definite ``matrix``, NaN where it is not; differentiable in both modes
    and to any order.

    >>> import jax.numpy as jnp
    >>> solve_positive(jnp.array([[2.0, 0.0], [0.0, 4.0]]), jnp.array([1.0, 1.0])).tolist()
    [0.5, 0.25]
    """
    factor = inverse_factor(jax.lax.stop_gradient(matrix))
    solve = refined(lambda b: solve_factored(factor, b))
    return jax.lax.custom_linear_solve(lambda v: jnp.matmul(matrix, v, precision=_HIGHEST), b, solve, symmetric=True)


def refined(once: Callable[[Array], Array]) -> Callable[[Callable[[Array], Array], Array], Array]:
    """A solve for `jax.lax.custom_linear_solve` by ``once``, and again for what that leaves: the digits that a factor
    loses of an ill-conditioned matrix, or Woodbury's difference."""

    def solve(multiply, b):
        x = once(b)
        return x + once(b - multiply(x))

    return solve
