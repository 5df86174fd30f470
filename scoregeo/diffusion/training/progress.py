"""Reporting how training goes: a bar on a terminal or in a notebook, elsewhere lines on standard error."""

import math
import sys
import time

from ..._display import live_bar
from ..history import TrainingHistory

_SECONDS_BETWEEN_LINES = 5.0
_WIDE = 120  # columns of a terminal that has room for the losses of single noise levels


class Progress:
    """A context manager whose `update` shows step, loss and held-out losses; silent if not ``enabled``."""

    def __init__(self, steps: int, *, enabled: bool = True):
        self._steps = steps
        self._enabled = enabled
        self._bar = None
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._enabled and (begun := live_bar("training", self._steps, "compiling")) is not None:
            self._bar, self._task = begun
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, history: TrainingHistory) -> None:
        """Report the last entry of ``history``."""
        step, losses = history.last_step, _losses(history, levels=self._bar is None or self._bar.console.width >= _WIDE)
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=step, told=losses)
        elif self._enabled and (now - self._shown >= _SECONDS_BETWEEN_LINES or step >= self._steps):
            self._shown = now
            print(f"step {step}/{self._steps}: {losses} ({now - self._started:.0f} s)", file=sys.stderr, flush=True)


def _losses(history: TrainingHistory, *, levels: bool) -> str:
    """The last losses; the held-out loss also at the smallest, a middle and the largest noise level."""
    text = f"loss {history.train_loss[-1]:.4f}"
    if math.isnan(history.held_out_loss[-1]):
        return text
    text += f", held out {history.held_out_loss[-1]:.4f}"
    if not levels:
        return text
    pairs = list(zip(history.sigmas, history.held_out_losses[-1], strict=True))
    shown = pairs[0], pairs[len(pairs) // 2], pairs[-1]
    return f"{text} (sigma {', '.join(f'{sigma:.2g}: {loss:.3f}' for sigma, loss in shown)})"
