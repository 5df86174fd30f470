"""Whole files whose endings say that they are of another kind."""

import gzip
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scoregeo.datasets import load

TABLE = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 3)), columns=["a", "b", "c"])
TABLES = ("npy", "npz", "csv", "parquet", "json", "jsonl", "h5ad")
# What starts with bytes that are known is called by its name.
NAMES = {
    "npy": "a .npy file", "npz": "a .zip, .npz or .xlsx file", "parquet": "a .parquet file", "h5ad": "an HDF5 file",
    "png": "a .png image", "gz": "a .gz file",
}  # fmt: skip


def write(path):
    """A file of the kind that its ending says."""
    kind = path.suffix[1:]
    if kind == "npy":
        np.save(path, TABLE)
    elif kind == "npz":
        np.savez(path, TABLE)
    elif kind == "png":
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    elif kind == "gz":
        path.write_bytes(gzip.compress(TABLE.to_csv(index=False).encode()))
    elif kind == "h5ad":
        pytest.importorskip("anndata").AnnData(TABLE.reset_index(drop=True).rename(index=str)).write_h5ad(path)
    elif kind in ("json", "jsonl"):
        TABLE.to_json(path, orient="records", lines=kind == "jsonl")
    else:
        TABLE.to_csv(path, index=False) if kind == "csv" else TABLE.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", [*TABLES, "png", "gz"])
def test_endings_that_lie(tmp_path, kind):
    whole = write(tmp_path / f"whole.{kind}")
    if kind in TABLES:
        assert load(whole).points.shape == (5, 3)
    for ending in TABLES:
        if ending == kind:
            continue
        path = tmp_path / f"other.{ending}"
        shutil.copy(whole, path)
        with pytest.raises(ValueError, match=r"must") as error:
            load(path)
        assert str(path) in str(error.value)
        if kind in NAMES:
            assert f", as {NAMES[kind]}" in str(error.value), ending
