"""Ctrl-C, at any moment: the process ends with status 130, at once or after the steps of training that are running.

An exception raised wherever the program happens to be gets lost in callbacks from native code and in modules that are
half imported, and threads that still compile crash the exit. So none is raised. A thread waits for the signal and ends
the process, also while native code keeps the main thread. Only training, once it has something to lose, ends between
two chunks of steps, with a checkpoint. This file imports nothing that takes time.
"""

import contextlib
import os
import pathlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

# What shells report for a process that SIGINT ended.
STATUS = 130
_SECONDS_TO_FLUSH = 0.5


class TrainingRun:
    """A run of training, whose checkpoints are in a folder; as a callback of `fit` it ends between two chunks of steps.

    Raises ``KeyboardInterrupt`` when it is called after an interrupt, which `fit` turns into a checkpoint.
    """

    def __init__(self, checkpoints: pathlib.Path, steps: int):
        self._checkpoints, self._steps = checkpoints, steps
        self._running, self._asked = False, False
        self._lock = threading.Lock()

    def __call__(self, history: Any) -> None:
        """Called after each chunk, and after a restart."""
        with self._lock:
            self._running = 0 < history.last_step < self._steps
            if self._asked:
                raise KeyboardInterrupt

    def ends_itself(self) -> bool:
        """Whether to leave the end to the run, which has steps to keep; the second time it has not."""
        with self._lock:
            first, self._asked = self._running and not self._asked, True
            return first

    def kept(self) -> str:
        """What there is to go on from."""
        with contextlib.suppress(OSError):
            steps = [int(path.name) for path in self._checkpoints.iterdir() if path.name.isdecimal()]
            if steps:
                last = self._checkpoints / str(max(steps))
                return f"; the last checkpoint is in {last} (the same command goes on from there)"
        return "; nothing was kept (there is no checkpoint yet)"


# The run that is under way, if any.
_run: TrainingRun | None = None


@contextlib.contextmanager
def training(checkpoints: pathlib.Path, steps: int) -> Iterator[TrainingRun]:
    """While entered, interrupts name the last checkpoint in the folder; gives the callback for `fit`."""
    global _run
    _run = TrainingRun(checkpoints, steps)
    try:
        yield _run
    finally:
        _run = None


def install() -> bool:
    """From now on, Ctrl-C ends this process as described above. Returns whether it does: a process that is deaf to
    interrupts, as one started in the background, stays so."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    # Python writes the number of a signal there at once, whatever the main thread does; `detach` keeps it open.
    signal.set_wakeup_fd(writes.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reads,), daemon=True, name="interrupts").start()
    signal.signal(signal.SIGINT, lambda *_: None)
    return True


def leave(message: str) -> None:
    """End this process now with status 130 and a line on standard error, and nothing that exits usually do."""
    # In a thread, because somebody may hold the lock of a pipe that nobody reads.
    flush = threading.Thread(target=_flush, daemon=True)
    flush.start()
    flush.join(_SECONDS_TO_FLUSH)
    _say(message)
    os._exit(STATUS)


def _wait(reads: socket.socket) -> None:
    while number := reads.recv(1):
        if number[0] != signal.SIGINT:
            continue
        run = _run
        if run is None:
            leave("interrupted")
        elif run.ends_itself():
            _say("interrupted: the run ends after this chunk of steps, and at once with another Ctrl-C")
        else:
            leave(f"interrupted{run.kept()}")


def _say(message: str) -> None:
    # A progress bar on a terminal has hidden the cursor.
    start = "\x1b[?25h\n" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{start}scoregeo: {message}\n".encode())


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
