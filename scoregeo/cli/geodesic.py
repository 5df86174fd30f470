"""``scoregeo geodesic``: one geodesic of a saved model, as a file and as a picture."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from .._atomic import write_figure, write_npz
from ..datasets import Dataset
from ..geodesics import Geodesic as GeodesicPath
from ._geometry import double_precision, geodesic_table
from ._io import POINTS_FILE, check_output, read_npy
from ._pair import PairCommand, Problem, check_converged, read_problem


@dataclasses.dataclass(frozen=True)
class Geodesic(PairCommand):
    """The arguments of ``scoregeo geodesic``."""

    out: Path | None = None
    """A .npz file for ts, points (units of the data), velocities and the report."""
    picture: Path | None = None
    """A .png file: the path in the plane, as a strip of images, or in principal components."""

    def run(self, console: Console) -> None:
        """Solve, print, write and draw the geodesic; raises `CommandError` at the end if the solve failed."""
        problem = read_problem(self)
        check_output("out", self.out, ".npz")
        check_output("picture", self.picture, ".png")
        with double_precision():
            path, record = problem.solve()
            record |= {"from": self.start, "to": self.end}
            console.print(geodesic_table([record]))
            units = problem.units()
            points = np.asarray(path.points if units is None else units.undo(path.points))
            # Drawn before anything is written: if that fails, nothing is left behind.
            figure = None if self.picture is None else _picture(self.model, problem, path)
            if self.out is not None:
                velocities = np.asarray(path.velocities if units is None else units.undo_vectors(path.velocities))
                write_npz(self.out, ts=path.ts, points=points, velocities=velocities, **record)
                console.print(f"wrote {self.out}")
            if self.picture is not None and figure is not None:
                write_figure(self.picture, figure)
                console.print(f"wrote {self.picture}")
        check_converged(record)


def _picture(folder: Path, problem: Problem, path: GeodesicPath) -> Any:
    """The path over the points that the model in ``folder`` was trained on, if they are kept there."""
    from ..plotting import pictures

    units = problem.units()
    saved = folder / POINTS_FILE
    points = read_npy(saved, "model").astype(np.float64) if saved.exists() else np.stack([problem.start, problem.end])
    points = jnp.asarray(points)
    points = points if units is None else units.apply(points)
    dataset = Dataset(points, str(folder), standardization=units, image_shape=problem.geometry.image_shape)
    _, figure = pictures.suitable(dataset, problem.geometry.metric(problem.model), {"geodesic": [path]})
    return figure
