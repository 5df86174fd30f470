"""Options of the commands that say what of a file are the points: what is left out, filled, and labelled."""

import pathlib
import types

import numpy as np
import pandas as pd
import pytest
import tyro
from PIL import Image

from scoregeo.cli._command import ARGUMENT_TYPES
from scoregeo.cli._geometry import Geometry
from scoregeo.cli._io import PointsOptions
from scoregeo.cli._report import Report
from scoregeo.cli._tasks import from_file
from scoregeo.cli.models.train import Train
from scoregeo.cli.pairs.compare import Compare, _sides
from scoregeo.cli.pairs.distance import _write
from scoregeo.cli.statistics.mean import Mean

TABLE = pd.DataFrame(
    {"x": [1.0, np.nan, 3.0, 4.0, 6.0], "y": [2.0, 5.0, np.nan, 1.0, 7.0], "kind": ["b", "a", "a", "b", "a"]}
)
PREFIXES = (tyro.conf.OmitArgPrefixes,)
DROP = PointsOptions(drop=True)
MODEL = types.SimpleNamespace(dim=2, standardization=None)


@pytest.fixture
def table(tmp_path):
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def parsed(command, *words):
    return tyro.cli(command, args=[str(word) for word in words], registry=ARGUMENT_TYPES, config=PREFIXES)


def test_drop_and_impute_say_what_they_do(table, capsys):
    options = parsed(PointsOptions, "--drop", "--impute", "median")
    assert options.chosen() == ["--drop", "--impute"]
    found = options.read(table, Report())
    expected = TABLE[["x", "y"]].fillna(TABLE[["x", "y"]].median()).to_numpy()
    np.testing.assert_array_equal(found.points, expected)
    printed = capsys.readouterr().out
    assert "read" in printed
    assert f"of {table}: left out 1 of 3 columns, which have no numbers: 'kind'" in printed
    assert "filled 2 of 10 values in 2 of 2 columns ('x' 1, 'y' 1) with medians" in printed


def test_images(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "a" / "0.png")
    (tmp_path / "notes.txt").write_text("no image")
    options = parsed(PointsOptions, "--size", 2, 3, "--channels", 1)
    assert options.read(tmp_path, Report()).image_shape == (2, 3)
    assert "left out 1 of 2 files, which are no images: notes.txt" in capsys.readouterr().out
    assert PointsOptions(size=(3,)).read(tmp_path, Report()).image_shape == (3, 3, 3)


def test_labels_of_training(table, tmp_path):
    np.save(tmp_path / "labels.npy", [4, 3, 2, 1, 0])
    kept = [0, 3, 4]

    def labels(*words):
        command = parsed(Train, "--data", table, "--out", tmp_path / "m", "--drop", *words)
        return command._labels(command.reading.read(command.data, Report()))

    assert labels() is None
    assert labels("--label", "kind").tolist() == [1, 1, 0]
    assert labels("--labels", tmp_path / "labels.npy").tolist() == np.array([4, 3, 2, 1, 0])[kept].tolist()
    with pytest.raises(ValueError, match="`--labels` and `--label` must not both be given"):
        labels("--label", "kind", "--labels", tmp_path / "labels.npy")
    with pytest.raises(
        ValueError, match=r"`--labels data` must come with data that have classes, but .*t\.csv has none"
    ):
        labels("--labels", "data")
    np.save(tmp_path / "labels.npy", [4, 3, 2])
    with pytest.raises(ValueError, match="an integer from 0 on for each of the 5 points, got int64 of shape"):
        labels("--labels", tmp_path / "labels.npy")


def test_labels_of_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / name / "0.png")
    command = parsed(Train, "--data", tmp_path, "--out", tmp_path / "m", "--labels", "data")
    assert command._labels(command.reading.read(command.data, Report())).tolist() == [0, 1]
    assert from_file_names(tmp_path) == tmp_path.name


def from_file_names(folder: pathlib.Path) -> str:
    found = PointsOptions().read(folder, Report())
    points = np.arange(40.0).reshape(10, 4)
    return from_file(str(folder), found._replace(points=points, labels=None, label_names=None), True, 0).dataset.name


def test_rows_are_those_of_the_file(table, tmp_path):
    options = Compare(model=tmp_path, data=table, reading=DROP)
    rows, (side,) = _sides(options, MODEL, Report())
    assert rows.tolist() == [0, 3, 4]
    np.testing.assert_array_equal(side.points, TABLE[["x", "y"]].dropna())
    np.save(tmp_path / "covs.npy", np.arange(1.0, 6.0)[:, None, None] * np.eye(2))
    _, (side,) = _sides(
        Compare(model=tmp_path, data=table, reading=DROP, covariances=tmp_path / "covs.npy"),
        MODEL,
        Report(),
    )
    assert len(side.points) == 3


def test_pairs_are_of_the_same_rows(table, tmp_path):
    TABLE.shift(1).to_csv(tmp_path / "to.csv", index=False)
    options = Compare(model=tmp_path, data=table, to=tmp_path / "to.csv", reading=DROP)
    with pytest.raises(ValueError, match="`--drop` must leave out the same rows of `--to` as of `--data`"):
        _sides(options, MODEL, Report())


def test_rows_of_statistics(table, tmp_path, monkeypatch):
    monkeypatch.setattr("scoregeo.cli.statistics._sample.load_model", lambda path, report: MODEL)
    monkeypatch.setattr("scoregeo.cli._metric.MetricOptions.of", lambda *given: Geometry(0.1, 1.0, 1.0))
    sample = Mean(model=tmp_path, data=table, reading=DROP).read_sample(Report())
    assert sample.rows.tolist() == [0, 3, 4]
    assert Mean(model=tmp_path, data=table, reading=DROP, n=2).read_sample(Report()).rows.tolist() in (
        [0, 3],
        [0, 4],
        [3, 4],
    )


def test_distances_name_the_rows(tmp_path):
    matrix, rows = np.arange(9.0).reshape(3, 3), np.array([0, 3, 5])
    _write(Report(), tmp_path / "d.parquet", matrix, np.zeros((3, 3), int), rows, {})
    table = pd.read_parquet(tmp_path / "d.parquet")
    assert table[["first", "second", "distance"]].to_numpy().tolist() == [[0, 3, 1], [0, 5, 2], [3, 5, 5]]
    _write(Report(), tmp_path / "d.npz", matrix, np.zeros((3, 3), int), rows, {})
    with np.load(tmp_path / "d.npz") as found:
        assert found["rows"].tolist() == [0, 3, 5]
