"""What ``scoregeo geodesic`` and ``scoregeo distance`` share: a saved model, its metric, and two points to connect."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import tyro

from ...datasets import Standardization
from ...datasets.files import read_points
from ...diffusion import DiffusionModel
from ...geodesics import Geodesic
from .._command import Command, CommandError
from .._geometry import Geometry, solve
from .._io import POINTS_FILE, load_model, naming, read_npy
from .._metric import MetricOptions
from .._report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairCommand(Command):
    """The arguments that both commands have."""

    model: Path
    """Folder of a saved model, such as scoregeo-demo/moons/model."""
    start: Annotated[str | None, tyro.conf.arg(name="from")]
    """Index of a point of the data that the model was trained on, or a file with one point."""
    end: Annotated[str | None, tyro.conf.arg(name="to")]
    """The other end, given in the same way. Points are in the units of the data."""
    metric: MetricOptions = MetricOptions()


@dataclasses.dataclass(frozen=True)
class Problem:
    """A saved model, the metric asked for, and two points in the units of the data."""

    model: DiffusionModel
    geometry: Geometry
    start: np.ndarray
    end: np.ndarray

    def units(self) -> Standardization | None:
        """The standardisation of the model."""
        return self.model.standardization

    def solve(self, report: Report) -> tuple[Geodesic, dict[str, Any]]:
        """The geodesic, in the coordinates of the model, and its record; call inside `double_precision`."""
        units = self.units()
        ends = [jnp.asarray(point) for point in (self.start, self.end)]
        x, y = (jnp.asarray(end if units is None else units.apply(end), jnp.float64) for end in ends)
        with report.busy("solving the geodesic"):
            path, record = solve(self.geometry.metric(self.model), x, y)
        return path, record | self.geometry.about()


def read_problem(arguments: PairCommand, report: Report) -> Problem:
    """Read and check everything that the arguments name, before anything is computed."""
    if arguments.start is None or arguments.end is None:
        raise ValueError("`--from` and `--to` must both be given")
    folder = arguments.model
    model = load_model(folder, report)
    geometry = arguments.metric.of(folder, model, report)
    start = read_point(arguments.start, "from", folder, model.dim)
    end = read_point(arguments.end, "to", folder, model.dim)
    return Problem(model, geometry, start, end)


def read_point(value: str, name: str, folder: Path, dim: int) -> np.ndarray:
    """The point that the option ``--name`` gives: an index into the saved data, or a file; shape ``(dim,)``."""
    if value.removeprefix("-").isdecimal():
        return _saved_point(int(value), name, folder, dim)
    if value.endswith(".npy"):
        point = read_npy(Path(value), name).astype(np.float64)
    elif Path(value).exists():
        with naming(name, Path(value)):
            point = read_points(Path(value)).points
    else:
        raise ValueError(f"`--{name}` must be an index or a file with one point, got {value!r}, which is no file")
    if point.shape not in ((dim,), (1, dim)):
        raise ValueError(f"`--{name}` must hold one point of shape ({dim},), got shape {point.shape} in {value}")
    point = point.reshape(dim)
    if not np.isfinite(point).all():
        raise ValueError(f"`--{name}` must be finite, but {value} has NaN or infinite entries")
    return point


def _saved_point(index: int, name: str, folder: Path, dim: int) -> np.ndarray:
    """The point of this index among those that the model was trained on; shape ``(dim,)``."""
    path = folder / POINTS_FILE
    if not path.exists():
        raise ValueError(f"`--{name}` {index}: the model in {folder} has no {POINTS_FILE}; give a file instead")
    points = read_npy(path, name).astype(np.float64)
    if points.ndim != 2 or points.shape[1] != dim or not np.isfinite(points).all():
        raise ValueError(f"`--model` {folder} is damaged: {POINTS_FILE} must hold finite points of shape (n, {dim})")
    if not 0 <= index < len(points):
        raise ValueError(f"`--{name}` must be an index from 0 to {len(points) - 1}, got {index}")
    return points[index]


def check_converged(record: dict[str, Any]) -> None:
    """Raise `CommandError` if the geodesic of this record is none."""
    if not record["converged"]:
        raise CommandError(f"the solve did not converge: {record['status']}")
