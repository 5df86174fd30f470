"""Files that commands write, by their ending, and what `evaluate` says of points that it knows."""

import json

import numpy as np
import pandas as pd
import pytest

from scoregeo import cli
from scoregeo.cli._output import TABLES, either, write_results
from scoregeo.cli._report import Report
from scoregeo.cli.pairs._pair import read_point
from scoregeo.datasets import load


@pytest.fixture
def run(tiny, tmp_path, capsys):
    """Runs a command on the small model; gives its JSON object, or what it prints."""

    def go(command, *words, json_object=True):
        words = [str(word) for word in words]
        cli.main([command, "--model", str(tiny / "model"), *words, *(["--json"] if json_object else [])])
        printed = capsys.readouterr().out
        return json.loads(printed) if json_object else printed

    return go


@pytest.mark.parametrize("suffix", TABLES)
def test_results_by_the_ending(tmp_path, capsys, suffix):
    points, rows = np.arange(6.0).reshape(3, 2) / 7, np.array([4, 5, 9])
    values = {"points": points, "rows": rows, "sigma": 0.3}
    columns = {"row": rows, "x": points, "name": np.array(["a", "b", "c"])}
    report = Report(as_json=True)
    write_results(report, tmp_path / f"r{suffix}", values, array="points", columns=columns)
    report.finish()
    assert json.loads(capsys.readouterr().out) == {"files": [str(tmp_path / f"r{suffix}")]}
    assert [path.name for path in tmp_path.iterdir()] == [f"r{suffix}"]
    if suffix in (".npy", ".npz"):
        found = np.load(tmp_path / f"r{suffix}")
        np.testing.assert_array_equal(found if suffix == ".npy" else found["points"], points)
        if suffix == ".npz":
            assert float(found["sigma"]) == 0.3
        return
    table = (
        pd.read_csv(tmp_path / "r.csv", float_precision="round_trip")
        if suffix == ".csv"
        else pd.read_parquet(tmp_path / "r.parquet")
    )
    assert list(table) == ["row", "x0", "x1", "name"]
    np.testing.assert_array_equal(table[["x0", "x1"]], points)  # all digits
    assert table["name"].tolist() == ["a", "b", "c"]


def test_words():
    assert [either(list("abc")[:n]) for n in (1, 2, 3)] == ["a", "a or b", "a, b or c"]


@pytest.mark.parametrize("suffix", TABLES)
def test_samples_can_be_read_again(run, tmp_path, suffix):
    """Whatever they were written as, they are the same points, to the library too."""
    for name in (f"a{suffix}", "b.npy"):
        found = run("sample", "--out", tmp_path / name, "--n", 20, "--sampler", "heun", "--steps", 4)
        assert (found["n"], found["files"]) == (20, [str(tmp_path / name)])
    np.testing.assert_allclose(load(tmp_path / f"a{suffix}").undo(load(tmp_path / f"a{suffix}").points),
                               np.load(tmp_path / "b.npy"), rtol=1e-5)  # fmt: skip


def test_likelihood_of_a_table(tiny, run, tmp_path):
    found = run("likelihood", "--data", tiny / "points.csv", "--out", tmp_path / "nats.csv")
    table = pd.read_csv(tmp_path / "nats.csv")
    assert table["row"].tolist() == list(range(12))
    np.testing.assert_allclose(table["log_density"], found["log_density"])
    np.testing.assert_allclose(found["mean_log_density"], table["log_density"].mean())
    np.testing.assert_allclose(found["standard_error"], table["log_density"].std() / np.sqrt(12))


class TestEvaluate:
    def data(self, tiny, tmp_path, known):
        """A file of twelve points of which so many are training points."""
        points = np.load(tiny / "train.npy")[:12].copy()
        points[known:] += 0.125
        np.save(tmp_path / "points.npy", points)
        return "--data", tmp_path / "points.npy", "--samples", 0, "--sigmas", 0.5

    @pytest.mark.parametrize(("known", "said"), [(12, "all 12 points of"), (5, "5 of the 12 points of")])
    def test_it_says_that_points_are_known(self, tiny, run, tmp_path, known, said):
        found = run("evaluate", *self.data(tiny, tmp_path, known))
        (note,) = found["notes"]
        assert note.startswith(said)
        assert "are points that the model was trained on" in note
        assert found["training_points"] == known

    def test_new_points_are_nothing_to_speak_of(self, tiny, run, tmp_path):
        found = run("evaluate", *self.data(tiny, tmp_path, 0))
        assert "notes" not in found
        assert found["training_points"] == 0
        printed = run("evaluate", *self.data(tiny, tmp_path, 0), json_object=False)
        assert "trained on" not in printed
        assert "calibration" in printed


def test_a_point_in_any_format(tiny, tmp_path):
    """Of both ends, and of where a picture begins."""
    pd.DataFrame({"x": [1.5], "y": [-2.0]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("x,y\n1.5,-2\n")
    np.save(tmp_path / "a.npy", [1.5, -2.0])
    for suffix in (".csv", ".npy", ".parquet"):
        assert read_point(str(tmp_path / f"a{suffix}"), "from", tiny, 2).tolist() == [1.5, -2.0]
    with pytest.raises(ValueError, match=r"`--to` must hold one point of shape \(2,\), got shape \(12, 2\) in"):
        read_point(str(tiny / "points.csv"), "to", tiny, 2)
    with pytest.raises(ValueError, match=r"`--at` must be an index or a file with one point, got 'b.csv'"):
        read_point("b.csv", "at", tiny, 2)
