"""Chains side by side: what they report, when they fail, and what is compiled."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS, EuclideanMetric, FunctionScore, GaussianScore, ScoreJacobianMetric, SteinMetric, models
from scoregeo.statistics import GeodesicSlice, LagrangianMonteCarlo, Langevin, sample, with_volume

TARGET = GaussianScore(jnp.array([1.0, -1.0]), jnp.array([[1.0, 0.4], [0.4, 0.5]]))
METRIC = SteinMetric(TARGET, 0.3)
STARTS = jnp.zeros((4, 2))


@pytest.fixture(scope="module")
def samples():
    sampler = Langevin(METRIC, TARGET, 0.2)
    return sample(sampler, jax.random.key(0), STARTS, 1000, burn_in=100, thin=3)


@pytest.mark.slow
def test_moments(samples):
    assert samples.draws.shape == (4, 1000, 2)
    error = np.sqrt(np.array([1.0, 0.5]) / samples.ess)
    assert (np.abs(np.mean(samples.draws, (0, 1)) - np.array([1.0, -1.0])) < 3 * error).all()
    np.testing.assert_allclose(np.cov(samples.draws.reshape(-1, 2).T), [[1.0, 0.4], [0.4, 0.5]], atol=0.12)
    assert (samples.result == RESULTS.successful).all()
    assert (samples.rhat < 1.02).all()
    assert ((samples.ess > 300) & (samples.ess < 4000)).all()
    assert ((samples.acceptance_rate > 0.4) & (samples.acceptance_rate < 1)).all()
    np.testing.assert_array_equal(samples.diverged, 0)


def test_new_values_do_not_compile_again():
    counts, traces = [], []

    def log_prob(x):
        traces.append(x)
        return -jnp.sum(x**2)

    for step, strength in ((0.1, 0.2), (0.2, 0.5), (0.3, 0.0)):
        sampler = Langevin(SteinMetric(TARGET, strength), log_prob, step)
        sample(sampler, jax.random.key(1), STARTS, 3)
        counts.append(len(traces))
    # The door looks at the shapes of a state each time; the program is the same.
    assert counts[2] - counts[1] == counts[1] - counts[0] == 1 < counts[0]


@pytest.mark.slow
def test_chains_that_fail():
    """One that starts where there is no density, among others that do not mind."""
    starts = STARTS.at[2].set(jnp.array([50.0, 0.0]))
    sampler = Langevin(EuclideanMetric(), with_volume(EuclideanMetric(), TARGET, region=lambda x: 9 - x @ x), 0.2)
    found = sample(sampler, jax.random.key(0), starts, 200, throw=False)
    np.testing.assert_array_equal(found.result == RESULTS.chain_diverged, [False, False, True, False])
    assert (jnp.sum(found.draws[np.array([0, 1, 3])] ** 2, -1) < 9).all()
    # So close to the region that the first steps lead there.
    near = sample(sampler, jax.random.key(0), STARTS.at[2].set(jnp.array([3.01, 0.0])), 200, throw=False)
    assert (near.draws[2, -1] != near.draws[2, 0]).any()
    np.testing.assert_array_equal(near.result == RESULTS.chain_diverged, [False, False, True, False])
    with pytest.raises(RuntimeError, match="A chain of samples failed"):
        sample(sampler, jax.random.key(0), starts, 200)
    draws = jax.jit(lambda xs: sample(sampler, jax.random.key(0), xs, 200).draws)(starts)
    np.testing.assert_array_equal(jnp.isnan(draws).any((1, 2)), [False, False, True, False])


@pytest.mark.slow
def test_an_unadjusted_chain_that_explodes():
    """A steep score and a long step; no log density is needed."""
    sampler = Langevin(EuclideanMetric(), FunctionScore(lambda x: -(x**3)), 0.5, adjusted=False)
    found = sample(sampler, jax.random.key(0), STARTS, 200, throw=False)
    assert (found.result == RESULTS.chain_diverged).all()
    assert (found.diverged > 0).all()
    assert jnp.isfinite(found.draws).all()


def test_what_is_refused():
    cubic = FunctionScore(lambda x: -(x**3))
    with pytest.raises(TypeError, match="must know the log density, which a FunctionScore does not"):
        Langevin(METRIC, cubic, 0.1)
    with pytest.raises(TypeError, match="`log_prob` of LagrangianMonteCarlo must know"):
        LagrangianMonteCarlo(METRIC, with_volume(METRIC, cubic), 0.1)
    with pytest.raises(TypeError, match="`log_prob` must be a function"):
        GeodesicSlice(METRIC, 3.0, 1.0)
    with pytest.raises(ValueError, match="`step_size` must be positive"):
        Langevin(METRIC, TARGET, 0.0)
    with pytest.raises(ValueError, match="`width` must be positive"):
        GeodesicSlice(METRIC, TARGET, -1.0)
    with pytest.raises(ValueError, match="`steps` must be an integer of at least 1"):
        LagrangianMonteCarlo(METRIC, TARGET, 0.1, steps=0)
    with pytest.raises(ValueError, match="must be inside the domain"):
        Langevin(models.HyperbolicHalfSpace(), TARGET, 0.1).init(jnp.array([0.0, -1.0]))
    dense = ScoreJacobianMetric(lambda x: -(x**3), 0.3)
    with pytest.raises(ValueError, match="connection of low rank in 65 dimensions"):
        LagrangianMonteCarlo(dense, lambda x: -x @ x, 0.1).init(jnp.zeros(65))
    sampler = Langevin(METRIC, TARGET, 0.1)
    with pytest.raises(ValueError, match="`xs` must have shape"):
        sample(sampler, jax.random.key(0), jnp.zeros(2), 10)
    with pytest.raises(ValueError, match="`n` must be an integer of at least 1"):
        sample(sampler, jax.random.key(0), STARTS, 0)
    with pytest.raises(TypeError, match="`sampler` must be one such as Langevin"):
        sample(TARGET, jax.random.key(0), STARTS, 10)


def test_a_region_needs_a_density():
    """Of a score alone nothing would be zero outside of it."""
    with pytest.raises(ValueError, match=r"`region` needs a `log_prob` .* which a FunctionScore does not"):
        with_volume(METRIC, FunctionScore(lambda x: -(x**3)), region=lambda x: 1 - x @ x)


@pytest.mark.parametrize("kind", ["langevin", "lagrangian"])
def test_nothing_is_as_large_as_a_matrix(kind):
    d = 200

    def log_prob(x):
        return -jnp.sum(jnp.log1p(x**2))

    def score(x):
        return -2 * x / (1 + x**2) + (jnp.roll(x, 1) if kind == "langevin" else 0)

    metric = SteinMetric(FunctionScore(score, conservative=kind == "lagrangian"), 1.0)
    sampler = {"langevin": Langevin, "lagrangian": LagrangianMonteCarlo}[kind](metric, log_prob, 0.1)
    x = jnp.linspace(-1, 1, d)
    text = jax.jit(lambda x, key: sampler.step(key, sampler.init(x))[0].position).lower(x, jax.random.key(0)).as_text()
    shapes = re.findall(r"tensor<((?:\d+x)+)", text)
    assert max(math.prod(map(int, shape.split("x")[:-1])) for shape in shapes) <= 16 * d
    assert "lapack" not in text


@pytest.mark.slow
@pytest.mark.parametrize(("d", "dtype"), [(1, jnp.float64), (200, jnp.float32)])
def test_many_dimensions_and_single_precision(d, dtype):
    """A standard normal target of which each chain has an exact start."""
    score = FunctionScore(lambda x: -x, conservative=True)
    metric = SteinMetric(score, jnp.asarray(1 / d, dtype))
    xs = jax.random.normal(jax.random.key(0), (200, d), dtype)
    for sampler in (
        Langevin(metric, lambda x: -x @ x / 2, 0.3 / d ** (1 / 3)),
        Langevin(metric, lambda x: -x @ x / 2, 0.3 / d ** (1 / 3), probes=3),
        LagrangianMonteCarlo(metric, lambda x: -x @ x / 2, 0.5 / d**0.25),
        GeodesicSlice(metric, lambda x: -x @ x / 2, 2.0),
    ):
        found = sample(sampler, jax.random.key(1), xs, 4)
        assert found.draws.dtype == found.ess.dtype == dtype
        assert (found.result == RESULTS.successful).all()
        squares = np.sum(np.asarray(found.draws[:, -1], np.float64) ** 2, -1)
        assert abs(squares.mean() - d) < 4 * np.sqrt(2 * d / 200)
