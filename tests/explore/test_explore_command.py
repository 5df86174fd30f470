"""``scoregeo explore``: a page of each kind of input, and one line for every mistake."""

import json

import jax
import numpy as np
import pytest
from page_support import about, floats, points

from scoregeo import cli, explore
from scoregeo.cli._geometry import Geometry, check_known_sigma, known_sigmas
from scoregeo.cli.explore import _levels_of
from scoregeo.datasets import two_moons
from scoregeo.diffusion import MLP, VE, Denoiser, DiffusionModel, FitConfig
from scoregeo.explore.plane import Plane


def run(*words):
    cli.main(["explore", *map(str, words)])


def test_normals(tmp_path, capsys):
    run("--normals", "--out", tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text() == explore.normals_page()
    assert "wrote" in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_of_points(tmp_path, capsys):
    np.save(tmp_path / "points.npy", 3 + 2 * np.asarray(points(50)))
    words = ("--resolution", 64, "--references", 0, "--sigmas", "0.3", "0.5")
    run("--data", tmp_path / "points.npy", "--out", tmp_path / "page.html", *words)
    known = about((tmp_path / "page.html").read_text())
    assert [level["noise"] for level in known["levels"]] == [0.3, 0.5]
    assert known["unit"] == "standardised units"
    np.testing.assert_allclose(floats(known["points"]).reshape(-1, 2).std(0), 1, rtol=1e-5)


def test_moons(tmp_path, capsys):
    words = ("--resolution", 64, "--references", 0, "--ratio", 50, "--metric", "power", "--sigma", 0.2)
    run("--data", "moons", "--out", tmp_path / "page.html", *words)
    known = about((tmp_path / "page.html").read_text())
    assert "wrote" in capsys.readouterr().out
    assert [level["noise"] for level in known["levels"]] == pytest.approx([0.1, 0.14, 0.2, 0.28, 0.4])
    assert (known["level"], known["metric"]) == (2, "power")
    assert known["metrics"] == ["stein", "power", "score-jacobian"]
    assert (known["ratio"], known["unit"], known["plane"]) == (50, "units of the data", None)
    shown = floats(known["points"]).reshape(-1, 2)
    np.testing.assert_allclose(shown, two_moons(jax.random.key(0), 400).points, atol=1e-6)


@pytest.mark.slow
def test_a_model(tmp_path, capsys):
    """Trained for a few steps; the plane goes through three of the points that are kept with it."""
    random = np.random.default_rng(0)
    data = random.normal(size=(300, 3)) * [3.0, 0.5, 1.0] + [10.0, -4.0, 0.0]
    np.save(tmp_path / "train.npy", data)
    steps = ("--steps", "60", "--chunk-steps", "60", "--width", "16", "--depth", "1", "--warmup-steps", "10")
    cli.main(["train", "--data", str(tmp_path / "train.npy"), "--out", str(tmp_path / "model"), *steps])
    words = ("--through", 3, 17, 25, "--resolution", 24, "--references", 0)
    run("--model", tmp_path / "model", "--out", tmp_path / "page.html", *words)
    known = about((tmp_path / "page.html").read_text())
    kept = json.loads((tmp_path / "model" / "geometry.json").read_text())["sigma"]
    assert [level["noise"] for level in known["levels"]] == pytest.approx([kept * f for f in (0.5, 0.7, 1, 1.4, 2)])
    assert known["unit"] == "standardised units"
    assert (known["dimension"], known["axes"]) == (3, ["u₁", "u₂"])
    assert "three points" in known["plane"]
    three = ((data - data.mean(0)) / data.std(0))[[3, 17, 25]]
    plane = Plane.through(three)
    assert plane.marked is not None
    for end in known["start"]:
        assert np.abs(plane.marked - np.array(end)).max(1).min() < 1e-4


@pytest.mark.parametrize("end", [0, 1])
def test_levels_about_one_that_is_kept_are_ones_that_the_model_knows(end, tmp_path):
    """At the ends of what it knows, where rounding to six digits would leave that."""
    denoiser = Denoiser(MLP(2, width=4, depth=1, key=jax.random.key(0)), 1.0)
    model = DiffusionModel(denoiser, FitConfig(schedule=VE(0.01234549, 9.8765436)))
    limit = known_sigmas(model)[end]
    Geometry(2 * limit if end == 0 else limit / 2, 1.0, 10.0).save(tmp_path)
    levels = _levels_of(model, tmp_path)
    assert len(levels) == 5
    for level in levels:
        check_known_sigma(level, model)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "p.html"), "`--model`, `--data` or `--normals` must say what to explore, got none"),
        (("--out", "p.html", "--normals", "--data", "moons"), "got --data, --normals"),
        (("--out", "p.txt", "--normals"), "`--out` must end in .html, got p.txt"),
        (("--out", "p.html", "--data", "moons", "--key", "x"), "`--key` is for a file, but `--data` is moons"),
        (("--out", "p.html", "--data", "moons", "--through", "0", "1", "2"), "`--through` is for points in more"),
        (
            ("--out", "p.html", "--data", "moons", "--through", "0", "0", "2"),
            "`--through` must be three",
        ),
        (("--out", "p.html", "--model", "nowhere"), "`--model` nowhere cannot be used"),
        (("--out", "p.html", "--normals", "--sigmas", "0.2"), "`--sigmas` is for a model or data, but `--normals`"),
        (("--out", "p.html", "--normals", "--through", "0", "1", "2"), "`--through` is for a model or data"),
        (("--out", "p.html", "--normals", "--resolution", "64"), "`--resolution` is for a model or data"),
        (("--out", "p.html", "--normals", "--key", "x"), "`--key` is for a model or data"),
        (("--out", "p.html", "--normals", "--metric", "power"), "`--metric` is for a model or data"),
        (("--out", "p.html", "--data", "moons", "--sigma", "0"), "`--sigma` must be a positive number, got 0"),
        (
            ("--out", "p.html", "--data", "moons", "--sigma", "0.2", "--sigmas", "0.1", "0.3"),
            "`--sigma` must be one of `--sigmas`",
        ),
    ],
)
def test_mistakes_take_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
