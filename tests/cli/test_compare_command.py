"""`scoregeo compare` on files, as a user runs it, and one line for every mistake."""

import csv
import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.linalg import sqrtm

from scoregeo import RESULTS, EuclideanMetric, SpectralNewton, SteinMetric, cli, pairwise_dist
from scoregeo.cli._geometry import Geometry, double_precision
from scoregeo.cli._metric import MetricOptions
from scoregeo.cli._report import Report
from scoregeo.cli.pairs import compare as compare_command
from scoregeo.comparison import compare
from scoregeo.diffusion import DiffusionModel
from scoregeo.fisher_rao import (
    Normal,
    SpacetimeMetric,
    calvo_oller,
    diffusion_edit_distance,
    sqrt_jeffreys,
)

TRAIN = ["--steps", "200", "--chunk-steps", "100", "--width", "16", "--depth", "1", "--warmup-steps", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two lumps with the metric to use kept beside it, and points to compare."""
    folder = tmp_path_factory.mktemp("compare")
    random = np.random.default_rng(0)
    points = random.normal(size=(600, 2)) * [3.0, 0.5] + np.where(random.random((600, 1)) < 0.5, [[8.0, -2.0]], 0.0)
    np.save(folder / "train.npy", points)
    np.save(folder / "points.npy", points[:7])
    np.save(folder / "one.npy", points[:1])
    factors = random.normal(size=(7, 2, 2)).astype(np.float32)
    np.save(folder / "covs.npy", factors @ (np.array([[2.0], [0.5]], np.float32) * factors.swapaxes(1, 2)))
    np.save(folder / "skew.npy", np.eye(2) + np.where(np.arange(7)[:, None, None] == 2, [[0, 0.1], [0, 0]], 0))
    np.save(folder / "bad.npy", np.where(np.arange(7)[:, None, None] == 3, -1.0, 1.0) * np.eye(2))
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
    settings = ["--sigma", "0.5", "--strength", "0", "0.4", "--out", str(table), "--picture", str(picture)]
    cli.main(["compare", *names, *settings])
    printed = capsys.readouterr().out
    assert "over 10 of 10 pairs" in printed
    assert "lengths in standardised units; the score is that at noise level 0.5" in printed
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


@pytest.mark.slow
def test_picture_has_solved_geodesics_only(monkeypatch):
    xs = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (4, 2)))
    xs = jnp.concatenate([xs, xs[:1]])  # a pair without a distance to divide by
    names = {"Euclidean": lambda x, y: jnp.linalg.norm(x - y), "Stein": lambda x, y: jnp.sum(jnp.abs(x - y))}
    result = compare(xs, metrics=names, resamples=0)
    path = Normal().geodesic(xs[0], xs[1])
    stalled = eqx.tree_at(lambda path: path.result, path, RESULTS.stalled)
    for solved, curves in (((path, stalled, path), 2), ((stalled,) * 3, 0)):
        left = list(solved)
        monkeypatch.setattr(compare_command, "geodesic", lambda *args, left=left, **settings: left.pop())
        figure = compare_command._picture(result, xs, xs, {"Stein": EuclideanMetric()}, xs)
        drawn = [ax.collections for ax in figure.axes if ax.get_label() == "data"]
        assert [len(group[0].get_segments()) for group in drawn] == [curves] * bool(curves)


@pytest.mark.slow
@pytest.mark.parametrize("two", [False, True])
def test_the_table_has_rows_of_the_file(folder, tmp_path, monkeypatch, capsys, two):
    """Whichever points are drawn: the first and second of a row are where its points stand in the file."""

    def without_solves(xs, ys, **settings):
        straight = {name: lambda x, y: jnp.linalg.norm(x - y) for name in ("Euclidean", "again")}
        return compare(xs, ys, metrics=straight, resamples=0)

    monkeypatch.setattr(compare_command, "compare", without_solves)
    words = ["--model", folder / "model", "--data", folder / "train.npy", "--n", "12", "--out", tmp_path / "table.csv"]
    xs = ys = np.load(folder / "train.npy")
    if two:
        ys = xs[::-1] + 1.0
        np.save(tmp_path / "ends.npy", ys)
        words += ["--to", tmp_path / "ends.npy"]
    cli.main(["compare", *map(str, words)])
    assert "12 of 600 rows are taken at random, by --seed 0" in capsys.readouterr().out
    scale = np.asarray(DiffusionModel.load(folder / "model").standardization.scale)
    rows = read(tmp_path / "table.csv")
    assert len(rows) == 12 if two else 66
    for row in rows:
        expected = np.linalg.norm((xs[int(row["first"])] - ys[int(row["second"])]) / scale)
        np.testing.assert_allclose(float(row["Euclidean"]), expected, rtol=1e-5)


@pytest.mark.slow
def test_each_metric_at_each_ratio(folder, monkeypatch, capsys):
    """Each is what the other commands make of the same options, with the solver that suits it."""
    seen = {}

    def without_solves(xs, ys, *, metrics, **settings):
        seen.update(metrics)
        return compare(xs, metrics={name: lambda x, y: jnp.linalg.norm(x - y) for name in metrics}, resamples=0)

    monkeypatch.setattr(compare_command, "compare", without_solves)
    words = ["--metric", "stein", "score-norm", "--ratio", "1.5", "2", "--sigma", "0.4", "--json"]
    cli.main(["compare", "--model", str(folder / "model"), "--data", str(folder / "points.npy"), *words])
    told = json.loads(capsys.readouterr().out)["metrics"]
    names = ["Stein ratio 1.5", "Stein ratio 2", "score norm ratio 1.5", "score norm ratio 2"]
    assert list(told) == names
    assert list(seen) == ["Euclidean", *names]
    model = DiffusionModel.load(folder / "model")
    for name, kind in zip(names, ("stein", "stein", "score-norm", "score-norm"), strict=True):
        options = MetricOptions(kind=kind, sigma=0.4, ratio=float(name.split()[-1]))
        geometry = options.of(folder / "model", model, Report())
        assert told[name] == geometry.about()
        with double_precision():
            at = [metric.at(jnp.ones(2)).matrix(2) for metric in (seen[name].distance, geometry.metric(model))]
        np.testing.assert_allclose(*at)
    assert told[names[1]]["strength"] == pytest.approx(2 * told[names[0]]["strength"])


def test_semicolons_and_numbers_as_names(folder, tmp_path, monkeypatch, capsys):
    """What was chosen is printed, and an option chooses otherwise."""
    seen = []
    monkeypatch.setattr(compare_command, "compare", lambda xs, ys, **settings: seen.append(xs) or refuse())
    points = np.load(folder / "points.npy")
    np.savetxt(tmp_path / "t.csv", points, delimiter=";", header="2019;2020", comments="")
    words = ["compare", "--model", str(folder / "model"), "--data", str(tmp_path / "t.csv")]

    def refuse():
        raise ValueError("enough")

    for options, layout, n in (
        ([], "delimiter ';' and names in its first row (2019, 2020)", 7),
        (["--header", "False", "--delimiter", ";"], "delimiter ';' and no names in its first row", 8),
    ):
        with pytest.raises(SystemExit):
            cli.main([*words, *options])
        assert f"read {tmp_path / 't.csv'} with {layout}\n" in capsys.readouterr().out
        assert len(seen.pop()) == n


@pytest.mark.slow
def test_two_files_distributions_and_spacetime(folder, tmp_path, capsys):
    """Row by row, in the metric that the model keeps. Normal distributions are round in the coordinates of the
    model."""
    model = DiffusionModel.load(folder / "model")
    scale, random = np.asarray(model.standardization.scale, np.float64), np.random.default_rng(1)
    widths = random.uniform(0.2, 0.6, (2, 4))
    for name, sds in zip(("from.npy", "to.npy"), widths, strict=True):
        np.save(tmp_path / name, sds[:, None, None] ** 2 * np.diag(scale**2))
    xs = np.load(folder / "points.npy")[:4]
    ys = xs + [[0.0, 0.0], [0.5, 0.1], [0.3, -0.1], [-0.2, 0.1]] * scale
    np.save(tmp_path / "xs.npy", xs)
    np.savetxt(tmp_path / "ys.csv", ys, delimiter=",", header="a,b", comments="")
    files = ["--data", tmp_path / "xs.npy", "--to", tmp_path / "ys.csv", "--out", tmp_path / "table.csv"]
    files += ["--covariances", tmp_path / "from.npy", "--to-covariances", tmp_path / "to.npy"]
    cli.main(["compare", "--model", str(folder / "model"), *map(str, files), "--log-snr", "3"])
    printed = capsys.readouterr().out
    assert "over 4 of 4 pairs" in printed
    assert "noise level 0.3" in printed
    rows = read(tmp_path / "table.csv")
    assert [(row["first"], row["second"]) for row in rows] == [(str(i), str(i)) for i in range(4)]
    found = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if row_is_number(rows[0][name])}
    squared = np.sum(((xs - ys) / scale) ** 2, 1)
    s, t = widths
    np.testing.assert_allclose(found["Euclidean"] ** 2, squared, rtol=1e-5, atol=1e-9)
    assert found["Stein 0.7"][0] == 0
    assert (found["Stein 0.7"][1:] > found["Euclidean"][1:]).all()
    np.testing.assert_allclose(found["Wasserstein"] ** 2, squared + 2 * (s - t) ** 2, rtol=1e-5, atol=1e-9)
    mean_sq = (s**2 + t**2) / 2
    affinity = (s * t / mean_sq) * np.exp(-squared / (8 * mean_sq))
    np.testing.assert_allclose(found["Hellinger"], np.sqrt(1 - affinity), rtol=1e-5)
    jeffreys = 0.5 * squared * (1 / s**2 + 1 / t**2) + (s / t - t / s) ** 2
    np.testing.assert_allclose(found["sqrt Jeffreys"], np.sqrt(jeffreys), rtol=1e-5)
    # The first pair has one mean; the others are at most as far apart as they would be among round distributions.
    np.testing.assert_allclose(found["Fisher-Rao"][0], 2 * abs(np.log(s[0] / t[0])), rtol=1e-6)
    among_round = 4 * np.arcsinh(np.sqrt((squared / 4 + (s - t) ** 2) / (4 * s * t)))
    assert (found["Fisher-Rao"] <= among_round * (1 + 1e-6)).all()
    assert (found["Fisher-Rao"] > 0.9 * among_round).all()
    with double_precision():
        metric = SpacetimeMetric(model)
        at = jnp.asarray((np.stack([xs, ys]) - np.asarray(model.standardization.mean)) / scale)
        expected = [diffusion_edit_distance(metric, *at[:, i], log_snr=3.0) for i in (1, 2)]
    np.testing.assert_allclose(found["spacetime"][[1, 2]], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_all_pairs_of_distributions(folder, tmp_path, capsys):
    """Full matrices, written in float32, of the rows that were drawn."""
    names = ["--model", folder / "model", "--data", folder / "points.npy", "--covariances", folder / "covs.npy"]
    cli.main(["compare", *map(str, names), "--n", "4", "--out", str(tmp_path / "table.csv")])
    assert "lengths in standardised units" in capsys.readouterr().out
    rows = read(tmp_path / "table.csv")
    scale = np.asarray(DiffusionModel.load(folder / "model").standardization.scale, np.float64)
    means, covs = (np.load(folder / name).astype(np.float64) for name in ("points.npy", "covs.npy"))
    means, covs = means / scale, covs / np.outer(scale, scale)
    for row in rows:
        i, j = int(row["first"]), int(row["second"])
        root = sqrtm(covs[i])
        squared = np.sum((means[i] - means[j]) ** 2) + np.trace(covs[i] + covs[j] - 2 * sqrtm(root @ covs[j] @ root))
        np.testing.assert_allclose(float(row["Wasserstein"]), np.sqrt(squared.real), rtol=1e-5)
        lower, upper = (f(means[i], covs[i], means[j], covs[j]) for f in (calvo_oller, sqrt_jeffreys))
        assert lower * (1 - 1e-5) < float(row["Fisher-Rao"]) < upper * (1 + 1e-5)


def row_is_number(text):
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--log-snr", "100"], "`--log-snr` must be in the range of the model, -8.764 to 12.43, got 100"),
        (["--covariances", "{folder}/points.npy"], "`--covariances` must hold an array of shape (7, 2, 2), got (7, 2)"),
        (["--covariances", "{folder}/bad.npy"], "but that of row 3 has the eigenvalue -1"),
        (["--covariances", "{folder}/skew.npy"], "but that of row 2 is not symmetric"),
        (["--covariances", "{folder}/nothing.npy"], "`--covariances`: `path` = '{folder}/nothing.npy' does not exist"),
        (["--to-covariances", "{folder}/covs.npy"], "`--to-covariances` must come with `--to`"),
        (["--to", "{folder}/ends.csv", "--covariances", "{folder}/covs.npy"], "must both be given with `--to`"),
        (["--model", "{folder}/nothing"], "`--model` {folder}/nothing cannot be used"),
        (["--data", "{folder}/nothing.npy"], "nothing.npy"),
        (["--to", "{folder}/train.npy"], "`--to` must have as many points as `--data`, 7, got 600"),
        (["--data", "{folder}/one.npy"], "`--data` must have at least 3 points, got 1"),
        (["--n", "2"], "`--n` must be at least 3, got 2"),
        (["--sigma", "1e9"], "`--sigma` must be a noise level that the model knows"),
        (["--strength", "1", "-1"], "`--strength` must be a non-negative number, got -1"),
        (["--strength", "1", "1"], "the metrics to compare must be different, but Stein 1 is given twice"),
        (["--strength", "1", "--ratio", "2"], "`--strength` and `--ratio` both say how strong the metric is"),
        (["--ratio", "0.5"], "`--ratio` must be a number of at least 1, got 0.5"),
        (["--out", "table.txt"], "`--out` must end in .csv, .parquet or .npz, got table.txt"),
        (["--picture", "{folder}/points.npy/p.png"], "`--picture` must be in a folder that can be written"),
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
