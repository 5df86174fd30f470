"""The demo end to end, geodesics of the model that it leaves behind, and one line for every user's mistake."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from scoregeo import cli
from scoregeo.cli import _interrupts
from scoregeo.cli._tasks import TASKS


def run(*arguments):
    """The command in this process, in single precision, as JAX comes."""
    with jax.enable_x64(False):
        cli.main([*map(str, arguments)])


@pytest.mark.slow
def test_moons(tmp_path):
    """The quick demo in a process of its own, as a user runs it: its report, its files and its picture."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": os.environ["SCOREGEO_TEST_CACHE"]}
    command = [sys.executable, "-m", "scoregeo", "demo", "--data", "moons", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    moons = report["data"]["moons"]
    assert report["versions"]["jax"]
    assert moons["dtype"] == "float64"
    assert moons["score_accuracy"]["score_error"][1] < 0.25
    names = [record["metric"] for record in moons["geodesics"]]
    assert names == [name for name in ("Stein", "power of p", "score Jacobian") for _ in range(3)]
    for record in moons["geodesics"]:
        assert record["status"] == "converged"
        assert record["error"] < 1e-4 * record["length"]
        assert record["defect"] < 0.05
        # Powers of the density make the data cheaper than Euclid does, the others do not.
        assert record["metric"] == "power of p" or record["length"] >= record["euclidean"] - 1e-9
    assert "converged" in done.stdout
    # Training is over: its checkpoint is gone, the model is there.
    assert sorted(p.name for p in (tmp_path / "moons").iterdir()) == ["model"]
    with Image.open(tmp_path / "metric.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 400
    orange = np.array([0xD5, 0x5E, 0x00])
    assert (np.abs(pixels.astype(int) - orange).sum(-1) < 30).sum() > 500  # the geodesics are there


@pytest.mark.slow
def test_letters(tmp_path, capsys):
    """The angle of a letter is the truth: geodesics are nearer to it than straight lines."""
    run("demo", "--data", "letters", "--quick", "--out", tmp_path)
    letters = json.loads((tmp_path / "report.json").read_text())["data"]["letters"]
    assert letters["pictures"] == ["letters.png"]
    power = [record for record in letters["geodesics"] if record["metric"] == "power of p"]
    assert len(power) == 2
    for record in power:
        assert record["from_the_truth"] < record["from_the_truth_straight"] / 3
    assert "from truth" in capsys.readouterr().out


@pytest.mark.slow
def test_own_file_twice_and_geodesics_of_the_saved_model(tmp_path, capsys):
    """Data of the user's own, in three dimensions and units of very different size. The same seed gives the same
    numbers, and so do the commands that take the model."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(200, 3)) * [1.0, 100.0, 0.01] + [0, 1000, 5]
    np.savetxt(tmp_path / "table.csv", table, delimiter=",", header="a,b,c", comments="")
    solved = []
    for name in ("out", "again"):
        run("demo", "--data", tmp_path / "table.csv", "--quick", "--out", tmp_path / name)
        assert (tmp_path / name / "table-projection.png").exists()
        solved.append(json.loads((tmp_path / name / "report.json").read_text())["data"]["table"]["geodesics"])
    for a, b in zip(*solved, strict=True):
        assert [a[key] for key in ("from", "to", "length")] == [b[key] for key in ("from", "to", "length")]
    model, record = tmp_path / "out" / "table" / "model", solved[0][0]
    points = np.load(model / "points.npy")
    np.testing.assert_allclose(points, table, rtol=1e-4)

    pair = ("--from", record["from"], "--to", record["to"])
    run("geodesic", "--model", model, *pair, "--out", tmp_path / "path.npz", "--picture", tmp_path / "path.png")
    with np.load(tmp_path / "path.npz") as path:
        np.testing.assert_allclose(path["points"][0], points[record["from"]], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(path["points"][-1], points[record["to"]], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(path["length"], record["length"], rtol=1e-6)
    with Image.open(tmp_path / "path.png") as picture:
        assert min(picture.size) > 300
    np.save(tmp_path / "a.npy", points[record["from"]])
    np.save(tmp_path / "b.npy", points[record["to"]])
    capsys.readouterr()
    run("distance", "--model", model, "--from", tmp_path / "a.npy", "--to", tmp_path / "b.npy")
    told = capsys.readouterr().out
    assert f"{record['length']:.4f}"[:5] in told
    assert "converged" in told


@pytest.mark.slow
def test_the_seed_says_what_moons_are_drawn():
    first, again, other = (TASKS["moons"](True, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.dataset.points, again.dataset.points)
    assert first.pairs == again.pairs
    assert not np.array_equal(first.dataset.points, other.dataset.points)
    assert (first.config.seed, other.config.seed) == (3, 4)


@pytest.mark.slow
def test_bad_pairs(tiny, tmp_path, capsys):
    np.save(tmp_path / "three.npy", np.zeros(3))
    np.save(tmp_path / "nan.npy", np.array([0.0, np.nan]))
    (tmp_path / "garbage.npy").write_text("not numpy")
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04garbage")
    np.save(tmp_path / "complex.npy", np.array([1j, 0.0]))
    cases = [
        (("--from", "300", "--to", "0"), "`--from` must be an index from 0 to 299, got 300"),
        (("--from", "-1", "--to", "0"), "`--from` must be an index from 0 to 299, got -1"),
        (("--from", "0", "--to", tmp_path / "three.npy"), "`--to` must hold one point of shape (2,), got shape (3,)"),
        (("--from", "0", "--to", tmp_path / "nan.npy"), "`--to` must be finite"),
        (("--from", "0", "--to", tmp_path / "garbage.npy"), "is not a .npy file of numbers"),
        (("--from", "0", "--to", tmp_path / "missing.npy"), "no such file"),
        (("--from", "0", "--to", "x"), "`--to` must be an index or a file with one point, got 'x', which is no file"),
        (("--from", "0", "--to", "1", "--strength", "-1"), "`--strength` must be a non-negative number, got -1"),
        (("--from", "0", "--to", "1", "--sigma", "0"), "`--sigma` must be a positive number, got 0"),
        (("--from", "0", "--to", "1", "--sigma", "1e9"), "`--sigma` must be a noise level that the model knows"),
        (("--from", "0", "--to", tmp_path / "complex.npy"), "is not a .npy file of real numbers"),
        (("--from", "0", "--to", tmp_path / "zip.npy"), "is not a .npy file of numbers"),
    ]
    for arguments, message in cases:
        assert_fails_in_one_line(["distance", "--model", tiny / "model", *arguments], message, capsys)


def assert_fails_in_one_line(arguments, message, capsys):
    """In this process: starting one for each mistake would take most of the time of the suite."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert error.startswith("scoregeo: ")
    assert message in error, error


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "missing.npy"),
        ("empty.csv", b"", "empty.csv"),
        ("words.csv", b"a,b\nx,y\nz,w\n", "words.csv"),
        ("garbage.npy", b"garbage", "garbage.npy"),
        ("garbage.parquet", b"garbage", "garbage.parquet"),
        ("data.xyz", b"1 2 3", "data.xyz"),
        ("few.csv", b"a,b\n1,2\n3,4\n", "`--data`"),
        ("nan.csv", b"a,b\n1,2\n,4\n5,6\n", "nan.csv"),
    ],
)
def test_bad_data_files(name, content, message, tmp_path, capsys):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert_fails_in_one_line(["demo", "--data", path, "--out", tmp_path / "out"], message, capsys)
    assert not (tmp_path / "out").exists()


def test_output_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    assert_fails_in_one_line(["demo", "--data", "moons", "--quick", "--out", out], "`--out` must be a folder", capsys)


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_bad_seed(seed, tmp_path, capsys):
    command = ["demo", "--data", "moons", "--seed", seed, "--out", tmp_path / "out"]
    assert_fails_in_one_line(command, "`--seed` must be from 0 to 4294967295", capsys)


def test_options_of_files_are_for_files(tmp_path, capsys):
    command = ["demo", "--data", "moons", "--delimiter", ";", "--out", tmp_path / "out"]
    assert_fails_in_one_line(command, "`--delimiter` is for a file, but `--data` is moons", capsys)


def test_constant_data(tmp_path, capsys):
    np.save(tmp_path / "constant.npy", np.ones((20, 2)))
    command = ["demo", "--data", tmp_path / "constant.npy", "--out", tmp_path / "out"]
    assert_fails_in_one_line(command, "must have points that differ", capsys)
    assert not (tmp_path / "out").exists()


class TestBadModels:
    def test_unknown(self, tmp_path, capsys):
        command = ["distance", "--model", tmp_path / "nothing", "--from", "0", "--to", "1"]
        assert_fails_in_one_line(command, "nothing", capsys)

    @pytest.mark.parametrize("content", [None, "{", '{"format": "other"}'])
    def test_damaged(self, content, tmp_path, capsys):
        model = tmp_path / "model"
        model.mkdir()
        if content is not None:
            (model / "config.json").write_text(content)
        command = ["geodesic", "--model", model, "--from", "0", "--to", "1", "--out", tmp_path / "path.npz"]
        assert_fails_in_one_line(command, "model", capsys)
        assert not (tmp_path / "path.npz").exists()


@pytest.mark.slow
def test_interrupt_leaves_a_usable_checkpoint(tmp_path, monkeypatch, capsys):
    """Status 130, one line that says where the checkpoint is, and no report. How Ctrl-C comes to the run that trains is
    test_interrupts.py's."""
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(20, 2)))
    steps = []

    def interrupted(self, history):
        steps.append(history.last_step)
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_interrupts.TrainingRun, "__call__", interrupted)
    command = ["demo", "--data", str(tmp_path / "few.npy"), "--quick", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        cli.main(command)
    assert stop.value.code == _interrupts.STATUS == 130
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    message = errors.strip().splitlines()[-1]
    assert "the last checkpoint is in" in message
    checkpoint = pathlib.Path(message.split("the last checkpoint is in ")[1].split(" (")[0])
    assert checkpoint.is_dir()
    assert checkpoint.name == str(steps[-1])
    assert not (tmp_path / "out" / "report.json").exists()
    # The next run goes on from it: the first that a callback hears of is what was done.
    steps.clear()
    with pytest.raises(SystemExit):
        cli.main(command)
    assert steps[0] == int(checkpoint.name)
