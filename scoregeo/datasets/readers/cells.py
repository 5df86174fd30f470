"""Cells by genes, from .h5ad files: AnnData's, which single-cell biology exchanges."""

import pathlib
from typing import Any

import numpy as np

from .raw import Options, Raw, as_labels, check_memory, check_start, chosen, listed


def read_cells(path: pathlib.Path, where: str, options: Options) -> Raw:
    """The matrix X of an .h5ad file, or the layer or the embedding (``obsm``) that ``options.key`` names, with the
    column of ``obs`` that ``options.label`` names, or the only categorical one. Sparse counts become dense."""
    try:
        import anndata
    except ImportError as error:
        raise ImportError(f"reading {where} needs anndata: pip install scoregeo[cells]") from error
    with path.open("rb") as file:
        check_start(file.read(8), (b"\x89HDF\r\n\x1a\n",), where, "an .h5ad file")
    try:
        data = anndata.read_h5ad(path)
    except Exception as error:  # of many kinds for damaged files, some of them private to anndata
        raise ValueError(f"{where} must be an .h5ad file as anndata writes them: {error}") from error
    matrix, names = _matrix(data, where, options.key)
    if options.columns is not None:
        if names is None:
            raise ValueError(f"`columns` names genes, but `key` = {options.key!r} of {where} has none")
        places = chosen(options.columns, names, where)
        matrix, names = matrix[:, places], [names[j] for j in places]
    values = _dense(matrix, where)
    label = options.label
    if label is None:
        categorical = [name for name in data.obs.columns if str(data.obs[name].dtype) == "category"]
        label = categorical[0] if len(categorical) == 1 else None
    if label is None:
        return Raw(values=values, feature_names=names)
    (place,) = chosen([label], list(data.obs.columns), where, "label")
    labels, classes = as_labels(data.obs.iloc[:, place], where, label)
    return Raw(values=values, feature_names=names, labels=labels, label_names=classes)


def _matrix(data: Any, where: str, key: str | None) -> tuple[Any, list | None]:
    """A matrix of ``data``, and the names of its columns where these are genes."""
    genes = [str(name) for name in data.var_names]
    if key is None:
        if data.X is None:
            known = listed([*data.layers, *data.obsm]) or "nothing"
            raise ValueError(f"{where} must have a matrix X, or `key` name a layer or an embedding, among {known}")
        return data.X, genes
    if key == "X":
        return data.X, genes
    if key in data.layers:
        return data.layers[key], genes
    if key in data.obsm:
        found = data.obsm[key]
        return (found.to_numpy(), [str(c) for c in found.columns]) if hasattr(found, "columns") else (found, None)
    known = [repr(name) for name in ("X", *data.layers, *data.obsm)]
    raise ValueError(f"`key` = {key!r} must name a layer or an embedding of {where}, which has {listed(known)}")


def _dense(matrix: Any, where: str) -> np.ndarray:
    check_memory(matrix.shape, where, "`columns` chooses genes, `key` an embedding such as 'X_pca'")
    return matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
