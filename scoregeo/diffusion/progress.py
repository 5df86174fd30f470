"""Reporting how training goes: a bar on a terminal, a line every few seconds elsewhere, on standard error."""

import math
import sys
import time

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """A context manager whose `update` shows step, loss and held-out loss; silent if not ``enabled``."""

    def __init__(self, steps: int, *, enabled: bool = True):
        self._steps = steps
        self._enabled = enabled
        self._bar = None
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = [TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[losses]}")]
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task("training", total=self._steps, losses="compiling")
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float, held_out_loss: float) -> None:
        """Report that ``step`` steps are done; ``held_out_loss`` may be NaN where nothing is held out."""
        losses = f"loss {loss:.4f}" + ("" if math.isnan(held_out_loss) else f", held out {held_out_loss:.4f}")
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=step, losses=losses)
        elif self._enabled and (now - self._shown >= _SECONDS_BETWEEN_LINES or step >= self._steps):
            self._shown = now
            print(f"step {step}/{self._steps}: {losses} ({now - self._started:.0f} s)", file=sys.stderr, flush=True)
