"""``scoregeo distance``: the geodesic distance of two points under the metric of a saved model, or of all points of a
file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from ..._pairs.stream import as_results
from ..._results import RESULTS, status_name
from ...operations import pairwise_dist
from .._command import CommandError
from .._geometry import double_precision, lengths_solver_for
from .._io import PointsOptions, load_model, unit_of_length
from .._output import TABLES, check_output, write_results
from .._report import Report
from ._pair import PairCommand, check_converged, read_problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distance(PairCommand):
    """The arguments of ``scoregeo distance``."""

    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Index of a point of the data that the model was trained on, or a file with one point."""
    end: Annotated[str | None, tyro.conf.arg(name="to")] = None
    """The other end, given in the same way. Points are in the units of the data."""
    all: Path | None = None
    """In place of two ends, a file of points in the units of the data: the distances of all pairs among them."""
    out: Path | None = None
    """With --all, a file for the distances, NaN where a solve failed: .npy for the matrix; .npz for the matrix
    `distances`, the numbers `status` of the same shape, whose names are `status_names[status]`, and the metric; .csv or
    .parquet for a table with a row for each pair: `first`, `second`, `distance`, `status` (by name)."""
    checkpoint: Path | None = None
    """With --all, a folder that keeps what is solved: the same command goes on from there, however it ended."""
    batch_size: int | None = None
    """With --all, how many pairs are solved side by side, which bounds the memory."""
    reading: PointsOptions = PointsOptions()

    examples: ClassVar = (
        "--model model --from 0 --to 1",
        "--model model --from 0 --to 1 --metric score-jacobian --ratio 100 --json",
        "--model model --all points.csv --out distances.parquet --checkpoint kept",
    )

    def run(self, report: Report) -> None:
        """Print length, error estimate and status, or write the matrix; raises `CommandError` if a solve failed."""
        if self.all is not None:
            _solve_all(self, self.all, report)
            return
        for name, value in (("out", self.out), ("checkpoint", self.checkpoint), ("batch-size", self.batch_size)):
            if value is not None:
                raise ValueError(f"`--{name}` must come with `--all`")
        if self.reading.chosen():
            raise ValueError(f"`{self.reading.chosen()[0]}` must come with `--all`")
        problem = read_problem(self, report)
        with double_precision():
            _, record = problem.solve(report)
        unit = unit_of_length(problem.model)
        report.keep(**record, units=unit)
        report.say(
            f"distance {record['length']:.8g} +- {record['error']:.1e} ({unit}; straight line "
            f"{record['euclidean']:.8g}; {problem.geometry}; {record['status']})"
        )
        check_converged(record)


def _solve_all(arguments: Distance, path: Path, report: Report) -> None:
    if arguments.start is not None or arguments.end is not None:
        raise ValueError("`--all` takes the place of `--from` and `--to`: give one or the other")
    if arguments.out is None:
        raise ValueError("`--all` needs `--out`, a file for the distances")
    check_output("out", arguments.out, TABLES)
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise ValueError(f"`--batch-size` must be at least 1, got {arguments.batch_size}")
    model = load_model(arguments.model, report)
    geometry = arguments.metric.of(arguments.model, model, report)
    with double_precision():
        found = arguments.reading.rows_for(model, path, report, "all")
        xs = jnp.asarray(found.points, jnp.float64)
        if len(xs) < 2:
            raise ValueError(f"`--all` must have at least 2 points, got {len(xs)}")
        metric = geometry.metric(model)
        settings = {"batch_size": arguments.batch_size, "checkpoint": arguments.checkpoint}
        settings |= {"solver": lengths_solver_for(metric), "progress": report.shows_progress}
        with report.first("distances"):
            lengths, results = pairwise_dist(metric, xs, **settings)
        good = np.asarray(results == RESULTS.successful)
        matrix = np.where(good, np.asarray(lengths), np.nan)
        codes = np.asarray(jax.tree.leaves(results)[0])
        del lengths, results
    count, failed = len(matrix) * (len(matrix) - 1) // 2, int(np.triu(~good, 1).sum())
    units = unit_of_length(model)
    report.keep(pairs=count, failed=failed, units=units, **geometry.about())
    _write(report, arguments.out, matrix, codes, found.rows, geometry.about(), f"({units}; {geometry})")
    if failed:
        where = "NaN there" if arguments.out.suffix == ".npy" else "see their status"
        raise CommandError(f"{failed} of {count} distances could not be computed: {where}")


def _write(
    report: Report,
    path: Path,
    matrix: np.ndarray,
    codes: np.ndarray,
    rows: np.ndarray,
    about: Mapping[str, Any],
    unit: str = "",
) -> None:
    """The matrix among the ``rows`` of the file. Statuses are numbers, because a name for each pair would be ten times
    the size of the matrix."""
    names = status_name(as_results(np.arange(len(RESULTS))))
    codes = codes.astype(np.min_scalar_type(len(names)))

    def pairs() -> Mapping[str, Any]:
        import pandas as pd

        first, second = np.triu_indices(len(matrix), 1)
        status = pd.Categorical.from_codes(codes[first, second].astype(np.int16), categories=names.tolist())
        return {"first": rows[first], "second": rows[second], "distance": matrix[first, second], "status": status}

    values = {"distances": matrix, "status": codes, "status_names": names, "rows": rows, **about}
    what = f"the distances of {len(matrix) * (len(matrix) - 1) // 2} pairs {unit}".rstrip()
    write_results(report, path, values, array="distances", columns=pairs, what=what)
