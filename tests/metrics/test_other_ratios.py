"""What `recommend_strength` and `metric_at_noise_level` make of metrics that are no conformal ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import InverseSteinMetric, KernelDensityScore, ScoreJacobianMetric, recommend_strength
from scoregeo.metrics import metric_at_noise_level

POINTS = jax.random.normal(jax.random.key(0), (41, 3))


@pytest.mark.slow
def test_inverse_stein_costs_least_on_the_data():
    score = KernelDensityScore(POINTS, 0.7)
    metric = InverseSteinMetric(score, recommend_strength(InverseSteinMetric, score, POINTS, ratio=20.0))
    matrices = jax.jit(jax.vmap(lambda x: metric.at(x).matrix(3)))(POINTS)
    np.testing.assert_allclose(np.median(1 / np.linalg.eigvalsh(matrices)[:, 0]), 20, rtol=1e-10)


@pytest.mark.slow
def test_score_jacobian_costs_the_ratio_across_a_line():
    """Data on the first axis, thick by nothing but the noise: sigma^2 J is -1 across them."""
    line = jnp.stack([jnp.linspace(-5, 5, 200), jnp.zeros(200)], -1)
    score = KernelDensityScore(line, 0.2)
    strength = recommend_strength(ScoreJacobianMetric, score, line, ratio=50.0)
    along, across = np.linalg.eigvalsh(ScoreJacobianMetric(score, 0.2, strength).at(jnp.array([0.3, 0.0])).matrix(2))
    np.testing.assert_allclose([along, across], [1, 50], rtol=1e-6)


@pytest.mark.slow
def test_score_jacobian_at_another_noise_level():
    x, v = jnp.array([0.3, -0.2, 0.5]), jnp.array([1.0, 2.0, -1.0])
    metric = ScoreJacobianMetric(KernelDensityScore(POINTS, 0.7), 0.7, 9.0)
    other = ScoreJacobianMetric(KernelDensityScore(POINTS, 0.4), 0.4, 9.0)
    np.testing.assert_allclose(metric_at_noise_level(metric, 0.4).at(x).mv(v), other.at(x).mv(v), rtol=1e-12)
