"""Frechet means: against closed forms and Newton's method on them, isometries, central differences, geomstats."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoregeo as sg
from scoregeo import RESULTS, MatrixMetric, models
from scoregeo.fisher_rao import Categorical, FisherRaoMetric, Normal
from scoregeo.statistics import FrechetMean, frechet_mean, geodesic_regression, tangent_pca
from scoregeo.statistics._tangent import SmoothPath, check_sample, kept_shorter, nothing

NORMALS = FisherRaoMetric(Normal())
# One element and no second try: quick to compile, and enough for what is smooth.
QUICK = sg.SpectralNewton(max_elements=1, continuation=0)


def normals(seed=0, n=12, spread=1.0):
    rng = np.random.default_rng(seed)
    return jnp.stack([spread * rng.normal(size=n), np.exp(spread * rng.normal(size=n))], -1)


def exact_mean(closed_dist, xs, weights, m):
    """Newton's method on a closed distance, from a point that is close."""

    def loss(m):
        return jnp.sum(weights * jax.vmap(lambda x: closed_dist(m, x) ** 2)(xs)) / 2

    for _ in range(6):
        m = m - jnp.linalg.solve(jax.hessian(loss)(m), jax.grad(loss)(m))
    return m


def normal_dist(a, b):
    """The Fisher-Rao distance of normals: sqrt(2) times that of the half-plane at (mean / sqrt(2), sd)."""
    scale = jnp.array([2**-0.5, 1.0])
    return 2**0.5 * models.HyperbolicHalfSpace().closed_dist(a * scale, b * scale)


@eqx.filter_jit
def mean_of_normals(xs, weights=None):
    return frechet_mean(NORMALS, xs, weights, throw=False)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.01, 1.0, 3.0])
def test_mean_of_normals(spread):
    xs, weights = normals(spread=spread), jnp.arange(1.0, 13.0)
    found = mean_of_normals(xs, weights)
    assert found.result == RESULTS.successful
    assert found.gradient_norm <= 1e-10 * jnp.sqrt(found.variance)
    np.testing.assert_allclose(found.point, exact_mean(normal_dist, xs, weights, found.point), rtol=1e-10)
    distances = jax.vmap(lambda x: normal_dist(found.point, x))(xs)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-9)
    np.testing.assert_allclose(found.variance, weights @ distances**2 / weights.sum(), rtol=1e-9)
    # The scale of weights says nothing.
    np.testing.assert_allclose(mean_of_normals(xs, 1e-3 * weights).point, found.point, rtol=1e-9)


@pytest.mark.slow
def test_isometries_carry_means_along():
    xs = normals(1)
    move = lambda x: x * jnp.array([3.0, 3.0]) + jnp.array([7.0, 0.0])  # noqa: E731
    found, image = mean_of_normals(xs), mean_of_normals(jax.vmap(move)(xs))
    np.testing.assert_allclose(image.point, move(found.point), rtol=1e-9)
    np.testing.assert_allclose(image.variance, found.variance, rtol=1e-9)


@pytest.mark.slow
def test_euclidean_mean():
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)))
    found = frechet_mean(sg.EuclideanMetric(), xs, jnp.arange(9), solver=QUICK)
    np.testing.assert_allclose(found.point, np.average(xs, 0, np.arange(9)), atol=1e-12)
    assert found.steps == 1


def test_one_point_and_equal_points_are_their_mean():
    x = jnp.array([0.3, 0.7])
    for xs in (x[None], jnp.stack([x] * 12)):
        found = mean_of_normals(xs)
        np.testing.assert_array_equal(found.point, x)
        assert found.result == RESULTS.successful
        np.testing.assert_allclose(found.variance, 0, atol=1e-15)


@pytest.mark.slow
def test_implicit_derivatives():
    xs, weights = normals(2), jnp.linspace(0.5, 2.0, 12)

    def mean(xs, weights):
        found = frechet_mean(NORMALS, xs, weights)
        return jnp.append(found.point, found.variance)

    h, keys = 1e-5, jax.random.split(jax.random.key(0), 3)
    steps = jax.random.normal(keys[0], xs.shape), jax.random.normal(keys[1], weights.shape)
    covector = jax.random.normal(keys[2], (3,))
    value, pullback = jax.vjp(mean, xs, weights)
    _, forward = jax.jvp(mean, (xs, weights), steps)
    gradients = pullback(covector)
    ahead, behind = (mean(xs + sign * h * steps[0], weights + sign * h * steps[1]) for sign in (1, -1))
    numeric = (ahead - behind) / (2 * h)
    np.testing.assert_allclose(forward, numeric, atol=1e-8)
    backward = sum(jnp.sum(g * step) for g, step in zip(gradients, steps, strict=True))
    np.testing.assert_allclose(backward, covector @ forward, rtol=1e-10)
    assert jnp.isfinite(value).all()


@pytest.mark.slow
def test_constrained_coordinates():
    """Probabilities: sums stay one, and derivatives along the simplex are those of differences, in both modes."""
    metric = FisherRaoMetric(Categorical(3))
    xs = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(3), 7))
    mean = jax.jit(lambda xs: frechet_mean(metric, xs).point)
    np.testing.assert_allclose(mean(xs).sum(), 1, atol=1e-14)
    along = jnp.zeros_like(xs).at[2].set(jnp.array([1.0, -1.0, 0.0]))
    numeric = (mean(xs + 1e-5 * along) - mean(xs - 1e-5 * along)) / 2e-5
    np.testing.assert_allclose(jnp.tensordot(jax.jacrev(mean)(xs), along, 2), numeric, atol=1e-9)
    np.testing.assert_allclose(jax.jvp(mean, (xs,), (along,))[1], numeric, atol=1e-9)


@pytest.mark.slow
def test_many_means_in_one_batch():
    samples = jnp.stack([normals(seed, spread=0.2 * (1 + seed % 7)) for seed in range(100)])
    found = eqx.filter_jit(eqx.filter_vmap(mean_of_normals))(samples)
    assert jnp.all(found.result == RESULTS.successful)
    for i in (0, 41, 99):
        np.testing.assert_allclose(found.point[i], mean_of_normals(samples[i]).point, rtol=1e-9)


@pytest.mark.slow
def test_single_precision():
    xs = normals(3)
    single = mean_of_normals(xs.astype(jnp.float32))
    assert single.point.dtype == jnp.float32
    assert single.result == RESULTS.successful
    np.testing.assert_allclose(single.point, mean_of_normals(xs).point, rtol=2e-4)


@pytest.mark.slow
def test_new_values_do_not_compile_again():
    traces = []

    @eqx.filter_jit
    def mean(metric, xs, weights):
        traces.append(1)
        return frechet_mean(metric, xs, weights).point

    for seed in range(3):
        mean(NORMALS, normals(seed), jnp.arange(1.0, 13.0) + seed)
    assert len(traces) == 1


def test_bad_input():
    xs = normals()
    with pytest.raises(ValueError, match=r"`weights` must have shape \(12,\)"):
        frechet_mean(NORMALS, xs, jnp.ones(3))
    with pytest.raises(ValueError, match=r"must not be negative, got -1 at index 2"):
        frechet_mean(NORMALS, xs, jnp.ones(12).at[2].set(-1))
    with pytest.raises(ValueError, match="`weights` must be finite"):
        frechet_mean(NORMALS, xs, jnp.ones(12).at[2].set(jnp.nan))
    with pytest.raises(ValueError, match="`weights` must have a positive and finite sum, got 0"):
        frechet_mean(NORMALS, xs, jnp.zeros(12))
    with pytest.raises(ValueError, match=r"`xs` must have shape \(n, d\)"):
        frechet_mean(NORMALS, xs[:0])
    with pytest.raises(ValueError, match="`init` must have shape"):
        frechet_mean(NORMALS, xs, init=jnp.zeros(3))
    with pytest.raises(ValueError, match="`gtol` must be a positive number"):
        frechet_mean(NORMALS, xs, gtol=0)
    with pytest.raises(ValueError, match="`max_steps` must be an integer"):
        frechet_mean(NORMALS, xs, max_steps=0)
    with pytest.raises(TypeError, match="`start` must be a starting rule"):
        frechet_mean(NORMALS, xs, start=1.0)
    with pytest.raises(TypeError, match="`metric` must be an AbstractMetric"):
        frechet_mean(lambda x: x, xs)
    # Traced weights cannot be refused: they are NaN.
    assert jnp.isnan(jax.jit(lambda w: frechet_mean(NORMALS, xs, w).point)(-jnp.ones(12))).all()


@pytest.mark.slow
def test_several_starts():
    """In negative curvature there is one mean: it is found from everywhere, and counted once."""
    xs = normals(4)
    found = jax.jit(lambda init: frechet_mean(NORMALS, xs, init=init))(xs[:5])
    assert found.minima == 1
    np.testing.assert_allclose(found.point, mean_of_normals(xs).point, rtol=1e-9)


@pytest.mark.slow
def test_too_few_steps_are_reported():
    with pytest.raises(RuntimeError, match="did not converge"):
        frechet_mean(NORMALS, normals(), max_steps=3)
    found = frechet_mean(NORMALS, normals(), max_steps=3, throw=False)
    assert found.result == RESULTS.not_converged
    assert jnp.isfinite(found.point).all()
    assert jnp.isnan(jax.jit(lambda xs: frechet_mean(NORMALS, xs, max_steps=3).point)(normals())).all()


@pytest.mark.slow
def test_a_geodesic_that_fails_is_reported():
    # Not finite where x > 2.
    spoilt = MatrixMetric(lambda x: jnp.where(x[0] > 2, jnp.nan, 1 + x[1] ** 2) * jnp.eye(2))
    xs = jnp.array([[-1.0, 0.5], [1.0, 0.7], [0.0, 1.0], [3.0, 0.0]])
    run = eqx.filter_jit(lambda w: frechet_mean(spoilt, xs, w, solver=QUICK, throw=False))
    assert run(jnp.ones(4)).result == RESULTS.metric_nonfinite
    # A point without weight does not count.
    found = run(jnp.array([1.0, 1.0, 1.0, 0.0]))
    assert found.result == RESULTS.successful
    assert jnp.isfinite(found.variance)


def test_a_geodesic_is_kept_before_a_failed_solve():
    """Energies say which is better only where both solves ended alike."""
    xs = jnp.zeros((5, 1))
    known = nothing(xs, SmoothPath(jnp.zeros((5, 2, 1)), jnp.zeros((5, 2, 1))))
    codes = (RESULTS.successful, RESULTS.accuracy_not_reached, RESULTS.stalled)
    good, fair, bad = (int(jax.tree.leaves(code)[0]) for code in codes)
    results = lambda *numbers: jax.tree.map(lambda _: jnp.array(numbers, jnp.int32), RESULTS.successful)  # noqa: E731
    old = known._replace(energies=jnp.full(5, 2.0), results=results(good, bad, good, bad, fair))
    new = known._replace(energies=jnp.array([1.0, 3.0, 1.0, 1.0, 1.0]), results=results(bad, good, good, bad, good))
    weights = jnp.ones(5)
    kept, surprise = kept_shorter(new, old, weights, jnp.asarray(True))
    np.testing.assert_array_equal(kept.energies, [2.0, 3.0, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(kept.results == RESULTS.stalled, [False, False, False, True, False])
    assert surprise
    assert not kept_shorter(new, old, weights * jnp.array([1, 0, 0, 0, 0]), jnp.asarray(True))[1]
    np.testing.assert_array_equal(kept_shorter(new, old, weights, jnp.asarray(False))[0].energies, new.energies)


def test_weights_whose_sum_overflows_are_refused():
    """Divided by it they would all be zero."""
    xs, weights = jnp.ones((2, 1)), jnp.full(2, 1e308)
    with pytest.raises(ValueError, match=r"must have a positive and finite sum, got inf"):
        check_sample(sg.EuclideanMetric(), xs, weights)
    traced = jax.jit(lambda weights: check_sample(sg.EuclideanMetric(), xs, weights)[1])
    assert jnp.isnan(traced(weights)).all()
    np.testing.assert_array_equal(traced(weights / 1e9), 0.5)


def test_the_mean_of_another_sample_is_refused():
    """Its logarithms are of other points, whatever their shape."""
    xs, zero = jnp.array([[0.0], [2.0], [4.0]]), jnp.zeros(())
    count = jnp.zeros((), jnp.int32)
    mean = FrechetMean(xs[1], zero, jnp.abs(xs[:, 0] - 2), xs - 2, zero, count, count, RESULTS.successful, xs)
    other = xs.at[2].set(5.0)
    with pytest.raises(
        ValueError, match=r"of another sample of this shape: `xs\[2\]` is \[5.\], that of the mean \[4.\]"
    ):
        tangent_pca(sg.EuclideanMetric(), other, mean=mean)
    with pytest.raises(ValueError, match="of another sample of this shape"):
        geodesic_regression(sg.EuclideanMetric(), jnp.arange(3.0), other, mean=mean)
    with pytest.raises(ValueError, match=r"of shape \(2, 1\), but is of a sample \(3, 1\)"):
        tangent_pca(sg.EuclideanMetric(), xs[:2], mean=mean)
    found = jax.eval_shape(lambda xs: tangent_pca(sg.EuclideanMetric(), xs, mean=mean, throw=False).axes, other)
    assert found.shape == (1, 1)  # what is traced has no values to compare
