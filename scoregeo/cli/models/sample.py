"""``scoregeo sample``: samples of a saved model, in the units of the data."""

import dataclasses
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from rich.console import Console

from ..._atomic import write_figure, write_npy
from ...diffusion import DDIM, DPMSolver, Heun, PredictorCorrector, ProbabilityFlow, ReverseSDE
from .._command import Command
from .._io import check_output, load_model, make_folder_of_output
from .._network import kept_image_shape

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


@dataclasses.dataclass(frozen=True)
class Sample(Command):
    """The arguments of ``scoregeo sample``."""

    model: Path
    """Folder of a saved model."""
    out: Path
    """A .npy file for the samples, in the units of the data."""
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
    """A .png file: the first samples as a grid of images, for a model of images."""

    def run(self, console: Console) -> None:
        """Draw the samples and write them."""
        if self.n < 1:
            raise ValueError(f"`--n` must be at least 1, got {self.n}")
        model = load_model(self.model)
        make_folder_of_output(self.out, ".npy")
        check_output("picture", self.picture, ".png")
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
            for start in range(0, self.n, _BATCH)
        ]
        points = np.concatenate([np.asarray(part) for part in parts])
        if model.standardization is not None:
            points = np.asarray(model.standardization.undo(points))
        write_npy(self.out, points)
        console.print(f"wrote {self.n} samples to {self.out}")
        if self.picture is not None and shape is not None:
            from ...plotting.images import image_grid

            write_figure(self.picture, image_grid(points[:_PICTURED], shape))
            console.print(f"wrote {self.picture}")
