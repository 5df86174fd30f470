"""Real data that our dependencies ship: nothing is downloaded, and nothing is copied into this package."""

import functools
import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .base import Dataset, Standardization, moments
from .images import digits

# Kilometres along one degree of a meridian; a parallel has as many times the cosine of the latitude.
_KM_PER_DEGREE = 111.19
# Places on the outline of a cell.
_PLACES = 100


def real(name: str) -> Dataset:
    """A real data set that a dependency ships, standardised.

    **Argument** ``name``, one of

    - ``"hands"``: 53 poses of a hand, 22 joints in space (66 coordinates); labels ``grab`` and ``expand``. Comes with
      geomstats, from SHREC 2017 (De Smedt et al., 2017). Its file has 53 rows; ``geomstats.datasets.utils.load_hands``
      takes the first for a header and returns the other 52.
    - ``"cells"``: outlines of 650 bone cancer cells of mice, 100 places each (200 coordinates), at equal steps of arc
      length from where the file starts, about the mean of these places, in pixels; labels are cell line and treatment.
      Comes with geomstats.
    - ``"leaves"``: 172 plants; ``nu`` and ``mu`` of the distribution ``Beta(nu, mu)`` of the angles of their leaves;
      labels are kinds of that. Comes with geomstats.
    - ``"terrain"``: 138,632 places in a height model of the Jacksboro fault in Tennessee: east, north and height, in
      km. They are 344 rows from south to north of 403 from west to east, one at every three seconds of arc (about 93 m
      by 74 m). Comes with matplotlib.
    - ``"digits"``: as `digits` gives them.
    - ``"iris"``, ``"wine"``, ``"breast_cancer"``: 150, 178 and 569 rows of 4, 13 and 30 measurements; labels are kinds.
      Come with scikit-learn.
    - ``"diabetes"``: 442 patients, ten measurements and ``progression``, what it came to a year later. Comes with
      scikit-learn.

    Where all coordinates share a unit (hands, cells, terrain, digits) they are divided by one common scale, else each
    by its own; ``undo`` gives the units of the source. ``feature_names`` and ``label_names`` say what is what.

    Raises ``ValueError`` for another name, ``FileNotFoundError`` where an installed version ships a set no more.

    >>> from scoregeo.datasets import real
    >>> iris = real("iris")
    >>> iris.points.shape, iris.feature_names[0], iris.label_names
    ((150, 4), 'sepal length (cm)', ('setosa', 'versicolor', 'virginica'))
    """
    if name not in _MAKERS:
        raise ValueError(f"`name` must be one of {', '.join(map(repr, _MAKERS))}, got {name!r}")
    return _MAKERS[name]()


def _hands() -> Dataset:
    values = np.loadtxt(_of_geomstats("hands/hands.txt"))
    labels = np.loadtxt(_of_geomstats("hands/labels.txt"), dtype=int)
    names = [f"{axis} of joint {joint}" for joint in range(22) for axis in "xyz"]
    return _made(values, "hands", names, labels, ("grab", "expand"), per_feature=False)


def _cells() -> Dataset:
    outlines = _of_geomstats("cells/cells.txt").read_text().strip().split("\n\n")
    values = np.stack([_even(np.array(outline.split(), float).reshape(-1, 2)) for outline in outlines])
    values -= values.mean(1, keepdims=True)
    parts = [_of_geomstats(f"cells/{file}.txt").read_text().split() for file in ("cell_lines", "treatments")]
    classes, labels = np.unique([", ".join(pair) for pair in zip(*parts, strict=True)], return_inverse=True)
    names = [f"{axis} of place {place}" for place in range(_PLACES) for axis in "xy"]
    return _made(values.reshape(len(values), -1), "cells", names, labels, classes.tolist(), per_feature=False)


def _even(outline: np.ndarray) -> np.ndarray:
    """Places on a closed polygon ``(m, 2)`` at equal steps of arc length, the first where it starts."""
    closed = np.concatenate([outline, outline[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    steps = along[-1] * np.arange(_PLACES) / _PLACES
    return np.stack([np.interp(steps, along, closed[:, axis]) for axis in range(2)], 1)


def _leaves() -> Dataset:
    import pandas as pd

    table = pd.read_csv(_of_geomstats("leaves/leaves.csv"), sep=";")
    labels, classes = pd.factorize(table["Distribution"], sort=True)
    classes = list(classes)
    return _made(table[["nu", "mu"]].to_numpy(float), "leaves", ("nu", "mu"), labels, classes)


def _terrain() -> Dataset:
    from matplotlib.cbook import get_sample_data

    # Other readers of matplotlib's sample data pass a path, which tells a file that is no more there.
    with np.load(get_sample_data("jacksboro_fault_dem.npz", asfileobj=False), allow_pickle=False) as model:
        heights = model["elevation"][::-1] / 1000.0  # rows come from north to south
        north = _KM_PER_DEGREE * float(model["dy"]) * np.arange(heights.shape[0])
        latitude = np.deg2rad((float(model["ymin"]) + float(model["ymax"])) / 2)
        east = _KM_PER_DEGREE * np.cos(latitude) * float(model["dx"]) * np.arange(heights.shape[1])
    rows, columns = np.meshgrid(north, east, indexing="ij")
    values = np.stack([columns, rows, heights], -1).reshape(-1, 3)
    return _made(values, "terrain", ("east (km)", "north (km)", "height (km)"), per_feature=False)


def _of_sklearn(name: str) -> Dataset:
    from sklearn import datasets

    found: Any = getattr(datasets, f"load_{name}")()
    return _made(found.data, name, found.feature_names, found.target, found.target_names)


def _diabetes() -> Dataset:
    from sklearn.datasets import load_diabetes

    found: Any = load_diabetes(scaled=False)
    values = np.column_stack([found.data, found.target])
    return _made(values, "diabetes", (*found.feature_names, "progression"))


_MAKERS: dict[str, Callable[[], Dataset]] = {
    "hands": _hands,
    "cells": _cells,
    "leaves": _leaves,
    "terrain": _terrain,
    "digits": digits,
    "iris": functools.partial(_of_sklearn, "iris"),
    "wine": functools.partial(_of_sklearn, "wine"),
    "breast_cancer": functools.partial(_of_sklearn, "breast_cancer"),
    "diabetes": _diabetes,
}


def _of_geomstats(file: str) -> pathlib.Path:
    """A data file of geomstats, which is not imported: that takes seconds, and its readers change what they read."""
    found = importlib.util.find_spec("geomstats")
    folders = [] if found is None else list(found.submodule_search_locations or ())
    path = next(
        (path for folder in folders if (path := pathlib.Path(folder, "datasets", "data", file)).is_file()), None
    )
    if path is None:
        raise FileNotFoundError(f"the installed geomstats has no data file {file}")
    return path


def _made(
    values: np.ndarray,
    name: str,
    feature_names: Sequence[str] | np.ndarray,
    labels: np.ndarray | None = None,
    label_names: Sequence[str] | np.ndarray | None = None,
    *,
    per_feature: bool = True,
) -> Dataset:
    mean, scale = moments(values, per_feature)
    return Dataset(
        (values - mean) / scale, name, standardization=Standardization(mean, scale), labels=labels,
        label_names=label_names, feature_names=feature_names,
    )  # fmt: skip
