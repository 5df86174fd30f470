"""The settings of a training run: a frozen dataclass that survives a round trip through JSON."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from .schedules import EDM, AbstractSchedule, schedule_from_dict, schedule_to_dict


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How `fit` trains.

    **Arguments**

    - ``steps``, ``batch_size``: number of optimiser steps, and points drawn (with replacement) in each.
    - ``learning_rate``: peak rate of Adam; it rises linearly for ``warmup_steps`` (at most half of all steps), then
      falls to zero along a cosine.
    - ``clip_norm``: gradients of a larger norm are scaled down to it.
    - ``ema_decay``: decay per step of the running average of the weights, which is what the model keeps.
    - ``seed``: of the initial weights, the batches and the noise. The same seed gives the same weights bit for bit.
    - ``width``, ``depth``: of the `MLP`; ``potential``: whether to wrap it in `Potential`, so that the score is a
      gradient field. These three are not used when `fit` is given a network.
    - ``schedule``: `EDM` or `VP`; it decides which noise levels are trained on, and how `sample` gets from noise to
      data.
    - ``holdout``: fraction of the points kept out of training for the held-out loss, in [0, 0.5].
    - ``chunk_steps``: steps between two looks at the loss (one compiled loop), and the delay of an interrupt.
    - ``checkpoint_every``: steps between two checkpoints, if `fit` is given a ``checkpoint_dir``.
    """

    steps: int = 4000
    batch_size: int = 512
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    width: int = 64
    depth: int = 4
    potential: bool = True
    schedule: AbstractSchedule = EDM()
    holdout: float = 0.05
    chunk_steps: int = 200
    checkpoint_every: int = 1000

    def __post_init__(self):
        for name in ("steps", "batch_size", "width", "depth", "chunk_steps", "checkpoint_every"):
            self._check_integer(name, minimum=1)
        for name in ("warmup_steps", "seed"):
            self._check_integer(name, minimum=0)
        for name in ("learning_rate", "clip_norm"):
            self._check_number(name, lambda value: value > 0, "positive")
        self._check_number("ema_decay", lambda value: 0 <= value < 1, "in [0, 1)")
        self._check_number("holdout", lambda value: 0 <= value <= 0.5, "in [0, 0.5]")
        if not isinstance(self.potential, bool):
            raise ValueError(f"`potential` must be True or False, got {self.potential!r}")
        if not isinstance(self.schedule, AbstractSchedule):
            raise ValueError(f"`schedule` must be a schedule such as EDM() or VP(), got {self.schedule!r}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dictionary that JSON can hold."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {"schedule": schedule_to_dict(self.schedule)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FitConfig":
        """The inverse of `to_dict`; settings that are not named keep their defaults.

        Raises ``ValueError`` for an unknown setting or a value that makes no sense.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"`values` must be a dictionary of settings, got {type(values).__name__}")
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"FitConfig has no settings {unknown}; it has {known}")
        values = dict(values)
        if "schedule" in values:
            values["schedule"] = schedule_from_dict(values["schedule"])
        return cls(**values)

    def differences(self, other: "FitConfig") -> list[str]:
        """The settings in which ``other`` differs, one line each: ``name: mine here, theirs there``."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{name}: {mine[name]} here, {theirs[name]} there" for name in mine if mine[name] != theirs[name]]

    def _check_integer(self, name: str, minimum: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"`{name}` must be an integer of at least {minimum}, got {value!r}")

    def _check_number(self, name: str, accept, expected: str) -> None:
        value = getattr(self, name)
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (good and accept(value)):
            raise ValueError(f"`{name}` must be a number that is {expected}, got {value!r}")
