"""What a search found: the best settings, and every trial as a row of a table."""

import dataclasses
from typing import Any

import numpy as np

from ...diffusion.evaluation.base import AbstractReport


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial of a search.

    **Fields**

    - ``number``: in the order of the search, from 0.
    - ``state``: ``"complete"``; ``"pruned"``, ended early because it was worse than the others so far; or ``"failed"``,
      interrupted or ended by an error, and not counted.
    - ``settings``: what was tried, by name.
    - ``value``: the objective, smaller is better; of a pruned trial where it ended, and NaN if there is none.
    - ``seen``: pairs that were solved, or steps that were trained, until then.
    - ``facts``: what else is known of it, by name: its seconds; the share of pairs whose solve ``converged``; a
      ``warning`` or an ``error`` of the metric; whether the training ``diverged``.
    """

    number: int
    state: str
    settings: dict[str, Any]
    value: float
    seen: int
    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SearchReport(AbstractReport):
    """What every search returns; it prints as a table of its trials.

    **Fields**

    - ``objective``: what was made small, in words.
    - ``settings``, ``value``: the best of the trials that were completed.
    - ``trials``: all of them, of earlier calls too, as `TrialRecord`.
    """

    objective: str
    settings: dict[str, Any]
    value: float
    trials: tuple[TrialRecord, ...]

    def to_dict(self) -> dict[str, Any]:
        """Numbers, texts and lists of them, for JSON; a value that is missing becomes ``None``."""
        trials = [dataclasses.asdict(trial) for trial in self.trials]
        for trial in trials:
            trial["value"] = None if np.isnan(trial["value"]) else trial["value"]
        return {"objective": self.objective, "settings": self.settings, "value": self.value, "trials": trials}

    def _title(self) -> str:
        return self.objective

    def _caption(self) -> str:
        counted = sum(trial.state != "failed" for trial in self.trials)
        pruned = sum(trial.state == "pruned" for trial in self.trials)
        return f"best of {counted} trials, {pruned} of them ended early: {show(self.settings)}"

    def _line(self) -> tuple[str, Any, Any]:
        values = np.array([trial.value for trial in self.trials], float)
        return "objective over trials", np.arange(len(values)), values

    def _columns(self) -> tuple[str, ...]:
        return ("trial", *self.settings, "objective", "seen", "state")

    def _rows(self) -> list[list[str]]:
        return [
            [
                str(trial.number),
                *(show_value(trial.settings.get(name)) for name in self.settings),
                show_value(trial.value),
                str(trial.seen),
                "best" if trial.state == "complete" and trial.settings == self.settings else trial.state,
            ]
            for trial in self.trials
        ]


def show_value(value: Any) -> str:
    """A number in four digits; integers and all else as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show(settings: dict[str, Any]) -> str:
    """Settings on one line: ``noise_level 0.12, ratio 3400``."""
    return ", ".join(f"{name} {show_value(value)}" for name, value in settings.items())
