"""``scoregeo sample``: samples of a saved model, in the units of the data."""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import jax
import numpy as np

from ...diffusion import DDIM, DPMSolver, Heun, PredictorCorrector, ProbabilityFlow, ReverseSDE
from .._command import Command
from .._io import load_model
from .._network import kept_image_shape
from .._output import PICTURES, TABLES, check_output, write_picture, write_results
from .._report import Report

_SAMPLERS = {
    "ode": ProbabilityFlow,
    "sde": ReverseSDE,
    "heun": Heun,
    "ddim": DDIM,
    "dpm": DPMSolver,
    "pc": PredictorCorrector,
}
# How many samples are drawn side by side: more need more memory and are no faster.
_BATCH = 2048
# And so many are in a picture.
_PICTURED = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(Command):
    """The arguments of ``scoregeo sample``."""

    model: Path
    """Folder of a saved model."""
    out: Path
    """A .npy, .npz, .csv or .parquet file for the samples, in the units of the data."""
    n: int = 1000
    """How many."""
    sampler: Literal["ode", "sde", "heun", "ddim", "dpm", "pc"] = "ode"
    """Probability flow, reverse SDE, Heun (EDM), DDIM, DPM-Solver++(2M), predictor-corrector."""
    steps: int | None = None
    """Steps of the sampler; for all but ode, whose steps are adaptive."""
    seed: int = 0
    """The same seed gives the same samples."""
    condition: int | None = None
    """Label of a class that all samples are to be of; for a model trained with --labels."""
    guidance: float = 1.0
    """Weight of classifier-free guidance, with --condition; 1 for none."""
    picture: Path | None = None
    """A .png, .pdf or .svg file: the first samples as a grid of images, for a model of images."""

    examples: ClassVar = (
        "--model model --out samples.npy",
        "--model model --n 100 --sampler heun --steps 40 --out samples.csv --seed 1",
    )

    def run(self, report: Report) -> None:
        """Draw the samples and write them."""
        if self.n < 1:
            raise ValueError(f"`--n` must be at least 1, got {self.n}")
        model = load_model(self.model, report)
        check_output("out", self.out, TABLES)
        check_output("picture", self.picture, PICTURES)
        shape = kept_image_shape(self.model, model) if self.picture is not None else None
        if self.picture is not None and shape is None:
            raise ValueError(f"`--picture` needs a model of images, and nothing in {self.model} says that this is one")
        settings = {} if self.steps is None else {"steps": self.steps}
        if settings and self.sampler == "ode":
            raise ValueError("`--steps` is not for `--sampler ode`, whose steps are adaptive")
        sampler = _SAMPLERS[self.sampler](**settings)
        key = jax.random.key(self.seed)
        settings = {"sampler": sampler, "condition": self.condition, "guidance": self.guidance}
        parts = [
            model.sample(jax.random.fold_in(key, start), min(_BATCH, self.n - start), **settings)
            for start in report.each(range(0, self.n, _BATCH), "samples", "batches")
        ]
        points = np.concatenate([np.asarray(part) for part in parts])
        if model.standardization is not None:
            points = np.asarray(model.standardization.undo(points))
        report.keep(n=self.n, dimension=points.shape[1], seed=self.seed)
        values = {"points": points}
        write_results(report, self.out, values, array="points", columns={"x": points}, what=f"{self.n} samples")
        if self.picture is not None and shape is not None:
            from ...plotting.images import image_grid

            write_picture(report, self.picture, image_grid(points[:_PICTURED], shape))
