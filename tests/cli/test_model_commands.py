"""Models on files: train, sample, likelihood and evaluate as a user runs them, and one line for every mistake."""

import json
import pathlib

import numpy as np
import pytest
import tyro
from PIL import Image

from scoregeo import cli
from scoregeo.cli._command import ARGUMENT_TYPES
from scoregeo.cli._io import PointsOptions
from scoregeo.cli._report import Report
from scoregeo.cli.models.train import Train
from scoregeo.diffusion import VP, DiffusionModel
from scoregeo.diffusion.config import FitConfig

TRAIN = ["--steps", "400", "--chunk-steps", "200", "--width", "32", "--depth", "2", "--warmup-steps", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of a Gaussian far from standard, trained by the command; its training and held-out points beside it."""
    folder = tmp_path_factory.mktemp("models")
    random = np.random.default_rng(0)
    points = random.normal(size=(3000, 2)) * [3.0, 0.5] + [10.0, -4.0]
    np.save(folder / "train.npy", points[:2000])
    np.save(folder / "fresh.npy", points[2000:])
    cli.main(["train", "--data", str(folder / "train.npy"), "--out", str(folder / "model"), *TRAIN, "--schedule", "VP"])
    return folder


@pytest.mark.slow
def test_training_keeps_settings_units_and_points(folder):
    model = DiffusionModel.load(folder / "model")
    assert model.config == FitConfig(steps=400, chunk_steps=200, width=32, depth=2, warmup_steps=20, schedule=VP())
    np.testing.assert_allclose(model.standardization.scale, [3.0, 0.5], rtol=0.1)
    np.testing.assert_array_equal(np.load(folder / "model" / "points.npy"), np.load(folder / "train.npy"))
    assert not (folder / "model" / "checkpoint").exists()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--sampler", "heun", "--steps", "20"]])
def test_samples_are_in_the_units_of_the_data(folder, tmp_path, arguments, capsys):
    out = tmp_path / "samples.npy"
    cli.main(["sample", "--model", str(folder / "model"), "--out", str(out), "--n", "2100", *arguments])
    samples = np.load(out)
    assert samples.shape == (2100, 2)
    assert "wrote 2100 samples" in capsys.readouterr().out
    fresh = np.load(folder / "fresh.npy")
    np.testing.assert_allclose(samples.mean(0), fresh.mean(0), atol=0.5)
    np.testing.assert_allclose(samples.std(0), fresh.std(0), rtol=0.15)
    # More than one batch, with other noise in each.
    assert len(np.unique(samples[:, 0])) == 2100


@pytest.mark.slow
def test_likelihood_is_in_the_units_of_the_data(folder, tmp_path, capsys):
    out = tmp_path / "log_prob.npy"
    fresh = folder / "fresh.npy"
    cli.main(["likelihood", "--model", str(folder / "model"), "--data", str(fresh), "--out", str(out)])
    z = (np.load(fresh) - [10.0, -4.0]) / [3.0, 0.5]
    exact = -0.5 * np.sum(z**2, -1) - np.log(2 * np.pi * 3.0 * 0.5)
    assert abs(np.mean(np.load(out) - exact)) < 0.1
    assert "exact trace" in capsys.readouterr().out


def test_a_large_offset_costs_no_digits(folder, tmp_path):
    """The same data, a hundred thousand further on: the same log densities."""
    model, out = tmp_path / "model", tmp_path / "log_prob.npy"
    for name in ("train", "fresh"):
        np.save(tmp_path / f"{name}.npy", np.load(folder / f"{name}.npy") + 1e5)
    cli.main(["train", "--data", str(tmp_path / "train.npy"), "--out", str(model), *TRAIN, "--schedule", "VP"])
    cli.main(["likelihood", "--model", str(model), "--data", str(tmp_path / "fresh.npy"), "--out", str(out)])
    z = (np.load(folder / "fresh.npy") - [10.0, -4.0]) / [3.0, 0.5]
    exact = -0.5 * np.sum(z**2, -1) - np.log(2 * np.pi * 3.0 * 0.5)
    assert abs(np.mean(np.load(out) - exact)) < 0.1
    np.testing.assert_array_equal(np.load(model / "points.npy"), np.load(tmp_path / "train.npy"))


@pytest.mark.slow
def test_divergence_is_told_in_one_line(folder, tmp_path, capsys):
    settings = {"steps": 40, "chunk-steps": 20, "width": 8, "depth": 14, "warmup-steps": 1}
    settings |= {"learning-rate": 1e30, "clip-norm": 1e30}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--data", str(folder / "train.npy"), "--out", str(tmp_path / "m"), *words])
    assert stop.value.code == cli.FAILED
    assert "the loss is not finite" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_writes_what_it_prints(folder, tmp_path, capsys):
    out = tmp_path / "report.json"
    arguments = ["--sigmas", "0.2", "1.0", "--samples", "200", "--out", str(out)]
    arguments += ["--picture", str(tmp_path / "report.png")]
    cli.main(["evaluate", "--model", str(folder / "model"), "--data", str(folder / "fresh.npy"), *arguments])
    report = json.loads(out.read_text())
    assert report["held_out"]["sigmas"] == [0.2, 1.0]
    assert abs(report["memorization"]["gap"]) < 0.5
    assert report["units"] == "standardised"
    printed = capsys.readouterr().out
    assert "calibration" in printed
    assert "in standardised units" in printed
    assert "nearest training point" in printed
    assert f"{report['memorization']['gap']:.3f}" in printed
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.size == (2025, 600)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A model of two classes far apart, of two columns of a table that has another; what another model left is there.
    Points of class 1 beside it."""
    folder = tmp_path_factory.mktemp("classes")
    random = np.random.default_rng(0)
    labels = np.arange(2000) % 2
    points = random.normal(size=(2000, 2)) + 20.0 * labels[:, None]
    lines = [f"{y},word,{x}" for x, y in points.tolist()]
    (folder / "train.csv").write_text("\n".join(["y,name,x", *lines]))
    np.save(folder / "labels.npy", labels)
    np.savez(folder / "ones.npz", other=labels, points=points[labels == 1])
    (folder / "model").mkdir()
    (folder / "model" / "geometry.json").write_text("of another model")
    files = ["--data", str(folder / "train.csv"), "--labels", str(folder / "labels.npy")]
    cli.main(["train", *files, "--columns", "x", "y", "--out", str(folder / "model"), *TRAIN])
    return folder


@pytest.mark.slow
def test_columns_of_a_table_and_nothing_of_the_model_before(classes):
    points = np.load(classes / "model" / "points.npy")
    np.testing.assert_allclose(points.mean(0), 10.0, atol=0.5)
    assert points.shape == (2000, 2)
    # The metric is one of this model.
    metric = json.loads((classes / "model" / "geometry.json").read_text())
    assert (metric["sigma"], metric["contrast"]) == (0.3, 10.0)
    assert metric["strength"] > 0


@pytest.mark.slow
def test_conditions(classes, tmp_path, capsys):
    """Samples, log densities and figures of one class; they are others than those without it."""
    model, ones = ["--model", str(classes / "model")], ["--data", str(classes / "ones.npz"), "--key", "points"]
    means, densities, losses = {}, {}, {}
    for name, condition in (("none", []), ("one", ["--condition", "1"])):
        out = [str(tmp_path / f"{name}{ending}") for ending in (".npy", "-likelihood.npy", ".json")]
        guidance = ["--guidance", "1.5"] if condition else []
        cli.main(["sample", *model, "--n", "200", "--out", out[0], *condition, *guidance])
        cli.main(["likelihood", *model, *ones, "--out", out[1], *condition])
        cli.main(["evaluate", *model, *ones, "--sigmas", "0.5", "--samples", "20", "--out", out[2], *condition])
        means[name], densities[name] = np.load(out[0])[:, 0].mean(), np.load(out[1]).mean()
        losses[name] = json.loads(pathlib.Path(out[2]).read_text())["held_out"]["loss"][0]
    assert abs(means["one"] - 20) < 1 < 5 < abs(means["none"] - 20)
    assert densities["one"] > densities["none"] + 0.3  # log 2, if both were exact
    assert losses["one"] != losses["none"]


@pytest.mark.slow
def test_the_likelihood_of_one_point_has_no_error(folder, tmp_path, capsys):
    np.save(tmp_path / "one.npy", [[10.0, -4.0]])
    cli.main(["likelihood", "--model", str(folder / "model"), "--data", str(tmp_path / "one.npy")])
    printed = capsys.readouterr().out
    assert "+-" not in printed
    assert "(1 point, exact trace" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nothing.npy", "--out", "{out}"], "nothing.npy"),
        (["train", "--data", "{fresh}", "--out", "{fresh}/x"], "`--out` must be a folder"),
        (["train", "--data", "{fresh}", "--out", "{out}", "--batch-size", "0"], "`--batch-size` must be"),
        (["train", "--data", "{fresh}", "--out", "{out}", "--key", "x"], "`--key` is for .npz, .h5ad"),
        (
            ["train", "--data", "{fresh}", "--out", "{out}", "--labels", "{wide}"],
            "`--labels` must hold an integer from 0",
        ),
        (["train", "--data", "{wide}", "--out", "{out}", "--labels", "nothing.npy"], "`--labels`: no such file"),
        (
            ["sample", "--model", "{out}", "--out", "x.npy"],
            "`--model` {out} cannot be used: it does not exist, but must be a folder that",
        ),
        (
            ["sample", "--model", "{model}", "--out", "x.txt"],
            "`--out` must end in .npy, .npz, .csv or .parquet, got x.txt",
        ),
        (["sample", "--model", "{model}", "--out", "x.npy", "--steps", "3"], "`--steps` is not for"),
        (["sample", "--model", "{model}", "--out", "{out}.npy", "--n", "0"], "`--n` must be at least 1"),
        (
            ["sample", "--model", "{model}", "--out", "{out}.npy", "--guidance", "2"],
            "`--guidance` needs a `--condition`",
        ),
        (["sample", "--model", "{model}", "--out", "{out}.npy", "--condition", "1"], "`--condition` must be left out"),
        (["likelihood", "--model", "{model}", "--data", "{wide}"], "must have points of dimension 2"),
        (["evaluate", "--model", "{model}", "--data", "{fresh}", "--sigmas", "0"], "positive noise levels"),
        (
            ["evaluate", "--model", "{model}", "--data", "{fresh}", "--picture", "x.jpg"],
            "must end in .png, .pdf or .svg",
        ),
        (["evaluate", "--model", "{model}", "--data", "{fresh}", "--samples", "-3"], "`--samples` must be at least 0"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, tmp_path, capsys, arguments, message):
    np.save(tmp_path / "wide.npy", np.ones((4, 3)))
    names = {
        "out": tmp_path / "nowhere",
        "fresh": folder / "fresh.npy",
        "model": folder / "model",
        "wide": tmp_path / "wide.npy",
    }
    with pytest.raises(SystemExit) as stop:
        cli.main([argument.format(**names) for argument in arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message.format(**names) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "character"), [("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), ("space", " "), (";", ";")]
)
def test_delimiters_by_name(tmp_path, word, character, capsys):
    points = np.arange(6.0).reshape(3, 2)
    np.savetxt(tmp_path / "t.csv", points, delimiter=character)
    found = PointsOptions(delimiter=word).read(tmp_path / "t.csv", Report())
    np.testing.assert_array_equal(found.points, points)
    assert f"with delimiter {character!r} and no names in its first row" in " ".join(capsys.readouterr().out.split())


def test_settings_by_name_or_as_in_the_file():
    def config(*words):
        arguments = ["--data", "a.npy", "--out", "b", *words]
        return tyro.cli(Train, args=arguments, registry=ARGUMENT_TYPES, config=(tyro.conf.OmitArgPrefixes,)).training

    assert config() == FitConfig()
    assert config("--schedule", "VP").schedule == VP()
    assert config("--schedule", '{"kind": "VP", "beta_max": 10.0}').schedule == VP(beta_max=10.0)
    with pytest.raises(SystemExit):
        config("--schedule", "Nothing")
