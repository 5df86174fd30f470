"""What ``scoregeo geodesic`` and ``scoregeo distance`` do with a saved model."""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from ._atomic import write_figure, write_npz
from ._files import read_npy
from .cli import CommandError, Distance, Geodesic
from .datasets import Dataset, Standardization
from .diffusion import DiffusionModel
from .model_commands import load_model
from .recorded import (
    GEOMETRY_FILE,
    POINTS_FILE,
    Geometry,
    check_known_sigma,
    check_output,
    double_precision,
    geodesic_table,
    solve,
)


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


def read_problem(arguments: Geodesic | Distance) -> Problem:
    """Read and check everything that the arguments name, before anything is computed."""
    folder = pathlib.Path(arguments.model)
    model = load_model(folder)
    given = arguments.sigma is not None and arguments.strength is not None
    if given and not (folder / GEOMETRY_FILE).exists():
        geometry = Geometry(arguments.sigma, arguments.strength, float("nan"))
    else:
        geometry = Geometry.load(folder)
    for name in ("sigma", "strength"):
        value = getattr(arguments, name)
        if value is not None:
            geometry = dataclasses.replace(geometry, **{name: value})
    if not geometry.sigma > 0 or not np.isfinite(geometry.sigma):
        raise ValueError(f"`--sigma` must be a positive number, got {geometry.sigma}")
    check_known_sigma(geometry.sigma, model)
    if not geometry.strength >= 0 or not np.isfinite(geometry.strength):
        raise ValueError(f"`--strength` must be a non-negative number, got {geometry.strength}")
    shape = geometry.image_shape
    if shape is not None and (len(shape) not in (2, 3) or np.prod(shape) != model.dim):
        raise ValueError(f"`--model` {folder} is damaged: images of shape {shape} in dimension {model.dim}")
    points = [
        read_point(value, name, folder, model.dim) for name, value in (("from", arguments.start), ("to", arguments.end))
    ]
    return Problem(model, geometry, *points)


def read_point(value: str, name: str, folder: pathlib.Path, dim: int) -> np.ndarray:
    """The point that ``--from`` or ``--to`` names: an index into the saved data, or a .npy file; shape ``(dim,)``."""
    if value.removeprefix("-").isdecimal():
        path = folder / POINTS_FILE
        if not path.exists():
            raise ValueError(
                f"`--{name}` {value}: the model in {folder} has no {POINTS_FILE}; give a .npy file instead"
            )
        points = read_npy(path, name).astype(np.float64)
        if points.ndim != 2 or points.shape[1] != dim or not np.isfinite(points).all():
            raise ValueError(
                f"`--model` {folder} is damaged: {POINTS_FILE} must hold finite points of shape (n, {dim})"
            )
        if not 0 <= int(value) < len(points):
            raise ValueError(f"`--{name}` must be an index from 0 to {len(points) - 1}, got {value}")
        return points[int(value)]
    if not value.endswith(".npy"):
        raise ValueError(f"`--{name}` must be an index or the path of a .npy file, got {value!r}")
    point = read_npy(pathlib.Path(value), name).astype(np.float64)
    if point.shape not in ((dim,), (1, dim)):
        raise ValueError(f"`--{name}` must hold one point of shape ({dim},), got shape {point.shape} in {value}")
    point = point.reshape(dim)
    if not np.isfinite(point).all():
        raise ValueError(f"`--{name}` must be finite, but {value} has NaN or infinite entries")
    return point


def solve_problem(problem: Problem) -> tuple[Any, dict[str, Any]]:
    """The geodesic, in the coordinates of the model, and its record; call inside `double_precision`."""
    units = problem.units()
    ends = [
        jnp.asarray(point if units is None else units.apply(point), jnp.float64)
        for point in (problem.start, problem.end)
    ]
    return solve(problem.geometry.metric(problem.model), *ends)


def run_distance(arguments: Distance, console: Any) -> None:
    """Print length, error estimate and status; a failed solve exits with 2."""
    problem = read_problem(arguments)
    with double_precision():
        _, record = solve_problem(problem)
    units = "standardised units" if problem.units() is not None else "units of the data"
    console.print(
        f"distance {record['length']:.8g} +- {record['error']:.1e} ({units}; straight line {record['euclidean']:.8g}; "
        f"sigma {problem.geometry.sigma:g}, strength {problem.geometry.strength:g}; {record['status']})",
        soft_wrap=True,
    )
    if not record["converged"]:
        raise CommandError(f"the solve did not converge: {record['status']}")


def run_geodesic(arguments: Geodesic, console: Any) -> None:
    """Solve, print, write and draw one geodesic."""
    problem = read_problem(arguments)
    check_output("out", arguments.out, ".npz")
    check_output("picture", arguments.picture, ".png")
    with double_precision():
        path, record = solve_problem(problem)
        record |= {"from": arguments.start, "to": arguments.end}
        console.print(geodesic_table([record]))
        units = problem.units()
        points = np.asarray(path.points if units is None else units.undo(path.points))
        # Drawn before anything is written: if that fails, nothing is left behind.
        figure = None if arguments.picture is None else _picture(arguments, problem, path)
        if arguments.out is not None:
            scale = 1.0 if units is None else np.asarray(units.scale)
            write_npz(
                arguments.out, ts=path.ts, points=points, velocities=np.asarray(path.velocities) * scale, **record
            )
            console.print(f"wrote {arguments.out}")
        if figure is not None:
            write_figure(arguments.picture, figure)
            console.print(f"wrote {arguments.picture}")
    if not record["converged"]:
        raise CommandError(f"the solve did not converge: {record['status']}")


def _picture(arguments: Geodesic, problem: Problem, path: Any) -> Any:
    from .plotting import pictures

    units = problem.units()
    saved = pathlib.Path(arguments.model) / POINTS_FILE
    points = read_npy(saved, "model").astype(np.float64) if saved.exists() else np.stack([problem.start, problem.end])
    points = points if units is None else np.asarray(units.apply(points))
    shape = problem.geometry.image_shape
    dataset = Dataset(points, str(arguments.model), standardization=units, image_shape=shape)
    metric = problem.geometry.metric(problem.model)
    if shape is not None:
        return pictures.strips(dataset, metric, [path])
    if problem.model.dim == 2:
        return pictures.plane(dataset, metric, [path])
    return pictures.projection(dataset, [path])
