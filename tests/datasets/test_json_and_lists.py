"""Data sets from .json and .jsonl files, and tables whose cells are lists."""

import json

import numpy as np
import pandas as pd
import pytest

from scoregeo.datasets import load
from scoregeo.datasets.files import read_points

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(7, 3))
TABLE = pd.DataFrame(VALUES, columns=["x", "y", "z"])


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows))
    return path


@pytest.mark.parametrize("orient", ["records", "columns", "split", "values"])
def test_what_pandas_writes(tmp_path, orient):
    TABLE.to_json(tmp_path / "t.json", orient=orient, double_precision=15)
    found = read_points(tmp_path / "t.json")
    np.testing.assert_allclose(found.points, VALUES, rtol=1e-14)
    assert found.feature_names == (None if orient == "values" else ("x", "y", "z"))


def test_lines(tmp_path):
    TABLE.to_json(tmp_path / "t.jsonl", orient="records", lines=True, double_precision=15)
    data = load(tmp_path / "t.jsonl", columns=["z", "x"])
    np.testing.assert_allclose(data.undo(data.points), VALUES[:, [2, 0]], rtol=1e-13)
    assert data.feature_names == ("z", "x")
    np.testing.assert_array_equal(read_points(jsonl(tmp_path / "rows.jsonl", VALUES.tolist())).points, VALUES)
    strange = read_points(jsonl(tmp_path / "strange.jsonl", [{"x": 1, "y": "a\u2028b"}]), label="y")
    assert strange.label_names == ("a\u2028b",)
    np.testing.assert_array_equal(read_points(jsonl(tmp_path / "one.jsonl", [1, 2.5])).points, [[1], [2.5]])


def test_columns_and_labels(tmp_path):
    content = {"kind": ["b", "a", "b"], "x": [1, 2, 3], "when": [2460000.500001, 2460000.500002, 2460000.500004]}
    (tmp_path / "t.json").write_text(json.dumps(content))
    data = load(tmp_path / "t.json", label="kind")
    assert (data.labels.tolist(), data.label_names) == ([1, 0, 1], ("a", "b"))
    np.testing.assert_array_equal(data.undo(data.points)[:, 1] - 2460000.5, np.array(content["when"]) - 2460000.5)


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 3, 2, 3)])
def test_images(tmp_path, shape):
    images = RANDOM.integers(0, 256, shape)
    (tmp_path / "t.json").write_text(json.dumps(images.tolist()))
    data = load(tmp_path / "t.json")
    assert data.image_shape == shape[1:]
    np.testing.assert_allclose(data.undo(data.points).reshape(shape), images, atol=1e-11)
    data = load(jsonl(tmp_path / "t.jsonl", [{"image": image.tolist(), "class": 1} for image in images]), label="class")
    assert data.image_shape == shape[1:]
    np.testing.assert_allclose(data.undo(data.points).reshape(shape), images, atol=1e-11)


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_columns_of_lists(tmp_path, ending):
    """As embeddings are kept."""
    table = pd.DataFrame({"id": [7, 8], "embedding": [[0.5, 1, 2], [3, 4, 5.5]], "size": [0.25, 0.75]})
    path = tmp_path / f"t{ending}"
    table.to_parquet(path) if ending == ".parquet" else table.to_json(path, orient="records", lines=True)
    found = read_points(path, columns=["embedding", "size"])
    np.testing.assert_array_equal(found.points, [[0.5, 1, 2, 0.25], [3, 4, 5.5, 0.75]])
    assert found.feature_names == ("embedding[0]", "embedding[1]", "embedding[2]", "size")
    np.testing.assert_array_equal(read_points(path).points[:, 0], [7, 8])


def test_null_and_absent_keys_are_missing(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", [{"x": 1, "y": 2}, {"y": 3, "x": None}, {"x": 4}, {"x": 5, "y": 7}])
    with pytest.raises(
        ValueError, match=r"2 of 8 values in 2 of 2 columns \('x' 1, 'y' 1\) .* first in row 1, column 'x'"
    ):
        load(path)
    np.testing.assert_array_equal(read_points(path, drop=True).points, [[1, 2], [5, 7]])
    np.testing.assert_array_equal(read_points(path, impute="median").points, [[1, 2], [4, 3], [4, 3], [5, 7]])
    path.write_text("[1, null]\n[3, 4]\n[5, 6]\n")
    np.testing.assert_array_equal(read_points(path, impute="median").points, [[1, 5], [3, 4], [5, 6]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "this is no JSON", r"must be a \.json file: Expecting value"),
        ("a.json", "[[1, 2], [3", r"must be a \.json file"),
        (
            "a.json",
            b"PK\x03\x04zip",
            r"a \.json file, which is text, but starts with .*, as a \.zip, \.npz or \.xlsx file does",
        ),
        ("a.json", b"\xff\xfe\x00[", r"must be a \.json file: .* can't decode"),
        (
            "a.json",
            "[[1, 2], [3, 4], [5, 6, 7], [8]]",
            "as many in each, got 3 values in row 2, but 2 in the rows before",
        ),
        (
            "a.json",
            "[[1, 2], [3, [4, 5]]]",
            "got row 1 with lists of different lengths|got row 1 with what is no number",
        ),
        ("a.json", '[[1, 2], ["three", 4]]', r"got row 1 with what is no number: \['three', 4\]"),
        ("a.json", "[[1, 2], [3, true]]", "rows of numbers, got true or false in row 1"),
        ("a.json", '[{"x": 1}, {"x": true}]', r"'x' \(1 of 2 are no numbers, 1 different, first 'True' in row 1\)"),
        ("a.json", '[[1, 2], {"x": 3}]', "got dict in row 1"),
        ("a.json", '[{"x": 1}, [2]]', "must hold records throughout, got list in row 1"),
        ("a.json", '[{"x": 1}, {"x": "two"}]', r"'x' \(1 of 2 are no numbers, 1 different, first 'two' in row 1\)"),
        ("a.json", '[{"x": [1, 2]}, {"x": [1]}]', "one length in column 'x', got 1 values in row 1, but 2"),
        ("a.json", '[{"x": {"y": 1}}]', r"'x' \(1 of 1 are no numbers"),
        ("a.json", '{"x": [1, 2], "y": [1]}', r"columns of one length, got \{'x': 2, 'y': 1\}"),
        ("a.json", '{"x": [1, 2], "note": "hello"}', "an object of columns, got str for 'note'"),
        ("a.json", "[]", "got an empty list"),
        ("a.json", "3", "got int"),
        ("a.json", "[[1, Infinity]]", "are infinite, the first in row 0, column 1"),
        ("a.jsonl", '{"x": 1}\n\n{"x": 2\n', "must hold JSON in each line, but line 3 is '{\"x\": 2'"),
        ("a.jsonl", '{"x": 1}\n[2]\n', "the like in each line, but line 2 is list and not dict"),
    ],
)
def test_refusals(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


def test_rows_have_no_names(tmp_path):
    (tmp_path / "t.json").write_text("[[1, 2]]")
    with pytest.raises(ValueError, match=r"`columns` names a column, but .* holds rows without names"):
        load(tmp_path / "t.json", columns=["x"])
