"""``scoregeo evaluate``: how good a saved model is on points that it was not trained on."""

import dataclasses
from pathlib import Path

import jax
from rich.console import Console

from ..._atomic import write_figure, write_json
from ...diffusion import evaluate_held_out, memorization
from .._command import Command
from .._io import POINTS_FILE, PointsOptions, check_output, load_model, make_folder_of_output, training_points


@dataclasses.dataclass(frozen=True)
class Evaluate(PointsOptions, Command):
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
    """A .png file: loss and calibration by noise level, and the memorisation gap."""
    seed: int = 0
    """Seed of everything random."""
    condition: int | None = None
    """Label of a class that all points of --data are of; samples are too."""

    def run(self, console: Console) -> None:
        """Print, write and draw the report. Training points kept beside the model tell whether it repeats them."""
        if self.samples < 0:
            raise ValueError(f"`--samples` must be at least 0, got {self.samples}")
        model = load_model(self.model)
        make_folder_of_output(self.out, ".json")
        check_output("picture", self.picture, ".png")
        points = self.points_for(model, self.data, console)
        units = "data" if model.standardization is None else "standardised"
        report_key, sample_key = jax.random.split(jax.random.key(self.seed))
        report = evaluate_held_out(model, points, self.sigmas, key=report_key, condition=self.condition)
        console.print(report)
        console.print(f"noise levels and distances are in {units} units")
        values = {"units": units, "held_out": report.to_dict()}
        kept, found = training_points(model, self.model) if self.samples else None, None
        if self.samples > 0 and kept is None:
            console.print(f"no {POINTS_FILE} beside the model: samples are not compared with what it was trained on")
        elif kept is not None:
            samples = model.sample(sample_key, self.samples, condition=self.condition)
            found = memorization(samples, kept, points)
            console.print(found)
            values["memorization"] = found.to_dict()
        if self.out is not None:
            write_json(self.out, values)
            console.print(f"wrote {self.out}")
        if self.picture is not None:
            from ...plotting import evaluation_figure

            write_figure(self.picture, evaluation_figure(report, found, units=units))
            console.print(f"wrote {self.picture}")
