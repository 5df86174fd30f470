"""LAND and RBF metrics against their formulas by hand, their calibration, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import RESULTS, LandMetric, RbfMetric, SpectralNewton, datasets, geodesic
from scoregeo.metrics import contrast

MOONS = datasets.two_moons(jax.random.key(0), 200)


def cloud(d, n=30):
    return np.random.default_rng(d).normal(size=(n, d))


def land_diagonal(x, points, bandwidth, floor):
    differences = points - x
    kernel = jnp.exp(-jnp.sum(differences**2, -1) / (2 * bandwidth**2))
    return 1 / (jnp.einsum("n,ni->i", kernel, differences**2) + floor)


def rbf_diagonal(x, centers, widths, weights, floor):
    return 1 / (weights @ jnp.exp(-0.5 * jnp.sum((centers - x) ** 2, -1) / widths**2) + floor)


def metric_and_diagonal(kind, d):
    points = cloud(d)
    if kind == "land":
        return LandMetric(points, 1.1, 0.2), lambda x: land_diagonal(x, points, 1.1, 0.2)
    rng = np.random.default_rng(d + 50)
    centers, widths, weights = points[:7], rng.uniform(0.5, 1.5, 7), rng.uniform(0, 2, (d, 7))
    return RbfMetric(centers, widths, weights, 0.1), lambda x: rbf_diagonal(x, centers, widths, weights, 0.1)


def acceleration_by_hand(diagonal, x, v):
    """-Gamma(v, v) from the derivatives of the matrix; Gamma^k_ij = G^kl (d_i G_lj + d_j G_li - d_l G_ij) / 2."""
    derivative = jax.jacfwd(lambda z: jnp.diag(diagonal(z)))(x)  # [i, j, l] = d_l G_ij
    lower = jnp.einsum("ijl,l,j->i", derivative, v, v) - 0.5 * jnp.einsum("ijl,i,j->l", derivative, v, v)
    return -lower / diagonal(x)


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2, 5, 20])
@pytest.mark.parametrize("kind", ["land", "rbf"])
def test_diagonal_and_acceleration(kind, d):
    metric, diagonal = metric_and_diagonal(kind, d)
    rng = np.random.default_rng(d)
    # A point of the data is among them: the extent of that point itself is zero there.
    xs = jnp.asarray(np.concatenate([cloud(d)[:1], 0.5 * rng.normal(size=(3, d))]))
    vs = jnp.asarray(rng.normal(size=(4, d)))
    at = jax.jit(jax.vmap(lambda x, v: (metric.at(x).mv(v), metric.acceleration(x, v))))
    by_hand = jax.jit(jax.vmap(lambda x, v: (diagonal(x) * v, acceleration_by_hand(diagonal, x, v))))
    for got, expected in zip(at(xs, vs), by_hand(xs, vs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["land", "rbf"])
def test_far_away_it_is_constant_and_differentiable(kind):
    metric, _ = metric_and_diagonal(kind, 2)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), metric)
    for some, dtype in ((metric, np.float64), (single, np.float32)):
        x, v = jnp.asarray([300.0, -1e3], dtype), jnp.asarray([1.0, 2.0], dtype)
        np.testing.assert_allclose(some.at(x).mv(v), v / some.floor, rtol=1e-6)
        np.testing.assert_array_equal(some.acceleration(x, v), 0)
        assert some.domain(x) < 0 < some.domain(jnp.zeros(2, dtype))


def test_one_point_of_data():
    metric = LandMetric(np.zeros((1, 3)), 0.5, 0.1)
    np.testing.assert_allclose(metric.at(jnp.zeros(3)).diagonal, 10.0)
    np.testing.assert_array_equal(metric.acceleration(jnp.zeros(3), jnp.ones(3)), 0)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [5.0, 30.0])
@pytest.mark.parametrize("kind", ["land", "rbf"])
def test_fit_costs_what_it_should(kind, ratio):
    metric = LandMetric.fit(MOONS.points, 0.05, ratio) if kind == "land" else RbfMetric.fit(MOONS.points, 30, ratio)
    places = contrast(MOONS.points)
    diagonals = jax.jit(jax.vmap(lambda x: metric.at(x).diagonal))
    dearest, cheapest = diagonals(places.off).max(1), diagonals(MOONS.points).min(1)
    assert float(jnp.percentile(dearest, 90) / jnp.median(cheapest)) == pytest.approx(ratio, rel=1e-2)


@pytest.mark.slow
def test_rbf_is_about_one_on_the_data():
    metric = RbfMetric.fit(MOONS.points, 30, 20.0)
    extents = np.asarray(jax.vmap(metric.extent)(MOONS.points))
    assert abs(extents.mean() - 1) < 0.1
    assert extents.std() < 0.3
    # More spread, wider kernels.
    wide = RbfMetric.fit(MOONS.points, 30, 1.5, spread=2.0)
    np.testing.assert_allclose(wide.bandwidths, 2 * metric.bandwidths, rtol=1e-12)
    # Points on centres of their own have no width of their own.
    corners = np.repeat(np.eye(3), [1, 1, 4], axis=0) + 0.1 * np.eye(6)[:, :3]
    assert (RbfMetric.fit(corners, 3, 2.0).bandwidths > 0).all()


def test_a_ratio_out_of_reach():
    """Kernels as wide as the data hardly change between them."""
    with pytest.warns(UserWarning, match=r"`ratio` 1000 is out of reach: h is .* on the data as off"):
        metric = LandMetric.fit(MOONS.points, 0.6, 1e3)
    assert metric.floor > 0


@pytest.mark.slow
def test_no_data_near_the_path_is_a_status():
    points = np.array([[0.0, 0.0], [10.0, 0.0]])
    metric = LandMetric(points, 0.3, 0.1)
    solver = SpectralNewton(max_elements=1, rtol=1e-3)
    result = geodesic(metric, np.array([0.1, 0.0]), np.array([9.9, 0.1]), solver=solver, throw=False)
    assert result.result == RESULTS.outside_domain
    with pytest.raises(ValueError, match=r"`metric` has no data near x = .* are 10 bandwidths away"):
        geodesic(metric, np.array([0.1, 0.0]), np.array([3.0, 0.0]), solver=solver)


NAN = np.where(np.arange(10)[:, None] == 3, np.nan, np.ones((10, 2)))
SOME = np.arange(20.0).reshape(10, 2)
BAD = {
    "zero bandwidth": (lambda: LandMetric(SOME, 0.0), "`bandwidth` must be positive, got 0"),
    "NaN bandwidth": (lambda: LandMetric(SOME, np.nan), "`bandwidth` must be finite"),
    "bandwidths": (lambda: LandMetric(SOME, np.ones(2)), "`bandwidth` must be a scalar"),
    "zero floor": (lambda: LandMetric(SOME, 1.0, 0.0), "`floor` must be positive"),
    "NaN data": (lambda: LandMetric(NAN, 1.0), "`data` must be finite"),
    "dimension": (lambda: LandMetric(SOME, 1.0).at(jnp.ones(3)), r"`x` must have shape \(2,\)"),
    "ratio below one": (lambda: LandMetric.fit(SOME, 1.0, 0.5), "`ratio` must be at least 1"),
    "ratio one": (lambda: LandMetric.fit(SOME, 1.0, 1.0), "`ratio` must be above 1"),
    "widths": (lambda: RbfMetric(SOME, np.zeros(10), np.ones((2, 10))), "`bandwidths` must be positive"),
    "weights": (lambda: RbfMetric(SOME, np.ones(10), -np.ones((2, 10))), "`weights` must be non-negative"),
    "weights shape": (lambda: RbfMetric(SOME, np.ones(10), np.ones((10, 2))), r"`weights` must have shape \(2, 10\)"),
    "too many centers": (lambda: RbfMetric.fit(SOME, 11), "at least n_centers=11 distinct points, got 10"),
    "points as centers": (lambda: RbfMetric.fit(SOME, 10), "clusters of more than one point"),
    "NaN in fit": (lambda: RbfMetric.fit(NAN, 2), "`data` must be finite"),
    "spread": (lambda: RbfMetric.fit(SOME, 2, spread=0.0), "`spread` must be positive"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_traced_values():
    traces = []

    @jax.jit
    def diagonal(metric):
        traces.append(1)
        return metric.at(jnp.ones(2)).diagonal

    values = [diagonal(LandMetric(SOME, bandwidth, floor)) for bandwidth, floor in ((1.0, 0.1), (2.0, 0.3))]
    assert len(traces) == 1
    assert not np.allclose(*values)
    assert np.isnan(jax.jit(lambda h: LandMetric(SOME, h).at(jnp.ones(2)).diagonal)(-1.0)).all()
