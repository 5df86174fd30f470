"""Estimates of Fisher information from data scores, against closed forms and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import GaussianMixtureScore, GaussianScore
from scoregeo.diffusion import EDM, VP, Cosine
from scoregeo.fisher_rao.bridge import location_fisher, location_fisher_trace, marginal_dist, marginal_length

COV = jnp.array([[1.0, 0.4], [0.4, 0.5]])
GAUSSIAN = GaussianScore(jnp.array([0.5, -1.0]), COV)
MIXTURE = GaussianMixtureScore(
    jnp.array([0.6, 0.4]),
    jnp.array([[-1.0, 0.2], [1.0, 0.0]]),
    jnp.array([[[0.3, 0.1], [0.1, 0.4]], [[0.5, 0.0], [0.0, 0.2]]]),
)


def quadrature(score):
    """``-E[H]`` on a grid, with H by automatic differentiation: the other side of the identity."""
    side = jnp.linspace(-6, 6, 161)
    grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)

    def weighted(x):
        return -jnp.exp(score.log_prob(x)) * jax.jacfwd(score)(x)

    return jnp.sum(jax.vmap(weighted)(grid), 0) * (side[1] - side[0]) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_location_fisher(name):
    score = GAUSSIAN if name == "gaussian" else MIXTURE
    exact = jnp.linalg.inv(COV) if name == "gaussian" else quadrature(score)
    seeds, n = 40, 2000
    estimate = jax.jit(jax.vmap(lambda key: location_fisher(score, score.sample(key, n))))
    matrix, error = estimate(jax.random.split(jax.random.key(1), seeds))
    z = (matrix - exact) / error
    assert (abs(z[0]) < 3).all()
    # Over many seeds the standard error is the standard deviation of the estimate, and there is no bias.
    np.testing.assert_allclose(jnp.std(matrix, 0), jnp.mean(error, 0), rtol=0.35)
    assert (abs(jnp.mean(z, 0)) < 3.5 / seeds**0.5).all()

    samples = score.sample(jax.random.key(2), n)
    trace = location_fisher_trace(score, samples)
    np.testing.assert_allclose(trace.value, jnp.trace(location_fisher(score, samples).matrix), rtol=1e-12)
    assert abs(trace.value - jnp.trace(exact)) < 3 * trace.standard_error
    single = location_fisher(jax.tree.map(lambda a: a.astype(jnp.float32), score), samples.astype(jnp.float32))
    assert single.matrix.dtype == jnp.float32
    np.testing.assert_allclose(single.matrix, location_fisher(score, samples).matrix, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_warnings_and_bad_input():
    with pytest.warns(UserWarning, match=r"5 samples are few: the estimate of E\[s s\^T\] has the standard error \d"):
        location_fisher(GAUSSIAN, GAUSSIAN.sample(jax.random.key(0), 5))
    with pytest.warns(UserWarning, match="in its trace, and is singular"):
        location_fisher(GAUSSIAN, GAUSSIAN.sample(jax.random.key(0), 2))
    with pytest.warns(UserWarning, match=r"E\[\|s\|\^2\]"):
        location_fisher_trace(GAUSSIAN, GAUSSIAN.sample(jax.random.key(0), 5))
    with pytest.raises(ValueError, match="`samples` must have at least 2 points"):
        location_fisher(GAUSSIAN, jnp.zeros((1, 2)))
    with pytest.raises(TypeError, match="`score` must be a GaussianScore"):
        marginal_dist(MIXTURE, VP(), 0.1, 0.2)
    samples = jnp.zeros((3, 2))
    for t in (-0.1, 1.1, jnp.nan):
        with pytest.raises(ValueError, match=rf"`t1` must be between t_min and t_max .*, 0.001 and 1, got {t:g}"):
            marginal_length(GAUSSIAN, VP(), 0.1, t, samples, key=jax.random.key(0))
        with pytest.raises(ValueError, match="`t0` must be between t_min and t_max"):
            marginal_dist(GAUSSIAN, VP(), t, 0.1)
    assert marginal_dist(GAUSSIAN, Cosine(), Cosine().t_min, jnp.float32(Cosine().t_max)) > 0
    with pytest.raises(ValueError, match="`t0` must be a scalar time"):
        marginal_dist(GAUSSIAN, VP(), jnp.ones(2), 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=["VP", "EDM"])
def test_marginals_of_gaussian_data(schedule):
    t0, t1 = (0.1, 0.6) if isinstance(schedule, VP) else (0.3, 2.0)

    def moments(t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return alpha * GAUSSIAN.mean, alpha**2 * COV + sigma**2 * jnp.eye(2)

    def speed(t):
        # Fisher information of N(m(t), C(t)): m'^T C^-1 m' + tr((C^-1 C')^2) / 2.
        (_, cov), (dm, dcov) = jax.jvp(moments, (t,), (jnp.ones_like(t),))
        relative = jnp.linalg.solve(cov, dcov)
        return jnp.sqrt(dm @ jnp.linalg.solve(cov, dm) + 0.5 * jnp.trace(relative @ relative))

    nodes, weights = np.polynomial.legendre.leggauss(60)
    exact = (t1 - t0) * jnp.asarray(weights / 2) @ jax.vmap(speed)(t0 + (t1 - t0) * jnp.asarray((nodes + 1) / 2))

    estimate = jax.jit(lambda x, key: marginal_length(GAUSSIAN, schedule, t0, t1, x, key=key, nodes=16))
    values, errors = [], []
    for seed in range(20):
        keys = jax.random.split(jax.random.key(seed))
        value, error = estimate(GAUSSIAN.sample(keys[0], 1000), keys[1])
        values.append(value)
        errors.append(error)
    z = (np.array(values) - exact) / np.array(errors)
    assert abs(z[0]) < 3
    assert abs(z.mean()) < 3.5 / 20**0.5
    np.testing.assert_allclose(np.std(values), np.mean(errors), rtol=0.5)

    # The straight way between the ends is shorter than the way through the noise.
    shortest = marginal_dist(GAUSSIAN, schedule, t0, t1)
    assert 0.9 * exact < shortest < exact
    if isinstance(schedule, EDM):
        # Equal means: a geodesic of covariances, known in closed form.
        centred = GaussianScore(jnp.zeros(2), COV)
        ratio = jnp.linalg.eigvals(jnp.linalg.solve(moments(t0)[1], moments(t1)[1])).real
        closed = jnp.sqrt(0.5 * jnp.sum(jnp.log(ratio) ** 2))
        np.testing.assert_allclose(marginal_dist(centred, schedule, t0, t1), closed, rtol=1e-8)


@pytest.mark.slow
def test_marginals_of_a_mixture():
    """One dimension, against the definition: d/dt log p_t by automatic differentiation, integrated over x."""
    score = GaussianMixtureScore(jnp.array([0.3, 0.7]), jnp.array([[-2.0], [1.0]]), jnp.array([[[0.25]], [[0.5]]]))
    schedule, t0, t1 = VP(), 0.05, 0.5
    grid = jnp.linspace(-9, 9, 1201)

    def speed(t):
        def log_prob(t, x):
            return score.noised(schedule.alpha(t), schedule.sigma(t)).log_prob(x[None])

        value, slope = jax.vmap(jax.value_and_grad(log_prob), (None, 0))(t, grid)
        return jnp.sqrt(jnp.sum(jnp.exp(value) * slope**2) * (grid[1] - grid[0]))

    nodes, weights = np.polynomial.legendre.leggauss(24)
    times = t0 + (t1 - t0) * jnp.asarray((nodes + 1) / 2)
    exact = (t1 - t0) * jnp.asarray(weights / 2) @ jax.jit(lambda ts: jax.lax.map(speed, ts))(times)
    samples = score.sample(jax.random.key(0), 4000)
    there = marginal_length(score, schedule, t0, t1, samples, key=jax.random.key(1))
    back = marginal_length(score, schedule, t1, t0, samples, key=jax.random.key(1))
    assert abs(there.value - exact) < 3 * there.standard_error
    assert there.standard_error < 0.05 * exact
    np.testing.assert_allclose(back.value, there.value, rtol=1e-9)


def test_length_is_compiled_once():
    traces = []

    def denoiser(z, level):
        traces.append(z)
        return z / (1 + level**2)

    lengths = []
    for seed, t1 in enumerate((0.5, 0.6, 0.7)):
        samples = jax.random.normal(jax.random.key(seed), (400, 1))
        lengths.append(marginal_length(denoiser, VP(), 0.1, t1, samples, key=jax.random.key(9), nodes=4).value)
        if seed == 0:
            first = len(traces)
    assert len(traces) == first
    # VP keeps data N(0, 1) as they are: the marginals are all the same.
    np.testing.assert_allclose(lengths, 0, atol=1e-9)
