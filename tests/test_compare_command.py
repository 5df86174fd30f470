"""`scoregeo compare` on files, as a user runs it, and one line for every mistake."""

import csv

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from scoregeo import RESULTS, SpectralNewton, SteinMetric, cli, compare_command, pairwise_dist
from scoregeo.diffusion import DiffusionModel
from scoregeo.fisher_rao import Normal, compare
from scoregeo.recorded import Geometry, double_precision

TRAIN = ["--steps", "200", "--chunk-steps", "100", "--width", "16", "--depth", "1", "--warmup-steps", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two lumps with the metric to use kept beside it, and points to compare."""
    folder = tmp_path_factory.mktemp("compare")
    random = np.random.default_rng(0)
    points = random.normal(size=(600, 2)) * [3.0, 0.5] + np.where(random.random((600, 1)) < 0.5, [[8.0, -2.0]], 0.0)
    np.save(folder / "train.npy", points)
    np.save(folder / "points.npy", points[:7])
    np.savetxt(folder / "ends.csv", points[7:14], delimiter=",", header="a,b", comments="")
    cli.main(["train", "--data", str(folder / "train.npy"), "--out", str(folder / "model"), *TRAIN])
    Geometry(0.3, 0.7, 1.0).save(folder / "model")
    return folder


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_all_pairs_with_a_picture(folder, tmp_path, capsys):
    table, picture = tmp_path / "table.csv", tmp_path / "picture.png"
    names = ["--model", str(folder / "model"), "--data", str(folder / "points.npy"), "--n", "5"]
    settings = ["--sigma", "0.5", "--strengths", "0", "0.4", "--out", str(table), "--picture", str(picture)]
    cli.main(["compare", *names, *settings])
    printed = capsys.readouterr().out
    assert "over 10 of 10 pairs" in printed
    assert "standardised units, noise level 0.5" in printed
    rows = read(table)
    assert len(rows) == 10
    for row in rows:
        np.testing.assert_allclose(float(row["Stein 0"]), float(row["Euclidean"]), rtol=1e-6)
        assert float(row["Stein 0.4"]) > float(row["Euclidean"])
        assert row["Stein 0.4 status"] == "ok"
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 500

    # Every distance is that of the library, in the coordinates of the model.
    model = DiffusionModel.load(folder / "model")
    drawn = np.sort(np.random.default_rng(0).choice(7, 5, replace=False))
    xs = (np.load(folder / "points.npy")[drawn] - np.asarray(model.standardization.mean)) / model.standardization.scale
    with double_precision():
        metric, solver = SteinMetric(model.score_at(0.5), 0.4), SpectralNewton(rtol=1e-4, path_rtol=1.0)
        expected, _ = pairwise_dist(metric, np.asarray(xs), solver=solver)
    found = [float(row["Stein 0.4"]) for row in rows]
    np.testing.assert_allclose(found, np.asarray(expected)[np.triu_indices(5, 1)], rtol=1e-4)


def test_picture_has_solved_geodesics_only(monkeypatch):
    xs = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (4, 2)))
    names = {"Euclidean": lambda x, y: jnp.linalg.norm(x - y), "Stein": lambda x, y: jnp.sum(jnp.abs(x - y))}
    result = compare(xs, metrics=names, resamples=0)
    path = Normal().geodesic(xs[0], xs[1])
    stalled = eqx.tree_at(lambda path: path.result, path, RESULTS.stalled)
    for solved, curves in (((path, stalled, path), 2), ((stalled,) * 3, 0)):
        left = list(solved)
        monkeypatch.setattr(compare_command, "geodesic", lambda *args, left=left, **settings: left.pop())
        figure = compare_command._picture(result, xs, xs, {"Stein": None}, xs)
        drawn = [ax.collections for ax in figure.axes if ax.get_label() == "data"]
        assert [len(group[0].get_segments()) for group in drawn] == [curves] * bool(curves)


@pytest.mark.slow
def test_rows_of_two_files_and_what_the_model_keeps(folder, tmp_path, capsys):
    table = tmp_path / "table.csv"
    files = ["--data", str(folder / "points.npy"), "--to", str(folder / "ends.csv")]
    cli.main(["compare", "--model", str(folder / "model"), *files, "--out", str(table)])
    assert "noise level 0.3" in capsys.readouterr().out
    rows = read(table)
    assert [(row["first"], row["second"]) for row in rows] == [(str(i), str(i)) for i in range(7)]
    scale = np.asarray(DiffusionModel.load(folder / "model").standardization.scale)
    ends = np.loadtxt(folder / "ends.csv", delimiter=",", skiprows=1)
    expected = np.linalg.norm((np.load(folder / "points.npy") - ends) / scale, axis=1)
    np.testing.assert_allclose([float(row["Euclidean"]) for row in rows], expected, rtol=1e-5)
    assert all(float(row["Stein 0.7"]) > float(row["Euclidean"]) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "{folder}/nothing"], "`--model` {folder}/nothing cannot be used"),
        (["--data", "{folder}/nothing.npy"], "nothing.npy"),
        (["--to", "{folder}/train.npy"], "`--to` must have as many points as `--data`, 7, got 600"),
        (["--n", "2"], "`--n` must be at least 3, got 2"),
        (["--sigma", "1e9"], "`--sigma` must be a noise level that the model knows"),
        (["--strengths", "1", "-1"], "`--strengths` must be non-negative numbers, got -1"),
        (["--strengths", "1", "1"], "`--strengths` must be different, got 1 1"),
        (["--out", "table.txt"], "`--out` must end in .csv, got table.txt"),
        (["--picture", "{folder}/nowhere/p.png"], "`--picture` must be a file in a folder that can be written"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, capsys, arguments, message):
    given = {"--model": "{folder}/model", "--data": "{folder}/points.npy"}
    words = [word for pair in given.items() if pair[0] != arguments[0] for word in pair]
    with pytest.raises(SystemExit) as stop:
        cli.main([word.format(folder=folder) for word in ["compare", *words, *arguments]])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("scoregeo: ")
    assert error.count("\n") == 1
    assert message.format(folder=folder) in error
