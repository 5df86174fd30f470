"""Chains that start with an exact draw of the target stay there: an exact test, without burn-in or mixing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samplers import BANANA, FunnelMetric, funnel
from sampling_problems import METRICS, samplers, walk
from scipy import stats

from scoregeo import models
from scoregeo.statistics import GeodesicSlice, LagrangianMonteCarlo, Langevin, with_volume

KINDS = ("langevin", "lagrangian", "slice")


def deviations(z):
    """Hermite polynomials of two standard normal variables, whose means are zero: in standard errors."""
    a, b = np.asarray(z).T
    features = np.stack([a, b, a**2 - 1, b**2 - 1, a * b, a**3 - 3 * a, (a**2 - 1) * b, (b**2 - 1) * a])
    return np.mean(features, 1) / np.std(features, 1) * np.sqrt(z.shape[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_kept(kind, name):
    """Without one of the determinants, this fails by tens of standard errors."""
    n, steps = (5000, 2) if kind == "slice" else (50_000, 5)
    xs = jax.vmap(BANANA.from_normal)(jax.random.normal(jax.random.key(5), (n, 2)))
    ys = walk(samplers(METRICS[name], BANANA.log_prob)[kind], jax.random.key(7), xs, steps)[:, -1]
    z = jax.vmap(BANANA.to_normal)(ys)
    assert np.abs(deviations(z)).max() < 4
    assert min(stats.kstest(np.asarray(column), "norm").pvalue for column in z.T) > 1e-3
    assert np.mean(np.any(np.asarray(xs != ys), 1)) > 0.9  # they moved


@pytest.mark.slow
def test_slices_keep_a_funnel_in_ten_dimensions():
    n, problem = 2000, funnel(10)
    xs = jax.vmap(problem.from_normal)(jax.random.normal(jax.random.key(5), (n, 10)))
    sampler = GeodesicSlice(FunnelMetric(), problem.log_prob, 3.0)
    z = np.asarray(jax.vmap(problem.to_normal)(walk(sampler, jax.random.key(7), xs, 4)[:, -1]))
    for feature in (z, z**2 - 1, z[:, :1] * z[:, 1:] ** 2):
        assert (np.abs(np.mean(feature, 0)) < 4 * np.std(feature, 0) / np.sqrt(n)).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_are_uniform(kind):
    """Gandy & Scott 2020, Unit testing for MCMC: of theta from its prior, with data from its model, the rank among the
    states of a reversible chain through theta, at a random place of the chain, is uniform."""
    n, length, noise = 1000 if kind == "slice" else 10_000, 4, 0.5
    keys = jax.random.split(jax.random.key(3), 5)
    thetas = jax.random.normal(keys[0], (n, 2))
    data = thetas[:, 0] + thetas[:, 1] ** 2 + noise * jax.random.normal(keys[1], (n,))
    places = jax.random.randint(keys[2], (n,), 0, length + 1)

    @jax.jit
    def ranks(theta, datum, place, key):
        def log_posterior(x):
            return -x @ x / 2 - (datum - x[0] - x[1] ** 2) ** 2 / (2 * noise**2)

        sampler = samplers(METRICS["conformal"], log_posterior)[kind]
        chains = walk.__wrapped__(sampler, key, jnp.stack([theta, theta]), length)
        used = jnp.arange(length)[None] < jnp.stack([place, length - place])[:, None]
        below = jnp.sum((chains < theta) & used[..., None], (0, 1))
        # Steps that were refused tie with theta: its place among those is drawn.
        ties = jnp.sum((chains == theta) & used[..., None], (0, 1))
        return below + jax.random.randint(jax.random.fold_in(key, 1), (), 0, ties[0] + 1)

    found = jax.lax.map(lambda lane: ranks(*lane), (thetas, data, places, jax.random.split(keys[3], n)), batch_size=500)
    for column in np.asarray(found).T:
        counts = np.bincount(column, minlength=length + 1)
        assert stats.chisquare(counts).pvalue > 1e-3, counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "n"),
    [
        (lambda m, p: Langevin(m, p, 0.1), 8000),
        (lambda m, p: LagrangianMonteCarlo(m, p, 0.3, steps=3), 8000),
        (lambda m, p: GeodesicSlice(m, p, 1.0, expansions=4), 2000),
    ],
)
def test_uniform_by_volume_on_a_sphere(make, n):
    """Of the upper hemisphere (the unit disk of the chart), the height is uniform in [0, 1] (Archimedes)."""
    sphere = models.Sphere()
    target = with_volume(sphere, region=lambda x: 1 - x @ x)
    rng = np.random.default_rng(0)
    height, angle = rng.uniform(size=n), rng.uniform(0, 2 * np.pi, n)
    radius = np.sqrt((1 - height) / (1 + height))
    xs = jnp.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    ys = walk(make(sphere, target), jax.random.key(2), xs, 3)[:, -1]
    heights = -np.asarray(jax.vmap(lambda y: sphere.embed(y)[-1])(ys))
    assert stats.kstest(heights, "uniform").pvalue > 1e-3
    assert np.abs(np.mean(ys, 0)).max() < 4 * np.std(ys) / np.sqrt(n)


def test_the_drift_of_the_unadjusted_sampler():
    """One step of length h from the target changes expectations by O(h^2), if the drift is that of the target: by
    quadrature over the target and the noise, without chance. A wrong drift makes it O(h)."""
    metric = METRICS["curl"]
    sampler = Langevin(metric, BANANA.log_prob, 1.0, adjusted=False)
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    z = jnp.stack([a.reshape(-1) for a in np.meshgrid(nodes, nodes)], 1)
    w = np.outer(weights, weights).reshape(-1)

    @eqx.filter_jit
    def changes(sampler, h):
        def expected(y):
            return jnp.stack([jnp.cos(y[0] + 0.3), jnp.sin(y[1] - y[0]), jnp.exp(-y @ y / 4)])

        def change(start):
            x = BANANA.from_normal(start)
            drift, product = sampler.init(x).drift, metric.at(x)
            # The noise to second order: four points have the right moments up to the third.
            after = [
                expected(x + h * drift + jnp.sqrt(2 * h) * product.inv_sqrt_mv(jnp.array([a, b])))
                for a in (-1.0, 1.0)
                for b in (-1.0, 1.0)
            ]
            return sum(after) / 4 - expected(x)

        return w @ jax.vmap(change)(z)

    rate = np.log2(np.abs(changes(sampler, 0.02) / changes(sampler, 0.01)))
    np.testing.assert_allclose(rate, 2, atol=0.15)
