"""The settings of a training run: a frozen dataclass that survives a round trip through JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._checks import check_counts, check_number
from .schedules import EDM, SCHEDULES, AbstractSchedule
from .settings import Kinds
from .training.ema import AbstractEMA, ConstantEMA, PowerEMA, WarmupEMA
from .training.noise_levels import AbstractNoiseLevels, LogitNormalTimes, LogNormalLevels, UniformTimes
from .training.weightings import (
    AbstractWeighting,
    EDMWeighting,
    LearnedWeighting,
    LikelihoodWeighting,
    MinSNRWeighting,
    SimpleWeighting,
)

# The settings that are objects, and what each can be.
KINDS = {
    kinds.name: kinds
    for kinds in (
        Kinds(
            "ema",
            AbstractEMA,
            "an average such as WarmupEMA() or PowerEMA()",
            (ConstantEMA, WarmupEMA, PowerEMA),
        ),
        Kinds("schedule", AbstractSchedule, "a schedule such as EDM() or VP()", tuple(SCHEDULES.values())),
        Kinds(
            "weighting",
            AbstractWeighting,
            "a weighting such as EDMWeighting()",
            (EDMWeighting, SimpleWeighting, LikelihoodWeighting, MinSNRWeighting, LearnedWeighting),
        ),
        Kinds(
            "levels",
            AbstractNoiseLevels,
            "None or noise levels such as UniformTimes()",
            (UniformTimes, LogNormalLevels, LogitNormalTimes),
            optional=True,
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What a compiled step of the training depends on, and nothing else; the fields are those of `FitConfig`.

    It is static under ``jit``: runs with equal values share one program. ``steps`` is here because the learning rate
    falls over the whole run.
    """

    steps: int
    batch_size: int
    accumulation: int
    learning_rate: float
    warmup_steps: int
    clip_norm: float
    ema: AbstractEMA
    schedule: AbstractSchedule
    weighting: AbstractWeighting
    levels: AbstractNoiseLevels | None
    reference_size: int
    second_order: float
    asymmetry: float
    condition_dropout: float

    @property
    def points_per_step(self) -> int:
        """Points that a step is trained on: ``batch_size * accumulation``."""
        return self.batch_size * self.accumulation


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """When a run looks up from its steps, and what it then leaves behind; the fields are those of `FitConfig`, and
    ``snapshots`` is that of its ``ema``."""

    steps: int
    chunk_steps: int
    checkpoint_every: int
    checkpoints_kept: int
    snapshots: int

    def chunk_after(self, step: int) -> int:
        """How many steps the chunk has that begins after ``step`` steps. Chunks end with multiples of ``chunk_steps``,
        also in a run that goes on from one that ended in between."""
        return min(self.chunk_steps - step % self.chunk_steps, self.steps - step)

    def checkpoint_due(self, step: int) -> bool:
        """Whether the chunk that ended with ``step`` calls for a checkpoint."""
        return step // self.checkpoint_every > self._before(step) // self.checkpoint_every

    def snapshot_due(self, step: int) -> bool:
        """Whether the chunk that ended with ``step`` calls for a snapshot of the averages."""
        return step * self.snapshots // self.steps > self._before(step) * self.snapshots // self.steps

    def _before(self, step: int) -> int:
        """The step with which the chunk began that ended with ``step``."""
        return (step - 1) // self.chunk_steps * self.chunk_steps


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How `fit` trains: the settings are described one by one below, and by `scoregeo train --help`."""

    steps: int = 4000
    """Number of optimiser steps."""
    batch_size: int = 512
    """Points drawn in each step, with replacement, so that there may be fewer."""
    accumulation: int = 1
    """Batches whose gradients are averaged in one step, one after the other: a batch so many times larger, in the
    memory of one."""
    learning_rate: float = 3e-3
    """Peak rate of Adam, after which it falls to zero along a cosine."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises linearly to its peak; at most half of all steps."""
    clip_norm: float = 1.0
    """Gradients of a larger norm are scaled down to it."""
    ema: AbstractEMA = WarmupEMA()
    """The running average of the weights, which is what the model keeps: `WarmupEMA`, `ConstantEMA` or `PowerEMA`."""
    seed: int = 0
    """What the initial weights, the batches and the noise are drawn from. The same seed gives the same weights bit for
    bit."""
    width: int = 64
    """Size of the hidden layers of the `MLP`; not used with another network."""
    depth: int = 4
    """Number of the hidden layers of the `MLP`; not used with another network."""
    potential: bool = True
    """Whether the `MLP` is wrapped in `Potential`, so that the score is a gradient field."""
    schedule: AbstractSchedule = EDM()
    """Which noise levels are trained on, and how samples get from noise to data: a schedule such as `EDM` or `VP`."""
    weighting: AbstractWeighting = EDMWeighting()
    """How much each noise level counts: `EDMWeighting`, `SimpleWeighting`, `LikelihoodWeighting`, `MinSNRWeighting` or
    `LearnedWeighting`."""
    levels: AbstractNoiseLevels | None = None
    """The distribution of the noise levels that are trained on: `UniformTimes`, `LogNormalLevels` or
    `LogitNormalTimes`; None for that of the schedule."""
    reference_size: int = 0
    """Number of training points over which the target is averaged (`Posterior`); 0 trains on the clean point itself. At
    least the points of a step, which are part of it; all training points if there are not more. It reduces the error
    several times in low dimension, and not at all where no other point is within the noise."""
    second_order: float = 0.0
    """Weight of the error of the Jacobian (`second_order_loss`), which needs a reference; 0 for none."""
    asymmetry: float = 0.0
    """Weight of `asymmetry_penalty`, for networks that are not gradient fields; without effect on those that are."""
    condition_dropout: float = 0.1
    """Probability with which a point's condition is not told, so that the same network learns the score without it (for
    guidance); in [0, 1), and with 0 there is no such score. Only with conditions."""
    holdout: float = 0.05
    """Fraction of the points kept out of training for the held-out loss, in [0, 0.5]."""
    chunk_steps: int = 200
    """Steps between two looks at the loss (one compiled loop), and the delay of an interrupt."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints, if they are kept."""
    checkpoints_kept: int = 2
    """How many of the last checkpoints are kept."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), np.generic):  # JSON wants Python's numbers
                object.__setattr__(self, field.name, value.item())
        check_counts(self, steps=1, batch_size=1, accumulation=1, width=1, depth=1, chunk_steps=1)
        check_counts(self, checkpoint_every=1, checkpoints_kept=1)
        check_counts(self, warmup_steps=0, seed=0, reference_size=0)
        for name in ("learning_rate", "clip_norm"):
            check_number(self, name, lambda value: value > 0, "positive")
        for name in ("second_order", "asymmetry"):
            check_number(self, name, lambda value: value >= 0, "not negative")
        check_number(self, "condition_dropout", lambda value: 0 <= value < 1, "in [0, 1)")
        check_number(self, "holdout", lambda value: 0 <= value <= 0.5, "in [0, 0.5]")
        if not isinstance(self.potential, bool):
            raise ValueError(f"`potential` must be True or False, got {self.potential!r}")
        for name, kinds in KINDS.items():
            kinds.check(getattr(self, name))
        chunks = -(-self.steps // self.chunk_steps)
        if self.ema.snapshots > chunks:
            raise ValueError(
                f"`ema` must take at most one snapshot for each of the {chunks} chunks of steps, got "
                f"{self.ema.snapshots}; try a smaller `chunk_steps`"
            )
        if 0 < self.reference_size < self.points_per_step:
            points = "`batch_size`" if self.accumulation == 1 else "`batch_size` times `accumulation`"
            raise ValueError(
                f"`reference_size` must be 0 or at least {points} = {self.points_per_step}, got {self.reference_size}"
            )
        if self.second_order > 0 and self.reference_size == 0:
            raise ValueError(f"`second_order` must be 0 without `reference_size`, got {self.second_order!r}")

    @property
    def points_per_step(self) -> int:
        """Points that a step is trained on: ``batch_size * accumulation``."""
        return self.step_config.points_per_step

    @property
    def step_config(self) -> StepConfig:
        """The part of the settings that a compiled step depends on."""
        return StepConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(StepConfig)})

    @property
    def run_config(self) -> RunConfig:
        """The part of the settings that says when the run writes, and how much."""
        return RunConfig(self.steps, self.chunk_steps, self.checkpoint_every, self.checkpoints_kept, self.ema.snapshots)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dictionary that JSON can hold."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {name: kinds.to_dict(values[name]) for name, kinds in KINDS.items()}

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
        objects = {name: kinds.from_dict(values[name]) for name, kinds in KINDS.items() if name in values}
        return cls(**dict(values) | objects)

    def differences(self, other: "FitConfig") -> list[str]:
        """The settings in which ``other`` differs, one line each: ``name: mine here, theirs there``."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{name}: {mine[name]} here, {theirs[name]} there" for name in mine if mine[name] != theirs[name]]
