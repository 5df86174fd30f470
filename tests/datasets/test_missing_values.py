"""Missing values and columns without numbers, in files of any kind; pandas is the oracle."""

import numpy as np
import pandas as pd
import pytest

from scoregeo.datasets import Dataset, load
from scoregeo.datasets.files import read_points

RANDOM = np.random.default_rng(0)
NUMBERS = pd.DataFrame(RANDOM.normal(size=(30, 4)) + 2460000.5, columns=list("abcd"))
GAPS = NUMBERS.mask(pd.DataFrame(RANDOM.uniform(size=(30, 4)) < 0.15, columns=list("abcd")))
KINDS = RANDOM.choice(["cat", "dog", "emu"], 30)
MIXED = GAPS.assign(kind=KINDS, flag=RANDOM.uniform(size=30) < 0.5, nothing=np.nan, when=pd.Timestamp("2026-01-01"))


@pytest.fixture(scope="module", params=[".csv", ".parquet", ".jsonl", ".npy"])
def path(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("missing") / f"t{request.param}"
    if request.param == ".csv":
        GAPS.to_csv(file, index=False)
    elif request.param == ".parquet":
        GAPS.to_parquet(file)
    elif request.param == ".jsonl":
        GAPS.to_json(file, orient="records", lines=True, double_precision=15)
    else:
        np.save(file, GAPS.to_numpy())
    return file


def test_an_error_that_counts(path):
    counts = GAPS.isna().sum()
    names = range(4) if path.suffix == ".npy" else GAPS.columns
    each = ", ".join(f"{name!r} {count}" for name, count in zip(names, counts, strict=True))
    rows = int(GAPS.isna().any(axis=1).sum())
    with pytest.raises(ValueError, match="are missing or NaN") as error:
        load(path)
    assert f"{counts.sum()} of 120 values in 4 of 4 columns ({each})" in str(error.value)
    assert f"`drop` leaves out these {rows} of 30 rows" in str(error.value)


def test_drop(path):
    found = read_points(path, drop=True)
    expected = GAPS.dropna()
    np.testing.assert_allclose(found.points, expected.to_numpy(), rtol=1e-15)
    np.testing.assert_array_equal(found.rows, expected.index)
    assert found.total == 30
    assert found.notes == (f"left out {30 - len(expected)} of 30 rows, in which something is missing",)


def test_impute(path):
    data = load(path, impute="median")
    np.testing.assert_allclose(data.undo(data.points), GAPS.fillna(GAPS.median()).to_numpy(), rtol=1e-15)
    assert "with medians" in read_points(path, impute="median", drop=True).notes[0]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_columns_without_numbers(tmp_path, ending):
    file = tmp_path / f"t{ending}"
    MIXED.to_csv(file, index=False) if ending == ".csv" else MIXED.to_parquet(file)
    with pytest.raises(ValueError, match=r"must have numeric columns, but 3 of 8 are not: 'kind' \(30 of 30 are no nu"):
        load(file)
    found = read_points(file, drop=True, impute="median")
    np.testing.assert_allclose(found.points, GAPS.fillna(GAPS.median()).to_numpy(), rtol=1e-15)
    assert found.feature_names == tuple("abcd")
    assert found.notes[0] == ("left out 4 of 8 columns, which have no numbers: 'kind', 'flag', 'nothing', 'when'")
    np.testing.assert_allclose(read_points(file, drop=True).points, GAPS.dropna().to_numpy(), rtol=1e-15)
    data = load(file, label="kind", columns=list("ab"), drop=True)
    kept = GAPS[["a", "b"]].dropna().index
    codes, classes = pd.factorize(KINDS[kept], sort=True)
    assert (data.labels.tolist(), data.label_names) == (codes.tolist(), tuple(classes))


def test_a_word_among_numbers_is_not_dropped(tmp_path):
    (tmp_path / "t.csv").write_text("x,y,z\n1,2,3\n4,oops,6\n7,8,9\n")
    with pytest.raises(
        ValueError, match=r"1 of 3 are not: 'y' \(1 of 3 are no numbers, 1 different, first 'oops' in ro"
    ):
        load(tmp_path / "t.csv", drop=True)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("x,y\n1,\n2,\n", {"impute": "median"}, "for `impute` to take the median of, but these have none: 'y'"),
        ("x,y\n1,\n,2\n", {"drop": True}, "must have a row in which nothing is missing, but 2 of 4 values"),
        ("x,y\n1,2\n3,4\n", {"impute": "mean"}, "`impute` must be 'median' or None, got 'mean'"),
        (
            "x,y\n1,inf\n3,4\n",
            {"drop": True, "impute": "median"},
            r"1 of 4 values in 1 of 2 columns \('y' 1\) are infi",
        ),
        ("x,y\n1,a\n3,\n", {"label": "y"}, "a label for every point, but 1 of 2 are missing, the first in row 1"),
        ("x,y\n1,0.5\n3,1\n", {"label": "y"}, "classes for labels, words or whole numbers, got 0.5 in 'y'"),
        ("x,y\n1,2\n3,4\n", {"label": "w"}, r"`label` must be among \['x', 'y'\] of .*, got \['w'\]"),
        ("u,v\na,b\nc,d\n", {"drop": True}, "must have numeric columns, got none: 'u', 'v'"),
    ],
)
def test_refusals(tmp_path, content, options, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "t.csv", **options)


def test_a_row_without_a_label_is_dropped(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n1,7\n3,\n5,2\n")
    found = read_points(tmp_path / "t.csv", label="y", drop=True)
    assert found.points.tolist() == [[1], [5]]
    assert (found.labels.tolist(), found.label_names) == ([1, 0], ("2", "7"))


def test_many_bad_columns_are_cut_short(tmp_path):
    table = pd.DataFrame({f"c{i}": ["a", "b"] for i in range(2000)})
    table.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"2000 of 2000 are not: .*'c7' .* and 1,992 more") as error:
        load(tmp_path / "t.parquet")
    assert len(str(error.value)) < 1500


def test_labels_of_npz(tmp_path):
    np.savez(tmp_path / "t.npz", x=NUMBERS.to_numpy(), y=KINDS, short=KINDS[:5])
    data = load(tmp_path / "t.npz", key="x", label="y")
    assert [data.label_names[i] for i in data.labels] == KINDS.tolist()
    with pytest.raises(ValueError, match=r"`label` = 'short' must name labels of shape \(30,\), .* got \(5,\)"):
        load(tmp_path / "t.npz", key="x", label="short")
    with pytest.raises(ValueError, match=r"`label` = 'w' must name one of the arrays of .*\['x', 'y', 'short'\]"):
        load(tmp_path / "t.npz", key="x", label="w")
    np.savez(tmp_path / "two.npz", x=NUMBERS.to_numpy(), y=np.arange(30) % 3)
    assert load(tmp_path / "two.npz", label="y").labels.tolist() == (np.arange(30) % 3).tolist()


def test_names_must_fit():
    points = np.zeros((3, 2))
    with pytest.raises(ValueError, match="`feature_names` must be 2 names to match `points`, got 1"):
        Dataset(points, "t", feature_names=["x"])
    with pytest.raises(ValueError, match="`label_names` must come with `labels`"):
        Dataset(points, "t", label_names=["x"])
    with pytest.raises(ValueError, match="`label_names` must name each of the labels 0 to 2, from 0 on, got 2 names"):
        Dataset(points, "t", labels=np.arange(3), label_names=["x", "y"])
    data = Dataset(points + np.arange(3)[:, None], "t", labels=np.arange(3), label_names=range(3), feature_names="xy")
    assert (data.feature_names, data.label_names) == (("x", "y"), ("0", "1", "2"))
    assert data.principal_components(1).feature_names == ("x", "y")
