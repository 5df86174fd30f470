"""Factorisations written in XLA against NumPy's and SciPy's, for all sizes around the blocks, in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from scoregeo._cholesky import inverse_factor, solve_factored, solve_positive

SIZES = (1, 2, 5, 31, 32, 33, 64, 100)


def positive(n, seed, spread=1.0, shape=()):
    random = np.random.default_rng((n, seed))
    vectors = np.linalg.qr(random.standard_normal((*shape, n, n)))[0]
    values = 10 ** random.uniform(0, spread, (*shape, 1, n))
    return (vectors * values) @ np.swapaxes(vectors, -1, -2)


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_factor_is_that_of_the_inverse(n, dtype):
    matrix = positive(n, 0, spread=3.0).astype(dtype)
    factor = np.asarray(inverse_factor(jnp.asarray(matrix)))
    assert factor.dtype == dtype
    np.testing.assert_array_equal(factor, np.tril(factor))
    expected = np.linalg.inv(np.linalg.cholesky(matrix.astype(np.float64)))
    np.testing.assert_allclose(factor, expected, atol=1e3 * n * np.finfo(dtype).eps * np.abs(expected).max())


@pytest.mark.parametrize("n", [3, 40])
def test_only_the_lower_triangle_is_read_and_batches_are_mapped(n):
    matrices = positive(n, 1, shape=(2, 3))
    spoilt = np.where(np.triu(np.ones((n, n)), 1) > 0, np.nan, matrices)
    # NaN above the diagonal would reach every entry, if it were read.
    factors = inverse_factor(jnp.where(jnp.isnan(spoilt), 7.0, spoilt))
    assert factors.shape == matrices.shape
    np.testing.assert_allclose(factors, np.linalg.inv(np.linalg.cholesky(matrices)), atol=1e-12)
    b = np.random.default_rng(0).standard_normal((2, 3, n))
    np.testing.assert_allclose(
        solve_factored(factors, jnp.asarray(b)), np.linalg.solve(matrices, b[..., None])[..., 0], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("n", [2, 40])
def test_what_is_not_positive_is_nan(n):
    indefinite = positive(n, 2) - 5 * np.eye(n)
    assert np.isnan(inverse_factor(jnp.asarray(indefinite))).any()
    assert np.isnan(solve_positive(jnp.asarray(indefinite), jnp.ones(n))).any()


def test_the_empty_matrix():
    assert inverse_factor(jnp.zeros((0, 0))).shape == (0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_solving_an_ill_conditioned_system_is_as_good_as_lapack(seed):
    matrix, b = positive(20, seed, spread=8.0), np.random.default_rng(seed).standard_normal(20)
    x = np.asarray(solve_positive(jnp.asarray(matrix), jnp.asarray(b)))
    reference = np.linalg.solve(matrix, b)
    ours, lapack = (np.linalg.norm(matrix @ z - b) for z in (x, reference))
    assert ours <= 20 * lapack + 1e-13 * np.linalg.norm(matrix) * np.linalg.norm(x)


@pytest.mark.slow
def test_derivatives_in_both_modes_and_twice():
    matrix, b = jnp.asarray(positive(4, 3)), jnp.arange(1.0, 5.0)

    def solve(root, b):
        return solve_positive(root @ root.T, b)

    check_grads(solve, (jnp.linalg.cholesky(matrix), b), order=2, modes=("fwd", "rev"), rtol=1e-4)


def test_no_lapack_in_the_program():
    text = jax.jit(lambda a, b: jax.vmap(solve_positive)(a, b)).lower(jnp.zeros((3, 40, 40)), jnp.zeros((3, 40)))
    assert "lapack" not in text.as_text()
