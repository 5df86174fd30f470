"""Step sizes that are found, and trajectories of scores with curl where matrices would be too large."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS, EuclideanMetric, FunctionScore, GaussianScore, SteinMetric
from scoregeo.statistics import GeodesicSlice, LagrangianMonteCarlo, Langevin, adapt_step_size, sample
from scoregeo.statistics.sampling.connection import without_work

EUCLID = EuclideanMetric()
# In many dimensions acceptance falls smoothly with the step size; in few, trajectories suddenly become unstable.
NORMAL = GaussianScore(jnp.zeros(30), jnp.eye(30))
STARTS = jax.random.normal(jax.random.key(9), (8, 30))
SKEW = jnp.asarray(np.random.default_rng(0).normal(size=(80, 80)) / 9)


def with_curl(d):
    return SteinMetric(FunctionScore(lambda x: jnp.tanh(SKEW[:d, :d] @ x) - x), 0.8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "target", "first"), [(Langevin, None, 50.0), (Langevin, None, 1e-3), (LagrangianMonteCarlo, 0.6, 50.0)]
)
def test_a_fresh_sample_accepts_as_often_as_asked(kind, target, first):
    # With several steps, trajectories of some step sizes are half or whole turns, whose energy errs by nothing.
    settings = {"steps": 1} if kind is LagrangianMonteCarlo else {}
    found = adapt_step_size(kind(EUCLID, NORMAL, first, **settings), jax.random.key(0), STARTS, 400, target=target)
    fresh = sample(found.sampler, jax.random.key(1), found.positions, 300)
    assert abs(np.mean(fresh.acceptance_rate) - (target or 0.574)) < 0.1
    assert abs(float(found.acceptance_rate) - (target or 0.574)) < 0.1


def test_what_has_no_step_size_to_adapt():
    with pytest.raises(TypeError, match="whose step size decides how often they accept, got GeodesicSlice"):
        adapt_step_size(GeodesicSlice(EUCLID, NORMAL, 1.0), jax.random.key(0), STARTS)
    with pytest.raises(TypeError, match="got an unadjusted Langevin"):
        adapt_step_size(Langevin(EUCLID, NORMAL, 0.1, adjusted=False), jax.random.key(0), STARTS)
    with pytest.raises(ValueError, match="`target` must be a number between 0 and 1, got 1"):
        adapt_step_size(Langevin(EUCLID, NORMAL, 0.1), jax.random.key(0), STARTS, target=1)


def test_chains_that_cannot_move():
    """A density that is nowhere but at the start."""
    sampler, starts = Langevin(EUCLID, lambda x: jnp.where(jnp.all(x == 0), 0.0, -jnp.inf), 0.1), jnp.zeros((8, 3))
    found = adapt_step_size(sampler, jax.random.key(0), starts, 20, throw=False)
    assert found.result == RESULTS.chain_diverged
    assert not np.isnan(found.positions).any()
    with pytest.raises(RuntimeError, match="A chain of samples failed"):
        adapt_step_size(sampler, jax.random.key(0), starts, 20)


@pytest.mark.slow
def test_a_bar_changes_no_draw(capfd):
    sampler = Langevin(EUCLID, NORMAL, 0.5)
    plain, shown = (
        sample(sampler, jax.random.key(2), STARTS, 51, burn_in=7, thin=2, progress=p) for p in (False, True)
    )
    np.testing.assert_allclose(shown.draws, plain.draws, rtol=1e-12)
    np.testing.assert_allclose(shown.acceptance_rate, plain.acceptance_rate, rtol=1e-12)
    assert "109/109" in capfd.readouterr().err


@pytest.mark.slow
def test_what_replaces_the_curl_does_no_work_and_has_its_divergence():
    """Against the acceleration of geodesics, which for this metric has the curl."""
    d, random = 7, np.random.default_rng(1)
    metric, x, v = with_curl(d), jnp.asarray(random.normal(size=7)), jnp.asarray(random.normal(size=7))
    gamma = without_work(metric, x)

    def acceleration(v):
        a = gamma(v)
        return -(a.scale * v + a.left.T @ (a.right @ v))

    exact = lambda v: metric.acceleration(x, v)  # noqa: E731
    assert np.abs(acceleration(v) - exact(v)).max() > 0.01  # they differ,
    power = [float(metric.at(x).mv(a(v)) @ v) for a in (acceleration, exact)]  # do the same work,
    np.testing.assert_allclose(*power, rtol=1e-10)
    divergence = [float(jnp.trace(jax.jacfwd(a)(v))) for a in (acceleration, exact)]  # and spread as much.
    np.testing.assert_allclose(*divergence, rtol=1e-10)


@pytest.mark.slow
def test_curl_in_many_dimensions():
    """A normal target from exact starts: kept, and with half the steps the energy errs a quarter as much."""
    metric = with_curl(80)
    xs = jax.random.normal(jax.random.key(0), (200, 80))
    rates = []
    for size, steps in ((0.2, 4), (0.1, 8)):
        sampler = LagrangianMonteCarlo(metric, lambda x: -x @ x / 2, size, steps=steps)
        found = sample(sampler, jax.random.key(1), xs, 3)
        squares = np.sum(np.asarray(found.draws[:, -1]) ** 2, -1)
        assert abs(squares.mean() - 80) < 4 * np.sqrt(160 / 200)
        rates.append(1 - float(np.mean(found.acceptance_rate)))
    assert rates[1] < 0.4 * rates[0] < 0.2
