"""Evaluation by data alone: exact scores are calibrated, memorised and distorted ones are not."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from scoregeo.diffusion import evaluate_held_out, memorization
from scoregeo.scores import FunctionScore, GaussianMixtureScore, GaussianScore, KernelDensityScore

# Of no sample: noise must not repeat what the points were made of.
KEY = jax.random.key(100)
MIXTURE = GaussianMixtureScore(
    jnp.array([0.5, 0.5]), jnp.array([[-1.0, 0.0], [1.0, 0.5]]), jnp.stack([0.1 * jnp.eye(2), 0.05 * jnp.eye(2)])
)


class Exact(eqx.Module):
    """The exact score of a distribution, or ``factor`` times it."""

    exact: eqx.Module
    factor: float = 1.0

    def score_at(self, sigma):
        exact = self.exact.noised(1.0, sigma)
        return exact if self.factor == 1 else FunctionScore(lambda x: self.factor * exact(x))


class Memorised(eqx.Module):
    """The score of the training points themselves."""

    train: jax.Array

    def score_at(self, sigma):
        return KernelDensityScore(self.train, sigma)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_exact_score_is_calibrated(seed):
    points = MIXTURE.sample(jax.random.key(seed), 3000)
    report = evaluate_held_out(Exact(MIXTURE), points, (0.05, 0.2, 1.0), key=KEY)
    assert (np.abs(report.calibration - 1) < 4 * report.calibration_error).all()
    assert (report.calibration_error < 0.05).all()
    assert (report.loss < report.trivial_loss).all()
    assert report.recommended_sigma == 0.05


def test_figures_of_a_gaussian():
    """For N(0, I) in d = 3 and noise r: loss 1 / (1 + r^2), and with ``a`` times the score, x_0 - D in closed form."""
    exact, sigma, a = GaussianScore(jnp.zeros(3), jnp.eye(3)), 0.5, 1.3
    points = exact.sample(jax.random.key(3), 20_000)
    report = evaluate_held_out(Exact(exact), points, [sigma], key=KEY)
    np.testing.assert_allclose(report.loss, 1 / (1 + sigma**2), rtol=0.02)
    np.testing.assert_allclose(report.trivial_loss, report.loss, rtol=2e-3)
    np.testing.assert_allclose(report.detail, 0, atol=0.03)
    assert np.isnan(report.recommended_sigma)  # it says nothing beyond a Gaussian
    total = 1 + sigma**2
    found = 1 - 2 * a * sigma**2 / total + a**2 * sigma**2 / total
    expected = 1 - a * sigma**2 / total
    report = evaluate_held_out(Exact(exact, a), points, [sigma], key=KEY)
    np.testing.assert_allclose(report.calibration, found / expected, rtol=0.02)
    np.testing.assert_allclose(report.loss, found, rtol=0.02)


@pytest.mark.slow
def test_memorising_shows_and_is_not_recommended():
    train = MIXTURE.sample(jax.random.key(1), 100)
    fresh = MIXTURE.sample(jax.random.key(2), 2000)
    report = evaluate_held_out(Memorised(train), fresh, (0.02, 0.05, 0.1, 0.5), key=KEY)
    assert report.calibration[0] > 2 > 1.3 > report.calibration[-1]
    assert not report.recommended_sigma <= 0.05
    on_train = evaluate_held_out(Memorised(train), train, [0.02], key=KEY)
    assert on_train.loss[0] < report.loss[0] / 2


def test_a_gap_above_a_trusted_level_rules_it_out():
    """Levels below the first that cannot be trusted are not recommended, however good they look."""

    class Spoiled(eqx.Module):
        def score_at(self, sigma):
            exact, factor = MIXTURE.noised(1.0, sigma), jnp.where(jnp.abs(sigma - 0.2) < 1e-6, 2.0, 1.0)
            return FunctionScore(lambda x: factor * exact(x))

    points = MIXTURE.sample(jax.random.key(3), 2000)
    assert evaluate_held_out(Spoiled(), points, (0.4, 0.1, 0.2), key=KEY).recommended_sigma == 0.4


def test_what_is_not_known_is_not_trusted():
    """Few points give large standard errors; a level that gives NaN ends the search from above."""
    points = MIXTURE.sample(jax.random.key(3), 2000)
    assert evaluate_held_out(Exact(MIXTURE), points, (0.1,), key=KEY).recommended_sigma == 0.1
    few = evaluate_held_out(Exact(MIXTURE), points[:6], (0.1,), key=KEY, tolerance=0.01)
    assert few.calibration_error > 0.01
    assert np.isnan(few.recommended_sigma)

    class Broken(eqx.Module):
        def score_at(self, sigma):
            exact = MIXTURE.noised(1.0, sigma)
            return FunctionScore(lambda x: exact(x) + jnp.where(sigma > 0.3, jnp.nan, 0.0))

    assert np.isnan(evaluate_held_out(Broken(), points, (0.1, 0.4), key=KEY).recommended_sigma)


def test_report_is_json_and_text():
    exact = GaussianScore(jnp.zeros(3), jnp.eye(3))
    report = evaluate_held_out(Exact(exact), exact.sample(jax.random.key(3), 2000), [0.5], key=KEY)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["recommended_sigma"] is None
    assert "no noise level here can be trusted" in str(report)


@pytest.mark.parametrize("seed", [0, 1])
def test_memorization_against_scikit_learn(seed):
    samples, train, fresh = (np.random.default_rng((seed, i)).normal(size=(n, 5)) for i, n in enumerate((70, 300, 80)))
    samples[:7] = train[:7] + 1e-6
    report = memorization(samples, train, fresh)
    near = NearestNeighbors(n_neighbors=2).fit(train)
    distances, fresh_distances = near.kneighbors(samples)[0], near.kneighbors(fresh)[0]
    np.testing.assert_allclose(report.sample_distance, np.median(distances[:, 0]), rtol=1e-10)
    np.testing.assert_allclose(report.gap, 1 - np.median(distances[:, 0]) / np.median(fresh_distances[:, 0]))
    assert report.copies == np.mean(distances[:, 0] < distances[:, 1] / 3) >= 0.1
    assert report.fresh_copies == np.mean(fresh_distances[:, 0] < fresh_distances[:, 1] / 3)
    for number in (f"{report.fresh_distance:.4g}", f"{report.copies:.1%}", f"gap {report.gap:.3f}"):
        assert number in str(report)


def test_bad_input():
    model, points = Exact(MIXTURE), jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"`sigmas` must be a sequence of positive noise levels, got \[0.0\]"):
        evaluate_held_out(model, points, [0.0], key=KEY)
    with pytest.raises(ValueError, match="`points` must be at least two held-out points, got 1"):
        evaluate_held_out(model, points[:1], key=KEY)
    with pytest.raises(ValueError, match="`draws` must be an integer of at least 1, got 0"):
        evaluate_held_out(model, points, key=KEY, draws=0)
    with pytest.raises(ValueError, match="`tolerance` must be positive, got 0"):
        evaluate_held_out(model, points, key=KEY, tolerance=0)
    with pytest.raises(ValueError, match=r"`samples` must have shape \(n, 2\), got \(1, 3\)"):
        memorization(jnp.ones((1, 3)), points, points)
    with pytest.raises(ValueError, match="`train` must have at least two different points, got 1"):
        memorization(points, points[:1], points)
