"""``scoregeo distance``: the geodesic distance of two points under the metric of a saved model, or of all points of a
file."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from .._atomic import replacing, write_npy, write_npz
from .._pairs.stream import as_results
from .._results import RESULTS, status_name
from ..operations import pairwise_dist
from ._command import CommandError
from ._geometry import LENGTHS, double_precision
from ._io import PointsOptions, load_model, make_folder_of_output, unit_of_length
from ._pair import PairCommand, check_converged, checked_geometry, read_problem

_SUFFIXES = (".npy", ".npz", ".parquet")


@dataclasses.dataclass(frozen=True)
class Distance(PointsOptions, PairCommand):
    """The arguments of ``scoregeo distance``."""

    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Index of a point of the data that the model was trained on, or a .npy file with one point."""
    end: Annotated[str | None, tyro.conf.arg(name="to")] = None
    """The other end, given in the same way. Points are in the units of the data."""
    all: Path | None = None
    """In place of two ends, a file of points in the units of the data: the distances of all pairs among them."""
    out: Path | None = None
    """With --all, a file for the distances, NaN where a solve failed: .npy for the matrix; .npz for the matrix
    `distances`, the numbers `status` of the same shape, whose names are `status_names[status]`, and `sigma` and
    `strength`; .parquet for a table with a row for each pair: `first`, `second`, `distance`, `status` (by name)."""
    checkpoint: Path | None = None
    """With --all, a folder that keeps what is solved: the same command goes on from there, however it ended."""
    batch_size: int | None = None
    """With --all, how many pairs are solved side by side, which bounds the memory."""

    def run(self, console: Console) -> None:
        """Print length, error estimate and status, or write the matrix; raises `CommandError` if a solve failed."""
        if self.all is not None:
            _solve_all(self, self.all, console)
            return
        for name, value in (("out", self.out), ("checkpoint", self.checkpoint), ("batch-size", self.batch_size)):
            if value is not None:
                raise ValueError(f"`--{name}` must come with `--all`")
        if self.chosen():
            raise ValueError(f"`{self.chosen()[0]}` must come with `--all`")
        problem = read_problem(self)
        with double_precision():
            _, record = problem.solve()
        console.print(
            f"distance {record['length']:.8g} +- {record['error']:.1e} ({unit_of_length(problem.model)}; "
            f"straight line {record['euclidean']:.8g}; sigma {problem.geometry.sigma:g}, "
            f"strength {problem.geometry.strength:g}; {record['status']})",
            soft_wrap=True,
        )
        check_converged(record)


def _solve_all(arguments: Distance, path: Path, console: Console) -> None:
    if arguments.start is not None or arguments.end is not None:
        raise ValueError("`--all` takes the place of `--from` and `--to`: give one or the other")
    if arguments.out is None:
        raise ValueError("`--all` needs `--out`, a file for the distances")
    if arguments.out.suffix not in _SUFFIXES:
        raise ValueError(f"`--out` must end in {', '.join(_SUFFIXES)}, got {arguments.out}")
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise ValueError(f"`--batch-size` must be at least 1, got {arguments.batch_size}")
    if arguments.out.suffix == ".parquet":
        import pyarrow  # noqa: F401  # before hours of work, not after
    model = load_model(arguments.model)
    geometry = checked_geometry(arguments.model, model, arguments.sigma, arguments.strength)
    make_folder_of_output(arguments.out, arguments.out.suffix)
    with double_precision():
        found = arguments.rows_for(model, path, console)
        xs = jnp.asarray(found.points, jnp.float64)
        if len(xs) < 2:
            raise ValueError(f"`--all` must have at least 2 points, got {len(xs)}")
        settings = {"batch_size": arguments.batch_size, "checkpoint": arguments.checkpoint}
        lengths, results = pairwise_dist(
            geometry.metric(model), xs, solver=LENGTHS, progress=sys.stderr.isatty(), **settings
        )
        good = np.asarray(results == RESULTS.successful)
        matrix = np.where(good, np.asarray(lengths), np.nan)
        codes = np.asarray(jax.tree.leaves(results)[0])
        del lengths, results
    units = f"in {unit_of_length(model)}; sigma {geometry.sigma:g}, strength {geometry.strength:g}"
    count = len(matrix) * (len(matrix) - 1) // 2
    about = {"sigma": geometry.sigma, "strength": geometry.strength}
    _write(arguments.out, matrix, codes, found.rows, about)
    console.print(f"wrote the distances of {count} pairs to {arguments.out} ({units})", soft_wrap=True)
    failed = int(np.triu(~good, 1).sum())
    if failed:
        where = "NaN there" if arguments.out.suffix == ".npy" else "see their status"
        raise CommandError(f"{failed} of {count} distances could not be computed: {where}")


def _write(path: Path, matrix: np.ndarray, codes: np.ndarray, rows: np.ndarray, about: dict[str, float]) -> None:
    """The matrix among the ``rows`` of the file in the format that the ending of ``path`` names. Statuses are numbers,
    because a name for each pair would be ten times the size of the matrix."""
    if path.suffix == ".npy":
        write_npy(path, matrix)
        return
    names = status_name(as_results(np.arange(len(RESULTS))))
    codes = codes.astype(np.min_scalar_type(len(names)))
    if path.suffix == ".npz":
        write_npz(path, distances=matrix, status=codes, status_names=names, rows=rows, **about)
        return
    import pandas as pd

    first, second = np.triu_indices(len(matrix), 1)
    status = pd.Categorical.from_codes(codes[first, second].astype(np.int16), categories=names.tolist())
    columns = {"first": rows[first], "second": rows[second], "distance": matrix[first, second], "status": status}
    with replacing(path) as temporary:
        pd.DataFrame(columns).to_parquet(temporary, index=False)
