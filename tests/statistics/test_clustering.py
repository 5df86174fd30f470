"""Clusters: against scikit-learn in flat space, brute force, closed distances, and central differences."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoregeo as sg
from scoregeo import RESULTS
from scoregeo.fisher_rao import FisherRaoMetric, Normal
from scoregeo.geodesics.base import AbstractBoundarySolver
from scoregeo.geodesics.certificate import Measurement
from scoregeo.geodesics.curves import Polyline
from scoregeo.statistics import frechet_mean, kmeans, kmedoids

NORMALS = FisherRaoMetric(Normal())
KEY = jax.random.key(0)


def lumps(seed=0, n=12):
    """Normals about three of them, far apart."""
    rng = np.random.default_rng(seed)
    middles = np.array([[0.0, 1.0], [8.0, 1.0], [0.0, 30.0]])
    labels = np.arange(n) % 3
    return jnp.asarray(middles[labels] * np.exp(0.1 * rng.normal(size=(n, 2)))), labels


@eqx.filter_jit
def weighted_clusters(xs, key, weights):
    return kmeans(NORMALS, xs, 3, key, weights=weights, throw=False, gtol=1e-9)


def clusters(xs, key, weights=None):
    # Always with weights: one program.
    return weighted_clusters(xs, key, jnp.ones(len(xs), xs.dtype) if weights is None else weights)


def same_partition(a, b):
    pairs = {*zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True)}
    return len(pairs) == len(np.unique(a)) == len(np.unique(b))


@pytest.mark.slow
def test_lumps_of_normals():
    xs, labels = lumps()
    weights = jnp.linspace(1.0, 2.0, 12)
    found = clusters(xs, KEY, weights)
    assert found.result == RESULTS.successful
    assert same_partition(found.labels, labels)
    assert found.counts.tolist() == [4, 4, 4]
    for c in range(3):
        mine = found.labels == c
        np.testing.assert_allclose(found.centers[c], frechet_mean(NORMALS, xs[mine], weights[mine]).point, rtol=1e-8)
    distances = jax.vmap(lambda x, c: sg.dist(NORMALS, c, x))(xs, found.centers[found.labels])
    np.testing.assert_allclose(found.distances, distances, rtol=1e-8)
    np.testing.assert_allclose(found.distortion, weights @ distances**2 / weights.sum(), rtol=1e-8)
    falls = found.history[: int(found.steps)]
    assert jnp.all(jnp.diff(falls) <= 1e-12)
    np.testing.assert_allclose(falls[-1], found.distortion, rtol=1e-12)
    assert jnp.isnan(found.history[int(found.steps) :]).all()


@pytest.mark.slow
def test_derivatives_at_fixed_labels():
    xs, _ = lumps(1)

    def outcome(xs):
        found = kmeans(NORMALS, xs, 3, KEY, gtol=1e-10)
        return jnp.concatenate([found.centers.ravel(), found.distances, found.distortion[None]])

    h = 1e-5
    along = jnp.zeros_like(xs).at[4, 1].set(1.0)
    # Values too come from the program of derivatives, so that it is the only one in this mode.
    forward = jax.jit(lambda xs: jax.jvp(outcome, (xs,), (along,)))
    numeric = (forward(xs + h * along)[0] - forward(xs - h * along)[0]) / (2 * h)
    np.testing.assert_allclose(forward(xs)[1], numeric, atol=1e-7)
    assert jnp.isfinite(numeric).all()
    slope = jax.jit(jax.grad(lambda xs: outcome(xs)[-1]))(xs)
    np.testing.assert_allclose(slope[4, 1], numeric[-1], atol=1e-7)


class ShortSighted(AbstractBoundarySolver):
    """Straight lines; beyond a length of ``reach`` it fails, with an energy that is wrong by a factor."""

    factor: jax.Array
    reach: float = 5.0

    def solve(self, metric, x, y, init, ts):
        measure = lambda *_: Measurement(jnp.zeros((), x.dtype))  # noqa: E731
        far = jnp.sum((y - x) ** 2) > self.reach**2
        energy = jnp.where(far, self.factor, 1) * jnp.sum((y - x) ** 2) / 2
        lost = [(far, RESULTS.stalled)]
        curve = Polyline(jnp.stack([x, y]))
        return sg.Geodesic.from_curve(curve, ts, measure, ends=(x, y), energy=energy, stats={}, causes=lost)


@pytest.mark.slow
def test_flat_space_is_scikit_learns():
    from sklearn.cluster import KMeans

    xs = np.random.default_rng(3).normal(size=(40, 3))
    init, weights = xs[[0, 1, 2, 3]], np.random.default_rng(0).uniform(0.5, 2, 40)
    solver = ShortSighted(jnp.ones(()), reach=1e3)
    found = kmeans(sg.EuclideanMetric(), xs, 4, KEY, solver=solver, init=init, weights=weights)
    theirs = KMeans(4, init=init, n_init=1, tol=0).fit(xs, sample_weight=weights)
    np.testing.assert_array_equal(found.labels, theirs.labels_)
    np.testing.assert_allclose(found.centers, theirs.cluster_centers_, atol=1e-7)
    np.testing.assert_allclose(found.distortion * weights.sum(), theirs.inertia_, rtol=1e-7)


@pytest.mark.slow
def test_empty_clusters_begin_anew_at_the_worst_point():
    """A center that starts far from everything goes to the points that are served worst."""
    xs, labels = lumps(2)
    init = jnp.array([[0.0, 1.0], [8.0, 1.0], [0.0, 1e6]])
    found = kmeans(NORMALS, xs, 3, KEY, init=init, gtol=1e-9)
    assert same_partition(found.labels, labels)
    assert found.counts.tolist() == [4, 4, 4]


@pytest.mark.slow
def test_fewer_different_points_than_clusters():
    xs = jnp.tile(jnp.array([[0.0, 1.0], [5.0, 2.0]]), (6, 1))
    found = clusters(xs, KEY)
    assert found.result == RESULTS.successful
    np.testing.assert_allclose(found.distortion, 0, atol=1e-12)
    assert sorted(found.counts.tolist()) == [0, 6, 6]


@pytest.mark.slow
def test_restarts_find_the_least(capfd):
    """With a bar, which takes another way to the same."""
    xs = jnp.asarray(np.random.default_rng(5).normal(size=(12, 2))) @ jnp.diag(jnp.array([1.0, 0.2])) + jnp.array(
        [0, 1.5]
    )
    runs = [kmeans(NORMALS, xs, 3, key) for key in jax.random.split(KEY, 6)]
    found = kmeans(NORMALS, xs, 3, KEY, restarts=6, progress=True)
    assert "600/600" in capfd.readouterr().err
    np.testing.assert_allclose(found.distortion, min(run.distortion for run in runs), rtol=1e-9)


@pytest.mark.slow
def test_single_precision_and_one_trace():
    xs, labels = lumps(3)
    assert clusters(xs.astype(jnp.float32), KEY).centers.dtype == jnp.float32
    before = weighted_clusters._cached._cache_size()
    assert same_partition(clusters(xs, jax.random.key(9)).labels, labels)
    assert same_partition(clusters(lumps(4)[0], jax.random.key(5)).labels, labels)
    assert weighted_clusters._cached._cache_size() <= before + 1


def test_refused():
    xs, _ = lumps()
    for words, arguments, settings in (
        ("`k` must be at most the number of points that have weight, 2", (3,), {"weights": [1, 1, *([0] * 10)]}),
        ("`k` must be an integer of at least 1", (0,), {}),
        (r"`init` must have shape \(2, 2\)", (2,), {"init": xs[:3]}),
        ("`restarts` must be 1 with `init`", (2,), {"init": xs[:2], "restarts": 3}),
        ("`gtol` must be a positive number", (2,), {"gtol": 0.0}),
        ("`max_steps` must be an integer", (2,), {"max_steps": 0}),
    ):
        with pytest.raises(ValueError, match=words):
            kmeans(NORMALS, xs, *arguments, KEY, **settings)


@pytest.mark.slow
def test_iterations_that_do_not_end_say_so():
    xs, _ = lumps(6)
    # The seeds alone: nobody knows yet whether labels stay.
    assert kmeans(NORMALS, xs, 3, KEY, max_steps=1, throw=False).result == RESULTS.not_converged
    with pytest.raises(RuntimeError, match="did not converge"):
        kmeans(NORMALS, xs, 3, KEY, max_steps=1)


@pytest.mark.slow
def test_failed_solves_are_no_distances():
    """Neither where they are too short nor where they are too long, and not for the seeds; and that is said."""
    xs = jnp.array([[0.0], [1.0], [10.0], [11.0]])
    for factor in (1e-6, 100.0):
        solver = ShortSighted(jnp.asarray(factor))
        found = kmeans(sg.EuclideanMetric(), xs, 2, KEY, solver=solver, throw=False)
        assert same_partition(found.labels, [0, 0, 1, 1])
        np.testing.assert_allclose(found.distances, 0.5, rtol=1e-6)
        assert found.result == RESULTS.stalled


# --- Medoids ----------------------------------------------------------------------------------------------------------


def matrix(seed=0, n=13, d=2):
    xs = np.random.default_rng(seed).normal(size=(n, d))
    return np.linalg.norm(xs[:, None] - xs, axis=-1)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_medoids_are_the_best(k):
    for seed in range(4):
        distances = matrix(seed)
        found = kmedoids(distances, k, KEY, restarts=5)
        best = min(distances[:, list(chosen)].min(1).sum() for chosen in itertools.combinations(range(13), k))
        np.testing.assert_allclose(found.cost, best, rtol=1e-12)
        np.testing.assert_allclose(found.distances, distances[:, np.asarray(found.medoids)].min(1))
        assert int(found.counts.sum()) == 13
        assert found.labels[found.medoids].tolist() == list(range(k))


def test_no_exchange_helps_in_the_end():
    distances = matrix(7, 60)
    found = kmedoids(distances, 5, jax.random.key(3), init=[0, 1, 2, 3, 4])
    medoids = found.medoids.tolist()
    assert int(found.steps) > 0
    for i, point in itertools.product(range(5), range(60)):
        other = [*medoids[:i], point, *medoids[i + 1 :]]
        assert distances[:, other].min(1).sum() >= float(found.cost) - 1e-9
    with pytest.raises(RuntimeError, match="did not converge"):
        kmedoids(distances, 5, KEY, init=[0, 1, 2, 3, 4], max_steps=1)
    unfinished = kmedoids(distances, 5, KEY, init=[0, 1, 2, 3, 4], max_steps=1, throw=False)
    assert unfinished.result == RESULTS.not_converged


def test_copies_and_as_many_medoids_as_points():
    found = kmedoids(np.zeros((4, 4)), 3, KEY)
    assert float(found.cost) == 0
    assert min(found.counts.tolist()) == 1
    assert kmedoids(matrix(), 13, KEY).medoids.tolist() == list(range(13))


def test_matrices_refused():
    bad = matrix()
    bad[2, 5] = bad[5, 2] = np.nan
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        kmedoids(bad, 2, KEY)
    with pytest.raises(ValueError, match="`k` must be at most the number of points, 13"):
        kmedoids(matrix(), 14, KEY)
    with pytest.raises(ValueError, match="`init` must be 2 different indices from 0 to 12"):
        kmedoids(matrix(), 2, KEY, init=[1, 13])
    with pytest.raises(TypeError, match="outside `jit`"):
        jax.jit(lambda d: kmedoids(d, 2, KEY))(matrix())
