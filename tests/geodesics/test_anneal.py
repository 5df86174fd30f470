"""Annealing of the noise level: levels, derivatives, batches, and what it is asked for in vain."""

import equinox as eqx
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import (
    RESULTS,
    Anneal,
    ConformalMetric,
    EuclideanMetric,
    FunctionScore,
    GaussianMixtureScore,
    GaussianScore,
    KernelDensityScore,
    NetworkScore,
    SpectralNewton,
    SteinMetric,
    datasets,
    geodesic,
    squared_dist,
)
from scoregeo.metrics import PowerFactor, metric_at_noise_level
from scoregeo.scores import LineIntegralScore, at_noise_level

QUICK = SpectralNewton(rtol=1e-4, path_rtol=1e-2, max_elements=1, continuation=0)
RING = 1.2 * np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 30, endpoint=False)), np.sin(t)], -1)
X, Y = np.array([1.2, 0.1]), np.array([-1.15, 0.25])


def ring_metric(strength=0.5, bandwidth=0.3):
    return SteinMetric(KernelDensityScore(RING, bandwidth), strength)


@eqx.filter_jit
def solve(solver, metric):
    return geodesic(metric, X, Y, solver=solver, throw=False)


@pytest.mark.slow
def test_anneals_to_a_geodesic_of_the_metric_itself():
    found = solve(Anneal([0.9, 0.6], QUICK), ring_metric())
    assert found.result == RESULTS.successful
    assert int(found.stats["converged_levels"]) == 2
    again = geodesic(ring_metric(), X, Y, solver=QUICK, init=found)
    assert float(found.length) == pytest.approx(float(again.length), rel=1e-4)


@pytest.mark.slow
def test_new_levels_do_not_compile_again():
    traces = []

    class Field(nnx.Module):
        def score(self, x, noise_level):
            traces.append(1)
            return -x / noise_level**2

    metric = SteinMetric(NetworkScore(Field(), 0.5), 0.1)
    solver = SpectralNewton(max_elements=1, degree=4, rtol=1e-2, path_rtol=1.0)
    for levels in ([2.0, 1.0], [4.0, 3.0]):
        solve(Anneal(levels, solver), metric)
        if levels[0] == 2.0:
            before = len(traces)
    assert len(traces) == before


@pytest.mark.slow
def test_gradient_and_batch():
    solver = Anneal([0.9, 0.6], QUICK)
    # From the same place without annealing: the same derivative.
    init = solve(solver, ring_metric())

    def squared(solver, init):
        return jax.jit(jax.grad(lambda lam: squared_dist(ring_metric(lam), X, Y, solver=solver, init=init)))(0.5)

    assert float(squared(solver, None)) == pytest.approx(float(squared(QUICK, init)), rel=1e-3)
    lanes = jax.jit(jax.vmap(lambda y: geodesic(ring_metric(), X, y, solver=solver, throw=False)))(np.stack([Y, -X]))
    assert bool((lanes.result == RESULTS.successful).all())
    assert float(lanes.length[0]) == pytest.approx(float(init.length), rel=1e-4)


@pytest.mark.slow
def test_power_metrics_on_moons():
    moons = datasets.two_moons(jax.random.key(0), 200)
    metric = ConformalMetric.power(KernelDensityScore(moons.points, 0.12), moons.points, 1e4)
    x, y = moons.points[:2]
    found = geodesic(metric, x, y, solver=Anneal([0.5, 0.25]), throw=False)
    assert found.result == RESULTS.successful


# --- Scores and metrics at another level ------------------------------------------------------------------------------


@pytest.mark.slow
def test_scores_at_another_level():
    x = jnp.array([0.4, -0.3])
    mixture = GaussianMixtureScore(np.ones(2) / 2, RING[:2], np.tile(0.04 * np.eye(2), (2, 1, 1)))
    wider = GaussianMixtureScore(np.ones(2) / 2, RING[:2], np.tile(0.29 * np.eye(2), (2, 1, 1)))
    np.testing.assert_allclose(at_noise_level(mixture, 0.5)(x), wider(x), rtol=1e-10)
    gaussian = GaussianScore(jnp.zeros(2), jnp.eye(2))
    np.testing.assert_allclose(at_noise_level(gaussian, 2.0)(x), -x / 5, rtol=1e-12)
    kernel = KernelDensityScore(RING, 0.3)
    np.testing.assert_allclose(at_noise_level(kernel, 0.5)(x), KernelDensityScore(RING, 0.5)(x), rtol=1e-12)
    line = at_noise_level(LineIntegralScore(kernel, RING[0]), 0.5)
    np.testing.assert_allclose(line(x), KernelDensityScore(RING, 0.5)(x), rtol=1e-8)


def test_metrics_at_another_level():
    kernel = KernelDensityScore(RING, 0.3)
    stein = SteinMetric(kernel, 2.0)
    power = ConformalMetric(PowerFactor(jnp.asarray(1.0), kernel, jnp.asarray(0.4), jnp.asarray(1.5)))
    x, v = jnp.array([0.4, -0.3]), jnp.array([1.0, 2.0])
    wide = KernelDensityScore(RING, 0.5)
    expected = SteinMetric(wide, 2.0).at(x).mv(v)
    np.testing.assert_allclose(metric_at_noise_level(stein, 0.5).at(x).mv(v), expected, rtol=1e-12)
    both = metric_at_noise_level(stein + 3.0 * EuclideanMetric() + power, 0.5)
    factor = jnp.exp(0.8 * (-wide.log_prob(x) - 1.5))
    np.testing.assert_allclose(both.at(x).mv(v), expected + (3 + factor) * v, rtol=1e-10)


@pytest.mark.slow
def test_bad_input():
    for levels, message in (
        ([0.5, 0.6], "`levels` must be positive and decreasing"),
        ([0.5, 0.0], "`levels` must be positive and decreasing"),
        ([], "`levels` must have shape"),
        ([np.nan], "`levels` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            Anneal(levels)
    with pytest.raises(TypeError, match="`solver` must be a boundary solver"):
        Anneal([1.0], "newton")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`score` must be one that knows other noise levels, got FunctionScore"):
        metric_at_noise_level(SteinMetric(FunctionScore(jnp.tanh)), 1.0)
    with pytest.raises(TypeError, match="`metric` must have scores"):
        geodesic(EuclideanMetric(), X, Y, solver=Anneal([1.0], QUICK))
    moons = datasets.two_moons(jax.random.key(0), 100)
    with pytest.raises(TypeError, match="the onset of an EnergyFactor"):
        metric_at_noise_level(ConformalMetric.energy(moons.score, moons.points, 5.0), 1.0)
