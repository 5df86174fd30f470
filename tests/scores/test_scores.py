"""Scores against autodiff of their log density, SciPy, and their own definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

from scoregeo import (
    DensityScore,
    FunctionScore,
    GaussianMixtureScore,
    GaussianScore,
    KernelDensityScore,
    NetworkScore,
)


def random_cov(key, d):
    a = jax.random.normal(key, (d, d))
    return a @ a.T / d + 0.3 * jnp.eye(d)


def random_mixture(key, k, d, dtype=jnp.float64):
    keys = jax.random.split(key, k + 2)
    covs = jnp.stack([random_cov(key, d) for key in keys[:k]])
    weights = jax.nn.softmax(jax.random.normal(keys[k], (k,)))
    means = 2 * jax.random.normal(keys[k + 1], (k, d))
    return GaussianMixtureScore(weights.astype(dtype), means.astype(dtype), covs.astype(dtype))


def random_scores(seed, d, dtype=jnp.float64):
    key = jax.random.key(seed)
    data = jax.random.normal(key, (20, d), dtype)
    return {
        "gaussian": GaussianScore(data[0], random_cov(key, d).astype(dtype)),
        "mixture": random_mixture(key, 3, d, dtype),
        "kernel": KernelDensityScore(data, 0.4),
        "density": DensityScore(lambda x, a: -jnp.sum(jnp.cosh(a * x)), jnp.asarray(0.7, dtype)),
    }


KINDS = ["gaussian", "mixture", "kernel", "density"]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tol"), [(jnp.float64, 1e-12), (jnp.float32, 1e-4)])
@pytest.mark.parametrize("d", [1, 2, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_score_is_gradient_of_log_prob(kind, d, dtype, tol):
    for seed in range(3):
        score = random_scores(seed, d, dtype)[kind]
        for x in jax.random.normal(jax.random.key(seed + 10), (4, d), dtype):
            expected = jax.grad(score.log_prob)(x)
            assert score(x).dtype == dtype
            np.testing.assert_allclose(score(x), expected, rtol=tol, atol=tol * (1 + jnp.abs(expected).max()))


@pytest.mark.parametrize("d", [1, 3])
def test_log_prob_against_scipy(d):
    scores = random_scores(0, d)
    points = np.asarray(jax.random.normal(jax.random.key(5), (6, d)))
    gaussian, mixture, kernel = scores["gaussian"], scores["mixture"], scores["kernel"]
    normal = scipy.stats.multivariate_normal
    for x in points:
        np.testing.assert_allclose(gaussian.log_prob(x), normal(gaussian.mean, gaussian.cov).logpdf(x), rtol=1e-10)
        densities = [normal(m, c).pdf(x) for m, c in zip(mixture.means, mixture.covs, strict=True)]
        np.testing.assert_allclose(mixture.log_prob(x), np.log(mixture.weights @ np.array(densities)), rtol=1e-10)
        densities = [normal(m, 0.4**2 * np.eye(d)).pdf(x) for m in np.asarray(kernel.data)]
        np.testing.assert_allclose(kernel.log_prob(x), np.log(np.mean(densities)), rtol=1e-10)


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "kernel"])
def test_noised_is_the_marginal(kind):
    """In one dimension, against the convolution integral p_t(x) = int p(y) N(x; alpha y, sigma^2) dy."""
    score = random_scores(1, 1)[kind]
    alpha, sigma = 0.7, 0.5
    y = np.linspace(-15, 15, 20001)
    p = np.exp(jax.vmap(score.log_prob)(y[:, None]))
    noised = score.noised(alpha, sigma)
    for x in (-1.3, 0.2, 2.0):
        marginal = np.trapezoid(p * scipy.stats.norm(alpha * y, sigma).pdf(x), y)
        np.testing.assert_allclose(noised.log_prob(jnp.array([x])), np.log(marginal), rtol=1e-8)


def test_samples_have_the_moments_of_the_mixture():
    mixture = random_mixture(jax.random.key(3), 3, 2)
    x = mixture.sample(jax.random.key(0), 200_000)
    mean = mixture.weights @ mixture.means
    second = jnp.einsum("k,kij->ij", mixture.weights, mixture.covs + mixture.means[:, :, None] * mixture.means[:, None])
    np.testing.assert_allclose(x.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(x.T @ x / len(x), second, atol=0.1)
    gaussian = GaussianScore(mean, second)
    np.testing.assert_allclose(jnp.cov(gaussian.sample(jax.random.key(1), 200_000).T), second, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 3, 200])
@pytest.mark.parametrize(
    ("dtype", "point_dtype", "error"),
    [(np.float64, np.float64, 1e-8), (np.float32, np.float32, 1e-5), (np.float32, np.float64, 1e-8)],
)
def test_narrow_kernels(d, dtype, point_dtype, error):
    """A thousand times narrower than the data, which are far from the origin; against sums in extended precision."""
    random = np.random.default_rng(d)
    data = (random.normal(size=(40, d)) + 5).astype(dtype)
    data[1] = data[0] + dtype(2e-3 / d**0.5)
    bandwidth = dtype(1e-3)
    score = KernelDensityScore(jnp.asarray(data), bandwidth)
    for part in (0.3, 0.5, 1.1):
        x = (data[0] + point_dtype(part) * (data[1] - data[0])).astype(point_dtype)
        difference = (data.astype(np.longdouble) - x) / bandwidth
        terms = -0.5 * np.sum(difference**2, -1)
        kernels = np.exp(terms)
        expected = kernels @ difference / kernels.sum() / bandwidth
        # Half-way the score is zero: what rounding leaves is to be measured by what the parts are.
        np.testing.assert_allclose(score(x), expected, atol=error / bandwidth)
        log_prob = np.log(kernels.mean()) - d * np.log(bandwidth * np.sqrt(2 * np.pi, dtype=np.longdouble))
        np.testing.assert_allclose(score.log_prob(x), log_prob, atol=error * d)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "error"), [(jnp.float64, 1e-11), (jnp.float32, 2e-5)])
@pytest.mark.parametrize("n", [1, 7])
def test_derivatives_of_kernels(n, dtype, error):
    """First and second ones, with respect to point, data and bandwidth, against those of the formula by differences."""

    def plain(x, data, bandwidth):
        weights = jax.nn.softmax(-jnp.sum((data - x) ** 2, -1) / (2 * bandwidth**2))
        return weights @ (data - x) / bandwidth**2

    def ours(x, data, bandwidth):
        return KernelDensityScore(data, bandwidth)(x)

    keys = jax.random.split(jax.random.key(n), 3)
    x, data = jax.random.normal(keys[0], (3,), dtype), jax.random.normal(keys[1], (n, 3), dtype)
    arguments, cotangent = (x, data, jnp.asarray(0.7, dtype)), jax.random.normal(keys[2], (3,), dtype)

    def curvature(score):
        gradient = jax.grad(lambda *arguments: cotangent @ score(*arguments), (0, 1, 2))
        return jax.jvp(gradient, arguments, jax.tree.map(jnp.ones_like, arguments))

    for found, expected in zip(*(jax.tree.leaves(curvature(score)) for score in (ours, plain)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=error, atol=error * max(1, float(jnp.abs(expected).max())))


@pytest.mark.parametrize("kind", KINDS)
def test_passes_through_transformations(kind):
    score = random_scores(0, 2)[kind]
    points = jax.random.normal(jax.random.key(1), (3, 2))
    batched = jax.jit(jax.vmap(lambda s, x: s(x), in_axes=(None, 0)))(score, points)
    np.testing.assert_allclose(batched, jnp.stack([score(x) for x in points]), rtol=1e-12)
    gradients = jax.jit(jax.grad(lambda s: jnp.sum(s(points[0]))))(score)
    leaves = [leaf for leaf in jax.tree.leaves(gradients) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert leaves
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
    assert any(bool((leaf != 0).any()) for leaf in leaves)
    assert score.conservative


def test_gradient_with_respect_to_parameters():
    """Building the score inside a loss differentiates it with respect to what it is built from."""
    x = jnp.array([0.3, -0.8])

    def loss(scale):
        return jnp.sum(GaussianScore(jnp.zeros(2), scale * jnp.eye(2))(x))  # -(x1 + x2) / scale

    np.testing.assert_allclose(jax.grad(loss)(2.0), jnp.sum(x) / 4, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(2.0), jnp.sum(x) / 4, rtol=1e-12)


class TestFit:
    def test_recovers_a_mixture(self):
        truth = GaussianMixtureScore(
            jnp.array([0.3, 0.7]),
            jnp.array([[-2.0, 0.0], [2.0, 1.0]]),
            jnp.array([[[1, 0.5], [0.5, 1]], [[0.3, 0], [0, 0.6]]]),
        )
        data = truth.sample(jax.random.key(0), 20_000)
        score, history = GaussianMixtureScore.fit(data, 2, key=jax.random.key(1))
        order = jnp.argsort(score.means[:, 0])
        np.testing.assert_allclose(score.weights[order], truth.weights, atol=0.02)
        np.testing.assert_allclose(score.means[order], truth.means, atol=0.05)
        np.testing.assert_allclose(score.covs[order], truth.covs, atol=0.06)
        np.testing.assert_allclose(history[-1], jax.vmap(score.log_prob)(data).mean(), atol=1e-4)

    def test_likelihood_never_falls(self):
        data = jax.random.normal(jax.random.key(0), (300, 3)) ** 3
        with pytest.warns(UserWarning, match="max_steps"):
            _, history = GaussianMixtureScore.fit(
                data, 5, key=jax.random.key(0), floor=1e-9, max_steps=30, tolerance=0.0
            )
        assert len(history) == 30
        assert np.diff(history).min() > -1e-6
        assert history[-1] > history[0]

    def test_floor_keeps_components_alive_on_repeated_points(self):
        data = jnp.repeat(jnp.array([[0.0, 0.0], [5.0, 5.0], [5.0, 6.0]]), 10, axis=0)
        score, history = GaussianMixtureScore.fit(data, 3, key=jax.random.key(0), floor=1e-4)
        assert np.isfinite(history).all()
        assert bool(jnp.isfinite(score(jnp.ones(2))).all())

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_floor_that_is_too_small(self, dtype):
        """Points on a line have no density in the plane."""
        data = jnp.linspace(0, 1, 50, dtype=dtype)[:, None] * jnp.array([1.0, 0.5], dtype)
        with pytest.raises(ValueError, match=r"`floor` is too small for these data \(got 0.0\): a covariance became"):
            GaussianMixtureScore.fit(data, 2, key=jax.random.key(0), floor=0.0)

    def test_the_key_decides_and_the_precision_is_that_of_the_data(self):
        data = jax.random.normal(jax.random.key(0), (200, 2), "float32")
        one, again, other = (
            GaussianMixtureScore.fit(data, 4, key=jax.random.key(seed), tolerance=1e-3)[0] for seed in (0, 0, 1)
        )
        assert one.means.dtype == one.covs.dtype == jnp.float32
        np.testing.assert_array_equal(one.means, again.means)
        assert not np.array_equal(one.means, other.means)

    def test_far_from_the_origin(self):
        data = jax.random.normal(jax.random.key(0), (300, 2))
        here, there = (
            GaussianMixtureScore.fit(data + shift, 3, key=jax.random.key(0), tolerance=1e-4)[0] for shift in (0, 1e7)
        )
        np.testing.assert_allclose(there.covs, here.covs, rtol=1e-5)

    def test_bad_input(self):
        data = jnp.ones((10, 2))
        with pytest.raises(ValueError, match=r"`data` must have at least two distinct points to have a covariance"):
            GaussianMixtureScore.fit(data, 1, key=jax.random.key(0))
        with pytest.raises(ValueError, match=r"`data` must have at least n_components=2 distinct points, got 1"):
            GaussianMixtureScore.fit(data, 2, key=jax.random.key(0))
        with pytest.raises(ValueError, match=r"`n_components` must be an integer of at least 1, got 0"):
            GaussianMixtureScore.fit(data, 0, key=jax.random.key(0))
        with pytest.raises(ValueError, match=r"`data` must be finite, but 1 of 20 entries.*\(3, 1\)"):
            GaussianMixtureScore.fit(data.at[3, 1].set(jnp.nan), 1, key=jax.random.key(0))


class TestFunctionScore:
    def test_traced_arguments_do_not_retrace(self):
        traces = []

        def fn(x, a):
            traces.append(1)
            return -a * x

        evaluate = jax.jit(lambda s, x: s(x))
        x = jnp.array([1.0, 2.0])
        np.testing.assert_allclose(evaluate(FunctionScore(fn, 2.0), x), -2 * x)
        np.testing.assert_allclose(evaluate(FunctionScore(fn, 3.0), x), -3 * x)
        assert len(traces) == 1

    def test_callable_pytree(self):
        fn = jax.tree_util.Partial(lambda a, x: -a * x, jnp.array(2.0))
        score = FunctionScore(fn)
        assert [leaf.shape for leaf in jax.tree.leaves(score)] == [()]
        gradient = jax.grad(lambda s: jnp.sum(s(jnp.ones(2))))(score)
        np.testing.assert_allclose(jax.tree.leaves(gradient)[0], -2.0)

    def test_bad_input(self):
        with pytest.raises(TypeError, match=r"`fn` must be callable, got int"):
            FunctionScore(3)
        with pytest.raises(ValueError, match=r"`score` must return shape \(2,\) for a point of shape \(2,\), got \(\)"):
            FunctionScore(jnp.sum)(jnp.ones(2))
        with pytest.raises(ValueError, match=r"`log_prob` must return a scalar.*got shape \(2,\)"):
            DensityScore(lambda x: x).log_prob(jnp.ones(2))


class Linear(nnx.Module):
    """A linear field scaled by the noise level."""

    def __init__(self, seed):
        self.layer = nnx.Linear(2, 2, rngs=nnx.Rngs(seed), param_dtype=jnp.float64)

    def __call__(self, x, noise_level):
        return self.layer(x) / noise_level


class TestNetworkScore:
    def test_value_and_one_trace(self):
        traces = []

        @jax.jit
        def evaluate(score, x):
            traces.append(1)
            return score(x)

        x = jnp.array([0.5, -1.0])
        for seed, level in ((0, 0.2), (1, 0.2), (1, 0.7)):
            module = Linear(seed)
            np.testing.assert_allclose(evaluate(NetworkScore(module, level), x), module(x, level), rtol=1e-12)
        assert len(traces) == 1
        assert not NetworkScore(Linear(0), 0.2).conservative

    def test_a_method_called_score_is_the_score_and_an_attribute_is_not(self):
        class Named(Linear):
            def score(self, x, noise_level):
                return -x

        module, x = Linear(0), jnp.array([0.5, -1.0])
        np.testing.assert_array_equal(NetworkScore(Named(0), 0.2)(x), -x)
        expected = NetworkScore(module, 0.2)(x)
        module.score = Named(1)
        np.testing.assert_array_equal(NetworkScore(module, 0.2)(x), expected)

    def test_bad_input(self):
        with pytest.raises(TypeError, match=r"`module` must be a flax nnx.Module, got function"):
            NetworkScore(lambda x, t: x, 0.1)


BAD = [
    (lambda: GaussianScore(jnp.zeros(2), jnp.eye(3)), r"`cov` must have shape \(2, 2\) to match `mean`, got \(3, 3\)"),
    (lambda: GaussianScore(jnp.zeros(2), jnp.diag(jnp.array([1.0, -1.0]))), r"`cov` must be positive definite.*-1"),
    (lambda: GaussianScore(jnp.zeros(2), jnp.array([[1.0, 0.5], [0.0, 1.0]])), r"`cov` must be symmetric"),
    (lambda: GaussianScore(jnp.array([0.0, jnp.nan]), jnp.eye(2)), r"`mean` must be finite, but 1 of 2"),
    (lambda: GaussianScore(jnp.zeros((2, 1)), jnp.eye(2)), r"`mean` must have shape \(d,\), got \(2, 1\)"),
    (lambda: GaussianScore(jnp.zeros(2), jnp.eye(2)).noised(1.0, -0.1), r"`sigma` must be non-negative, got -0.1"),
    (
        lambda: GaussianMixtureScore(jnp.array([0.5, 0.6]), jnp.zeros((2, 1)), jnp.ones((2, 1, 1))),
        r"`weights` must sum to one, got.*1.1",
    ),
    (
        lambda: GaussianMixtureScore(jnp.array([1.5, -0.5]), jnp.zeros((2, 1)), jnp.ones((2, 1, 1))),
        r"`weights` must be non-negative.*-0.5",
    ),
    (
        lambda: GaussianMixtureScore(jnp.ones(1), jnp.zeros((2, 1)), jnp.ones((2, 1, 1))),
        r"`weights` must have shape \(2,\)",
    ),
    (
        lambda: GaussianMixtureScore(jnp.full(2, 0.5), jnp.zeros((2, 1)), jnp.ones((2, 1))),
        r"`covs` must have shape \(2, 1, 1\)",
    ),
    (
        lambda: GaussianMixtureScore(jnp.full(2, 0.5), jnp.zeros((2, 1)), -jnp.ones((2, 1, 1))),
        r"`covs` must be positive definite",
    ),
    (lambda: KernelDensityScore(jnp.zeros((3, 2)), 0.0), r"`bandwidth` must be positive, got 0"),
    (lambda: KernelDensityScore(jnp.zeros(3), 1.0), r"`data` must have shape \(n, d\)"),
    (
        lambda: KernelDensityScore(jnp.zeros((0, 2)), 1.0),
        r"`data` must have shape \(n, d\) with n, d >= 1, got \(0, 2\)",
    ),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_bad_parameters(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.slow
def test_text_is_refused():
    with pytest.raises(TypeError, match="`mean` must be an array of numbers, got str"):
        GaussianScore("zero", jnp.eye(2))
