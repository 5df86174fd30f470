"""Spacetime against hyperbolic space (isotropic Gaussian data), and against posteriors integrated on a grid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest

from scoregeo import (
    RESULTS,
    EuclideanMetric,
    FunctionScore,
    GaussianMixtureScore,
    GaussianScore,
    SpectralNewton,
    dist,
    geodesic,
    shoot,
)
from scoregeo.diffusion import EDM, MLP, VP, Cosine, Denoiser, DiffusionModel, FitConfig, RectifiedFlow
from scoregeo.fisher_rao import (
    FlatPriorStart,
    SpacetimeDescent,
    SpacetimeMetric,
    diffusion_edit_distance,
    jeffreys_divergences,
    spacetime_energy,
)


def isotropic(variance):
    """The denoiser of data N(0, variance I)."""
    return jax.tree_util.Partial(lambda v, z, level: v * z / (v + level**2), jnp.asarray(variance))


def half_space(x, variance, schedule):
    """Half-space coordinates, from the schedule's own numbers: posterior mean over sqrt(2 d), posterior sd."""
    t = schedule.time_at_log_snr(x[-1])
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    total = alpha**2 * variance + sigma**2
    return jnp.append(
        alpha * variance * x[:-1] / total / jnp.sqrt(2 * (x.size - 1)), jnp.sqrt(variance / total) * sigma
    )


def hyperbolic_dist(a, b, variance, schedule):
    p, q = half_space(a, variance, schedule), half_space(b, variance, schedule)
    argument = 1 + jnp.sum((p - q) ** 2) / (2 * p[-1] * q[-1])
    return jnp.sqrt(2 * (a.size - 1)) * jnp.arccosh(argument)


CASES = [
    (1, 1.0, VP()),
    (2, 0.3, EDM()),
    (5, 4.0, Cosine()),
]


def random_points(metric, d, n, seed, spread):
    keys = jax.random.split(jax.random.key(seed), 2)
    clean = spread * jax.random.normal(keys[0], (n, d))
    return jax.vmap(metric.point)(clean, jax.random.uniform(keys[1], (n,), minval=0.0, maxval=4.0))


@pytest.mark.slow
@pytest.mark.parametrize(("d", "variance", "schedule"), CASES, ids=lambda v: type(v).__name__)
def test_metric_of_an_isotropic_gaussian(d, variance, schedule):
    score = GaussianScore(jnp.zeros(d), variance * jnp.eye(d))
    metric = SpacetimeMetric(score, schedule)
    xs = random_points(metric, d, 6, d, variance**0.5)
    vs = jax.random.normal(jax.random.key(9), xs.shape)

    def expected(x):
        # Pulled back from the half-space, scaled to curvature -1/(2 d).
        jacobian = jax.jacfwd(half_space)(x, variance, schedule)
        return 2 * d * jacobian.T @ jacobian / half_space(x, variance, schedule)[-1] ** 2

    @jax.jit
    def found(x, v):
        product = metric.at(x)
        return product.matrix(d + 1), product.mv(v), product.squared_norm(v), product.solve(product.mv(v))

    for x, v in zip(xs, vs, strict=True):
        matrix, product, squared, solved = found(x, v)
        want = expected(x)
        np.testing.assert_allclose(matrix, want, rtol=1e-9, atol=1e-9 * abs(want).max())
        np.testing.assert_allclose(product, want @ v, rtol=1e-9, atol=1e-9 * abs(want).max())
        np.testing.assert_allclose(squared, v @ want @ v, rtol=1e-9)
        np.testing.assert_allclose(solved, v, rtol=1e-7, atol=1e-8)
        np.testing.assert_array_equal(matrix, matrix.T)
        single = found(x.astype(jnp.float32), v.astype(jnp.float32))
        assert all(a.dtype == jnp.float32 for a in single)
        np.testing.assert_allclose(single[0], want, rtol=1e-4, atol=1e-4 * abs(want).max())


@pytest.mark.slow
@pytest.mark.parametrize(("d", "schedule", "probes"), [(1, VP(), None), (2, EDM(), None), (20, RectifiedFlow(), 1)])
def test_distances_of_an_isotropic_gaussian(d, schedule, probes):
    # Random signs give the exact trace of a multiple of the identity, with a single probe.
    key = None if probes is None else jax.random.key(3)
    solver = SpacetimeDescent(nodes=129, tolerance=1e-4)
    variances = jnp.array([0.2, 1.0, 5.0, 1.0])
    first = SpacetimeMetric(isotropic(1.0), schedule, probes=probes, key=key)
    scale = 0.5 * variances[:, None] ** 0.5
    clean = scale * jax.random.normal(jax.random.key(d), (2, 4, d))
    log_snrs = 3 - jnp.log(variances) + jnp.array([[0.0, 1.0, -0.5, 0.0], [0.5, 0.0, 1.0, 0.0]])
    a, b = jax.vmap(jax.vmap(first.point))(clean, log_snrs)

    def length(a, b, variance):
        metric = SpacetimeMetric(isotropic(variance), schedule, probes=probes, key=key)
        path = geodesic(metric, a, b, solver=solver, init=FlatPriorStart(), throw=False)
        return path.length, path

    lengths, paths = jax.jit(jax.vmap(lambda a, b, v: length(a, b, v)))(a, b, variances)
    assert bool((paths.result == RESULTS.successful).all())
    exact = jax.vmap(lambda a, b, v: hyperbolic_dist(a, b, v, schedule))(a, b, variances)
    np.testing.assert_allclose(lengths, exact, rtol=1e-6)
    assert (abs(lengths - exact) <= paths.error + 1e-9).all()
    np.testing.assert_allclose(paths.points[:, 0], a, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(paths.points[:, -1], b, rtol=1e-9, atol=1e-12)
    if d == 2:
        # The envelope theorem, in both ends and in the variance of the data.
        found = jax.jit(jax.grad(lambda *args: length(*args)[0], argnums=(0, 1, 2)))(a[0], b[0], variances[0])
        want = jax.grad(hyperbolic_dist, argnums=(0, 1, 2))(a[0], b[0], variances[0], schedule)
        for f, w in zip(found, want, strict=True):
            np.testing.assert_allclose(f, w, rtol=2e-3, atol=2e-3)
        # Of a point from itself: zero, and no NaN in the gradient.
        zero, slope = jax.jit(jax.value_and_grad(lambda a: length(a, a[:], variances[0])[0]))(a[0])
        assert zero == 0
        assert (slope == 0).all()


@pytest.mark.slow
def test_spectral_solver_and_shooting():
    metric = SpacetimeMetric(isotropic(1.0), EDM())
    a, b = jnp.array([-0.7, 3.0]), jnp.array([0.8, 2.0])
    solver = SpectralNewton(max_elements=1, continuation=0, degree=24)
    path = geodesic(metric, a, b, init=FlatPriorStart(), solver=solver)
    exact = hyperbolic_dist(a, b, 1.0, EDM())
    np.testing.assert_allclose(path.length, exact, rtol=1e-9)
    # The same geodesic, from its initial velocity, by diffrax: another route through the metric.
    again = shoot(metric, a, path.velocities[0])
    np.testing.assert_allclose(again.points[-1], b, rtol=1e-5)
    # Straight up the noise, the border of the domain is a finite distance away.
    up = shoot(metric, jnp.array([0.0, 0.0]), jnp.array([0.0, -60.0]), throw=False)
    assert up.result == RESULTS.outside_domain
    assert 0 < up.stats["t_end"] < 1


def test_no_geodesic():
    # Equal posterior spread c with c + |dm|^2 / (8 d) > v: the half circle rises above c = v, which no noise reaches.
    metric = SpacetimeMetric(isotropic(1.0), VP())
    a, b = metric.point(jnp.array([-4.0]), 1.0), metric.point(jnp.array([4.0]), 1.0)
    solver = SpacetimeDescent(nodes=33)
    path = geodesic(metric, a, b, solver=solver, init=FlatPriorStart(), throw=False)
    assert path.result == RESULTS.outside_domain
    # What it found is a path all the same, no shorter than the way over the border, straight up and down.
    edge = 2 * jnp.sqrt(1 / 2) * jnp.log(1 / half_space(a, 1.0, VP())[-1])
    assert edge < path.length < jnp.inf
    with pytest.raises(RuntimeError, match="outside the domain"):
        geodesic(metric, a, b, solver=solver, init=FlatPriorStart())
    # An end outside.
    path = geodesic(metric, a, jnp.array([0.0, 50.0]), solver=solver, init=FlatPriorStart(), throw=False)
    assert path.result == RESULTS.outside_domain


MIXTURE = GaussianMixtureScore(
    jnp.array([0.5, 0.3, 0.2]),
    jnp.array([[-1.0, 0.5], [1.0, 0.0], [0.3, -1.2]]),
    jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.3]]]),
)


@pytest.mark.slow
def test_mixture_against_its_posterior():
    """Fisher information, denoiser and divergences of neighbours, from p(x_0 | x_t) on a grid."""
    schedule = VP()
    metric = SpacetimeMetric(MIXTURE, schedule)
    side = jnp.linspace(-4.5, 4.5, 121)
    grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    log_prior = jax.vmap(MIXTURE.log_prob)(grid)
    statistics = jnp.concatenate([grid, jnp.sum(grid**2, -1, keepdims=True)], 1)

    def eta(x):
        alpha = schedule.alpha(schedule.time_at_log_snr(x[-1]))
        sigma = schedule.sigma(schedule.time_at_log_snr(x[-1]))
        return jnp.append(alpha * x[:-1] / sigma**2, -0.5 * alpha**2 / sigma**2)

    def posterior(x):
        return jax.nn.log_softmax(log_prior + statistics @ eta(x))

    def fisher(x):
        p = jnp.exp(posterior(x))
        centred = statistics - p @ statistics
        jacobian = jax.jacfwd(eta)(x)
        return jacobian.T @ (centred.T @ (p[:, None] * centred)) @ jacobian

    xs = jnp.array([[0.2, -0.1, 1.0], [-1.5, 0.4, -1.0], [0.5, 0.5, 3.0], [2.0, 1.0, 0.0]])
    found, want = jax.jit(jax.vmap(lambda x: metric.at(x).matrix(3)))(xs), jax.lax.map(fisher, xs)
    np.testing.assert_allclose(found, want, rtol=1e-7, atol=1e-8)
    assert (np.linalg.eigvalsh(found) > 0).all()

    logs = jax.lax.map(posterior, xs)
    p = jnp.exp(logs)
    jeffreys = jnp.sum((p[1:] - p[:-1]) * (logs[1:] - logs[:-1]), -1)
    np.testing.assert_allclose(jax.jit(jeffreys_divergences)(metric, xs), jeffreys, rtol=1e-7)

    # The energy without the metric becomes that of the metric, to second order in the spacing.
    def path(t):
        return xs[0] + t * (xs[2] - xs[0]) + jnp.sin(3 * t) * jnp.array([0.2, -0.3, 0.1])

    def density(t):
        x, v = jax.jvp(path, (t,), (jnp.ones_like(t),))
        return 0.5 * metric.at(x).squared_norm(v)

    nodes, weights = np.polynomial.legendre.leggauss(20)
    exact = jnp.asarray(weights / 2) @ jax.jit(jax.vmap(density))(jnp.asarray((nodes + 1) / 2))
    errors = []
    for n in (9, 17, 33):
        errors.append(spacetime_energy(metric, jax.vmap(path)(jnp.linspace(0, 1, n))) - exact)
    assert abs(errors[0]) < 0.1 * exact
    np.testing.assert_allclose(np.array(errors[:-1]) / np.array(errors[1:]), 4, rtol=0.1)


@pytest.mark.slow
def test_learned_denoiser():
    """A network is no posterior mean: the definition (d eta)^T (d mu) is not symmetric, its symmetric part is taken."""
    d = 3
    network = MLP(d, width=16, depth=2, key=jax.random.key(0))
    model = DiffusionModel(Denoiser(network, 0.8, jnp.full(d, 0.1)), FitConfig(schedule=VP()))
    # A fresh network outputs zero, which is exact for a Gaussian; random weights are not.
    leaves, structure = jax.tree.flatten(model.weights["net"])
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [w + 0.1 * jax.random.normal(k, w.shape, w.dtype) for w, k in zip(leaves, keys, strict=True)]
    model = eqx.tree_at(lambda m: m.weights["net"], model, jax.tree.unflatten(structure, noisy))
    metric = SpacetimeMetric(model)
    assert metric.schedule == model.schedule
    xs = random_points(metric, d, 3, 1, 1.0)

    def eta_mu(x):
        # In the symbols of the paper, about the origin; nothing of the centring in the code.
        t = metric.schedule.time_at_log_snr(x[-1])
        alpha, sigma = metric.schedule.alpha(t), metric.schedule.sigma(t)

        def denoise(noisy):
            return model.denoiser.denoise(noisy / alpha, sigma / alpha)

        clean, divergence = denoise(x[:-1]), jnp.trace(jax.jacfwd(denoise)(x[:-1]))
        eta = jnp.append(alpha * x[:-1] / sigma**2, -0.5 * alpha**2 / sigma**2)
        return eta, jnp.append(clean, clean @ clean + sigma**2 / alpha * divergence)

    @jax.jit
    def both(x, v):
        eta, mu = jax.jacfwd(eta_mu)(x)
        product = metric.at(x)
        return eta.T @ mu, product.matrix(d + 1), product.mv(v), product.squared_norm(v)

    v = jax.random.normal(jax.random.key(5), (d + 1,))
    for x in xs:
        raw, matrix, product, squared = both(x, v)
        assert abs(raw - raw.T).max() > 1e-3 * abs(raw).max()
        np.testing.assert_allclose(matrix, (raw + raw.T) / 2, rtol=1e-8, atol=1e-8 * abs(raw).max())
        np.testing.assert_allclose(product, matrix @ v, rtol=1e-9, atol=1e-9 * abs(raw).max())
        np.testing.assert_allclose(squared, v @ raw @ v, rtol=1e-8, atol=1e-9)

    # In single precision, as networks are; there and back.
    x, y = jnp.array([[0.5, -0.3, 0.2], [-0.6, 0.4, 0.1]], jnp.float32)
    length = jax.jit(lambda x, y: diffusion_edit_distance(metric, x, y, log_snr=2.0, solver=SpacetimeDescent(nodes=33)))
    there, back = length(x, y), length(y, x)
    assert there.dtype == jnp.float32
    assert there > 0.1
    np.testing.assert_allclose(there, back, rtol=1e-3)


@pytest.mark.slow
def test_what_is_no_metric():
    """Denoisers of no data: squared lengths below zero, or all zero. Rounding between close points is neither."""
    solver = SpacetimeDescent(nodes=9)

    def factor(scale, a, b):
        metric = SpacetimeMetric(jax.tree_util.Partial(lambda scale, z, level: scale * z, scale), EDM())
        return geodesic(metric, a, b, solver=solver, throw=False)

    a, b = jnp.array([[1.0, 1.0], [-1.0, 1.0]])
    paths = jax.jit(jax.vmap(factor))(
        jnp.array([-1.0, 0.0, -1.0, 0.0, 1.0]), jnp.stack([a] * 5), jnp.stack([b, b, a, a, b])
    )
    np.testing.assert_array_equal(paths.length == 0, [True] * 4 + [False])
    np.testing.assert_array_equal(paths.result == RESULTS.metric_nonfinite, [True, True, False, False, False])
    np.testing.assert_array_equal((paths.result == RESULTS.successful)[2:4], True)

    metric = SpacetimeMetric(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), MIXTURE), VP())
    a = jnp.array([[0.7, -0.4, 4.0], [0.1, 0.3, -4.0]], jnp.float32)[:, None]
    b = a + jnp.array([1.0, 0.5, 0.2]) * 10.0 ** jnp.arange(-6, 0)[:, None]
    solve = jax.vmap(lambda a, b: geodesic(metric, a, b, solver=solver, init=FlatPriorStart(), throw=False))
    ends = (side.reshape(-1, 3).astype(jnp.float32) for side in jnp.broadcast_arrays(a, b))
    paths = jax.jit(solve)(*ends)
    assert (paths.stats["negative_segments"] > 0).any()
    assert not (paths.result == RESULTS.metric_nonfinite).any()


def test_high_dimension():
    """More coordinates than matrices are for: solves by conjugate gradients, one random probe, another minimiser."""
    d, schedule = 70, VP()
    variances = jnp.linspace(0.5, 2.0, d)
    metric = SpacetimeMetric(lambda z, level: variances * z / (variances + level**2), schedule)
    x = metric.point(jax.random.normal(jax.random.key(0), (d,)), 1.0)
    v = jax.random.normal(jax.random.key(1), (d + 1,))
    solved = jax.jit(lambda x, v: metric.at(x).solve(metric.at(x).mv(v)))(x, v)
    np.testing.assert_allclose(solved, v, rtol=1e-6, atol=1e-8)

    # Hutchinson's estimate has the right mean: of a rotated denoiser, since of a diagonal Jacobian it is exact.
    basis = jnp.linalg.qr(jax.random.normal(jax.random.key(5), (d, d)))[0]

    def rotated(z, level):
        return basis @ metric.denoiser(basis.T @ z, level)

    def divergence(key):
        return SpacetimeMetric(rotated, schedule, probes=4, key=key).moments(x)[2]

    estimates = jax.jit(jax.vmap(divergence))(jax.random.split(jax.random.key(2), 200))
    standard_error = jnp.std(estimates) / 200**0.5
    assert standard_error > 0
    assert abs(jnp.mean(estimates) - metric.moments(x)[2]) < 3 * standard_error

    isometric = SpacetimeMetric(isotropic(1.0), schedule, probes=1, key=jax.random.key(4))
    a, b = 0.3 * jax.random.normal(jax.random.key(3), (2, d))
    adam = SpacetimeDescent(
        nodes=33, minimiser=optx.OptaxMinimiser(optax.adam(3e-2), rtol=1e-7, atol=1e-7), tolerance=0.02
    )
    found = diffusion_edit_distance(isometric, a, b, log_snr=2.0, solver=adam)
    exact = hyperbolic_dist(isometric.point(a, 2.0), isometric.point(b, 2.0), 1.0, schedule)
    np.testing.assert_allclose(found, exact, rtol=1e-3)


def test_flat_prior_start():
    """The start is the geodesic of the denoiser xhat = z: constant speed, and the hyperbolic length."""
    metric = SpacetimeMetric(lambda z, level: z, EDM())
    a, b = jnp.array([0.3, -0.5, 4.0]), jnp.array([-0.4, 0.8, 2.0])
    nodes = FlatPriorStart()(metric, a, b).nodes
    np.testing.assert_array_equal(nodes[jnp.array([0, -1])], jnp.stack([a, b]))
    half = jnp.concatenate([nodes[:, :-1] / 2, jnp.exp(-0.5 * nodes[:, -1:])], 1)
    squared = jnp.sum(jnp.diff(half, axis=0) ** 2, -1) / (4 * half[1:, -1] * half[:-1, -1])
    steps = 2 * jnp.arcsinh(jnp.sqrt(squared))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    ends = jnp.sum((half[0] - half[-1]) ** 2) / (4 * half[0, -1] * half[-1, -1])
    np.testing.assert_allclose(jnp.sum(steps), 2 * jnp.arcsinh(jnp.sqrt(ends)), rtol=1e-9)
    still = FlatPriorStart()(metric, a, a).nodes
    np.testing.assert_allclose(still, jnp.broadcast_to(a, still.shape), rtol=1e-12)


def test_bad_input():
    score = GaussianScore(jnp.zeros(2), jnp.eye(2))
    metric = SpacetimeMetric(score, VP())
    with pytest.raises(TypeError, match=r"`denoiser` must be .* got FunctionScore"):
        SpacetimeMetric(FunctionScore(lambda x: -x), VP())
    with pytest.raises(TypeError, match=r"`denoiser` must take two arguments \(z, noise_level\)"):
        SpacetimeMetric(lambda x: -x, VP())
    with pytest.raises(TypeError, match=r"`schedule` .* NoneType has no t_min"):
        SpacetimeMetric(score)
    with pytest.raises(ValueError, match="`key` must be given"):
        SpacetimeMetric(score, VP(), probes=2)
    with pytest.raises(ValueError, match="`probes` must be an integer of at least 1"):
        SpacetimeMetric(score, VP(), probes=0, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"`log_snr` must be in the range of the schedule, -10\.\d+ to 9\.\d+, got 20"):
        diffusion_edit_distance(metric, jnp.zeros(2), jnp.ones(2), log_snr=20.0)
    with pytest.raises(ValueError, match="`denoiser` must return shape"):
        dist(SpacetimeMetric(lambda z, level: z[:1], VP()), jnp.zeros(3), jnp.ones(3))
    with pytest.raises(TypeError, match="SpacetimeMetric, got EuclideanMetric"):
        dist(EuclideanMetric(), jnp.zeros(3), jnp.ones(3), solver=SpacetimeDescent())
    with pytest.raises(ValueError, match="one more than a multiple of 4"):
        SpacetimeDescent(nodes=64)
    # The ends of the range belong to it.
    for t in (VP().t_min, VP().t_max):
        assert metric.domain(metric.point(jnp.zeros(2), VP().log_snr(t))) > 0
    assert metric.domain(jnp.array([0.0, 0.0, 11.0])) < 0
