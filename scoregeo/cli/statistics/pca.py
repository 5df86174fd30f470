"""``scoregeo pca``: principal directions of the points of a file, in the tangent space at their Frechet mean."""

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np

from ..._results import status_name
from ...statistics import TangentPCA, frechet_mean, tangent_pca
from .._geometry import double_precision, solver_for
from .._report import Report
from ._sample import Sample, SampleCommand, check_result

# Images along a component, from minus to plus so many standard deviations.
_REACH, _IMAGES = 2.0, 7
# Along so many components.
_WALKS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pca(SampleCommand):
    """The arguments of ``scoregeo pca``."""

    components: int = 2
    """How many directions."""

    examples: ClassVar = (
        "--model model --data points.csv --components 3 --out components.npz",
        "--model model --data points.csv --out coordinates.csv --picture components.png",
    )

    def run(self, report: Report) -> None:
        """Print, write and draw the directions; raises `CommandError` at the end if something did not converge."""
        sample = self.read_sample(report)
        most = min(len(sample.rows) - 1, sample.model.dim)
        if not 1 <= self.components <= most:
            raise ValueError(f"`--components` must be from 1 to {most}, got {self.components}")
        with double_precision():
            metric, points = sample.metric(), sample.points()
            solver = solver_for(metric)
            with report.busy(f"the mean of {len(points)} points, and directions from it"):
                mean = frechet_mean(metric, points, solver=solver, gtol=1e-5, throw=False)
                found = tangent_pca(metric, points, self.components, mean=mean, solver=solver, throw=False)
            images = jax.vmap(metric.at(found.mean).mv)(found.axes)
            coordinates = np.asarray(mean.logs @ images.T)
            shares = ", ".join(f"{share:.1%}" for share in np.asarray(found.explained_variance_ratio))
            report.say(
                f"{self.components} components of {len(points)} points explain {shares} of the variance "
                f"{float(mean.variance):.6g} ({sample.unit()}; {status_name(found.result)})"
            )
            figure = None if self.picture is None else _picture(sample, found, coordinates)
            self.write(
                report,
                figure,
                array="coordinates",
                columns={"row": sample.rows, "component": coordinates},
                mean=sample.in_units(found.mean),
                axes=sample.vectors_in_units(found.axes),
                explained_variance=found.explained_variance,
                explained_variance_ratio=found.explained_variance_ratio,
                coordinates=coordinates,
                status=status_name(found.result),
                rows=sample.rows,
            )
        check_result(found.result, "the mean, or a geodesic from it,")


def _picture(sample: Sample, found: TangentPCA, coordinates: np.ndarray) -> Any:
    """Coordinates along the first two components beside what all explain; of images, walks along them."""
    from ...plotting import components_figure

    shape = sample.geometry.image_shape
    walks, steps = {}, np.linspace(-_REACH, _REACH, _IMAGES)
    sd = np.sqrt(np.asarray(found.explained_variance))
    for i in range(min(_WALKS, len(sd)) if shape is not None else 0):
        ends = np.zeros((_IMAGES, len(sd)))
        ends[:, i] = steps * sd[i]
        points = jax.vmap(lambda c: found.inverse_transform(c, throw=False))(ends)
        if np.isfinite(np.asarray(points)).all():
            walks[f"component {i + 1}"] = sample.in_units(points)
    settings = {"walks": walks or None, "image_shape": shape, "ts": steps}
    return components_figure(coordinates, found.explained_variance_ratio, **settings)
