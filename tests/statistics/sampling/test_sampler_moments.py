"""Four chains of each sampler on each target: moments as they should be, chains that agree.

A chain goes another way where a processor rounds otherwise, so bounds leave room for any of them: of the 56 moments,
one is 4.5 standard errors off in one run of three thousand. A wrong sampler is what test_invariance.py is about.
"""

import blackjax.diagnostics
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling_problems import BANANA, GAUSSIAN, METRICS, MODES, FunnelMetric, Problem, funnel
from scipy import integrate, stats

from scoregeo import SteinMetric, models
from scoregeo.statistics import GeodesicSlice, LagrangianMonteCarlo, Langevin, riemannian_normal, sample

pytestmark = pytest.mark.slow


def whitened(x):
    factor = jnp.linalg.cholesky(jnp.array([[2.0, 0.8], [0.8, 1.0]]))
    return jax.scipy.linalg.solve_triangular(factor, x - jnp.array([1.0, -2.0]), lower=True)


def separated(x):
    """Of two modes, the first coordinate through its distribution function is uniform, the second normal."""
    cdf = (jax.scipy.stats.norm.cdf((x[0] + 1.5) / 0.7) + jax.scipy.stats.norm.cdf((x[0] - 1.5) / 0.7)) / 2
    return jnp.stack([jax.scipy.stats.norm.ppf(jnp.clip(cdf, 1e-12, 1 - 1e-12)), x[1] / 0.7])


PROBLEMS = {
    "gaussian": (SteinMetric(GAUSSIAN, 0.3), Problem(2, GAUSSIAN, None, whitened)),
    "funnel": (FunnelMetric(), funnel(2)),
    "funnel in ten dimensions": (FunnelMetric(), funnel(10)),
    "banana": (METRICS["stein"], BANANA),
    "two modes": (SteinMetric(MODES, 0.3), Problem(2, MODES, None, separated)),
}
SAMPLERS = {
    "langevin": lambda metric, target, d: Langevin(metric, target, 0.3 if d == 2 else 0.15),
    "lagrangian": lambda metric, target, d: LagrangianMonteCarlo(metric, target, 0.2, steps=8),
    "slice": lambda metric, target, d: GeodesicSlice(metric, target, 2.0 if d == 2 else 3.0, expansions=4),
}


# A slice along one direction of ten takes a thousand steps through the funnel: that case is one of test_invariance.py.
CASES = [(k, n) for k in SAMPLERS for n in PROBLEMS if (k, n) != ("slice", "funnel in ten dimensions")]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_moments(kind, name):
    metric, problem = PROBLEMS[name]
    sampler = SAMPLERS[kind](metric, problem.log_prob, problem.dim)
    starts = 0.5 * jax.random.normal(jax.random.key(0), (4, problem.dim))
    n, thin = {"langevin": (5000, 8), "lagrangian": (2500, 2), "slice": (1500, 2)}[kind]
    found = sample(sampler, jax.random.key(1), starts, n, burn_in=n // 5, thin=thin)
    assert jnp.max(found.rhat) < 1.05
    z = jax.vmap(jax.vmap(problem.to_normal))(found.draws)
    for feature in (z, z**2 - 1):
        ess = np.array([blackjax.diagnostics.effective_sample_size(feature[..., i]) for i in range(problem.dim)])
        assert ess.min() > 80
        error = np.std(feature, (0, 1)) / np.sqrt(ess)
        assert (np.abs(np.mean(feature, (0, 1))) < 4.5 * error).all()


def test_riemannian_normal_on_the_sphere():
    """The distance r from the mean has the density exp(-r^2 / (2 scale^2)) sin r."""
    sphere, mean, scale = models.Sphere(), jnp.array([0.1, -0.2]), 0.6
    target = riemannian_normal(sphere, mean, scale)
    found = sample(Langevin(sphere, target, 0.2), jax.random.key(0), jnp.tile(mean, (4, 1)), 600, burn_in=50)
    distances = jax.vmap(jax.vmap(lambda x: sphere.closed_dist(mean, x)))(found.draws)

    def moment(k):
        return integrate.quad(lambda r: r**k * np.exp(-(r**2) / (2 * scale**2)) * np.sin(r), 0, np.pi)[0]

    error = np.std(distances) / np.sqrt(float(jnp.min(found.ess)))
    assert abs(np.mean(distances) - moment(1) / moment(0)) < 4.5 * error
    # The normal distribution of the chart is another one.
    assert abs(stats.norm(0, scale).expect(abs) - moment(1) / moment(0)) > 5 * error
