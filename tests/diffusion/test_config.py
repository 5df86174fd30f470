"""Settings of a training run: their two parts, and the table of those that are objects."""

import dataclasses
import re

import pytest

from scoregeo.diffusion import EDMWeighting, FitConfig, PowerEMA, WarmupEMA
from scoregeo.diffusion.config import KINDS, RunConfig, StepConfig


def names(kind):
    return {field.name for field in dataclasses.fields(kind)}


def test_every_setting_reaches_the_steps_the_run_or_what_is_made_before():
    """A new setting has to be put into one of them; what is made before the first step needs none."""
    before = {"seed", "width", "depth", "potential", "holdout"}
    assert names(FitConfig) == names(StepConfig) | (names(RunConfig) - {"snapshots"}) | before


@pytest.mark.parametrize("change", [{"seed": 1}, {"width": 8}, {"chunk_steps": 7}, {"checkpoint_every": 9}])
def test_steps_do_not_depend_on_the_rest(change):
    other = dataclasses.replace(FitConfig(), **change)
    assert other != FitConfig()
    assert other.step_config == FitConfig().step_config
    assert hash(other.step_config) == hash(FitConfig().step_config)


@pytest.mark.parametrize("change", [{"steps": 10}, {"learning_rate": 1e-3}, {"ema": PowerEMA()}])
def test_steps_depend_on_these(change):
    assert dataclasses.replace(FitConfig(), **change).step_config != FitConfig().step_config


def test_when_a_run_writes():
    """Chunks end at 20, 40, ..., 100; checkpoints are due every 30 steps, snapshots four times in the run."""
    run = FitConfig(steps=100, chunk_steps=20, checkpoint_every=30, ema=PowerEMA(snapshots=4)).run_config
    assert [step for step in range(20, 101, 20) if run.checkpoint_due(step)] == [40, 60, 100]
    assert [step for step in range(20, 101, 20) if run.snapshot_due(step)] == [40, 60, 80, 100]
    assert not any(FitConfig(ema=WarmupEMA()).run_config.snapshot_due(step) for step in range(200, 4001, 200))


def test_kinds():
    """Names, defaults and messages of the settings that are objects."""
    defaults = FitConfig()
    for name, kinds in KINDS.items():
        value = getattr(defaults, name)
        assert kinds.from_dict(kinds.to_dict(value)) == value
        for kind in kinds.known:
            assert kinds.from_dict({"kind": kind.__name__}) == kind()
        with pytest.raises(ValueError, match=re.escape(f"`{name}` must be {kinds.wanted}, got 3")):
            FitConfig(**{name: 3})
    with pytest.raises(ValueError, match=r"`ema` must be an average such as .*, got None"):
        FitConfig(ema=None)
    with pytest.raises(ValueError, match=r"`ema` must be a dictionary whose `kind` is one of ConstantEMA, WarmupEMA"):
        FitConfig.from_dict({"ema": {"kind": EDMWeighting.__name__}})
