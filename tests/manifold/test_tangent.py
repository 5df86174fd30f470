"""The tangent space of the data, as operator and basis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import network_score

from scoregeo import FunctionScore, GaussianMixtureScore, GaussianScore, KernelDensityScore, NetworkScore
from scoregeo.manifold import intrinsic_dimension, tangent_projector, tangent_space


def flat(d, k, seed=0):
    """A Gaussian on a random subspace of dimension k with noise of 0.1, and a basis of the subspace."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, k)))[0].T
    scales = np.linspace(1.0, 2.0, k)
    return GaussianScore(np.zeros(d), basis.T @ np.diag(scales) @ basis + 0.01 * np.eye(d)), basis, scales


def posterior_covariance(data, x, sigma):
    """Of clean points given a noisy one, for data that are finitely many points, in NumPy."""
    logs = -0.5 * np.sum((data - x) ** 2, 1) / sigma**2
    weights = np.exp(logs - logs.max()) / np.sum(np.exp(logs - logs.max()))
    centred = data - weights @ data
    return (weights * centred.T) @ centred


@pytest.mark.slow
def test_it_is_the_covariance_of_clean_points():
    rng = np.random.default_rng(1)
    data, x, sigma = rng.normal(size=(20, 4)), rng.normal(size=4), 0.7
    projector = tangent_projector(KernelDensityScore(data, sigma), x, sigma)
    np.testing.assert_allclose(projector.as_matrix(), posterior_covariance(data, x, sigma) / sigma**2, atol=1e-12)
    v = jnp.asarray(rng.normal(size=4))
    np.testing.assert_allclose(projector.mv(v), projector.as_matrix() @ v, atol=1e-12)


def test_a_score_with_curl_is_symmetrised():
    score, x = network_score(2, 3), jnp.array([0.3, -0.2, 0.5])
    jacobian = jax.jacfwd(score)(x)
    assert np.abs(jacobian - jacobian.T).max() > 0.1
    expected = np.eye(3) + 0.09 * (jacobian + jacobian.T) / 2
    np.testing.assert_allclose(tangent_projector(score, x, 0.3).as_matrix(), expected, atol=1e-12)
    values, vectors = np.linalg.eigh(expected)
    basis = tangent_space(score, x, 2, 0.3)
    np.testing.assert_allclose(np.abs(np.sum(basis * vectors.T[:0:-1], 1)), 1, atol=1e-10)
    assert values[2] > values[1] > values[0]


@pytest.mark.parametrize(("d", "k", "dtype"), [(5, 2, "float64"), (150, 3, "float64"), (150, 3, "float32")])
def test_basis(d, k, dtype):
    """By the matrix in few dimensions and by products in many: the subspace, by decreasing eigenvalue."""
    score, basis, _ = flat(d, k)
    score = jax.tree.map(lambda a: a.astype(dtype), score)
    found = tangent_space(score, np.zeros(d, dtype), k, 0.1)
    assert found.shape == (k, d)
    assert found.dtype == dtype
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(found @ found.T, np.eye(k), atol=tolerance)
    np.testing.assert_allclose(np.abs(found), np.abs(basis[::-1]), atol=1e-6 if dtype == "float64" else 2e-2)
    np.testing.assert_allclose(found @ basis.T @ basis, found, atol=tolerance)


def test_a_network_knows_its_noise_level():
    class Net(nnx.Module):
        def __call__(self, x, noise_level):
            return -x / (1 + noise_level**2)

    score, x = NetworkScore(Net(), 0.5), jnp.ones(2)
    np.testing.assert_allclose(tangent_projector(score, x).as_matrix(), np.eye(2) * (1 - 0.25 / 1.25), atol=1e-12)
    np.testing.assert_allclose(intrinsic_dimension(score, x), intrinsic_dimension(score, x, 0.5), rtol=1e-12)


@pytest.mark.slow
def test_variance_preserving_scores():
    """Of alpha x0 + sigma eps: divided by alpha, with the score times alpha, everything is as for x0 + sigma' eps."""
    rng, alpha, sigma = np.random.default_rng(0), 0.6, 0.3
    covs = np.stack([np.diag([1.0, 0.2, 1e-6])] * 2)
    mixture = GaussianMixtureScore(np.full(2, 0.5), rng.normal(size=(2, 3)), covs)
    preserving, x = mixture.noised(alpha, sigma), rng.normal(size=3)
    converted = FunctionScore(lambda x: alpha * preserving(alpha * x), conservative=True)
    exploding = mixture.noised(1.0, sigma / alpha)
    for function in (
        lambda s: intrinsic_dimension(s, x, sigma / alpha),
        lambda s: tangent_projector(s, x, sigma / alpha).mv(x),
    ):
        np.testing.assert_allclose(function(converted), function(exploding), atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3), 2, None), "`noise_level` is missing: a GaussianScore does not know at which noise level"),
        ((np.zeros(3), 4, 0.1), "`k` must be at most the dimension 3 of the points, got 4"),
        ((np.zeros(3), 0, 0.1), "`k` must be an integer of at least 1, got 0"),
        ((np.zeros(3), 1, 0.0), "`noise_level` must be positive, got 0.0"),
        ((np.zeros(3), 1, [0.1, 0.2]), r"`noise_level` must be a scalar, got shape \(2,\)"),
        ((np.zeros((3, 3)), 1, 0.1), r"`x` must have shape \(d,\), got \(3, 3\)"),
        ((np.full(3, np.nan), 1, 0.1), "`x` must be finite"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tangent_space(GaussianScore(np.zeros(3), np.eye(3)), *arguments)


def test_wrong_scores():
    with pytest.raises(ValueError, match="`score` must return shape"):
        tangent_projector(FunctionScore(lambda x: x[:2]), np.zeros(3), 0.1)
    with pytest.raises(TypeError, match="`score` must be an AbstractScore or a callable"):
        tangent_projector(3.0, np.zeros(3), 0.1)


def test_a_noise_level_that_becomes_negative_is_nan():
    score = GaussianScore(np.zeros(2), np.eye(2))
    values = jax.vmap(lambda level: intrinsic_dimension(score, jnp.zeros(2), level))(jnp.array([0.5, -0.5]))
    assert np.isfinite(values[0])
    assert np.isnan(values[1])
