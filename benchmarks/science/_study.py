"""What the studies share: a table that an interrupted run goes on with, its statistics, and one batch of geodesics.

A table has one row for each figure of each setting. `row` names it, as ``UCG/exact/Stein``; of a setting that was
chosen, ``split`` says on which pairs: those of a row ``tuning`` are never those of a row ``reported``.
"""

import argparse
import csv
import datetime
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from scoregeo import RESULTS, AbstractMetric, SpectralNewton, geodesic
from scoregeo._atomic import replacing, write_figure

HERE = pathlib.Path(__file__).parent
# The other benchmarks, whose problems and judges studies share.
sys.path.append(str(HERE.parent))
DOCS = HERE.parents[1] / "docs" / "science"
TUNING, REPORTED = "tuning", "reported"
COLUMNS = (
    *("row", "figure", "mean", "standard_error", "pairs", "converged", "seconds"),
    *("setting", "split", "seed", "date", "machine", "versions"),
)
# What a quick run solves with: it compiles in seconds, and need not converge.
QUICK = SpectralNewton(rtol=0.5, path_rtol=1.0, max_elements=1, degree=4, continuation=0, adaptations=0)
# What geodesics of images are given, the same for all metrics. What is not converged by then is kept as it is.
BUDGET = SpectralNewton(
    rtol=1e-2,
    path_rtol=0.1,
    tolerance=1e-3,
    max_elements=4,
    degree=16,
    continuation=0,
    adaptations=0,
    max_evaluations=12_000,
)
# Colours of Okabe & Ito, which the colour-blind tell apart.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def options(doc: str | None, name: str) -> argparse.Namespace:
    """The command line of a study: ``quick``, ``out`` (the table, or the one of this ``name`` in the repository), and
    ``figure`` (beside the page, or beside ``out``)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few pairs and settings: does everything run?")
    parser.add_argument("--out", type=pathlib.Path, help="the table; default the one in the repository")
    parser.add_argument("--figure", type=pathlib.Path, help="default the one in the documentation, or beside --out")
    parser.add_argument("--figure-only", action="store_true", help="draw from the table, solve nothing")
    found = parser.parse_args()
    if found.quick and found.out is None:
        parser.error("--quick needs --out: its rows are not those that the pages quote")
    if found.figure is None:
        found.figure = DOCS / "images" / f"{name}.png" if found.out is None else found.out.with_suffix(".png")
    found.out = HERE / "results" / f"{name}.csv" if found.out is None else found.out
    return found


def main(
    doc: str | None,
    name: str,
    seed: int,
    run: Callable[["Table", bool], None],
    figure: Callable[[list[dict[str, str]]], Any],
) -> None:
    """The command line of a study: ``run(table, quick)`` adds the rows that are missing, ``figure(rows)`` draws all."""
    jax.config.update("jax_enable_x64", True)
    asked = options(doc, name)
    if not asked.figure_only:
        run(Table(asked.out, seed), asked.quick)
    write_figure(asked.figure, figure(read(asked.out)))


class Estimate(NamedTuple):
    """A figure that is no mean over pairs: its value, standard error, and the number of pairs behind it."""

    value: float
    standard_error: float
    pairs: int


class Table:
    """The rows of a study in a .csv file, which is whole after every `add`: a run that was interrupted goes on there.

    ``versions``, ``machine`` and ``date`` are added to each row.
    """

    def __init__(self, path: pathlib.Path, seed: int):
        self.path, self.seed = path, seed
        self.rows = read(path) if path.exists() else []
        self._known = {row["row"] for row in self.rows}

    def __contains__(self, row: str) -> bool:
        return row in self._known

    def add(
        self,
        row: str,
        figures: Mapping[str, np.ndarray | Estimate],
        *,
        converged: float,
        seconds: float,
        setting: str = "",
        split: str = REPORTED,
    ) -> None:
        """One line for each of ``figures``: arrays with a value for each pair, or an `Estimate`.

        Raises ``ValueError`` for a ``row`` that is there.
        """
        if row in self:
            raise ValueError(f"`row` must be a new one, got {row!r}")
        about = {
            "setting": setting,
            "split": split,
            "seed": self.seed,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": f"{jax.devices()[0].device_kind} {platform.machine()}, {os.cpu_count()} cores",
            "versions": " ".join(f"{name} {metadata.version(name)}" for name in ("scoregeo", "jax")),
        }
        for figure, values in figures.items():
            mean, error, pairs = summary(values)
            line = {"row": row, "figure": figure, "mean": mean, "standard_error": error, "pairs": pairs}
            line |= {"converged": round(float(converged), 6), "seconds": round(float(seconds), 3)} | about
            self.rows.append({column: str(line[column]) for column in COLUMNS})
        self._known.add(row)
        self._write()

    def _write(self) -> None:
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def read(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a table. Raises ``ValueError`` for other columns than `COLUMNS`."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"{path.name} must have the columns {COLUMNS}, got {reader.fieldnames}")
    return rows


def value(rows: list[dict[str, str]], row: str, figure: str, column: str = "mean") -> float:
    """A number of a table. Raises ``KeyError`` where there is none."""
    for line in rows:
        if line["row"] == row and line["figure"] == figure:
            return float(line[column])
    raise KeyError(f"no row {row!r} with the figure {figure!r}")


def summary(values: Any) -> tuple[float, float, int]:
    """Mean, its standard error (NaN for one value) and number of ``values``; values that are NaN make these NaN."""
    if isinstance(values, Estimate):
        return float(f"{values.value:.6g}"), float(f"{values.standard_error:.3g}"), values.pairs
    values = np.asarray(values, float)
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
    return float(f"{values.mean():.6g}"), float(f"{error:.3g}"), values.size


@eqx.filter_jit
def _solve(metric: AbstractMetric, xs, ys, solver, starts, ts):
    def one(x, y, start):
        path = geodesic(metric, x, y, solver=solver, init=start, ts=ts, throw=False)
        return path.points, path.length, path.result == RESULTS.successful

    if starts is None:
        return jax.vmap(lambda x, y: one(x, y, None))(xs, ys)
    return jax.vmap(one)(xs, ys, starts)


class Paths:
    """Paths between pairs: ``points`` ``(n, t, d)`` at equal times of constant speed in the metric, ``lengths``,
    which ``converged``, and the ``seconds`` for one of a batch (compilation included in the first of a kind)."""

    def __init__(self, points, lengths, converged, seconds):
        self.points, self.lengths, self.converged = (np.asarray(array) for array in (points, lengths, converged))
        self.seconds = seconds


def solve(
    metric: AbstractMetric, xs: np.ndarray, ys: np.ndarray, *, solver: Any, starts: Any = None, batch: int, times: int
) -> Paths:
    """Geodesics of pairs, ``batch`` at once in one program; metrics of one structure share it.

    ``starts``: ``(n, k, d)`` points of curves to start from, or ``None`` for straight lines. The last batch is filled
    up with pairs that are solved twice.
    """
    began, found, ts = time.perf_counter(), [], jnp.linspace(0.0, 1.0, times)
    for rows in batches(len(xs), batch):
        start = None if starts is None else jnp.asarray(starts[rows])
        found.append(jax.device_get(_solve(metric, jnp.asarray(xs[rows]), jnp.asarray(ys[rows]), solver, start, ts)))
    points, lengths, converged = (np.concatenate(parts)[: len(xs)] for parts in zip(*found, strict=True))
    return Paths(points, lengths, converged, (time.perf_counter() - began) / len(xs))


def batches(n: int, batch: int) -> Iterator[np.ndarray]:
    """Indices of ``n`` things, ``batch`` at a time (fewer if there are not so many); the last begins again."""
    batch = min(batch, n)
    for start in range(0, n, batch):
        yield np.arange(start, start + batch) % n


def equal_steps(points: np.ndarray) -> np.ndarray:
    """Paths ``(n, t, d)`` at equal Euclidean distances along them."""
    steps = np.concatenate([np.zeros((len(points), 1)), np.linalg.norm(np.diff(points, axis=1), axis=-1)], 1).cumsum(1)
    t = np.linspace(0, 1, points.shape[1])
    found = np.empty_like(points)
    for path, length, target in zip(points, steps, found, strict=True):
        for k in range(points.shape[2]):
            target[:, k] = np.interp(t * length[-1], length, path[:, k])
    return found


def euclidean_length(points: np.ndarray) -> np.ndarray:
    """Of paths ``(n, t, d)``, by their chords."""
    return np.linalg.norm(np.diff(points, axis=1), axis=-1).sum(1)
