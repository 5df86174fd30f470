"""What distances do not fall below: exact where the answer is known, and below every curve elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MODES, linear_curl, network, network_score

from scoregeo import (
    ConformalMetric,
    DensityScore,
    EuclideanMetric,
    GaussianMixtureScore,
    GaussianScore,
    GraphMetric,
    InverseSteinMetric,
    KernelDensityScore,
    LandMetric,
    MatrixMetric,
    PullbackMetric,
    RbfMetric,
    ScoreJacobianMetric,
    StackedSteinMetric,
    SteinMetric,
    models,
)
from scoregeo.metrics import EnergyFactor, PowerFactor, ScoreNormFactor, lower_bound
from scoregeo.scores.line_integral import LineIntegralScore

RANDOM = np.random.default_rng(0)
DATA = RANDOM.normal(size=(30, 2))
KERNELS = KernelDensityScore(jnp.asarray(MODES), 0.5)
MIXTURE = GaussianMixtureScore(jnp.array([0.3, 0.7]), DATA[:2], jnp.stack([0.3 * jnp.eye(2), jnp.diag(jnp.ones(2))]))
GAUSS = GaussianScore(jnp.zeros(2), jnp.array([[1.0, 0.3], [0.3, 0.5]]))
W = RANDOM.normal(size=(2, 3))
FIELD = network_score(0, 2)
TEN = jnp.asarray(10.0)


def power(score):
    return ConformalMetric(PowerFactor(TEN, score, jnp.asarray(0.3), jnp.asarray(2.0)))


# Metrics, and whether anything better than zero is known.
METRICS = {
    "euclid": (EuclideanMetric(), True),
    "stein": (SteinMetric(KERNELS, 2.0), True),
    "stein with curl": (SteinMetric(FIELD, 2.0), True),
    "stacked": (StackedSteinMetric([KERNELS, FIELD, GAUSS], [1.0, 2.0, 0.5]), True),
    "graph": (GraphMetric(lambda x: jnp.tanh(jnp.asarray(W.T) @ x), strength=3.0), True),
    "score jacobian": (ScoreJacobianMetric(FIELD, 0.3, 50.0), True),
    "pullback": (PullbackMetric(lambda x: network(x, W, W.T), floor=0.5), True),
    "power of a mixture": (power(MIXTURE), True),
    "power of kernels": (power(KERNELS), True),
    "power of a gaussian": (power(GAUSS), True),
    "power of a field": (power(LineIntegralScore(linear_curl, jnp.zeros(2), 8)), False),
    "energy": (ConformalMetric(EnergyFactor(TEN, KERNELS, TEN, jnp.asarray(3.0), jnp.asarray(0.5))), True),
    "score norm": (ConformalMetric(ScoreNormFactor(TEN, GAUSS, TEN)), True),
    "land": (LandMetric(DATA, 1.0, 0.1), True),
    "rbf": (RbfMetric(DATA[:5], 0.7 * np.ones(5), RANDOM.uniform(size=(2, 5))), True),
    "sum": (SteinMetric(KERNELS, 2.0) + 3.0 * EuclideanMetric(), True),
    "scaled": (0.25 * SteinMetric(GAUSS, 2.0), True),
    "matrix": (MatrixMetric(lambda x: (1 + x[0] ** 2) * jnp.eye(2)), False),
    "inverse stein": (InverseSteinMetric(FIELD, 1.0), False),
    "half-space": (models.HyperbolicHalfSpace(), False),
}


def length(metric, curve):
    """Of a curve ``(n, d)``, by the trapezoidal rule on its chords."""
    steps = curve[1:] - curve[:-1]
    middle = (curve[1:] + curve[:-1]) / 2
    return jnp.sum(jax.vmap(metric.norm)(middle, steps))


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_no_curve_is_shorter(name):
    """Straight ones and bent ones."""
    metric, known = METRICS[name]
    ends = 0.7 * RANDOM.normal(size=(4, 2, 2)) + [0.0, 1.5 * (name == "half-space")]
    ends[..., 1] = np.abs(ends[..., 1]) + 0.2
    t = np.linspace(0, 1, 400)[:, None]
    bends = [0.0, 0.4, -0.4, 1.0]
    curves = [x + t * (y - x) + b * t * (1 - t) * np.array([1.0, 0.5]) for (x, y), b in zip(ends, bends, strict=True)]
    both = jax.jit(jax.vmap(lambda curve: (lower_bound(metric, curve[0], curve[-1]), length(metric, curve))))
    bounds, lengths = both(jnp.stack(curves))
    assert (bounds <= lengths * (1 + 1e-4)).all(), (bounds, lengths)
    assert (bounds > 0).all() == known


@pytest.mark.slow
def test_bounds_that_are_reached():
    x, y = jnp.array([1.0, 0.5]), jnp.array([-0.3, 2.0])
    straight = float(jnp.linalg.norm(x - y))
    assert np.isclose(lower_bound(EuclideanMetric(), x, y), straight)
    plane = GraphMetric(lambda x: 2.0 * x[0])
    assert np.isclose(lower_bound(plane, x, y), np.hypot(straight, 2 * 1.3))
    # p = exp(2 x_1): the plane again.
    assert np.isclose(lower_bound(SteinMetric(DensityScore(lambda x: 2.0 * x[0])), x, y), np.hypot(straight, 2 * 1.3))
    assert np.isclose(lower_bound(plane + plane, x, y), np.sqrt(2) * np.hypot(straight, 2 * 1.3))
    assert np.isclose(lower_bound(4.0 * plane, x, y), 2 * np.hypot(straight, 2 * 1.3))
    single = lower_bound(plane, x.astype(jnp.float32), y.astype(jnp.float32))
    assert single.dtype == jnp.float32


def test_of_a_network_with_a_potential_and_of_one_without():
    from flax import nnx

    from scoregeo import NetworkScore

    class Height(nnx.Module):
        def __call__(self, x, noise_level):
            return jax.grad(self.log_prob)(x, noise_level)

        def log_prob(self, x, noise_level):
            return -jnp.sum(x**4) / 4

    class Field(nnx.Module):
        def __call__(self, x, noise_level):
            return -(x**3)

    x, y = jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0])
    high = SteinMetric(NetworkScore(Height(), 0.1, conservative=True), 4.0)
    assert np.isclose(lower_bound(high, x, y), np.hypot(1, 2 * 15 / 4))
    assert np.isclose(lower_bound(SteinMetric(NetworkScore(Field(), 0.1, conservative=True), 4.0), x, y), 1)
