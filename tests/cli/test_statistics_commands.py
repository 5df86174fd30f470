"""`scoregeo mean`, `pca`, `cluster` and `embed` on files, as a user runs them, and one line for every mistake."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from scoregeo import cli
from scoregeo.cli._geometry import Geometry, double_precision, solver_for
from scoregeo.cli.statistics._sample import Sample
from scoregeo.diffusion import DiffusionModel
from scoregeo.statistics import embed, frechet_mean

TRAIN = ["--steps", "200", "--chunk-steps", "100", "--width", "16", "--depth", "1", "--warmup-steps", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two lumps with the metric to use kept beside it, and points."""
    folder = tmp_path_factory.mktemp("statistics")
    random = np.random.default_rng(0)
    points = random.normal(size=(600, 2)) * [1.0, 0.5] + np.where(np.arange(600)[:, None] % 2, [[8.0, -2.0]], 0.0)
    np.save(folder / "train.npy", points)
    np.save(folder / "points.npy", points[:9])
    cli.main(["train", "--data", str(folder / "train.npy"), "--out", str(folder / "model"), *TRAIN])
    Geometry(0.3, 0.3, 1.0).save(folder / "model")
    return folder


def run(folder, command, tmp_path, *words):
    """What a command writes, and that its picture can be read."""
    out, picture = tmp_path / "out.npz", tmp_path / "picture.png"
    files = ["--data", str(folder / "points.npy"), "--out", str(out), "--picture", str(picture)]
    cli.main([command, "--model", str(folder / "model"), *files, *words])
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 300
    with np.load(out) as file:
        return dict(file)


@pytest.mark.slow
def test_mean_and_pca(folder, tmp_path, capsys):
    found = run(folder, "mean", tmp_path)
    assert "mean of 9 points after" in capsys.readouterr().out
    model = DiffusionModel.load(folder / "model")
    xs = np.load(folder / "points.npy")
    np.testing.assert_allclose(found["euclidean"], xs.mean(0), atol=1e-5)
    with double_precision():
        metric = Geometry.load(folder / "model").metric(model)
        points = np.asarray(model.standardization.apply(xs), np.float64)
        # The settings of the command, which has compiled this.
        expected = frechet_mean(metric, points, solver=solver_for(metric), gtol=1e-5)
        np.testing.assert_allclose(found["point"], model.standardization.undo(expected.point), atol=1e-3)
    np.testing.assert_allclose(found["variance"], expected.variance, rtol=1e-4)
    parts = run(folder, "pca", tmp_path)
    np.testing.assert_allclose(parts["mean"], found["point"], atol=1e-3)
    np.testing.assert_allclose(parts["explained_variance"].sum(), found["variance"], rtol=1e-3)
    np.testing.assert_allclose(np.mean(parts["coordinates"] ** 2, 0), parts["explained_variance"], rtol=1e-3)
    assert "2 components of 9 points explain" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("method", ["means", "medoids"])
def test_clusters(folder, tmp_path, capsys, method):
    found = run(folder, "cluster", tmp_path, "--method", method)
    assert f"2 clusters of 9 points around their {method}, of" in capsys.readouterr().out
    assert sorted(found["counts"]) == [4, 5]
    assert len({*found["labels"][::2]}) == len({*found["labels"][1::2]}) == 1
    if method == "medoids":
        np.testing.assert_allclose(found["centers"], np.load(folder / "points.npy")[found["medoids"]], atol=1e-5)


@pytest.mark.slow
def test_embedding(folder, tmp_path, capsys):
    found = run(folder, "embed", tmp_path, "--method", "metric", "--checkpoint", str(tmp_path / "kept"))
    assert "2 coordinates of 9 points, metric: stress" in capsys.readouterr().out
    assert any((tmp_path / "kept").iterdir())
    assert found["points"].shape == (9, 2)
    assert found["stress"] <= float(embed(found["distances"], 2).stress) + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cluster", "--k", "10"], "`--k` must be from 1 to the number of points, 9, got 10"),
        (["cluster", "--restarts", "0"], "`--restarts` must be at least 1"),
        (["cluster", "--checkpoint", "kept"], "`--checkpoint` is for `--method medoids`"),
        (["embed", "--k", "9"], "`--k` must be from 1 to 8 for 9 points, got 9"),
        (["pca", "--components", "3"], "`--components` must be from 1 to 2, got 3"),
        (["mean", "--n", "1"], "`--n` must be at least 2, got 1"),
        (["mean", "--sigma", "1e9"], "`--sigma` must be a noise level that the model knows"),
        (["mean", "--strength", "-1"], "`--strength` must be a non-negative number"),
        (["mean", "--out", "mean.txt"], "`--out` must end in .npy, .npz, .csv or .parquet, got mean.txt"),
        (["mean", "--ratio", "10", "--strength", "1"], "`--strength` and `--ratio` both say"),
        (["mean", "--ratio", "0.5"], "`--ratio` must be a number of at least 1, got 0.5"),
    ],
)
def test_mistakes(folder, capsys, words, message):
    with pytest.raises(SystemExit):
        cli.main([words[0], "--model", str(folder / "model"), "--data", str(folder / "points.npy"), *words[1:]])
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(("d", "shape"), [(1, None), (2, None), (9, (3, 3))])
def test_pictures_of_all_kinds_of_points(d, shape):
    points = np.random.default_rng(0).normal(size=(5, d))
    sample = Sample(SimpleNamespace(standardization=None), Geometry(0.1, 1.0, 1.0, shape), np.arange(5), points)
    figure = sample.picture([0, 0, 1, 1, 1], {"means": points[:2], "mean": points[4]}, "title")
    plane, *strips = figure.axes
    assert len(plane.collections) == 4
    assert len(strips) == (shape is not None)
    texts = [text.get_text() for text in plane.get_legend().get_texts()]
    assert texts == ["0", "1", "means", "mean"]
