"""``scoregeo cluster``: clusters of the points of a file by their geodesic distances."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from ..._results import status_name
from ...statistics import kmeans, kmedoids
from .._geometry import double_precision, solver_for
from .._report import Report
from ._sample import SampleCommand, check_result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster(SampleCommand):
    """The arguments of ``scoregeo cluster``."""

    k: int = 2
    """How many clusters."""
    method: Literal["means", "medoids"] = "means"
    """Around Frechet means, or around points of the sample, by all distances."""
    restarts: int = 3
    """How many random beginnings; the best is taken."""
    checkpoint: Path | None = None
    """Of medoids: a folder in which distances are kept while they are computed. The same command goes on from there."""

    examples: ClassVar = (
        "--model model --data points.csv --k 3 --out clusters.csv --picture clusters.png",
        "--model model --data points.csv --k 3 --method medoids --checkpoint kept",
    )

    def run(self, report: Report) -> None:
        """Print, write and draw the clusters; raises `CommandError` at the end if they did not converge."""
        sample = self.read_sample(report)
        n = len(sample.rows)
        if not 1 <= self.k <= n:
            raise ValueError(f"`--k` must be from 1 to the number of points, {n}, got {self.k}")
        if self.restarts < 1:
            raise ValueError(f"`--restarts` must be at least 1, got {self.restarts}")
        if self.checkpoint is not None and self.method == "means":
            raise ValueError("`--checkpoint` is for `--method medoids`: means keep no distances")
        with double_precision():
            key, metric = jax.random.key(self.seed), sample.metric()
            if self.method == "means":
                settings = {"restarts": self.restarts, "gtol": 1e-3, "throw": False, "progress": report.shows_progress}
                with report.first("clusters"):
                    found = kmeans(metric, sample.points(), self.k, key, solver=solver_for(metric), **settings)
                extra: dict[str, Any] = {}
                centers, squares = found.centers, found.distances**2
            else:
                distances = sample.distances(report, self.checkpoint)
                found = kmedoids(distances, self.k, key, restarts=self.restarts, throw=False)
                centers, squares = sample.points()[found.medoids], found.distances**2
                extra = {"medoids": sample.rows[np.asarray(found.medoids)]}
            sizes = ", ".join(str(int(count)) for count in found.counts)
            report.say(
                f"{self.k} clusters of {n} points around their {self.method}, of {sizes} points: root mean square of "
                f"the distances to these {float(np.mean(squares)) ** 0.5:.6g} ({sample.unit()}; "
                f"{status_name(found.result)})"
            )
            figure = None
            if self.picture is not None:
                figure = sample.picture(found.labels, {self.method: centers}, "clusters in the metric of the model")
            self.write(
                report,
                figure,
                array="labels",
                columns={"row": sample.rows, "label": found.labels, "distance": found.distances},
                labels=found.labels,
                centers=sample.in_units(centers),
                distances=found.distances,
                counts=found.counts,
                status=status_name(found.result),
                rows=sample.rows,
                **extra,
            )
        check_result(found.result, "the search for clusters")
