"""What `fit` calls after every chunk of steps: a function of the `TrainingHistory` so far.

A callback that returns ``True`` (of Python or NumPy; nothing else counts, so that a number is no accident) ends the
training; the model is then that of the steps done. A checkpoint that is due is written before the callbacks are called.
A run that goes on from a checkpoint has its whole history, so callbacks need no memory of their own. Where several
processes train together, the callbacks of each are called, and one that stops ends the training in all.
"""

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np

from ..._atomic import replacing
from ..._checks import check_counts
from ..history import TrainingHistory


@dataclasses.dataclass(frozen=True)
class EarlyStop:
    """End the training once the held-out loss has not improved for ``patience`` chunks.

    The model keeps the averaged weights of the last step, not of the best one: the average changes slowly. Without
    held-out points (``FitConfig(holdout=0)``) it never stops.

    >>> import numpy as np
    >>> from scoregeo.diffusion import EarlyStop, TrainingHistory
    >>> history = TrainingHistory(np.arange(4), np.zeros(4), np.array([0.9, 0.7, 0.8, 0.75]))
    >>> EarlyStop(patience=2)(history), EarlyStop(patience=3)(history)
    (True, False)
    """

    patience: int

    def __post_init__(self):
        check_counts(self, patience=1)

    def __call__(self, history: TrainingHistory) -> bool:
        """Whether to stop."""
        losses = history.held_out_loss
        if np.isnan(losses).any() or losses.size == 0:
            return False
        return bool(losses.size - 1 - int(np.argmin(losses)) >= self.patience)


@dataclasses.dataclass(frozen=True)
class JSONLines:
    """Keep the losses in a file, one JSON object a line: ``step``, ``train_loss``, ``held_out_loss`` (null for none),
    ``sigmas`` and ``held_out_losses`` at these noise levels.

    A line is appended after every chunk. A file that does not end with the entry before is written anew: that of
    another run, one that is longer than the history of a run that goes on from a checkpoint, or one whose last line was
    cut off. So no file holds steps twice. Among several processes (`jax.distributed`) the one with index 0 writes
    it, also if each trains on its own.

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from scoregeo.diffusion import JSONLines, TrainingHistory
    >>> history = TrainingHistory(np.array([10, 20]), np.array([0.9, 0.5]), np.array([0.8, 0.6]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     JSONLines(f"{folder}/losses.jsonl")(history)
    ...     len(pathlib.Path(f"{folder}/losses.jsonl").read_text().splitlines())
    2
    """

    path: str | os.PathLike

    def __call__(self, history: TrainingHistory) -> None:
        """Bring the file up to date."""
        if jax.process_index() > 0:
            return
        path = pathlib.Path(self.path)
        lines = _lines(history)
        if len(lines) > 1 and _ends_with(path, lines[-2]):
            with path.open("ab") as file:
                file.write(lines[-1])
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(b"".join(lines))


def _lines(history: TrainingHistory) -> list[bytes]:
    """The lines of a file, one for each entry."""
    columns = history.to_dict()
    sigmas = columns.pop("sigmas")
    rows = zip(*columns.values(), strict=True)
    names = ("step", "train_loss", "held_out_loss", "held_out_losses")
    entries = [dict(zip(names, row, strict=True)) | {"sigmas": sigmas} for row in rows]
    return [(json.dumps(entry) + "\n").encode() for entry in entries]


def _ends_with(path: pathlib.Path, line: bytes) -> bool:
    if not path.is_file() or path.stat().st_size < len(line):
        return False
    with path.open("rb") as file:
        file.seek(-len(line), os.SEEK_END)
        return file.read() == line
