"""``scoregeo dimension``: how many dimensions the data have at points, over noise levels."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from ..._types import Points, Scalar
from ...diffusion import DiffusionModel
from ...manifold import denoising_dimension, intrinsic_dimension, knee, normal_bundle_dimension, participation_rank
from ...manifold.levels import check_levels
from ...scores import AbstractScore
from .._command import Command
from .._geometry import check_known_sigma, double_precision, known_sigmas
from .._io import PointsOptions, load_model, some_rows
from .._output import PICTURES, TABLES, check_output, write_picture, write_results
from .._report import Report

# Where nobody gives noise levels: so many, in this range, as far as the model knows them.
_LEVELS, _LEAST, _MOST = 12, 0.01, 1.0
# How many points are looked at side by side.
_BATCH = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dimension(Command):
    """The arguments of ``scoregeo dimension``."""

    model: Path
    """Folder of a saved model."""
    data: Path
    """A file of points, in the units of the data: clean ones, on or near the data that the model has learned."""
    n: int = 200
    """How many points of the file to take, at random, if it has more."""
    sigmas: tuple[float, ...] = ()
    """Increasing noise levels, in the coordinates of the model; by default 12 from 0.01 to 1. Small ones count the
    noise that the data have, large ones see no curved directions: the dimension is read between, at the knee."""
    method: Literal["trace", "rank", "denoising", "normals"] = "trace"
    """trace: d + sigma^2 (tr J + |s|^2) (FLIPD); rank: the participation rank of I + sigma^2 J; denoising: the noise
    that denoising leaves, which needs no derivative and suits many dimensions; normals: by the directions in which
    scores around the point lie."""
    probes: int | None = None
    """Random directions that estimate the traces of trace and rank, at least 3, for high dimension; by default they are
    exact, up to 1024 dimensions."""
    out: Path | None = None
    """A .csv or .parquet table with the dimension of every point at the knee, and at each level; a .npy file of the
    array (points, levels); or a .npz file with all of it."""
    picture: Path | None = None
    """A .png, .pdf or .svg file: the curve over the noise levels."""
    seed: int = 0
    """Seed of the points drawn, and of what else is random."""
    reading: PointsOptions = PointsOptions()

    examples: ClassVar = (
        "--model model --data points.csv --picture dimension.png",
        "--model model --data points.csv --sigmas 0.05 0.1 0.2 0.4 --method denoising --out dimension.csv",
    )

    def run(self, report: Report) -> None:
        """Print the dimensions, and write and draw them."""
        if self.n < 1:
            raise ValueError(f"`--n` must be at least 1, got {self.n}")
        if self.probes is not None and self.method not in ("trace", "rank"):
            raise ValueError(f"`--probes` is for `--method trace` and `rank`, but it is {self.method}")
        if self.probes is not None and self.probes < 3:
            raise ValueError(f"`--probes` must be at least 3, got {self.probes}")
        model = load_model(self.model, report)
        levels = self._levels(model)
        check_output("out", self.out, TABLES)
        check_output("picture", self.picture, PICTURES)
        found = self.reading.rows_for(model, self.data, report)
        rows = some_rows(len(found.points), self.n, self.seed, report)
        with double_precision():
            points = jnp.asarray(np.asarray(found.points)[rows], jnp.float64)
            each = report.each(levels, "dimensions", "noise levels")
            dimensions = np.stack([self._at(model.score_at(level), points, level) for level in each], axis=1)
            level = (
                float(knee(jnp.asarray(levels), jnp.asarray(np.median(dimensions, 0)))) if len(levels) > 2 else np.nan
            )
        self._tell(report, model.dim, levels, dimensions, level)
        # Without a turn of the curve nobody knows where to read it.
        place = int(np.searchsorted(levels, level)) if np.isfinite(level) else None
        at_knee = np.full(len(points), np.nan) if place is None else dimensions[:, place]
        values = {
            "dimensions": dimensions,
            "sigmas": levels,
            "rows": found.rows[rows],
            "at_knee": at_knee,
            "knee": level,
        }
        names = {f"sigma={sigma:g}": dimensions[:, i] for i, sigma in enumerate(levels)}
        columns = {"row": values["rows"], "dimension": at_knee, **names}
        report.keep(dimension=model.dim, method=self.method, **values)
        write_results(report, self.out, values, array="dimensions", columns=columns)
        if self.picture is not None:
            write_picture(report, self.picture, _picture(levels, dimensions, model))

    def _levels(self, model: DiffusionModel) -> np.ndarray:
        least, most = known_sigmas(model)
        if not self.sigmas:
            return np.geomspace(max(_LEAST, least), min(_MOST, most), _LEVELS)
        for sigma in self.sigmas:
            check_known_sigma(sigma, model, "sigmas")
        try:
            return np.asarray(check_levels(np.array(self.sigmas)), np.float64)
        except ValueError as error:
            raise ValueError(f"`--sigmas` must increase, got {' '.join(f'{s:g}' for s in self.sigmas)}") from error

    def _at(self, score: AbstractScore, points: Points, level: float) -> np.ndarray:
        """The dimension at each of the points, by the method that is asked for."""
        # The same directions at all levels, so that curves are smooth.
        keys = jax.random.split(jax.random.key(self.seed), len(points))
        blocks = (slice(i, i + _BATCH) for i in range(0, len(points), _BATCH))
        sigma = jnp.asarray(level)
        parts = [_everywhere(self.method, score, points[at], sigma, keys[at], self.probes) for at in blocks]
        return np.concatenate([np.asarray(part, np.float64) for part in parts])

    def _tell(self, report: Report, dim: int, levels: np.ndarray, dimensions: np.ndarray, level: float) -> None:
        report.say(f"dimension of {len(dimensions)} points in {dim} dimensions, by {self.method}")
        table = Table()
        for column in ("noise level", "10%", "median", "90%"):
            table.add_column(column, justify="right")
        for sigma, column in zip(levels, dimensions.T, strict=True):
            cells = [f"{value:.2f}" for value in np.quantile(column, [0.1, 0.5, 0.9])]
            table.add_row(f"{sigma:.3g}", *cells, style="bold" if sigma == level else None)
        report.say(table)
        if np.isfinite(level):
            read = float(np.median(dimensions, 0)[np.searchsorted(levels, level)])
            report.keep(median_at_knee=read)
            report.say(f"the curve turns flat at noise level {level:.3g}, where its median is {read:.2f}")
        else:
            report.note("the curve has no flat part after a steep one: give other --sigmas, or read it in the picture")


@eqx.filter_jit
def _everywhere(method: str, score: AbstractScore, points: Points, sigma: Scalar, keys: Any, probes: int | None) -> Any:
    """The dimension at each of the points; compiled once for all noise levels."""
    traces = {"trace": intrinsic_dimension, "rank": participation_rank}
    around = {"denoising": denoising_dimension, "normals": normal_bundle_dimension}

    def of(x, key):
        if method in around:
            return around[method](score, x, sigma, key)
        return traces[method](score, x, sigma, probes=probes, key=None if probes is None else key)

    return jax.vmap(of)(points, keys)


def _picture(levels: np.ndarray, dimensions: np.ndarray, model: DiffusionModel) -> Any:
    from ...plotting import dimension_curve, pictures

    figure, (ax,) = pictures.panels()
    units = "data" if model.standardization is None else "standardised"
    dimension_curve(ax, levels, dimensions, units=units)
    return figure
