"""The studies of intrinsic dimension and of the density of paths: exact scores, estimates, choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import KernelDensityScore


@pytest.mark.slow
def test_the_score_of_a_sphere_is_that_of_its_points(science):
    """Against a kernel density of many points: those of the 2-sphere in R^4, with noise of their own."""
    data = science("_dimension.data").sphere(2, dim=4, tau=0.2)
    random, sigma = np.random.default_rng(1), 0.4
    points = random.normal(size=(40_000, 3))
    points = np.pad(np.sqrt(3) * points / np.linalg.norm(points, axis=1, keepdims=True), ((0, 0), (0, 1)))
    x = points[:20] + sigma * random.normal(size=(20, 4))
    found = jax.vmap(data.exact(sigma))(jnp.asarray(x))
    expected = jax.vmap(KernelDensityScore(points, np.hypot(0.2, sigma)))(jnp.asarray(x))
    errors = np.linalg.norm(found - expected, axis=1) * sigma
    assert np.median(errors) < 0.06
    assert errors.max() < 0.2


def test_the_score_of_a_sphere_in_many_dimensions(science):
    """Its normaliser is a Bessel function: the derivative of log(I_nu(t) t^-nu) is I_(nu + 1) / I_nu."""
    from scipy.special import ive

    k, sigma = 10, 0.9
    data, radius = science("_dimension.data").sphere(k, dim=14, tau=1e-9), np.sqrt(k + 1)
    x = np.random.default_rng(0).normal(size=14)
    y, length = x[: k + 1], np.linalg.norm(x[: k + 1])
    nu, t = (k - 1) / 2, length * radius / sigma**2
    expected = -x / sigma**2
    expected[: k + 1] += radius / sigma**2 * ive(nu + 1, t) / ive(nu, t) * y / length
    assert np.allclose(data.exact(sigma)(jnp.asarray(x)), expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "part", "dimension"), [("subspace", "", 3), ("lollipop", "disk", 2), ("lollipop", "stick", 1)]
)
def test_exact_scores_know_the_dimension(name, part, dimension, science):
    dimensions, study = science("_dimension.data"), science("intrinsic_dimension")
    data = dimensions.subspace(3, dim=9) if name == "subspace" else dimensions.lollipop()
    sample = data.reported
    assert (sample.dimensions[sample.parts == part] == dimension).all()
    # In the middle of the part, far from its edges.
    x = np.zeros((1, 9)) if name == "subspace" else np.array([[0.0 if part == "disk" else 2.0, 0.0, 0.0]])
    assert abs(study.estimate(data.exact, 0.2, x, "denoising")[0] - dimension) < 0.9
    assert abs(study.estimate(data.exact, 0.2, x, "FLIPD")[0] - dimension) < 0.15


def test_points_that_settings_are_chosen_on_are_not_reported(science):
    data = science("_dimension.data").subspace(2, dim=3)
    parts = [data.tuning.points, data.reported.points, data.train]
    assert np.array_equal(np.concatenate(parts), data.everything)
    assert len(np.unique(data.everything, axis=0)) == len(data.everything)


def test_sectional_curvatures_of_a_sphere(science):
    curvatures = science("_dimension.curvatures")
    data = science("_dimension.data").sphere(2, dim=4, tau=1e-3)
    x = jnp.asarray([[np.sqrt(3.0), 0, 0, 0], [0, 1.0, np.sqrt(2.0), 0]])
    found = np.asarray(curvatures.sectional(data.exact(0.1), jnp.asarray(0.1), x, 2))
    assert np.allclose(found[:, 0, 1], 1 / 3, rtol=0.03)  # the error is of the order of sigma^2
    assert np.allclose(found[:, 0, 0], 0, atol=1e-10)
    assert np.isclose(curvatures.radius(data), np.sqrt(3.0), rtol=0.01)


def test_the_jackknife_of_a_mean_is_its_standard_error(science, monkeypatch, tmp_path):
    neighbours, study = science("_dimension.neighbours"), science("_study")
    data = science("_dimension.data").subspace(1, dim=2, tau=0.5)
    monkeypatch.setattr(neighbours, "LOCAL", ())
    monkeypatch.setattr(neighbours, "GLOBAL", ("first_coordinate",))
    monkeypatch.setattr(neighbours, "_global", lambda name, points: points[:, 0].mean())
    neighbours.follow(table := study.Table(tmp_path / "rows.csv", 0), data)
    row, points = "subspace_1/points/first_coordinate", data.everything
    assert np.isclose(study.value(table.rows, row, "dimension"), points[:, 0].mean(), rtol=1e-5)
    exact = points[:, 0].std() / np.sqrt(len(points))
    # Ten groups tell a standard error to about a quarter: 4.5 of these.
    error = study.value(table.rows, row, "dimension", "standard_error")
    assert exact / 2.2 < error < 2.2 * exact


def test_densities_of_paths(science):
    study = science("path_density")
    density = study.Density("checkerboard", points=50, pairs=2)
    # In the middle of a dark square the eighth part of a unit of probability has an area of one; light ones are empty.
    middles = jnp.array([[-1.5, -1.5], [0.5, 0.5], [0.5, 1.5], [-0.5, 0.5]])
    found = np.exp(jax.vmap(density.score.log_prob)(middles))
    assert np.allclose(found[:2], 1 / 8, rtol=1e-4)
    assert (found[2:] < 1e-4).all()
    tuning, reported = (np.concatenate(density.pairs(split)) for split in ("tuning", "reported"))
    assert not set(map(tuple, tuning)) & set(map(tuple, reported))
    line = study.line(np.array([[-1.5, -1.5]]), np.array([[1.5, -1.5]]), 101)
    figures = density.figures(line)
    logs = np.asarray(jax.vmap(density.score.log_prob)(jnp.asarray(line[0])))
    assert np.allclose(figures["log_p"], logs.mean(), rtol=1e-10)
    assert np.allclose(figures["least_log_p"], logs.min(), rtol=1e-10)
    assert np.allclose(figures["detour"], 1, rtol=1e-10)


@pytest.mark.parametrize("name", ["moons", "checkerboard", "sinus"])
def test_places_are_nearer_than_the_noise(name, science):
    study = science("path_density")
    where = study.places(name)
    assert where.shape == (800, 2)
    distances = np.linalg.norm(where[:, None] - where, axis=-1) + 10 * np.eye(800)
    assert distances.min(1).max() <= study.NOISE * (1 + 1e-9)
