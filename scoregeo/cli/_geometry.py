"""The metric kept beside a saved model, and geodesics of it: how they are solved, reported and shown as a table."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from rich.table import Table

from .._atomic import write_json
from .._results import RESULTS
from .._types import Point, Scalar
from ..diffusion import DiffusionModel
from ..geodesics import Geodesic, SpectralNewton, geodesic, verify
from ..metrics import AbstractMetric, SteinMetric

# Lengths have four digits at least. A finer path says nothing more about the data, whose score is known to two digits.
SOLVER = SpectralNewton(rtol=1e-4, path_rtol=1e-3)
# The file beside a model that says which metric to use.
GEOMETRY_FILE = "geometry.json"


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Which metric of a model to use: ``I + strength s s^T`` with the score at noise level ``sigma``.

    ``contrast`` says how ``strength`` was chosen: the median of ``strength |s|^2`` over the data, so that moving along
    the score costs ``sqrt(1 + contrast)`` times as much as moving across it. Kept beside a model, with the shape of its
    images.
    """

    sigma: float
    strength: float
    contrast: float
    image_shape: tuple[int, ...] | None = None

    def metric(self, model: DiffusionModel) -> SteinMetric:
        """The Stein metric of ``model``."""
        return SteinMetric(model.score_at(self.sigma), self.strength)

    def save(self, directory: pathlib.Path) -> None:
        """Write ``geometry.json`` beside a model."""
        write_json(directory / GEOMETRY_FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, directory: pathlib.Path) -> "Geometry":
        """Read ``geometry.json``; raises ``ValueError`` if it is missing or damaged."""
        path = directory / GEOMETRY_FILE
        try:
            values = json.loads(path.read_text())
            shape = values.pop("image_shape")
            numbers = {name: float(value) for name, value in values.items()}
            return cls(**numbers, image_shape=None if shape is None else tuple(int(side) for side in shape))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"`--model` {directory} has no {GEOMETRY_FILE}; give --sigma and --strength"
            ) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"`--model` {directory} is damaged: {GEOMETRY_FILE} is not what scoregeo wrote") from error


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Float64 inside the block: the geometry of a float32 network is worth certifying in double precision."""
    with jax.enable_x64(True):
        yield


def solve(metric: AbstractMetric, x: Point, y: Point) -> tuple[Geodesic, dict[str, Any]]:
    """A geodesic and what is known about it, for a report: length, error, residual, diffrax defect, status, time."""
    start = time.perf_counter()
    path = jax.block_until_ready(geodesic(metric, x, y, solver=SOLVER, throw=False))
    seconds = time.perf_counter() - start
    converged = bool(path.result == RESULTS.successful)
    record = {
        "length": float(path.length),
        "euclidean": float(jnp.linalg.norm(y - x)),
        "error": float(path.error),
        "residual": float(path.residual),
        "defect": float(verify(metric, path)),
        "status": "converged" if converged else RESULTS[path.result].split(". ")[0],
        "converged": converged,
        **{name: count.item() for name, count in path.stats.items()},
        "seconds": seconds,
    }
    return path, record


def geodesic_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Lengths, certificates and status of solved geodesics."""
    table = Table(title="geodesics of I + strength s s^T")
    for column in ("from", "to", "length", "error", "straight", "residual", "defect", "elements", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for r in records:
        table.add_row(
            str(r["from"]),
            str(r["to"]),
            f"{r['length']:.6f}",
            f"{r['error']:.0e}",
            f"{r['euclidean']:.4f}",
            f"{r['residual']:.0e}",
            f"{r['defect']:.0e}",
            str(r["elements"]),
            f"{r['seconds']:.1f}",
            r["status"],
        )
    return table


def check_known_sigma(sigma: float, model: DiffusionModel) -> None:
    """Raise ``ValueError`` unless ``--sigma`` is a noise level that ``model`` was trained at."""
    # A Python number, which schedules take too: a float32 array would move the ends by its rounding.
    ends = cast(tuple[Scalar, Scalar], (model.schedule.t_min, model.schedule.t_max))
    least, most = (float(model.schedule.noise_level(t)) for t in ends)
    if not least <= sigma <= most:
        raise ValueError(f"`--sigma` must be a noise level that the model knows, {least:g} to {most:g}, got {sigma}")
