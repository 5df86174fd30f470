"""``scoregeo embed``: coordinates for the points of a file in which Euclid's distances are like the geodesic ones."""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ...statistics import ClassicalScaling, MetricScaling, SpectralEmbedding, embed
from .._geometry import double_precision
from .._report import Report
from ._sample import SampleCommand

_METHODS = {"classical": ClassicalScaling, "metric": MetricScaling, "spectral": SpectralEmbedding}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embed(SampleCommand):
    """The arguments of ``scoregeo embed``."""

    k: int = 2
    """How many coordinates."""
    method: Literal["classical", "metric", "spectral"] = "classical"
    """Principal coordinates; least stress; or neighbours alone, by eigenvectors of a Laplacian."""
    checkpoint: Path | None = None
    """A folder in which distances are kept while they are computed. The same command goes on from there."""

    examples: ClassVar = (
        "--model model --data points.csv --out coordinates.csv --picture coordinates.png",
        "--model model --data points.csv --k 3 --method metric --checkpoint kept",
    )

    def run(self, report: Report) -> None:
        """Print, write and draw the coordinates."""
        sample = self.read_sample(report)
        n = len(sample.rows)
        if not 1 <= self.k < n:
            raise ValueError(f"`--k` must be from 1 to {n - 1} for {n} points, got {self.k}")
        with double_precision():
            distances = sample.distances(report, self.checkpoint)
            with report.busy(f"{self.k} coordinates of {n} points"):
                found = embed(distances, self.k, method=_METHODS[self.method]())
            flat = embed(np.linalg.norm(sample.coordinates[:, None] - sample.coordinates, axis=-1), self.k)
            report.say(
                f"{self.k} coordinates of {n} points, {self.method}: stress {float(found.stress):.3g} "
                f"(principal coordinates of Euclid's distances {float(flat.stress):.3g}; {sample.unit()})"
            )
            figure = None
            if self.picture is not None:
                from ...plotting import embedding_figure

                figure = embedding_figure(found.points)
            self.write(
                report,
                figure,
                array="points",
                columns={"row": sample.rows, "x": found.points},
                large={"distances": distances},
                points=found.points,
                stress=found.stress,
                rows=sample.rows,
            )
