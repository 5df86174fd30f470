"""The estimators of dimension of scikit-dimension, which need no score: distances to neighbours, or their directions.

    uv pip install scikit-dimension

They are given all points of a set, those that are reported among them. Local estimators have a number of neighbours,
the best of three on the tuning points where the dimension is known; global ones give one number for all points, with
the standard error of a jackknife that leaves out a tenth at a time.
"""

import importlib
import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from _dimension.data import Data
from _study import REPORTED, TUNING, Estimate, Table, value

LOCAL, GLOBAL = ("MLE", "MOM", "TLE", "lPCA"), ("TwoNN", "CorrInt", "MiND_ML")
NEIGHBOURS, DEFAULT, GROUPS = (10, 20, 100), 20, 10


def installed() -> bool:
    """Whether scikit-dimension is."""
    return importlib.util.find_spec("skdim") is not None


def _local(name: str, data: Data, neighbours: int) -> np.ndarray:
    """The dimension at each of the tuning and reported points."""
    from sklearn.neighbors import NearestNeighbors

    points, n = data.everything, len(data.tuning.points) + len(data.reported.points)
    made = getattr(importlib.import_module("skdim.id"), name)()
    distances, found = NearestNeighbors(n_neighbors=neighbours + 1).fit(points).kneighbors(points)
    if name == "lPCA":
        return np.array([float(made.fit_transform(points[near])) for near in found[:n]])
    made.fit(points, n_neighbors=neighbours, precomputed_knn_arrays=(distances[:, 1:], found[:, 1:]))
    return np.asarray(made.dimension_pw_)[:n]


def _global(name: str, points: np.ndarray) -> float:
    settings: dict[str, Any] = {"D": points.shape[1]} if name == "MiND_ML" else {}
    return float(getattr(importlib.import_module("skdim.id"), name)(**settings).fit_transform(points))


def follow(table: Table, data: Data) -> None:
    """The rows of all estimators."""
    for name in LOCAL:
        _follow_local(table, data, name)
    for name in GLOBAL:
        row = f"{data.name}/points/{name}"
        if row in table:
            continue
        began, points = time.perf_counter(), data.everything
        whole = _global(name, points)
        seconds = time.perf_counter() - began
        group = np.arange(len(points)) % GROUPS
        parts = np.array([_global(name, points[group != g]) for g in range(GROUPS)])
        error = np.sqrt((GROUPS - 1) * np.mean((parts - parts.mean()) ** 2))
        found = {"dimension": Estimate(whole, error, len(points))}
        table.add(row, found, converged=np.isfinite(whole), seconds=seconds, setting="all points")
        print(row, round(whole, 2), flush=True)


def _follow_local(table: Table, data: Data, name: str) -> None:
    tuned, asked = len(data.tuning.points), len(data.tuning.points) + len(data.reported.points)
    known = bool(np.isfinite(data.tuning.dimensions).all())
    best, least, found = DEFAULT, np.inf, {}
    for neighbours in NEIGHBOURS if known else (DEFAULT,):
        row = f"{data.name}/points/{name}/{TUNING}/{neighbours}"
        if row not in table:
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[neighbours] = _local(name, data, neighbours)
            # Local PCA looks at these points alone, the others at all.
            seconds = (time.perf_counter() - began) / (asked if name == "lPCA" else len(data.everything))
            values = found[neighbours][:tuned]
            figures = {"dimension": values}
            if known:
                figures["abs_error"] = np.abs(values - data.tuning.dimensions)
            about = {"setting": f"{neighbours} neighbours", "split": TUNING, "seconds": seconds}
            table.add(row, figures, converged=np.isfinite(values).mean(), **about)
        loss = value(table.rows, row, "abs_error") if known else 0.0
        best, least = (neighbours, loss) if loss < least else (best, least)
    seconds = value(table.rows, f"{data.name}/points/{name}/{TUNING}/{best}", "dimension", "seconds")

    def values():
        return (found[best] if best in found else _local(name, data, best))[tuned:]

    add_parts(table, data, f"points/{name}", values, f"{best} neighbours", seconds=seconds)


def add_parts(
    table: Table,
    data: Data,
    method: str,
    values: Callable[[], np.ndarray],
    setting: str,
    n: int | None = None,
    seconds: float | None = None,
) -> None:
    """The rows of an estimator at the first n reported points, one for each part of the data; ``values()`` makes
    ``(n,)``, and takes ``seconds`` for each, which are measured if not given.

    Points where there is no value are left out, and lower the share that converged.
    """
    sample = type(data.reported)(*(array[:n] for array in data.reported))
    names = {part: f"{data.name}_{part}" if part else data.name for part in sorted(set(sample.parts))}
    if all(f"{name}/{method}" in table for name in names.values()):
        return
    began = time.perf_counter()
    found = np.asarray(values(), float)
    seconds = (time.perf_counter() - began) / len(found) if seconds is None else seconds
    for part, name in names.items():
        row, of = f"{name}/{method}", (sample.parts == part)
        if row in table:
            continue
        kept = of & np.isfinite(found)
        figures: dict[str, Any] = {"dimension": found[kept]}
        if np.isfinite(sample.dimensions[of]).all():
            figures["abs_error"] = np.abs(found - sample.dimensions)[kept]
        share = kept.sum() / of.sum()
        table.add(row, figures, converged=share, seconds=seconds, setting=setting, split=REPORTED)
        print(row, setting, {k: round(float(v.mean()), 2) for k, v in figures.items()}, flush=True)
