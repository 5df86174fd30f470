"""``scoregeo geodesic``: one geodesic of a saved model, as a file and as a picture."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ...datasets import Dataset
from ...geodesics import Geodesic as GeodesicPath
from .._families import FAMILIES, score_of
from .._geometry import double_precision, geodesic_table
from .._io import POINTS_FILE, read_npy, unit_of_length
from .._output import PICTURES, check_output, write_picture, write_results
from .._report import Report
from ._pair import PairCommand, Problem, check_converged, read_problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geodesic(PairCommand):
    """The arguments of ``scoregeo geodesic``."""

    out: Path | None = None
    """A .npz file for ts, points (units of the data), velocities and the report; or a .csv or .parquet table of ts,
    points and velocities."""
    picture: Path | None = None
    """A .png, .pdf or .svg file: the path in the plane, as a strip of images, or in principal components."""

    examples: ClassVar = (
        "--model model --from 0 --to 1",
        "--model model --from a.npy --to b.npy --metric power --ratio 1000 --out path.csv --picture path.png",
    )

    def run(self, report: Report) -> None:
        """Solve, print, write and draw the geodesic; raises `CommandError` at the end if the solve failed."""
        check_output("out", self.out, (".npz", ".csv", ".parquet"))
        check_output("picture", self.picture, PICTURES)
        problem = read_problem(self, report)
        with double_precision():
            path, record = problem.solve(report)
            record |= {"from": self.start, "to": self.end}
            report.say(geodesic_table([record], title=f"geodesics of {FAMILIES[problem.geometry.kind].formula}"))
            report.keep(**record, units=unit_of_length(problem.model))
            units = problem.units()
            points = np.asarray(path.points if units is None else units.undo(path.points))
            # Drawn before anything is written: if that fails, nothing is left behind.
            with report.busy("drawing"):
                figure = None if self.picture is None else _picture(self.model, problem, path)
            velocities = np.asarray(path.velocities if units is None else units.undo_vectors(path.velocities))
            arrays = {"ts": path.ts, "points": points, "velocities": velocities}
            columns = {"t": path.ts, "point": points, "velocity": velocities}
            write_results(report, self.out, arrays | record, array="points", columns=columns)
            write_picture(report, self.picture, figure)
        check_converged(record)


def _picture(folder: Path, problem: Problem, path: GeodesicPath) -> Any:
    """The path over the points that the model in ``folder`` was trained on, if they are kept there."""
    from ...plotting import pictures

    units = problem.units()
    saved = folder / POINTS_FILE
    points = read_npy(saved, "model").astype(np.float64) if saved.exists() else np.stack([problem.start, problem.end])
    points = jnp.asarray(points)
    points = points if units is None else units.apply(points)
    dataset = Dataset(points, str(folder), standardization=units, image_shape=problem.geometry.image_shape)
    metric = problem.geometry.metric(problem.model)
    _, figure = pictures.suitable(dataset, metric, {"geodesic": [path]}, score=score_of(metric))
    return figure
