"""Scripts of fewer than 15 lines, written from README and docs alone, do what somebody new wants, outside the repo."""

import pathlib
import re
import runpy

import jax
import numpy as np
import pytest
from PIL import Image

HERE = pathlib.Path(__file__).parent
SCRIPTS = sorted(path for path in HERE.glob("*.py") if not path.stem.startswith("test_"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """What a script prints that runs in an empty folder, in single precision, as JAX comes; as lines."""
    monkeypatch.chdir(tmp_path)

    def run_here(name):
        with jax.enable_x64(False):
            runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run_here


def numbers(line):
    return [float(word) for word in line.split()]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_short(path):
    assert len(path.read_text().splitlines()) < 15


@pytest.mark.slow
def test_own_csv(run, tmp_path):
    """Two far groups in units of their own: in the distances they are two blocks."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(["a", "b"], 5)
    rows = np.where(kinds == "a", 170, 190)[:, None] + rng.normal(size=(10, 2)) * 3 + [0, -100]
    lines = ["height,weight,kind"] + [f"{h:.2f},{w:.2f},{kind}" for (h, w), kind in zip(rows, kinds, strict=True)]
    (tmp_path / "measurements.csv").write_text("\n".join(lines))
    run("own_csv")
    matrix = np.load("distances.npy")
    assert matrix.shape == (10, 10)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert (np.diag(matrix) == 0).all()
    same = kinds[:, None] == kinds
    assert matrix[same].max() < matrix[~same].min() + 1.5
    assert np.median(matrix[same]) < 0.5 * np.median(matrix[~same])
    with Image.open("distances.png") as picture:
        assert picture.width > 100


def lengths(lines):
    """The lengths of converged geodesics, by name."""
    found = [re.fullmatch(r"(.+) Geodesic\(length ([\d.]+) .*converged, .*\)", line) for line in lines]
    assert all(found), lines
    return {match[1]: float(match[2]) for match in found}


@pytest.mark.slow
def test_own_scores_functions(run):
    """Four ways to say one score, that of a Gaussian, of variances that are known."""
    found = lengths(run("own_scores_functions"))
    assert set(found) == {"function", "log density", "predicted noise", "velocity"}
    assert abs(found["function"] - found["log density"]) < 1e-3
    straight = np.hypot(2, 0.2)
    assert all(straight < length < 1.5 * straight for length in found.values())


@pytest.mark.slow
def test_own_scores_networks(run):
    found = lengths(run("own_scores_networks"))
    assert set(found) == {"linen", "nnx", "equinox"}
    assert all(length > np.hypot(2, 0.2) - 1e-3 for length in found.values())


@pytest.mark.slow
def test_distance_as_a_loss(run):
    """Two points and four weights: the loss can vanish."""
    losses = [float(line) for line in run("distance_as_a_loss")]
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.slow
def test_own_metric(run):
    """The half-plane: cosh d = 1 + |x - y|^2 / (2 x_2 y_2)."""
    assert abs(float(run("own_metric")[0]) - np.arccosh(3)) < 1e-3


@pytest.mark.slow
def test_frechet_mean(run):
    """No other point has a smaller mean squared distance: not the arithmetic mean either."""
    mean, at_arithmetic = run("frechet_mean")
    *point, variance = numbers(mean)
    assert variance < float(at_arithmetic)
    assert 0.8 < np.linalg.norm(point) < 1.5  # on the side of the points


def test_curvature(run):
    """At the summit of log p the surface is strength^(1/2) log p: strength times the determinant of the Hessian."""
    assert abs(float(run("curvature")[0]) - 2.0 / 0.25) < 1e-3


@pytest.mark.slow
def test_two_gammas(run):
    """Both have the mean 6; maximum likelihood errs by some hundredths at 2,000 samples."""
    first, *path = run("two_gammas")
    shape, rate, other, other_rate, distance = numbers(first)
    np.testing.assert_allclose([shape, rate, other, other_rate], [2, 1 / 3, 4, 2 / 3], rtol=0.15)
    # At one mean the length is an integral over the shape: of sqrt(psi'(k) - 1/k).
    from scipy.special import polygamma

    shapes = np.linspace(shape, other, 2001)
    speeds = np.sqrt(polygamma(1, shapes) - 1 / shapes)
    assert abs(distance / np.sum((speeds[1:] + speeds[:-1]) / 2 * np.diff(shapes)) - 1) < 0.05
    ends = [numbers(line) for line in path]
    np.testing.assert_allclose([ends[0], ends[2]], [[shape, rate], [other, other_rate]], rtol=1e-4)


@pytest.mark.slow
def test_digits(run):
    run("digits")
    with Image.open("digits.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape == (150, 700)
    assert pixels.std() > 20  # not empty
