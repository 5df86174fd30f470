"""The pages on science quote what their tables hold, and the studies run."""

import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import EuclideanMetric, Georce, KernelDensityScore

SCIENCE = pathlib.Path(__file__).parents[1] / "benchmarks" / "science"
PAGES = sorted((SCIENCE.parents[1] / "docs" / "science").glob("*.md"))
STUDIES = ("ucg_wcg", "codimension", "two_scores", "rotated_characters", "intrinsic_dimension", "path_density")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_number_of_a_page_has_a_row(page, science):
    pages = science("pages")
    text = page.read_text()
    assert pages.unquoted(text) == []
    assert pages.rebuilt(text) == text


def test_a_wrong_number_is_noticed(science, tmp_path):
    pages, study = science("pages"), science("_study")
    study.Table(tmp_path / "some.csv", 0).add(
        "a/b", {"share": np.array([0.2, 0.4]), "loss": np.array([-0.123, -0.125])}, converged=1.0, seconds=0.0
    )
    text = (
        "It is <!--some a/b share-->.30, at most <!--some a/b share standard_error-->10%; <!--some a/b loss-->−12.4%."
    )
    assert pages.rebuilt(text, tmp_path) == text
    assert pages.unquoted(text) == []
    assert pages.rebuilt(text.replace(".30", ".31"), tmp_path) == text
    assert pages.unquoted("as .31 is, `0.2`, $0.3$, arXiv 2505.18230 and <!--published-->.79 are not") == [".31"]
    with pytest.raises(KeyError, match="no row 'a/c'"):
        pages.rebuilt(text.replace("a/b", "a/c"), tmp_path)


def test_a_table_goes_on_where_it_was(science, tmp_path):
    study = science("_study")
    table = study.Table(tmp_path / "some.csv", 7)
    table.add("a", {"x": np.array([1.0, 2.0, 3.0])}, converged=0.5, seconds=0.25, setting="b 1, c", split=study.TUNING)
    again = study.Table(tmp_path / "some.csv", 7)
    assert "a" in again
    assert "b" not in again
    again.add("b", {"x": study.Estimate(0.5, 0.1, 12)}, converged=1.0, seconds=0.0)
    rows = study.read(tmp_path / "some.csv")
    assert [row["row"] for row in rows] == ["a", "b"]
    assert rows[0]["setting"] == "b 1, c"
    assert study.value(rows, "a", "x") == 2
    assert np.isclose(study.value(rows, "a", "x", "standard_error"), 1 / np.sqrt(3), rtol=1e-2)
    assert study.value(rows, "b", "x", "pairs") == 12
    with pytest.raises(ValueError, match="must be a new one"):
        again.add("b", {"x": np.ones(3)}, converged=1.0, seconds=0.0)


def test_batches_leave_no_pair_out(science):
    study = science("_study")
    xs, ys = np.random.default_rng(0).normal(size=(2, 7, 2))
    solver = Georce(nodes=9, rtol=0.1)
    paths = study.solve(EuclideanMetric(), xs, ys, solver=solver, batch=3, times=9)
    assert np.allclose(paths.points[:, 0], xs)
    assert np.allclose(paths.points[:, -1], ys)
    assert np.allclose(paths.lengths, np.linalg.norm(xs - ys, axis=1))
    assert paths.converged.all()
    assert np.allclose(study.equal_steps(paths.points**3)[:, [0, -1]], paths.points[:, [0, -1]] ** 3)
    assert np.allclose(study.euclidean_length(paths.points), paths.lengths)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["helix", "trefoil", "sphere", "torus", "swiss_roll"])
def test_the_scores_of_shapes_are_those_of_their_points(name, science):
    """Against a kernel density of many points, in R^5."""
    shape = science("_shapes").SHAPES[name]()
    random, sigma = np.random.default_rng(1), 0.3
    points = np.pad(shape.sample(random, 40_000), ((0, 0), (0, 2)))
    assert shape.off(points).max() < 2e-3
    x = points[:20] + sigma * random.normal(size=(20, 5))
    found, expected = (jax.vmap(s)(jnp.asarray(x)) for s in (shape.score(sigma), KernelDensityScore(points, sigma)))
    errors = np.linalg.norm(found - expected, axis=1) / (1 / sigma)
    assert np.median(errors) < 0.06
    assert errors.max() < 0.2


@pytest.mark.parametrize(
    "name", ["helix", "trefoil", "sphere", pytest.param("torus", marks=pytest.mark.slow), "swiss_roll"]
)
def test_the_arcs_of_shapes_are_no_shorter_than_chords(name, science):
    shape = science("_shapes").SHAPES[name]()
    pairs = shape.pairs(np.random.default_rng(0), 8)
    chords = np.linalg.norm(pairs.ys - pairs.xs, axis=1)
    assert shape.off(np.concatenate([pairs.xs, pairs.ys])).max() < 2e-3
    assert (pairs.arcs > chords).all()
    assert (pairs.arcs < np.pi * chords).all()


def test_the_score_of_weighted_gaussians(science):
    density = science("ucg_wcg").Density("WCG")
    x = jnp.array([3.0, 7.5])
    differences = x - density.means
    kernels = density.weights * np.exp(-0.5 * np.sum(differences**2, 1)) / (2 * np.pi)
    assert np.isclose(density.score.log_prob(x), np.log(kernels.sum()), rtol=1e-12)
    assert np.allclose(density.score(x), -(kernels @ differences) / kernels.sum(), rtol=1e-10)
    assert np.allclose(density.score(x), jax.grad(density.score.log_prob)(x), rtol=1e-10)


@pytest.fixture
def turning():
    """Codes of two characters that turn on circles of radius 3 about different centres, as `_codes.Characters`."""
    angle = np.deg2rad(np.arange(720) / 2)
    codes = np.zeros((2, 720, 64))
    codes[..., 0], codes[..., 1] = 3 * np.cos(angle), 3 * np.sin(angle)
    codes[1, :, 2] = 10.0
    return types.SimpleNamespace(codes=codes, data=codes[:, ::2].reshape(-1, 64))


@pytest.mark.parametrize("ends", ["data", "between", "noisy"])
def test_the_distances_of_paths_of_characters(ends, science, turning):
    study = science("rotated_characters")
    pairs = study.Pairs(turning, 0, ends, "reported", 5)
    steps = np.linalg.norm(pairs.xs - pairs.ys, axis=1)
    if ends == "noisy":  # 64 entries of noise at each end, of a quarter of the deviation of all codes
        off = np.linalg.norm(pairs.xs - pairs.rotation[:, 0], axis=1) / (0.25 * turning.data.std() * 8)
        assert (np.abs(off - 1) < 0.5).all()
    else:
        assert np.allclose(steps, 6 * np.sin(np.deg2rad(pairs.turn) / 2))
        distance = np.linalg.norm(pairs.xs[:, None] - turning.data, axis=-1).min(1)
        assert np.allclose(distance, 0 if ends == "data" else 6 * np.sin(np.deg2rad(0.25)))
    # Everything moves by 2 off the planes of the circles.
    away = pairs.rotation + 2.0 * (np.arange(64) == 5)
    figures = pairs.figures(away)
    assert np.allclose(figures["to_rotation"], 2)
    assert np.allclose(figures["to_data"], 2, atol=1e-3)
    assert (figures["astray"] == 1).all()
    assert (pairs.figures(pairs.rotation)["astray"] == 0).all()


def test_pairs_of_characters_are_the_first_of_the_same_ones(science, turning):
    study = science("rotated_characters")
    few, many, other = (
        study.Pairs(turning, 0, "noisy", *rest) for rest in (("reported", 3), ("reported", 9), ("tuning", 9))
    )
    assert np.array_equal(few.xs, many.xs[:3])
    assert not np.isin(many.turn, other.turn).all()


def test_polylines_of_characters_pass_their_nodes(science):
    points = np.random.default_rng(0).normal(size=(2, 12, 3))
    found = science("rotated_characters").upsampled(points)
    assert found.shape == (2, 100, 3)
    assert np.allclose(found[:, ::9], points)
    assert np.allclose(found[:, 3], (2 * points[:, 0] + points[:, 1]) / 3)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_the_studies_run(study, tmp_path, science):
    out = tmp_path / "rows.csv"
    command = [sys.executable, str(SCIENCE / f"{study}.py"), "--quick", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    rows = science("_study").read(out)
    assert rows
    assert all(float(row["mean"]) == float(row["mean"]) for row in rows)
    assert out.with_suffix(".png").stat().st_size > 1000
