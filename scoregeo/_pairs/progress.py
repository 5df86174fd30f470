"""A progress bar of solved pairs, or of what else is counted, with their rate and the time that is left."""

import contextlib
from collections.abc import Callable, Iterator

from .._display import live_console

# Batches may take minutes each: the rate is that of the last half hour.
_SECONDS = 1800


@contextlib.contextmanager
def progress_bar(
    total: int, done: int = 0, *, shown: bool = True, name: str = "distances", unit: str = "pairs"
) -> Iterator[Callable[[int], None]]:
    """While entered, a bar on standard error; gives a function to call with the number of pairs that were solved since.

    ``done`` of ``total`` pairs were solved before, and do not count in the rate. Shows nothing unless ``shown``. The
    ``name`` says what is computed, and the ``unit`` what is counted.
    """
    if not shown:
        yield lambda pairs: None
        return
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        def render(self, task):
            speed = task.finished_speed or task.speed
            if speed is None and task.completed > done and task.elapsed:
                speed = (task.completed - done) / task.elapsed
            return Text("" if speed is None else f"{speed:.3g} {unit}/s")

    columns: list[progress.ProgressColumn] = [progress.TextColumn(name), progress.BarColumn()]
    columns += [progress.TaskProgressColumn(), progress.MofNCompleteColumn(), Rate(), progress.TimeRemainingColumn()]
    console = live_console() or Console(stderr=True, force_jupyter=False)
    with progress.Progress(*columns, console=console, speed_estimate_period=_SECONDS) as bar:
        task = bar.add_task(name, total=total, completed=done)
        yield lambda pairs: bar.update(task, advance=pairs)
