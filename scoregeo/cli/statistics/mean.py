"""``scoregeo mean``: the Frechet mean, or median, of the points of a file."""

import dataclasses
from typing import ClassVar

import numpy as np

from ..._results import status_name
from ...statistics import frechet_mean, frechet_median
from .._geometry import double_precision, solver_for
from .._report import Report
from ._sample import SampleCommand, check_result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean(SampleCommand):
    """The arguments of ``scoregeo mean``."""

    median: bool = False
    """The median instead, which few outliers move."""

    examples: ClassVar = (
        "--model model --data points.csv --out mean.npy",
        "--model model --data points.csv --median --metric power --json",
    )

    def run(self, report: Report) -> None:
        """Print, write and draw the mean; raises `CommandError` at the end if it did not converge."""
        sample = self.read_sample(report)
        name = "median" if self.median else "mean"
        with double_precision():
            metric, points = sample.metric(), sample.points()
            center = frechet_median if self.median else frechet_mean
            with report.busy(f"the {name} of {len(points)} points"):
                found = center(metric, points, solver=solver_for(metric), gtol=1e-5, throw=False)
            straight = np.median(points, 0) if self.median else np.mean(points, 0)
            away = float(np.linalg.norm(np.asarray(found.point) - straight))
            report.say(
                f"{name} of {len(points)} points after {int(found.steps)} steps: standard deviation "
                f"{float(found.variance) ** 0.5:.6g} ({sample.unit()}), {away:.4g} from the Euclidean {name} "
                f"({status_name(found.result)})"
            )
            figure = None
            if self.picture is not None:
                marked = {f"Frechet {name}": found.point, f"Euclidean {name}": straight}
                figure = sample.picture(None, marked, f"{name} in the metric of the model")
            self.write(
                report,
                figure,
                array="point",
                columns={"x": sample.in_units(found.point)[None]},
                point=sample.in_units(found.point),
                euclidean=sample.in_units(straight),
                variance=found.variance,
                distances=found.distances,
                gradient_norm=found.gradient_norm,
                steps=found.steps,
                status=status_name(found.result),
                rows=sample.rows,
            )
        check_result(found.result, f"the {name}")
