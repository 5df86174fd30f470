"""Toy densities: what is drawn follows the density whose score is given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MODES, MODES_SD

from scoregeo import datasets
from scoregeo.scores import GaussianMixtureScore

KEY = jax.random.key(0)
SYNTHETIC = {
    "two_moons": datasets.two_moons,
    "rings": datasets.rings,
    "spiral": datasets.spiral,
    "checkerboard": datasets.checkerboard,
    "banana": datasets.banana,
    "four_modes": datasets.four_modes,
    "three_modes": datasets.three_modes,
}
each_synthetic = pytest.mark.parametrize("name", SYNTHETIC)


@functools.cache
def synthetic(name):
    return SYNTHETIC[name](KEY, 2000)


@pytest.mark.slow
@each_synthetic
def test_synthetic_shapes_and_randomness(name):
    data, again, other = synthetic(name), SYNTHETIC[name](KEY, 2000), SYNTHETIC[name](jax.random.key(1), 2000)
    assert data.points.shape == (2000, 2)
    assert data.name == name
    assert data.standardization is None
    assert data.image_shape is None
    assert data.labels is None or data.labels.shape == (2000,)
    np.testing.assert_array_equal(data.points, again.points)
    assert not np.any(np.asarray(data.points) == np.asarray(other.points))


@pytest.mark.slow
@each_synthetic
def test_density_is_normalised_and_matches_the_sample(name):
    data = synthetic(name)
    # The trapezoidal rule of a smooth density that vanishes at the border converges faster than any power.
    ticks = np.linspace(-1, 1, 301) * (12 if name == "banana" else 4.6)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1)
    density = np.exp(jax.jit(jax.vmap(jax.vmap(data.score.log_prob)))(grid)) * (ticks[1] - ticks[0]) ** 2
    np.testing.assert_allclose(density.sum(), 1, rtol=2e-6)
    # Moments of the density against those of the sample, in standard errors of the latter.
    points = np.asarray(data.points)
    for moment in (lambda x: x[..., 0], lambda x: x[..., 1], lambda x: x[..., 0] * x[..., 1], lambda x: x[..., 1] ** 3):
        sample = moment(points)
        assert abs((density * moment(grid)).sum() - sample.mean()) < 5 * sample.std() / len(points) ** 0.5


@each_synthetic
def test_score_is_the_gradient_of_log_prob(name):
    score = synthetic(name).score
    assert score.conservative
    points = np.concatenate([2 * np.random.default_rng(0).normal(size=(20, 2)), [[40.0, -30.0], [0.0, 0.0]]])
    step, log_prob = 1e-5 * np.eye(2), jax.jit(jax.vmap(score.log_prob))
    slopes = [(log_prob(points + step[i]) - log_prob(points - step[i])) / 2e-5 for i in range(2)]
    np.testing.assert_allclose(jax.jit(jax.vmap(score))(points), np.stack(slopes, -1), rtol=1e-5, atol=1e-4)


@each_synthetic
def test_score_and_its_jacobian_are_finite_far_away_in_float32(name):
    score = synthetic(name).score
    score = jax.tree.map(lambda a: a.astype(np.float32) if jnp.issubdtype(a.dtype, np.floating) else a, score)
    points = np.array([[30.0, 30.0], [-30.0, 0.5], [0.5, -0.5]], np.float32)
    values, tangents = jax.jit(jax.vmap(lambda x: jax.jvp(score, (x,), (jnp.ones_like(x),))))(points)
    assert values.dtype == tangents.dtype == np.float32
    assert np.isfinite(values).all()
    assert np.isfinite(tangents).all()


@pytest.mark.parametrize(("name", "noise"), [("two_moons", 0.1), ("rings", 0.1), ("spiral", 0.08)])
def test_curves_are_mixtures_of_close_places(name, noise):
    score = synthetic(name).score
    assert isinstance(score, GaussianMixtureScore)
    np.testing.assert_allclose(score.covs, np.broadcast_to(noise**2 * np.eye(2), score.covs.shape), atol=1e-12)
    steps = np.linalg.norm(np.diff(np.asarray(score.means), axis=0), axis=-1)
    # All steps along a curve are equal (but for the bend of the curve), and one or no step leads to the next curve.
    typical = np.median(steps)
    assert typical <= noise
    assert (np.abs(steps - typical) > 0.02 * typical).sum() <= (3 if name == "spiral" else 1)
    assert isinstance(score.noised(0.5, 0.3), GaussianMixtureScore)


def test_rings_do_not_ripple():
    score = datasets.rings(KEY, 1, 0.1, radii=[1.0]).score
    angle = np.linspace(0, 2 * np.pi, 1000)
    values = jax.jit(jax.vmap(score.log_prob))(np.stack([np.cos(angle), np.sin(angle)], -1))
    assert values.max() - values.min() < 3e-8


def test_labels_tell_the_curves_apart():
    rings = datasets.rings(KEY, 500, 0.02, radii=(0.5, 1.0, 2.0))
    np.testing.assert_allclose(
        jnp.linalg.norm(rings.points, axis=-1), jnp.array([0.5, 1.0, 2.0])[rings.labels], atol=0.1
    )
    moons = datasets.two_moons(KEY, 500, 0.02)
    assert (moons.points[:, 1][moons.labels == 0] > -0.35).all()
    assert (moons.points[:, 1][moons.labels == 1] < 0.35).all()
    np.testing.assert_allclose(moons.labels.mean(), 0.5, atol=0.1)


def test_labels_of_a_mixture_are_its_components():
    means = jnp.array([[0.0], [100.0]])
    data = datasets.gaussian_mixture(KEY, 1000, jnp.array([0.25, 0.75]), means, jnp.array([[[1.0]], [[4.0]]]))
    np.testing.assert_array_equal(data.labels, data.points[:, 0] > 50)
    np.testing.assert_allclose(data.labels.mean(), 0.75, atol=0.06)
    np.testing.assert_allclose(data.points[data.labels == 1].std(), 2, rtol=0.1)


def test_three_modes_is_the_reference_problem():
    score = synthetic("three_modes").score
    reference = jax.grad(lambda x: jax.nn.logsumexp(-0.5 * jnp.sum((x - MODES) ** 2, -1) / MODES_SD**2))
    x = jnp.array([0.3, 0.8])
    np.testing.assert_allclose(score(x), reference(x), rtol=1e-12)


def test_four_modes_is_standardised():
    score = synthetic("four_modes").score
    mean = score.weights @ score.means
    second = jnp.einsum("k,kij->ij", score.weights, score.covs + jnp.einsum("ki,kj->kij", score.means, score.means))
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(jnp.diagonal(second), 1, atol=0.01)


@each_synthetic
@pytest.mark.parametrize("n", [0, -3, 2.5, True])
def test_synthetic_sets_refuse_bad_counts(name, n):
    with pytest.raises(ValueError, match="`n` must be an integer of at least 1"):
        SYNTHETIC[name](KEY, n)


@pytest.mark.parametrize("name", ["two_moons", "rings", "spiral", "checkerboard"])
@pytest.mark.parametrize("noise", [0.0, -0.1, np.nan, np.inf])
def test_synthetic_sets_refuse_bad_noise(name, noise):
    with pytest.raises(ValueError, match="`noise` must be a positive number"):
        SYNTHETIC[name](KEY, 10, noise)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: datasets.two_moons(KEY, 10, 1e-6), "`noise` must be at least"),
        (lambda: datasets.rings(KEY, 10, radii=(1.0, 0.0)), "`radii` must be one or more positive numbers"),
        (lambda: datasets.rings(KEY, 10, radii=()), "`radii` must be one or more positive numbers"),
        (lambda: datasets.spiral(KEY, 10, turns=0.0), "`turns` must be a positive number"),
        (lambda: datasets.checkerboard(KEY, 10, cells=1), "`cells` must be at least 2"),
        (lambda: datasets.banana(KEY, 10, scales=(1.0, -1.0)), "`scales` must be two positive numbers"),
        (lambda: datasets.banana(KEY, 10, curvature=np.nan), "`curvature` must be a finite number"),
    ],
)
def test_synthetic_sets_refuse_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
