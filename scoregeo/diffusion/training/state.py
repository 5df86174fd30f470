"""The state of a training run: everything that changes from step to step."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array, Int, PyTree, UInt32

AVERAGE = "average"  # the running average that the model keeps
WEIGHTING = "weighting"  # where the parameters of a learned weighting are among the weights


class TrainState(eqx.Module):
    """The state of a run after ``step`` steps; a pytree of arrays.

    **Fields**

    - ``weights``: what is trained, by name: the weights of the denoiser, and the parameters of the weighting.
    - ``averages``: running averages of ``weights``, by name; the model keeps the one called ``"average"``.
    - ``optimiser``: the state of the optimiser.
    - ``step``: number of steps done.
    - ``key``: data of the random key of the run, the same in all steps.
    """

    weights: dict[str, Any]
    averages: dict[str, dict[str, Any]]
    optimiser: PyTree
    step: Int[Array, ""]
    key: UInt32[Array, " k"]

    @property
    def average(self) -> dict[str, Any]:
        """The average of the weights that the model keeps."""
        return self.averages[AVERAGE]

    def to_dict(self) -> dict[str, Any]:
        """The state under the names that files use; averages stand beside the rest."""
        rest = {"weights": self.weights, "optimiser": self.optimiser, "step": self.step, "key": self.key}
        return rest | self.averages

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainState":
        """The inverse of `to_dict`."""
        rest = {name: values[name] for name in ("weights", "optimiser", "step", "key")}
        return cls(averages={name: values[name] for name in values if name not in rest}, **rest)
