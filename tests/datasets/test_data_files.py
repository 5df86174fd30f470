"""Data sets from files, and what is said of files that hold none."""

import pathlib
import sys

import jax
import numpy as np
import pandas as pd
import pytest

from scoregeo.datasets import load
from scoregeo.datasets.files import read_points
from scoregeo.datasets.readers.delimited import guess_layout
from scoregeo.datasets.readers.raw import Options
from scoregeo.datasets.readers.tables import of_frame

TABLE = pd.DataFrame({"height": [1.0, 2.0, 4.0], "weight": [10, 30, 20], "age": [7.5, 8.5, 9.0]})


def write(table: pd.DataFrame, path: pathlib.Path) -> pathlib.Path:
    if path.suffix.lower() == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".npy":
        np.save(path, table.to_numpy())
    else:
        np.savez(path, table.to_numpy())
    return path


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv", ".CSV", ".parquet"])
def test_load_standardises_and_undoes(tmp_path, ending):
    data = load(str(write(TABLE, tmp_path / f"people{ending}")))
    assert data.name == "people"
    assert data.image_shape is None
    np.testing.assert_allclose(data.points.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(data.points.std(0), 1, rtol=1e-12)
    np.testing.assert_allclose(data.undo(data.points), TABLE.to_numpy(), rtol=1e-12)


def test_load_with_one_common_scale(tmp_path):
    data = load(write(TABLE, tmp_path / "people.csv"), per_feature=False)
    assert data.standardization.scale.shape == ()
    np.testing.assert_allclose(data.points.mean(0), 0, atol=1e-12)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_load_columns_in_order(tmp_path, ending):
    data = load(write(TABLE.assign(name=["a", "b", "c"]), tmp_path / f"t{ending}"), columns=["age", "height"])
    np.testing.assert_allclose(data.undo(data.points), TABLE[["age", "height"]].to_numpy(), rtol=1e-12)


def test_load_csv_without_header(tmp_path):
    path = tmp_path / "bare.csv"
    np.savetxt(path, TABLE.to_numpy(), delimiter=",")
    np.testing.assert_allclose(load(path).undo(load(path).points), TABLE.to_numpy(), rtol=1e-12)
    for third in (2, "2"):  # a word, on the command line
        np.testing.assert_array_equal(load(path, columns=[third]).points[:, 0], load(path).points[:, 2])


RANDOM = np.random.default_rng(1)
NUMBERS = RANDOM.normal(size=(40, 5))
COUNTS = RANDOM.integers(0, 900, (40, 5))
# Every row grows, as spectra and cumulative curves may.
GROWING = np.cumsum(RANDOM.uniform(0.1, 1, (40, 5)), 1)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", ", "])
@pytest.mark.parametrize("names", [["a", "body height", "c", "d", "e"], None])
def test_delimiters(tmp_path, delimiter, names):
    path = tmp_path / "t.csv"
    header = delimiter.join(names or "")
    header = header.replace("body height", "height") if delimiter == " " else header
    np.savetxt(path, NUMBERS, delimiter=delimiter, header=header, comments="")
    found = read_points(path)
    assert found.layout.delimiter == delimiter[0]
    assert found.layout.header == (names is not None)
    np.testing.assert_allclose(found.points, NUMBERS, rtol=1e-15)


@pytest.mark.parametrize(
    "values", [NUMBERS, COUNTS, GROWING, NUMBERS[:, :3], COUNTS[:, :3]], ids=["a", "b", "c", "d", "e"]
)
@pytest.mark.parametrize(
    "names", [range(5), range(1990, 1995), np.arange(400, 450, 10.0), [400.5, 402.25, 404.0, 405.75, 407.5]], ids=str
)
def test_names_that_are_numbers(tmp_path, values, names):
    """Years, wavelengths, the numbers that pandas gives to columns: no points."""
    path, names = tmp_path / "t.csv", list(names)[: values.shape[1]]
    pd.DataFrame(values, columns=names).to_csv(path, index=False)
    found = read_points(path)
    assert found.layout.header
    np.testing.assert_allclose(found.points, values, rtol=1e-15)
    np.testing.assert_allclose(read_points(path, columns=[names[1]]).points[:, 0], values[:, 1], rtol=1e-15)
    # The option has the last word.
    assert len(read_points(path, header=False).points) == len(values) + 1


@pytest.mark.parametrize("names", [[0, 1], [2019, 2020], [0]], ids=str)
def test_names_of_few_columns(tmp_path, names):
    for numbers in (NUMBERS, COUNTS) if names == [2019, 2020] else (NUMBERS,):
        values = numbers[:, : len(names)]
        pd.DataFrame(values, columns=names).to_csv(tmp_path / "t.csv", index=False)
        np.testing.assert_allclose(read_points(tmp_path / "t.csv").points, values, rtol=1e-15)


@pytest.mark.parametrize("d", [3, 8])
@pytest.mark.parametrize(
    "values", [RANDOM.uniform(0, 1, (10, 8)), GROWING[:, [0, 1, 2, 3, 4, 4, 4, 4]]], ids=["a", "b"]
)
def test_uneven_wavelengths(tmp_path, d, values):
    names, values = [403.5, 409.25, 411.0, 430.5, 431.75, 440.0, 470.0, 471.25][:d], values[:, :d]
    pd.DataFrame(values, columns=names).to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_allclose(read_points(tmp_path / "t.csv").points, values, rtol=1e-15)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("kind", ["normal", "counts", "growing", "images"])
def test_points_without_names_stay_points(tmp_path, d, kind):
    """Of 12 files of ten rows or more each, none loses its first point."""
    random = np.random.default_rng(d)
    make = {
        "normal": lambda n: random.normal(size=(n, d)),
        "counts": lambda n: random.integers(0, 100, (n, d)),
        "growing": lambda n: np.cumsum(random.uniform(0, 1, (n, d)), 1),
        "images": lambda n: random.integers(0, 17, (n, d)) * (random.uniform(size=(n, d)) < 0.5),
    }[kind]
    for n in range(10, 70, 5):
        np.savetxt(tmp_path / "t.csv", make(n), delimiter=",", fmt="%.8g")
        assert len(read_points(tmp_path / "t.csv").points) == n


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n7.0,3.2,versicolor\n", False),  # classes, which columns repeat
        ("width,length,class\n4.9,3.0,setosa\n7.0,3.2,versicolor\n", True),
        ("city,2001,2002\nParis,2000,2004\nLyon,1990,2010\n", True),
        ("a1,0.5,0.2\nb2,0.7,0.3\n", True),  # as far as anybody can tell
        ("NA,1.5\n2.5,1.0\n", False),
        (",1.5\n2.5,1.0\n", False),
        (",0,1,2\n0,0.5,0.2,0.1\n1,0.1,0.3,0.6\n", True),
        ("x,1\ninf,2\n-inf,3\n", True),
        ("inf,inf,1\ninf,-inf,3\n", False),
        ("1.5,2.5\n", False),
        ("x,y\n", True),
        ("1,2.5\n3,oops\n", False),
        ("3\n1\n2\n", False),
        ('"1990","1991","1992"\n"3","1","2"\n"3","1","7"\n', True),
    ],
)
def test_names_or_a_point(tmp_path, content, header):
    (tmp_path / "t.csv").write_text(content)
    assert guess_layout(tmp_path / "t.csv", None, None).header == header


def test_layout_as_text(tmp_path):
    path = write(TABLE, tmp_path / "t.csv")
    assert str(read_points(path).layout) == "delimiter ',' and names in its first row (height, weight, age)"
    np.savetxt(path, NUMBERS, delimiter=";")
    assert str(read_points(path).layout) == "delimiter ';' and no names in its first row"
    assert read_points(write(TABLE, tmp_path / "t.npy")).layout is None


class Name(str):
    """A name that counts how often it is compared with another one."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Name.compared += 1
        return str.__eq__(self, other)


def test_columns_are_not_compared_with_each_other(monkeypatch):
    """Of 400 chosen ones a few comparisons each, by the tables that names are looked up in; 80,000 if each is searched
    for among all."""
    names = [Name(f"c{j}") for j in range(400)]
    frame = pd.DataFrame(np.arange(800.0).reshape(2, 400), columns=pd.Index(names, dtype=object))
    monkeypatch.setattr(Name, "compared", 0)
    found = of_frame(frame, "here", Options(columns=names[::-1], label=names[7]))
    assert list(found.feature_names) == names[::-1]
    np.testing.assert_array_equal(found.values[0], np.arange(400.0)[::-1])
    assert Name.compared < 20 * 400 + 400  # one comparison for each of the names above


def test_four_times_the_columns_are_four_times_the_work(tmp_path):
    """Counted in lines of the library that run; what goes through all columns for each would make it sixteen times."""

    def lines(columns):
        values = np.random.default_rng(0).normal(size=(5, columns))
        path, count = write(pd.DataFrame(values).add_prefix("c"), tmp_path / f"{columns}.csv"), 0

        def trace(frame, event, _):
            nonlocal count
            count += event == "line"
            return trace if "scoregeo" in frame.f_code.co_filename else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            data = load(path)
        finally:
            sys.settrace(before)
        assert data.points.shape == (5, columns)
        return count

    assert 400 < lines(400) < 6 * lines(100)


def test_load_parquet_with_nullable_integers(tmp_path):
    path = write(pd.DataFrame({"a": pd.array([1, 2, 3], "Int64")}), tmp_path / "t.parquet")
    np.testing.assert_allclose(load(path).undo(load(path).points)[:, 0], [1, 2, 3])


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 2)])
def test_load_image_stacks(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    data = load(tmp_path / "images.npy")
    assert data.image_shape == shape[1:]
    assert len(np.unique(data.standardization.mean)) == 1
    np.testing.assert_allclose(data.undo(data.points).reshape(shape), images, atol=1e-10)
    assert load(tmp_path / "images.npy", per_feature=True).standardization.scale.shape == (np.prod(shape[1:]),)


def test_load_npz_by_key(tmp_path):
    np.savez(tmp_path / "two.npz", train=TABLE.to_numpy(), test=np.zeros((2, 1)))
    assert load(tmp_path / "two.npz", key="test").points.shape == (2, 1)
    with pytest.raises(ValueError, match=r"`key` must name one of the arrays .*two\.npz.*\['train', 'test'\]"):
        load(tmp_path / "two.npz")
    with pytest.raises(ValueError, match=r"`key` = 'valid' must name one of the arrays .*\['train', 'test'\]"):
        load(tmp_path / "two.npz", key="valid")


def test_load_keeps_small_differences_on_a_large_offset_in_float32(tmp_path):
    np.save(tmp_path / "t.npy", 1.7e9 + np.arange(4.0)[:, None])
    with jax.enable_x64(False):
        points = load(tmp_path / "t.npy").points
    assert points.dtype == np.float32
    np.testing.assert_allclose(points[:, 0], (np.arange(4) - 1.5) / 1.25**0.5, rtol=1e-6)


def bad_file(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, pd.DataFrame):
        write(content, path)
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content, allow_pickle=True)
    return path


PARQUET_MAGIC = b"PAR1" + bytes(20) + b"PAR1"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"1,2\n", r"must be a folder or end in one of \.npy, \.npz, \.csv, .*\.h5ad, got '\.txt'"),
        ("a", b"1,2\n", "end in one of .*, got 'no extension'"),
        ("a.csv", b"", "got an empty file"),
        ("a.npy", b"", "got an empty file"),
        ("a.npy", b"garbage that is no array", r"must be a NumPy \.npy file, but starts with the bytes b'garbag'"),
        ("a.npz", b"garbage", r"must be a NumPy \.npz file, but starts with"),
        ("a.npz", b"PK\x03\x04 truncated", r"must be a NumPy \.npz file with an array of numbers"),
        ("a.npy", b"\x93NUMPY\x01\x00truncated", r"must be a NumPy \.npy file with an array of numbers"),
        ("a.csv", b"\xff\xfe\x00\x80\n1,2\n", r"must be a \.csv file"),
        ("a.csv", b"x,y\n1,2\n1,2,3\n", r"must be a \.csv file with a table of numbers.*line 3"),
        ("a.csv", b"x,y\n1,2,3\n4,5,6\n", "its header has 2 names, but its rows have 3 values"),
        (
            "a.csv",
            b"PK\x03\x04 zip",
            r"a \.csv file, which is text, but starts with the bytes .*, as a \.zip, \.npz or",
        ),
        ("a.csv", b"\x89PNG\r\n\x1a\n", r"starts with the bytes .*PNG.*', as a \.png image does"),
        ("a.npz", b"\x93NUMPY", r"must be a NumPy \.npz file, but starts with the bytes .*, as a \.npy file does"),
        ("a.parquet", b"PK\x03\x04 zip", r"must be a \.parquet file, but starts with the bytes .*, as a \.zip"),
        ("a.csv", b"\n\n", r"must be a \.csv file with a table of numbers: No columns"),
        ("a.parquet", b"garbage", r"must be a \.parquet file, but starts with the bytes b'garbag'$"),
        ("a.parquet", PARQUET_MAGIC, r"must be a \.parquet file with a table of numbers"),
        ("a.csv", b"x,y\n", r"at least one point and one feature, got 0 rows of \['x', 'y'\]"),
        ("a.parquet", TABLE[:0], "at least one point and one feature, got 0 rows"),
        ("a.npy", b"\x93NUMPY\x01\x00\x08\x00{'descr'", r"must be a NumPy \.npy file with an array of numbers"),
        ("a.npy", b"\x93NUMPY\x01\x00\x06\x00{(((((", r"must be a NumPy \.npy file with an array of numbers"),
        ("a.npy", np.ones((0, 3)), r"at least one point and one feature, got shape \(0, 3\)"),
        ("a.npy", np.ones((3, 0)), r"at least one point and one feature, got shape \(3, 0\)"),
        ("a.npy", np.ones(3), r"got shape \(3,\); reshape one feature to \(n, 1\)"),
        ("a.npy", np.float64(3), r"got shape \(\)"),
        (
            "a.npy",
            np.ones((2, 3, 8, 8)),
            r"images \(height, width, channels\), got \(3, 8, 8\), whose channels seem to",
        ),
        ("a.npy", np.ones((2, 1, 28, 28)), r"got \(1, 28, 28\), whose channels seem to come first: .*numpy\.moveaxis"),
        ("a.npy", np.ones((2, 2, 2, 2, 2)), r"got shape \(2, 2, 2, 2, 2\)"),
        ("a.npy", np.array([[1, "a"]], object), "Object arrays cannot be loaded"),
        ("a.npz", {"x": np.array([[1, "a"]], object)}, "Object arrays cannot be loaded"),
        ("a.npz", {}, r"`key` must name one of the arrays of .*, which holds \[\]"),
        ("a.npy", np.array([["1", "2"]]), "must hold real numbers, got dtype <U1"),
        ("a.npy", np.ones((2, 2), complex), "must hold real numbers, got dtype complex128"),
        ("a.npy", np.ones((2, 2), bool), "must hold real numbers, got dtype bool"),
        (
            "a.npy",
            np.array([[1.0, 2.0], [3.0, np.inf]]),
            r"1 of 4 values in 1 of 2 columns \(1 1\) are infinite, the first in row 1, column 1: these are not",
        ),
        (
            "a.csv",
            b"x,y,z\n1,2,0\n3,,0\n,,1\n",
            r"3 of 9 values in 2 of 3 columns \('x' 1, 'y' 2\) are missing or NaN, the first in row 1, column 'y'; "
            "`drop` leaves out these 2 of 3 rows, `impute` fills in medians",
        ),
        (
            "a.csv",
            b"x,y\n1,2\n3,oops\n",
            r"1 of 2 are not: 'y' \(1 of 2 are no numbers, 1 different, first 'oops' in row 1\)",
        ),
        (
            "a.csv",
            b"x;y\n1,5;2\n",
            r"'x' \(.* first '1,5' in row 0\); decimal commas are not read.* with delimiter ';' and",
        ),
        (
            "a.csv",
            b"x~y\n1~2\n",
            r"'x~y' \(.* first '1~2' in row 0\).*; it was read with delimiter ',' and names in its first",
        ),
        ("a.csv", b"x,y\nTrue,2\nFalse,3\n", r"must have numeric columns, but 1 of 2 are not: 'x' \(dtype bool\)"),
        ("a.csv", b",x\n0,1.5\n1,2.5\n", r"first column without a name \(an index\?\)"),
        (
            "a.parquet",
            TABLE.assign(when=pd.Timestamp("2026-01-01")),
            r"must have numeric columns, but 1 of 4 are not: 'when'",
        ),
        (
            "a.parquet",
            TABLE.assign(name=["a", "b", "c"]),
            r"'name' \(3 of 3 are no numbers, 3 different, first 'a' in row 0\)",
        ),
    ],
)
def test_load_refuses(tmp_path, name, content, message):
    path = bad_file(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("t.npy", {"columns": ["x"]}, r"`columns` is for \.csv, \.parquet, .* but .* is a \.npy file"),
        ("t.npy", {"header": True}, r"`header` is for \.csv, but .* is a \.npy file"),
        ("t.parquet", {"delimiter": ","}, r"`delimiter` is for \.csv, but .* is a \.parquet file"),
        ("t.csv", {"delimiter": ";;"}, "`delimiter` must be one character such as ';', got ';;'"),
        ("t.csv", {"delimiter": ";"}, r"'height,weight,age' .* read with delimiter ';' and names in its first row"),
        (
            "t.csv",
            {"header": False},
            r"0 \(1 of 4 are .* first 'height' in row 0\), .* delimiter ',' and no names in its first row",
        ),
        ("t.csv", {"key": "x"}, r"`key` is for \.npz, \.h5ad, a data set of Hugging Face, but .* is a \.csv file"),
        (
            "t.csv",
            {"columns": ["heigth"]},
            r"`columns` must be among \['height', 'weight', 'age'\] of .*, got \['heigth'\]",
        ),
        ("t.csv", {"columns": "age"}, "`columns` must be a list of one or more column names, got 'age'"),
        ("t.parquet", {"columns": []}, "`columns` must be a list of one or more column names"),
    ],
)
def test_load_refuses_options(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        load(write(TABLE, tmp_path / name), **options)


def test_load_missing_file_and_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` = '.*nowhere\.csv' does not exist"):
        load(tmp_path / "nowhere.csv")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(
        ValueError, match=r"`path` = '.*folder\.npy' must be a folder with images .*, got an empty fold"
    ):
        load(tmp_path / "folder.npy")


def test_load_unreadable_file(tmp_path, monkeypatch):
    path = write(TABLE, tmp_path / "secret.csv")

    def denied(*args, **kwargs):  # the tests may run as root, whom no mode bits stop
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", denied)
    with pytest.raises(PermissionError, match=r"`path` = '.*secret\.csv' must be readable"):
        load(path)


def test_load_parquet_without_pyarrow(tmp_path, monkeypatch):
    path = write(TABLE, tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"reading `path` = .* needs pyarrow: pip install scoregeo\[data\]"):
        load(path)
