"""``scoregeo plot``: pictures of each kind, slices, animations, and one line for every mistake."""

import json

import numpy as np
import pytest
from PIL import Image

from scoregeo import cli
from scoregeo.cli import plot
from scoregeo.cli._metric import MetricOptions
from scoregeo.cli._report import Report
from scoregeo.cli.plot import Plot
from scoregeo.diffusion import DiffusionModel

SMALL = ("--resolution", "6")


def run(tiny, out, *words):
    cli.main(["plot", "--model", str(tiny / "model"), "--out", str(out), *SMALL, *words])


@pytest.mark.slow
def test_pictures_side_by_side(tiny, tmp_path, capsys):
    words = ("--show", "density", "score", "ellipses", "volume", "--json")
    run(tiny, tmp_path / "new" / "p.png", *words)
    found = json.loads(capsys.readouterr().out)
    assert found["show"] == ["density", "score", "ellipses", "volume"]
    assert found["metric"] == "stein"
    with Image.open(tmp_path / "new" / "p.png") as picture:
        assert picture.size == (150 * 4 * 5.2, 660)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["curvature", "fan", "distance"])
def test_pictures_that_compute(tiny, tmp_path, kind):
    run(tiny, tmp_path / "p.pdf", "--show", kind, "--at", "3", "--radius", "0.5")
    assert (tmp_path / "p.pdf").read_bytes()[:5] == b"%PDF-"


def test_all_kinds_have_a_picture():
    assert set(plot._PICTURES) == set(plot.Kind.__args__)


@pytest.mark.parametrize(("sweep", "least"), [("strength", 0.0), ("ratio", 1.0), ("sigma", 0.002)])
def test_what_is_swept(tiny, sweep, least):
    """About what was chosen, as far as it makes sense."""
    model = DiffusionModel.load(tiny / "model")
    options = MetricOptions()
    command = Plot(model=tiny / "model", out=tiny / "x.gif", sweep=sweep, metric=options)
    geometry = options.of(tiny / "model", model, Report())
    values = command._default_values(sweep, geometry, model, 4.0)
    chosen = {"strength": geometry.strength, "sigma": geometry.sigma, "ratio": 100.0}[sweep]
    assert least < values[0] < chosen < values[-1]
    assert (np.diff(values) > 0).all()


@pytest.mark.slow
def test_an_animation(tiny, tmp_path, capsys):
    run(tiny, tmp_path / "p.gif", "--sweep", "ratio", "--values", "1.2", "1.5", "--json")
    assert json.loads(capsys.readouterr().out)["values"] == [1.2, 1.5]
    with Image.open(tmp_path / "p.gif") as picture:
        assert picture.n_frames == 2


@pytest.mark.slow
def test_a_fan_that_grows(tiny, tmp_path, monkeypatch, capsys):
    """In the same part of the plane, in every frame as far as it says."""
    drawn, fan = [], plot._PICTURES["fan"]

    def draw(ax, picture):
        drawn.append(picture.radius)
        return fan.draw(ax, picture)

    monkeypatch.setitem(plot._PICTURES, "fan", fan._replace(draw=draw))
    run(tiny, tmp_path / "p.gif", "--show", "fan", "--sweep", "radius", "--values", "0.2", "0.6")
    assert set(drawn) == {0.2, 0.6}
    with Image.open(tmp_path / "p.gif") as film:
        assert film.n_frames == 2
    command = Plot(model=tiny / "model", out=tiny / "x.gif", show=("fan",), sweep="radius", radius=3.0)
    values = command._default_values("radius", None, None, 10.0)
    np.testing.assert_allclose(np.diff(values, prepend=0.0), 3.0 / 12)


@pytest.mark.slow
def test_a_slice_of_a_space(tmp_path, capsys):
    """The plane through three rows; what is drawn there is said to be a slice."""
    points = np.random.default_rng(0).normal(size=(200, 3)) * [3.0, 1.0, 0.2]
    np.save(tmp_path / "train.npy", points)
    words = ["--steps", "20", "--chunk-steps", "20", "--width", "16", "--depth", "2", "--warmup-steps", "4", "--quiet"]
    cli.main(["train", "--data", str(tmp_path / "train.npy"), "--out", str(tmp_path / "model"), *words])
    capsys.readouterr()
    for through in ((), ("--through", "0", "1", "2")):
        run(tmp_path, tmp_path / "p.svg", "--show", "ellipses", "score", *through)
        printed = capsys.readouterr().out
        assert ("through three points" if through else "first two principal components") in printed
    assert "<svg" in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "p.gif"], "`--values` and a .gif need `--sweep`"),
        (["--values", "1", "2"], "`--values` and a .gif need `--sweep`"),
        (["--sweep", "sigma"], "`--out` must end in .gif or .mp4, got p.png"),
        (["--out", "p.jpg"], "`--out` must end in .png, .pdf or .svg, got p.jpg"),
        (["--radius", "-1"], "`--radius` must be a positive number, got -1.0"),
        (["--resolution", "1"], "`--resolution` must be at least 2, got 1"),
        (["--at", "300"], "`--at` must be an index from 0 to 299, got 300"),
        (["--through", "0", "1", "2"], "`--through` is for points in more than two dimensions"),
        (["--strength", "0", "--sweep", "strength", "--out", "{tmp}/p.gif"], "`--values` must be given"),
        (["--sweep", "radius", "--out", "{tmp}/p.gif"], "`--sweep radius` needs `--show fan`, which has a radius, got"),
        (
            ["--show", "fan", "--sweep", "radius", "--values", "0", "1", "--out", "{tmp}/p.gif"],
            "`--values` must be positive radii, got 0 1",
        ),
        (["--show", "--out", "p.png"], "`--show` must name at least one picture, got none"),
    ],
)
def test_mistakes(tiny, tmp_path, capsys, words, message):
    words = ["--out", "p.png", *words] if "--out" not in words else words
    with pytest.raises(SystemExit) as stop:
        cli.main(["plot", "--model", str(tiny / "model"), *(word.format(tmp=tmp_path) for word in words)])
    assert stop.value.code == cli.MISTAKE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
