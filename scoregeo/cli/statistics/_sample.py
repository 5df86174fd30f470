"""What commands about samples share: the points of a file, the metric of a saved model, what they write and draw."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._results import RESULTS, status_name
from ..._types import Points
from ...diffusion import DiffusionModel
from ...metrics import AbstractMetric
from ...operations import pairwise_dist
from ...statistics import graph_dist
from .._command import Command, CommandError
from .._geometry import Geometry, lengths_solver_for
from .._io import PointsOptions, load_model, some_rows, unit_of_length
from .._metric import MetricOptions
from .._output import PICTURES, TABLES, check_output, write_picture, write_results
from .._report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleCommand(Command):
    """The arguments that commands about samples have."""

    model: Path
    """Folder of a saved model."""
    data: Path
    """A file of points, in the units of the data."""
    n: int = 100
    """How many points of the file to take, at random, if it has more."""
    out: Path | None = None
    """A .npz file for all results, in the units of the data, with the rows of the file that were taken; or the main one
    as .npy, or as a .csv or .parquet table."""
    picture: Path | None = None
    """A .png, .pdf or .svg file."""
    seed: int = 0
    """Seed of the points drawn, and of what else is random."""
    metric: MetricOptions = MetricOptions()
    reading: PointsOptions = PointsOptions()

    def read_sample(self, report: Report) -> "Sample":
        """Read and check everything that the arguments name, before anything is computed."""
        model = load_model(self.model, report)
        geometry = self.metric.of(self.model, model, report)
        check_output("out", self.out, TABLES)
        check_output("picture", self.picture, PICTURES)
        if self.n < 2:
            raise ValueError(f"`--n` must be at least 2, got {self.n}")
        found = self.reading.rows_for(model, self.data, report)
        points = np.asarray(found.points, np.float64)
        if len(points) < 2:
            raise ValueError(f"`--data` must have at least 2 points, got {len(points)}")
        rows = some_rows(len(points), self.n, self.seed, report)
        report.keep(**geometry.about(), units=unit_of_length(model))
        return Sample(model, geometry, found.rows[rows], points[rows])

    def write(
        self,
        report: Report,
        figure: Any,
        *,
        array: str,
        columns: Mapping[str, Any],
        large: Mapping[str, Any] | None = None,
        **numbers: Any,
    ) -> None:
        """Keep the ``numbers``, and write what ``--out`` and ``--picture`` ask for: see `write_results`. What is
        ``large`` is in files only."""
        report.keep(**numbers)
        values = {name: np.asarray(value) for name, value in {**numbers, **(large or {})}.items()}
        write_results(report, self.out, values, array=array, columns=columns)
        write_picture(report, self.picture, figure)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A saved model, the metric asked for, and the points: which rows of the file, and their coordinates in the model
    ``(n, d)``, in float64."""

    model: DiffusionModel
    geometry: Geometry
    rows: np.ndarray
    coordinates: np.ndarray

    def metric(self) -> AbstractMetric:
        """The metric asked for."""
        return self.geometry.metric(self.model)

    def points(self) -> Points:
        """The points as an array of JAX's; call inside `double_precision`."""
        return jnp.asarray(self.coordinates, jnp.float64)

    def in_units(self, points: Any) -> np.ndarray:
        """``points`` in the units of the data."""
        units = self.model.standardization
        return np.asarray(points if units is None else units.undo(points))

    def vectors_in_units(self, vectors: Any) -> np.ndarray:
        """Tangent ``vectors`` in the units of the data."""
        units = self.model.standardization
        return np.asarray(vectors if units is None else units.undo_vectors(vectors))

    def unit(self) -> str:
        """In what distances are measured, and in which metric."""
        return f"{unit_of_length(self.model)}; {self.geometry}"

    def distances(self, report: Report, checkpoint: Path | None) -> np.ndarray:
        """All distances ``(n, n)``, with a bar on terminals; where a solve failed, the bound of `graph_dist`, and it
        says how many."""
        metric, points = self.metric(), self.points()
        settings = {"progress": report.shows_progress, "checkpoint": checkpoint}
        with report.first("distances"):
            lengths, results = pairwise_dist(metric, points, solver=lengths_solver_for(metric), **settings)
        matrix, failed = np.array(lengths), np.asarray(results != RESULTS.successful)
        if failed.any():
            near = min(10, len(np.unique(self.coordinates, axis=0)) - 1)
            with report.busy("bounds by a graph, where no distance could be solved"):
                bounds = graph_dist(metric, points, near).distances
            matrix[failed] = np.asarray(bounds)[failed]
            pairs = len(matrix) * (len(matrix) - 1) // 2
            report.note(
                f"{failed.sum() // 2} of {pairs} distances could not be solved: bounds by a graph stand for them"
            )
        return matrix

    def picture(self, labels: Any, marked: Mapping[str, Any], title: str) -> Any:
        """Points with their labels and what is marked among them, all in the coordinates of the model: in the plane, in
        principal components, or over their index; of images also what is marked, as images."""
        from ...plotting import sample_figure

        shape = self.geometry.image_shape
        images = None if shape is None else {name: self.in_units(np.atleast_2d(row)) for name, row in marked.items()}
        settings = {"marked": marked, "title": title, "images": images, "image_shape": shape}
        return sample_figure(self.coordinates, labels, **settings)


def check_result(result: RESULTS, what: str) -> None:
    """Raise `CommandError` if ``what`` has failed."""
    if not bool(result == RESULTS.successful):
        raise CommandError(f"{what} ended with {status_name(result)}: {RESULTS[result].split('. ')[0]}")
