"""What users get wrong, as they type it: each ends with status 2 and one line that says what to do."""

import numpy as np
import pytest

from scoregeo import cli
from scoregeo.cli import _mistakes
from scoregeo.cli.models.train import Train

MODEL, POINTS = ["--model", "{tiny}/model"], ["--data", "{tiny}/points.csv"]


@pytest.fixture
def files(tmp_path):
    """A folder of files that are wrong in one way each."""
    np.save(tmp_path / "wide.npy", np.ones((4, 3)))
    np.save(tmp_path / "infinite.npy", [[1.0, np.inf], [2.0, 3.0]])
    (tmp_path / "gaps.csv").write_text("x,y\n1,2\nnan,3\n")
    (tmp_path / "words.csv").write_text("x,y\n1,a\n2,b\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "text.npy").write_text("hi")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "there is no command 'trian': did you mean train?"),
        (["foo"], "there is no command 'foo': the commands are demo, train, "),
        (["--json", "mean"], "name a command before '--json', as in scoregeo mean --json; see scoregeo --help"),
        (["--verison"], "name a command before '--verison'"),
        (
            ["sample", *MODEL, "--condition", "3", "--out", "{files}/s.csv"],
            "`--condition` must be left out: this MLP takes no conditions (train it with `--labels`)",
        ),
        (["sample", *MODEL], "Missing from scoregeo sample: --out PATH A .npy, .npz, .csv or .parquet file"),
        (["mean", "--modle", "m", *POINTS], "Unrecognized options: --modle m; see scoregeo mean --help"),
        (["mean", *MODEL, *POINTS, "--n", "one"], "`--n` must be a whole number, got 'one'; see scoregeo mean"),
        (["mean", *MODEL, *POINTS, "--sigma", "x"], "`--sigma`: "),
        (["mean", *MODEL, *POINTS, "--metric", "foo"], "invalid choice 'foo' for argument '--metric'. Expected one of"),
        (["train", *POINTS, "--out", "m", "--schedule", "No"], "`--schedule` must be one of Cosine, EDM, Rect"),
        (["train", *POINTS, "--out", "m", "--learning-rate", "-1"], "`--learning-rate` must be a number that is pos"),
        (["train", "--data", "{files}/words.csv", "--out", "m"], "`--columns` chooses others, `--label` takes one"),
        (["evaluate", *MODEL, "--data", "{files}/none.csv"], "`--data` {files}/none.csv does not exist"),
        (["evaluate", *MODEL, "--data", "{files}/folder"], "`--data` {files}/folder must be a folder with images"),
        (["evaluate", *MODEL, "--data", "{files}/gaps.csv"], "`--drop` leaves out these 1 of 2 rows, `--impute` fills"),
        (["evaluate", *MODEL, "--data", "{files}/empty.csv"], "{files}/empty.csv must hold data, got an empty file"),
        (["evaluate", *MODEL, "--data", "{files}/text.npy"], "{files}/text.npy must be a NumPy .npy file, but starts"),
        (["evaluate", *MODEL, "--data", "{files}/infinite.npy"], "must hold finite numbers, but 1 of 4 values"),
        (
            ["evaluate", *MODEL, "--data", "{files}/wide.npy"],
            "must have points of dimension 2, as the model has, got 3",
        ),
        (["distance", *MODEL, "--all", "{files}/none.csv", "--out", "{files}/d.npy"], "`--all` {files}/none.csv does"),
        (
            ["evaluate", "--model", "{files}/no", *POINTS],
            "`--model` {files}/no cannot be used: it does not exist, but must",
        ),
        (
            ["evaluate", "--model", "{files}/wide.npy", *POINTS],
            "{files}/wide.npy cannot be used: it is a file, but must be a folder",
        ),
        (["evaluate", "--model", "{files}/folder", *POINTS], "`--model` {files}/folder cannot be used"),
        (["sample", *MODEL, "--out", "{files}/wide.npy/x.csv"], "`--out` must be in a folder that can be written, got"),
        (["sample", *MODEL, "--out", "{files}/folder.csv/"], "`--out` must be a file, got the folder"),
    ],
)
def test_one_line_that_says_what_to_do(tiny, files, capsys, words, message):
    (files / "folder.csv").mkdir()
    names = {"tiny": tiny, "files": files}
    with pytest.raises(SystemExit) as stop:
        cli.main([word.format(**names) for word in words])
    assert stop.value.code == cli.MISTAKE
    printed = capsys.readouterr()
    assert message.format(**names) in printed.err
    assert printed.err.startswith("scoregeo: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_format_that_needs_a_package(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SystemExit):
        cli.main(["sample", "--model", str(tiny / "model"), "--out", str(tmp_path / "x.parquet")])
    assert "needs pyarrow: pip install 'scoregeo[data]'; or .csv" in capsys.readouterr().err


def test_settings_are_named_as_options():
    """Those of the command, also of its groups, and nothing else."""
    said = "`batch_size` and `drop`, not `other_size`"
    assert _mistakes.in_options(said, Train) == "`--batch-size` and `--drop`, not `other_size`"


@pytest.mark.parametrize("frame", ["╭│╰╮╯─", "       -"])
def test_boxes_of_every_terminal(frame):
    """Off a terminal that knows lines, boxes are made of dashes."""
    a, b, c, d, e, line = (*frame[:5], frame[-1])
    rows = ["Error parsing --n: invalid literal for int() with base 10: 'x'", line * 60, "For full helptext, see"]
    box = [f"{a}{line} Value error {line * 46}{d}", *(f"{b} {row:<60} {b}" for row in rows), f"{c}{line * 62}{e}"]
    assert (
        _mistakes.from_box("\n".join(box), "mean") == "`--n` must be a whole number, got 'x'; see scoregeo mean --help"
    )
