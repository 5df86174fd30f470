"""A progress bar of solved pairs, or of what else is counted, with their rate and the time that is left; and what JAX
compiles meanwhile, because nothing is counted then."""

import contextlib
import time
from collections.abc import Callable, Iterator

from .._display import live_console

# Batches may take minutes each: the rate is that of the last half hour.
_SECONDS = 1800
# What JAX tells of a program: that it was traced, that it is about to be compiled, that it was compiled; and before the
# last of these, that it was not compiled but read, because it had been kept.
_TRACED, _LOWERED = "/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILED, _READ = "/jax/core/compile/backend_compile_duration", "/jax/compilation_cache/cache_hits"
# A program takes so many seconds to compile, or it is arithmetic on the way.
_LARGE = 0.3


class Compilation:
    """What JAX compiles while this is entered; `tell` is called with whether it does when that changes."""

    def __init__(self, tell: Callable[[bool], None] = lambda compiles: None):
        self._tell = tell
        self._spans: list[tuple[float, float]] = []
        self._reads = False
        # How many large programs were compiled, and how many were read because they had been kept.
        self.compiled = self.read = 0

    @property
    def seconds(self) -> float:
        """For how long JAX traced and compiled. It traces one function within another: their times overlap."""
        total, until = 0.0, 0.0
        for begin, end in sorted(self._spans):
            total, until = total + max(0.0, end - max(begin, until)), max(until, end)
        return total

    def __enter__(self) -> "Compilation":
        from jax import monitoring

        monitoring.register_event_duration_secs_listener(self._took)
        monitoring.register_event_listener(self._happened)
        return self

    def __exit__(self, *_) -> None:
        from jax import monitoring

        monitoring.unregister_event_duration_listener(self._took)
        monitoring.unregister_event_listener(self._happened)

    def _happened(self, event: str, **kwargs: str | int) -> None:
        self._reads |= event == _READ

    def _took(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event not in (_TRACED, _LOWERED, _COMPILED):
            return
        if event != _COMPILED or not self._reads:
            now = time.monotonic()
            self._spans.append((now - duration_secs, now))
        if event == _COMPILED:
            self.read += self._reads
            self.compiled += not self._reads and duration_secs >= _LARGE
            self._reads = False
        if event != _TRACED:
            self._tell(event == _LOWERED)


@contextlib.contextmanager
def progress_bar(
    total: int, done: int = 0, *, shown: bool = True, name: str = "distances", unit: str = "pairs", about: str = ""
) -> Iterator[Callable[[int], None]]:
    """While entered, a bar on standard error; gives a function to call with the number of pairs that were solved since.

    ``done`` of ``total`` pairs were solved before, and do not count in the rate. Shows nothing unless ``shown``. The
    ``name`` says what is computed, and the ``unit`` what is counted. While JAX compiles the bar says so, with what is
    known ``about`` it.
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

    columns: list[progress.ProgressColumn] = [progress.TextColumn("{task.description}"), progress.BarColumn()]
    columns += [progress.TaskProgressColumn(), progress.MofNCompleteColumn(), Rate(), progress.TimeRemainingColumn()]
    console = live_console() or Console(stderr=True, force_jupyter=False)
    with progress.Progress(*columns, console=console, speed_estimate_period=_SECONDS) as bar:
        task = bar.add_task(name, total=total, completed=done)

        def tell(compiles: bool) -> None:
            bar.update(task, description=f"{name}: compiling{about}" if compiles else name)

        with Compilation(tell):
            yield lambda pairs: bar.update(task, advance=pairs)
