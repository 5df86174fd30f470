"""Dimensions over noise levels: slopes, knees, and what remains without noise."""

import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import GaussianScore, KernelDensityScore
from scoregeo.manifold import dimension_curve, extrapolate, knee, slope_dimension


def lollipop():
    """A disc, a stick and a point in the plane, as data so dense that noise of 0.05 sees no gaps."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 81)] * 2), -1).reshape(-1, 2)
    stick = np.stack([np.zeros(161), np.linspace(-1.025, -5, 161)], 1)
    return jnp.asarray(np.concatenate([grid[np.sum(grid**2, 1) <= 1], stick, [[0.0, -7.0]]]))


@pytest.mark.parametrize(("place", "dimension"), [([0.0, 0.0], 2), ([0.0, -3.0], 1), ([0.0, -7.0], 0)])
def test_lollipop(place, dimension):
    data, levels = lollipop(), np.array([0.06, 0.08, 0.1])
    curve = dimension_curve(lambda sigma: KernelDensityScore(data, sigma), np.array(place), levels)
    np.testing.assert_allclose(curve, dimension, atol=1e-3)
    slope = slope_dimension(lambda sigma: KernelDensityScore(data, sigma), np.array(place), levels)
    np.testing.assert_allclose(slope, dimension, atol=1e-3)


def test_slope_is_that_of_the_density():
    """The line through the log densities, which a kernel density knows without their derivatives."""
    rng, x = np.random.default_rng(0), np.array([0.3, -0.2, 0.1])
    data, levels = rng.normal(size=(200, 3)) * [1, 1, 0.02], np.geomspace(0.2, 0.4, 6)
    logs = [KernelDensityScore(data, level).log_prob(x) for level in levels]
    expected = 3 + np.polyfit(np.log(levels), np.array(logs), 1)[0]
    found = slope_dimension(lambda sigma: KernelDensityScore(data, sigma), x, levels)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.slow
def test_knee_of_noisy_data():
    """A plane with noise of 0.02 in R^8: the knee is above the noise and below the size, where the curve says 2."""
    covariance = np.diag([1.0, 2.0] + [0.02**2] * 6)
    levels = np.geomspace(0.002, 0.5, 12)

    def score_at(sigma):
        return GaussianScore(np.zeros(8), covariance + sigma**2 * np.eye(8))

    curve = dimension_curve(score_at, np.zeros(8), levels)
    expected = [np.sum(np.diag(covariance) / (np.diag(covariance) + level**2)) for level in levels]
    np.testing.assert_allclose(curve, expected, rtol=1e-8)
    found = knee(levels, curve)
    assert 0.03 < found < 0.2
    np.testing.assert_allclose(np.interp(found, levels, curve), 2, atol=0.1)


def test_knee_of_two_steps():
    """The first flat part is taken, of a curve that has two; and the level before the end, if it never turns."""
    levels = np.geomspace(1e-3, 1e3, 61)
    steps = 3 / (1 + (levels / 0.02) ** 2) + 2 / (1 + (levels / 50) ** 2)
    found = knee(levels, steps)
    assert 0.1 < found < 10
    np.testing.assert_allclose(np.interp(found, levels, steps), 2, atol=0.02)
    np.testing.assert_allclose(knee(levels, 1 / levels), levels[-2])


def test_no_knee():
    levels = np.array([0.1, 0.2, 0.4, 0.8])
    assert np.isnan(knee(levels, np.full(4, 2.0)))
    assert np.isnan(knee(levels, np.array([3.0, 2.0, 1.0, 0.0])))  # a straight line
    assert np.isnan(knee(levels, np.array([3.0, 3.0, 2.9, 1.0])))  # the corner is above


def test_extrapolate():
    levels = np.array([0.1, 0.2, 0.3, 0.5])
    values = np.stack([2 - 3 * levels**2 + levels**4, np.full(4, 7.0)], 1)
    np.testing.assert_allclose(extrapolate(levels, values), [2, 7], rtol=1e-10)
    np.testing.assert_allclose(extrapolate(levels, values, degree=2), [2, 7], rtol=1e-10)
    line = np.polyfit(levels**2, values[:, 0], 1)[1]
    np.testing.assert_allclose(extrapolate(levels, values[:, 0], degree=1), line, rtol=1e-10)
    np.testing.assert_allclose(extrapolate(levels, values[:, 0], degree=0), values[:, 0].mean(), rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: knee([0.1, 0.2], [1.0, 2.0]), r"`noise_levels` must have shape \(n,\) with n >= 3, got \(2,\)"),
        (lambda: knee([0.1, 0.2, 0.3], [1.0, 2.0]), r"`dimensions` must have shape \(3,\)"),
        (lambda: knee([0.3, 0.2, 0.1], [1.0, 2.0, 3.0]), "`noise_levels` must be positive and increase"),
        (lambda: knee([0.0, 0.2, 0.3], [1.0, 2.0, 3.0]), "`noise_levels` must be positive and increase"),
        (lambda: extrapolate([0.1, 0.2], [1.0, 2.0, 3.0]), r"`values` must have shape \(2, ...\)"),
        (lambda: extrapolate([0.1, 0.2], [1.0, 2.0], degree=2), "`degree` must be less than the number of levels"),
        (lambda: slope_dimension(lambda sigma: lambda x: -x, np.zeros(2), [0.1]), "n >= 2"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
