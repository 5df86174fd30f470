"""``scoregeo likelihood``: the log density of points, in nats and in the units of the data."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

from ...diffusion import log_prob
from .._command import Command
from .._io import PointsOptions, load_model
from .._output import TABLES, check_output, write_results
from .._report import Report

# How many points are integrated side by side: more need more memory and are no faster.
_BATCH = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood(Command):
    """The arguments of ``scoregeo likelihood``."""

    model: Path
    """Folder of a saved model."""
    data: Path
    """A file of points, in the units of the data."""
    out: Path | None = None
    """A .npy, .npz, .csv or .parquet file for the log densities (nats, in the units of the data)."""
    probes: int | None = None
    """Random directions that estimate the trace, for high dimension; by default the trace is exact."""
    seed: int = 0
    """Seed of the probes."""
    condition: int | None = None
    """Label of a class: the density of its points."""

    reading: PointsOptions = PointsOptions()

    examples: ClassVar = (
        "--model model --data points.csv --out log_density.csv",
        "--model model --data images.npy --probes 16 --json",
    )

    def run(self, report: Report) -> None:
        """Compute the log densities, print their mean, and write them where ``--out`` says."""
        model = load_model(self.model, report)
        check_output("out", self.out, TABLES)
        found = self.reading.rows_for(model, self.data, report)
        points = found.points
        key = jax.random.key(self.seed)
        parts = [
            log_prob(
                model,
                points[i : i + _BATCH],
                probes=self.probes,
                condition=self.condition,
                key=jax.random.fold_in(key, i),
            )
            for i in report.each(range(0, len(points), _BATCH), "log densities", "batches")
        ]
        values = np.concatenate([np.asarray(part.log_prob, np.float64) for part in parts])
        evaluations = np.concatenate([np.asarray(part.evaluations) for part in parts])
        if model.standardization is not None:
            # Densities change by the volume that one standardised unit fills.
            values -= np.sum(np.log(np.broadcast_to(model.standardization.scale, (model.dim,))))
        nats, n = values.mean(), len(values)
        # One point says nothing about the spread.
        error = f" +- {values.std(ddof=1) / np.sqrt(n):.4f}" if n > 1 else ""
        bits = -nats / model.dim / np.log(2)
        trace = "exact trace" if self.probes is None else f"{self.probes} probes"
        report.keep(
            n=n,
            mean_log_density=nats,
            standard_error=values.std(ddof=1) / np.sqrt(n) if n > 1 else None,
            bits_per_dimension=bits,
            evaluations=evaluations.mean(),
            log_density=values,
        )
        report.say(
            f"mean log density {nats:.4f}{error} nats, {bits:.4f} bits per dimension "
            f"({n} point{'s' * (n > 1)}, {trace}, {evaluations.mean():.0f} evaluations each)"
        )
        arrays = {"log_density": values, "rows": found.rows}
        columns = {"row": found.rows, "log_density": values}
        write_results(report, self.out, arrays, array="log_density", columns=columns)
