"""``scoregeo evaluate``: how good a saved model is on points that it was not trained on."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from ..._atomic import write_json
from ...diffusion import evaluate_held_out, memorization
from .._command import Command
from .._io import POINTS_FILE, PointsOptions, load_model, training_points
from .._output import PICTURES, check_output, write_picture
from .._report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """The arguments of ``scoregeo evaluate``."""

    model: Path
    """Folder of a saved model."""
    data: Path
    """A file of held-out points, in the units of the data."""
    sigmas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    """Noise levels, in standardised units."""
    samples: int = 500
    """How many samples to compare with the training points; 0 for none."""
    out: Path | None = None
    """A .json file for the numbers."""
    picture: Path | None = None
    """A .png, .pdf or .svg file: loss and calibration by noise level, and the memorisation gap."""
    seed: int = 0
    """Seed of everything random."""
    condition: int | None = None
    """Label of a class that all points of --data are of; samples are too."""

    reading: PointsOptions = PointsOptions()

    examples: ClassVar = (
        "--model model --data held_out.csv",
        "--model model --data held_out.csv --sigmas 0.1 0.3 1 --out report.json --picture report.png",
    )

    def run(self, report: Report) -> None:
        """Print, write and draw the report. Training points kept beside the model tell whether it repeats them."""
        if self.samples < 0:
            raise ValueError(f"`--samples` must be at least 0, got {self.samples}")
        model = load_model(self.model, report)
        check_output("out", self.out, (".json",))
        check_output("picture", self.picture, PICTURES)
        points, kept = self.reading.points_for(model, self.data, report), training_points(model, self.model)
        units = "data" if model.standardization is None else "standardised"
        values: dict[str, Any] = {"units": units}
        if kept is not None:
            values["training_points"] = self._say_known(points, kept, report)
        report_key, sample_key = jax.random.split(jax.random.key(self.seed))
        with report.busy("the loss on held-out points"):
            held_out = evaluate_held_out(model, points, self.sigmas, key=report_key, condition=self.condition)
        report.say(held_out)
        report.say(f"noise levels and distances are in {units} units")
        values["held_out"], found = held_out.to_dict(), None
        if self.samples > 0 and kept is None:
            report.note(f"no {POINTS_FILE} beside the model: samples are not compared with what it was trained on")
        elif self.samples > 0 and kept is not None:
            with report.busy(f"{self.samples} samples, and their nearest training points"):
                samples = model.sample(sample_key, self.samples, condition=self.condition)
                found = memorization(samples, kept, points)
            report.say(found)
            values["memorization"] = found.to_dict()
        report.keep(**values)
        if self.out is not None:
            write_json(self.out, values)
            report.wrote(self.out)
        if self.picture is not None:
            from ...plotting import evaluation_figure

            write_picture(report, self.picture, evaluation_figure(held_out, found, units=units))

    def _say_known(self, points: Any, kept: Any, report: Report) -> int:
        """How many of the ``points`` are among those ``kept`` beside the model, which is told: the model was trained
        on them, so that they say nothing about new ones."""
        known = {row.tobytes() for row in np.asarray(kept, np.float32)}
        count, n = sum(row.tobytes() in known for row in np.asarray(points, np.float32)), len(points)
        if count:
            which = "all" if count == n else f"{count} of the"
            report.note(
                f"{which} {n} points of {self.data} are points that the model was trained on: on these its loss is too "
                "low; for what it does on new points give others"
            )
        return count
