"""Files of AnnData and data sets of Hugging Face, as their own libraries write them."""

import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from PIL import Image

from scoregeo.datasets import load
from scoregeo.datasets.files import read_points
from scoregeo.datasets.readers import raw

anndata = pytest.importorskip("anndata")
hf = pytest.importorskip("datasets")

RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.poisson(0.7, (8, 5)).astype(np.float32)
GENES = [f"g{i}" for i in range(5)]
TYPES = ["T", "B", "T", "NK", "B", "T", "T", "B"]
EMBEDDING = RANDOM.normal(size=(8, 2))


def cells(path, x=COUNTS, **more):
    obs = pd.DataFrame({"type": pd.Categorical(TYPES), "depth": np.ravel(x.sum(1))}, index=[f"c{i}" for i in range(8)])
    data = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=GENES), **more)
    data.obsm["X_pca"] = EMBEDDING
    data.layers["scaled"] = np.asarray(COUNTS) / 2
    data.write_h5ad(path)
    return path


@pytest.fixture(scope="module", params=["dense", "csr", "csc"])
def h5ad(request, tmp_path_factory):
    make = {"dense": np.asarray, "csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix}[request.param]
    return cells(tmp_path_factory.mktemp("cells") / "blood.h5ad", make(COUNTS))


def test_cells_by_genes(h5ad):
    data = load(h5ad)
    np.testing.assert_allclose(data.undo(data.points), COUNTS, atol=1e-12)
    assert (data.name, data.feature_names, data.label_names) == ("blood", tuple(GENES), ("B", "NK", "T"))
    assert [data.label_names[i] for i in data.labels] == TYPES
    chosen = load(h5ad, columns=["g3", "g0"])
    np.testing.assert_allclose(chosen.undo(chosen.points), COUNTS[:, [3, 0]], atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_cells_that_are_cut_off_or_damaged(h5ad, tmp_path):
    """A damaged file is read or refused in our words, wherever it is damaged."""
    whole, path, random = h5ad.read_bytes(), tmp_path / "a.h5ad", np.random.default_rng(0)
    said = []
    for _ in range(12):
        content = bytearray(whole)
        for place in random.integers(8, len(content), 20):
            content[place] = random.integers(0, 256)
        path.write_bytes(content if random.uniform() < 0.5 else content[: len(content) // 2])
        try:
            read_points(path)
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 6
    assert all(text.startswith(f"`path` = '{path}' must") for text in said)


def test_layers_and_embeddings(h5ad):
    np.testing.assert_allclose(read_points(h5ad, key="X_pca").points, EMBEDDING)
    np.testing.assert_allclose(read_points(h5ad, key="scaled", columns=["g1"]).points[:, 0], COUNTS[:, 1] / 2)
    with pytest.raises(ValueError, match=r"`key` = 'umap' must name a layer or an embedding of .*'scaled', 'X_pca'"):
        load(h5ad, key="umap")
    with pytest.raises(ValueError, match="`columns` names genes, but `key` = 'X_pca'"):
        load(h5ad, key="X_pca", columns=["g1"])
    with pytest.raises(ValueError, match=r"`label` must be among \['type', 'depth'\] of .*, got \['donor'\]"):
        load(h5ad, label="donor")


def test_sparse_counts_that_are_too_many(h5ad, monkeypatch):
    monkeypatch.setattr(raw, "MOST_BYTES", 200)
    with pytest.raises(ValueError, match=r"unpacked, got shape \(8, 5\), .*: `columns` chooses genes, `key` an embedd"):
        load(h5ad)
    assert read_points(h5ad, columns=["g1"]).points.shape == (8, 1)


@pytest.mark.filterwarnings("ignore:Element:anndata.OldFormatWarning")
def test_h5ad_that_is_none(tmp_path):
    (tmp_path / "a.h5ad").write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(ValueError, match=r"must be an \.h5ad file, but starts with .*, as a \.zip"):
        load(tmp_path / "a.h5ad")
    (tmp_path / "a.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n and nothing more")
    with pytest.raises(ValueError, match=r"must be an \.h5ad file as anndata writes them"):
        load(tmp_path / "a.h5ad")
    import h5py

    with h5py.File(tmp_path / "b.h5ad", "w") as file:
        file["numbers"] = np.ones(3)
    with pytest.raises(ValueError, match="as anndata writes them"):
        load(tmp_path / "b.h5ad")


# --- Hugging Face -----------------------------------------------------------------------------------------------------

IMAGES = RANDOM.integers(0, 256, (6, 5, 4), np.uint8)
VALUES = RANDOM.normal(size=(6, 3)) + 2460000.5


def saved(folder, columns, features=None):
    hf.Dataset.from_dict(columns, features=features).save_to_disk(folder)
    return folder


def test_numbers_on_disk(tmp_path):
    features = hf.Features(
        {"x": hf.Value("float64"), "e": hf.List(hf.Value("float64"), 2), "y": hf.ClassLabel(names=["no", "yes", "?"])}
    )
    columns = {"x": VALUES[:, 0], "e": VALUES[:, 1:].tolist(), "y": [0, 1, 1, 0, 1, 0]}
    data = load(saved(tmp_path / "set", columns, features))
    np.testing.assert_array_equal(data.undo(data.points), VALUES)
    assert (data.name, data.feature_names) == ("set", ("x", "e[0]", "e[1]"))
    assert (data.labels.tolist(), data.label_names) == ([0, 1, 1, 0, 1, 0], ("no", "yes", "?"))
    np.testing.assert_array_equal(read_points(tmp_path / "set", columns=["e"]).points, VALUES[:, 1:])


def test_images_on_disk(tmp_path):
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["a", "b"]), "path": hf.Value("string")})
    columns = {
        "image": [Image.fromarray(image) for image in IMAGES], "label": [0, 1] * 3, "path": list("uvwxyz"),
    }  # fmt: skip
    with pytest.warns(UserWarning, match="left out the columns beside the images: 'path'"):
        data = load(saved(tmp_path / "set", columns, features))
    assert (data.image_shape, data.label_names) == ((5, 4), ("a", "b"))
    np.testing.assert_allclose(data.undo(data.points).reshape(IMAGES.shape), IMAGES, atol=1e-10)
    assert read_points(tmp_path / "set", columns=["image"], size=2, channels=3).image_shape == (2, 2, 3)
    gaps = hf.Features({"image": hf.Image()})
    with pytest.raises(ValueError, match="'row 1' cannot be read: it is missing"):
        load(saved(tmp_path / "gaps", {"image": [columns["image"][0], None]}, gaps))
    with pytest.raises(ValueError, match=r"one column of images and nothing else, got \['image', 'path'\]"):
        load(tmp_path / "set", columns=["image", "path"])


def test_splits(tmp_path):
    parts = {name: hf.Dataset.from_dict({"x": VALUES[rows, 0]}) for name, rows in (("a", [0, 1]), ("b", [2, 3, 4]))}
    hf.DatasetDict(parts).save_to_disk(tmp_path / "set")
    np.testing.assert_array_equal(read_points(tmp_path / "set", key="b").points[:, 0], VALUES[2:5, 0])
    with pytest.raises(ValueError, match=r"`key` must name one of the splits of .*, which has \['a', 'b'\]"):
        load(tmp_path / "set")
    with pytest.raises(ValueError, match="`key` = 'c' must name one of the splits"):
        load(tmp_path / "set", key="c")
    folder = saved(tmp_path / "one", {"x": [1.0, 2.0], "kind": ["u", "v"]})
    with pytest.raises(ValueError, match=r"`key` = 'a' names a split, but .* has none"):
        load(folder, key="a")
    with pytest.raises(ValueError, match=r"1 of 2 are not: 'kind' \(2 of 2 are no numbers"):
        load(folder)
    assert load(folder, label="kind").label_names == ("u", "v")
    (folder / "state.json").write_text("{}")
    with pytest.raises(ValueError, match="must be a data set that `datasets` can read"):
        load(folder)


def test_named(tmp_path, monkeypatch):
    """The library reads names of folders as it does those of its Hub, which is not to be had here."""
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hf.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "set").mkdir()
    pd.DataFrame(VALUES, columns=list("xyz")).to_json(tmp_path / "set" / "t.jsonl", orient="records", lines=True)
    found = read_points(f"hf:{tmp_path / 'set'}")
    np.testing.assert_allclose(found.points, VALUES, rtol=1e-12)
    with pytest.raises((OSError, ValueError), match="`path` = 'hf:nobody/nothing'"):
        load("hf:nobody/nothing")


@pytest.mark.parametrize(("path", "asked"), [("hf:a/b", ("a/b", None)), ("hf:a/b:part", ("a/b", "part"))])
def test_what_the_hub_is_asked_for(path, asked, monkeypatch):
    answers = [
        hf.DatasetDict({"train": hf.Dataset.from_dict({"x": [0.0]}), "test": hf.Dataset.from_dict({"x": [1.5]})})
    ]
    monkeypatch.setattr(hf, "load_dataset", lambda *names: answers.append(names) or answers[0])
    np.testing.assert_array_equal(read_points(path, key="test").points, [[1.5]])
    assert answers[1:] == [asked]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ConnectionError("Couldn't reach 'a/b'"), ConnectionError, "'hf:a/b' cannot be reached: Couldn't .* internet"),
        (hf.exceptions.DatasetNotFoundError("'a/b' doesn't exist"), FileNotFoundError, "'hf:a/b' is no data set: 'a/b"),
        (ValueError("Config name is missing"), ValueError, "'hf:a/b' must be a data set .*: Config name is missing"),
    ],
)
def test_what_the_hub_may_say(error, kind, message, monkeypatch):
    def refuse(*names):
        raise error

    monkeypatch.setattr(hf, "load_dataset", refuse)
    with pytest.raises(kind, match=message):
        load("hf:a/b")


@pytest.mark.parametrize(
    ("module", "extra", "name"), [("anndata", "cells", "a.h5ad"), ("datasets", "huggingface", "hf:somebody/something")]
)
def test_missing_extras(tmp_path, monkeypatch, module, extra, name):
    path = name if name.startswith("hf:") else tmp_path / name
    if path != name:
        path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"reading `path` = .* needs {module}: pip install scoregeo\[{extra}\]"):
        load(path)
