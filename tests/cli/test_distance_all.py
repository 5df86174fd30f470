"""``scoregeo distance --all``: matrices in files, kept while they are solved."""

import numpy as np
import pandas as pd
import pytest

from scoregeo import RESULTS, cli, pairwise_dist
from scoregeo.cli._geometry import LENGTHS, Geometry, double_precision
from scoregeo.cli.pairs import distance
from scoregeo.diffusion import DiffusionModel

TRAIN = ["--steps", "40", "--chunk-steps", "40", "--width", "16", "--depth", "2", "--warmup-steps", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two dimensions, and five points."""
    folder = tmp_path_factory.mktemp("all")
    points = np.random.default_rng(0).normal(size=(300, 2)) * [3.0, 0.5] + [10.0, -4.0]
    np.save(folder / "train.npy", points)
    np.savez(folder / "some.npz", first=points[:5], second=points[:2])
    cli.main(["train", "--data", str(folder / "train.npy"), "--out", str(folder / "model"), *TRAIN])
    (folder / "model" / "geometry.json").unlink()  # as models were before training kept one
    return folder


def run(folder, out, *words):
    data = ["--all", str(folder / "some.npz"), "--key", "first", "--sigma", "0.5", "--strength", "0.5"]
    cli.main(["distance", "--model", str(folder / "model"), *data, "--out", str(out), *words])


@pytest.fixture
def by_chords(monkeypatch):
    """Without a solver that takes long to compile: what is asked for, and all but one pair are Euclid's."""
    asked = []

    def fake(metric, xs, *, solver, progress, batch_size, checkpoint):
        asked.append((float(metric.strength), batch_size, checkpoint))
        codes = np.zeros((len(xs), len(xs)), int)
        codes[0, 1] = codes[1, 0] = int(np.asarray(RESULTS.stalled._value))
        lengths = np.linalg.norm(np.asarray(xs)[:, None] - np.asarray(xs)[None], axis=-1)
        from scoregeo._pairs.stream import as_results

        return lengths, as_results(codes)

    monkeypatch.setattr(distance, "pairwise_dist", fake)
    return asked


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet"])
def test_formats(folder, tmp_path, by_chords, suffix, capsys):
    out = tmp_path / f"d{suffix}"
    with pytest.raises(SystemExit) as stop:
        run(folder, out, "--batch-size", "4", "--checkpoint", str(tmp_path / "kept"))
    assert stop.value.code == cli.FAILED
    assert by_chords == [(0.5, 4, tmp_path / "kept")]
    printed = capsys.readouterr()
    assert "1 of 10 distances could not be computed" in printed.err
    assert "wrote the distances of 10 pairs" in printed.out
    units = DiffusionModel.load(folder / "model").standardization
    xs = np.asarray(units.apply(np.load(folder / "train.npy")[:5]))
    exact = np.linalg.norm(xs[:, None] - xs, axis=-1)
    exact[0, 1] = exact[1, 0] = np.nan
    if suffix == ".parquet":
        table = pd.read_parquet(out)
        assert list(table.columns) == ["first", "second", "distance", "status"]
        np.testing.assert_allclose(table["distance"], exact[table["first"], table["second"]], rtol=1e-5)
        assert table["status"].dtype == "category"
        assert table["status"].tolist() == ["stalled"] + ["converged"] * 9
        return
    matrix = np.load(out)
    if suffix == ".npz":
        assert matrix["status"].dtype.itemsize == 1
        names = matrix["status_names"][matrix["status"]]
        np.testing.assert_array_equal(names, np.where(np.isnan(exact), "stalled", "converged"))
        assert float(matrix["sigma"]) == 0.5
        matrix = matrix["distances"]
    np.testing.assert_allclose(matrix, exact, rtol=1e-5)


@pytest.mark.slow
def test_it_is_the_matrix_of_the_library_and_goes_on(folder, tmp_path, capsys):
    for name in ("first", "again"):
        run(folder, tmp_path / f"{name}.npy", "--checkpoint", str(tmp_path / "kept"), "--batch-size", "4")
    assert len(list((tmp_path / "kept").glob("*.block"))) == 3
    first = np.load(tmp_path / "first.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), first)
    model = DiffusionModel.load(folder / "model")
    with double_precision():
        xs = np.asarray(model.standardization.apply(np.load(folder / "train.npy")[:5]), np.float64)
        metric = Geometry(0.5, 0.5, float("nan")).metric(model)
        matrix, _ = pairwise_dist(metric, xs, solver=LENGTHS)
    np.testing.assert_allclose(first, matrix, rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--all", "{points}"], "`--all` needs `--out`"),
        (["--all", "{points}", "--out", "d.txt"], "`--out` must end in .npy, .npz, .csv or .parquet, got d.txt"),
        (["--all", "{points}", "--out", "d.npy", "--from", "1"], "`--all` takes the place of `--from` and `--to`"),
        (["--all", "nothing.npy", "--out", "{out}", "--sigma", "0.5", "--strength", "1"], "nothing.npy"),
        (["--all", "{points}", "--out", "{out}"], "has no geometry.json; give --sigma and --strength"),
        (["--all", "{points}", "--out", "d.npy", "--batch-size", "0"], "`--batch-size` must be at least 1"),
        (["--from", "1"], "`--from` and `--to` must both be given"),
        (["--from", "1", "--to", "2", "--out", "d.npy"], "`--out` must come with `--all`"),
        (["--from", "1", "--to", "2", "--key", "x"], "`--key` must come with `--all`"),
    ],
)
def test_mistakes(folder, tmp_path, words, message, capsys):
    names = {"points": folder / "train.npy", "out": tmp_path / "d.npy"}
    with pytest.raises(SystemExit) as stop:
        cli.main(["distance", "--model", str(folder / "model"), *(word.format(**names) for word in words)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
