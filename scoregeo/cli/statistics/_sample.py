"""What commands about samples share: the points of a file, the metric of a saved model, what they write and draw."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from ..._atomic import write_figure, write_npz
from ..._results import RESULTS, status_name
from ..._types import Points
from ...diffusion import DiffusionModel
from ...metrics import SteinMetric
from ...operations import pairwise_dist
from ...statistics import graph_dist
from .._command import Command, CommandError
from .._geometry import LENGTHS, Geometry
from .._io import PointsOptions, check_output, load_model, unit_of_length
from .._pair import checked_geometry


@dataclasses.dataclass(frozen=True)
class SampleCommand(PointsOptions, Command):
    """The arguments that commands about samples have."""

    model: Path
    """Folder of a saved model."""
    data: Path
    """A file of points, in the units of the data."""
    n: int = 100
    """How many points of the file to take, at random, if it has more."""
    sigma: float | None = None
    """Noise level of the score; by default the one kept with the model."""
    strength: float | None = None
    """Strength of the metric; by default the one kept with the model."""
    out: Path | None = None
    """A .npz file for the results, in the units of the data, with the rows of the file that were taken."""
    picture: Path | None = None
    """A .png file."""
    seed: int = 0
    """Seed of the points drawn, and of what else is random."""

    def read_sample(self, console: Console) -> "Sample":
        """Read and check everything that the arguments name, before anything is computed."""
        model = load_model(self.model)
        geometry = checked_geometry(self.model, model, self.sigma, self.strength)
        check_output("out", self.out, ".npz")
        check_output("picture", self.picture, ".png")
        if self.n < 2:
            raise ValueError(f"`--n` must be at least 2, got {self.n}")
        found = self.rows_for(model, self.data, console)
        points = np.asarray(found.points, np.float64)
        rows = np.arange(len(points))
        if len(points) < 2:
            raise ValueError(f"`--data` must have at least 2 points, got {len(points)}")
        if len(points) > self.n:
            rows = np.sort(np.random.default_rng(self.seed).choice(len(points), self.n, replace=False))
            text = f"{self.n} of {len(points)} rows are taken at random, by --seed {self.seed}"
            console.print(text, soft_wrap=True)
        return Sample(model, geometry, found.rows[rows], points[rows])

    def write(self, console: Console, figure: Any, **numbers: Any) -> None:
        """Write what ``--out`` and ``--picture`` ask for."""
        if self.out is not None:
            write_npz(self.out, **{name: np.asarray(value) for name, value in numbers.items()})
            console.print(f"wrote {self.out}")
        if self.picture is not None and figure is not None:
            write_figure(self.picture, figure)
            console.print(f"wrote {self.picture}")


@dataclasses.dataclass(frozen=True)
class Sample:
    """A saved model, the metric asked for, and the points: which rows of the file, and their coordinates in the model
    ``(n, d)``, in float64."""

    model: DiffusionModel
    geometry: Geometry
    rows: np.ndarray
    coordinates: np.ndarray

    def metric(self) -> SteinMetric:
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
        return f"{unit_of_length(self.model)}; sigma {self.geometry.sigma:g}, strength {self.geometry.strength:g}"

    def distances(self, console: Console, checkpoint: Path | None) -> np.ndarray:
        """All distances ``(n, n)``, with a bar on terminals; where a solve failed, the bound of `graph_dist`, and it
        says how many."""
        metric, points = self.metric(), self.points()
        settings = {"solver": LENGTHS, "progress": sys.stderr.isatty(), "checkpoint": checkpoint}
        lengths, results = pairwise_dist(metric, points, **settings)
        matrix, failed = np.array(lengths), np.asarray(results != RESULTS.successful)
        if failed.any():
            near = min(10, len(np.unique(self.coordinates, axis=0)) - 1)
            bounds = graph_dist(metric, points, near).distances
            matrix[failed] = np.asarray(bounds)[failed]
            pairs = len(matrix) * (len(matrix) - 1) // 2
            console.print(
                f"{failed.sum() // 2} of {pairs} distances could not be solved: bounds by a graph stand for them",
                soft_wrap=True,
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
