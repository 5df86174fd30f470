"""The metric kept beside a saved model, and geodesics of it: how they are solved, reported and shown as a table."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from .._atomic import write_json
from .._results import RESULTS, status_name
from .._types import Point, Points
from ..diffusion import DiffusionModel
from ..geodesics import AbstractBoundarySolver, Geodesic, SpectralNewton, geodesic, verify
from ..geodesics.base import default_solver
from ..metrics import AbstractMetric
from ..scores import AbstractScore
from ._families import FAMILIES

# Lengths have four digits at least. A finer path says nothing more about the data, whose score is known to two digits.
SOLVER = SpectralNewton(rtol=1e-4, path_rtol=1e-3)
# Where nobody asks for the paths, they need not be accurate.
LENGTHS = SpectralNewton(rtol=1e-4, path_rtol=1.0)
# The file beside a model that says which metric to use.
GEOMETRY_FILE = "geometry.json"
# What is recommended for data that nobody knows more about: a noise level in standard deviations of the data, and the
# median of ``strength |s|^2`` over them; from so many of the points.
SIGMA, CONTRAST, _POINTS = 0.3, 10.0, 2000


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Which metric of a model to use: one of the `FAMILIES`, of the score at noise level ``sigma``, and how strong.

    ``contrast`` says how the ``strength`` of a Stein metric was chosen: the median of ``strength |s|^2`` over the data,
    so that moving along the score costs ``sqrt(1 + contrast)`` times as much as moving across it. Kept beside a model,
    with the shape of its images. ``points`` ``(n, d)`` are those that the model was trained on, in its coordinates, for
    metrics that need them, and are not kept.
    """

    sigma: float
    strength: float
    contrast: float
    image_shape: tuple[int, ...] | None = None
    kind: str = "stein"
    points: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)

    def metric(self, model: DiffusionModel) -> AbstractMetric:
        """The metric of ``model``; call inside `double_precision`."""
        points = None if self.points is None else jnp.asarray(self.points)
        return FAMILIES[self.kind].make(model.score_at(self.sigma), self.sigma, self.strength, points)

    def __str__(self) -> str:
        name = "" if self.kind == "stein" else f"{self.kind}, "
        return f"{name}sigma {self.sigma:g}, strength {self.strength:g}"

    def about(self) -> dict[str, Any]:
        """What files of results and JSON objects say about the metric."""
        return {"metric": self.kind, "sigma": self.sigma, "strength": self.strength}

    @classmethod
    def recommended(
        cls,
        model: DiffusionModel,
        points: Points,
        image_shape: tuple[int, ...] | None,
    ) -> "Geometry":
        """The metric at noise level `SIGMA`, or the nearest one that ``model`` knows, as strong as `CONTRAST` says on
        ``points`` ``(n, d)``, in the coordinates of the model; call inside `double_precision`."""
        least, most = known_sigmas(model)
        sigma = min(max(SIGMA, least), most)
        some = jnp.asarray(points[:: -(-len(points) // _POINTS)], jnp.float64)
        strength = calibrate(model.score_at(sigma), some, CONTRAST)
        return cls(sigma, strength, CONTRAST, image_shape)

    def save(self, directory: pathlib.Path) -> None:
        """Write ``geometry.json`` beside a model."""
        kept = {"contrast": self.contrast, "image_shape": self.image_shape}
        write_json(directory / GEOMETRY_FILE, self.about() | kept)

    @classmethod
    def load(cls, directory: pathlib.Path) -> "Geometry":
        """Read ``geometry.json``, also one of a version that knew no metric but Stein's; raises ``ValueError`` if it is
        missing or damaged."""
        path = directory / GEOMETRY_FILE
        try:
            values = json.loads(path.read_text())
            shape, kind = values.pop("image_shape"), values.pop("metric", "stein")
            if values["contrast"] is None:  # as JSON has what is not a number
                values["contrast"] = float("nan")
            numbers: dict[str, Any] = {name: float(value) for name, value in values.items()}
            geometry = cls(**numbers, image_shape=None if shape is None else tuple(int(side) for side in shape))
            if not (0 < geometry.sigma < np.inf and 0 <= geometry.strength < np.inf):
                raise ValueError(geometry)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"`--model` {directory} has no {GEOMETRY_FILE}; give --sigma and --strength"
            ) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"`--model` {directory} is damaged: {GEOMETRY_FILE} is not what scoregeo wrote") from error
        if kind not in FAMILIES:
            raise ValueError(
                f"`--model` {directory} has the metric {kind!r}, but must have one of {', '.join(FAMILIES)}"
            )
        return dataclasses.replace(geometry, kind=kind)


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Float64 inside the block: the geometry of a float32 network is worth certifying in double precision."""
    with jax.enable_x64(True):
        yield


def solve(metric: AbstractMetric, x: Point, y: Point, init: Points | None = None) -> tuple[Geodesic, dict[str, Any]]:
    """A geodesic and what is known about it, for a report: length, error, residual, diffrax defect, status, time."""
    began = time.perf_counter()
    path = jax.block_until_ready(geodesic(metric, x, y, solver=solver_for(metric), init=init, throw=False))
    seconds = time.perf_counter() - began
    converged = bool(path.result == RESULTS.successful)
    record = {
        "length": float(path.length),
        "euclidean": float(jnp.linalg.norm(y - x)),
        "error": float(path.error),
        "residual": float(path.residual),
        "defect": float(verify(metric, path)),
        "status": "converged" if converged else RESULTS[path.result].split(". ")[0],
        "code": status_name(path.result),
        "converged": converged,
        **{name: count.item() for name, count in path.stats.items()},
        "seconds": seconds,
    }
    return path, record


def solver_for(metric: AbstractMetric) -> AbstractBoundarySolver:
    """The default solver of ``metric``, as accurate as `SOLVER`."""
    solver = default_solver(metric)
    if not isinstance(solver, SpectralNewton):
        return solver
    return dataclasses.replace(solver, rtol=SOLVER.rtol, path_rtol=SOLVER.path_rtol)


def lengths_solver_for(metric: AbstractMetric) -> AbstractBoundarySolver:
    """`solver_for` where nobody asks for the paths."""
    solver = solver_for(metric)
    return dataclasses.replace(solver, path_rtol=LENGTHS.path_rtol) if isinstance(solver, SpectralNewton) else solver


def geodesic_table(records: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """Lengths, certificates and status of solved geodesics; how far they are from the truth, where that is known."""
    table = Table(title=title)
    known = any("from_the_truth" in r for r in records)
    columns = ("from", "to", "length", "error", "straight", "residual", "defect", "elements", "seconds")
    # A terminal has room for eleven columns at most.
    columns = ("from", "to", "length", "error", "defect", "seconds", "from truth", "(straight)") if known else columns
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for r in records:
        cells = {
            "from": str(r["from"]),
            "to": str(r["to"]),
            "length": f"{r['length']:.6f}",
            "error": f"{r['error']:.0e}",
            "straight": f"{r['euclidean']:.4f}",
            "residual": f"{r['residual']:.0e}",
            "defect": f"{r['defect']:.0e}",
            "elements": str(r["elements"]),
            "seconds": f"{r['seconds']:.1f}",
        }
        if known:
            cells |= {"from truth": f"{r['from_the_truth']:.3f}", "(straight)": f"{r['from_the_truth_straight']:.3f}"}
        table.add_row(*(cells[column] for column in columns), r["code"])
    return table


def calibrate(score: AbstractScore, points: Points, contrast: float) -> float:
    """The strength at which the median of ``strength |s|^2`` over ``points`` ``(n, d)`` is ``contrast``."""
    squares = jnp.sum(jax.vmap(score)(points) ** 2, -1)
    return contrast / float(jnp.median(squares))


def known_sigmas(model: DiffusionModel) -> tuple[float, float]:
    """The least and the largest noise level that ``model`` was trained at."""
    least, most = map(float, model.schedule.noise_range())
    return least, most


def check_known_sigma(sigma: float, model: DiffusionModel, name: str = "sigma") -> None:
    """Raise ``ValueError`` unless the option ``--name`` has a noise level that ``model`` was trained at."""
    least, most = known_sigmas(model)
    if not least <= sigma <= most:
        raise ValueError(f"`--{name}` must be a noise level that the model knows, {least:g} to {most:g}, got {sigma}")
