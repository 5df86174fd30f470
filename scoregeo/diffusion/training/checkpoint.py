"""Checkpoints of a training run. The only file that knows orbax, whose interface is still moving.

What is saved is a flat dictionary of named arrays (weights, their averages, the optimiser's moments, the step, the
key) and a JSON dictionary (settings, digest of the data, network, history). orbax writes each checkpoint beside its
place, in a thread of its own, and renames it: a directory whose name is a number is whole.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import operator
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ..._atomic import make_writable
from ..._checks import warn
from ..config import FitConfig
from ..files import DamagedModelError, check_directory, flatten, unflatten
from ..history import TrainingHistory
from ..networks import Network
from ..networks.registry import describe_network
from .posthoc import remove_snapshots, write_snapshot
from .state import TrainState

_UNFINISHED = ".orbax-checkpoint-tmp"  # how orbax marks a directory it is writing


class Checkpoints:
    """The checkpoints of one run in one directory; the last ``config.checkpoints_kept`` are kept.

    **Arguments**

    - ``directory``: made if needed. Raises ``OSError`` if it cannot be written to.
    - ``config``: settings of the run; ``data``: digest of its data; ``network``: what `identify_network` gives. A
      checkpoint of another run is refused; one of fewer ``steps`` is no other run.
    - ``writes``: false for a process that reads what another one writes.

    **Fields**

    - ``failed``: whether something could not be written.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        config: FitConfig,
        data: str,
        network: dict[str, Any],
        *,
        writes: bool = True,
    ):
        self._path = check_directory(directory, "checkpoint_dir")
        self._config, self._data, self._network, self._writes = config, data, network, writes
        # Settings that cannot be written raise here, before the training.
        self._about = {"config": config.to_dict(), "data": data, "network": network}
        self._open_manager = None
        self.failed = False
        if writes:
            make_writable(self._path, "checkpoint_dir")

    @property
    def last(self) -> str | None:
        """Directory of the last whole checkpoint, or ``None``."""
        with contextlib.suppress(OSError):
            self.wait()
        steps = self._steps()
        return str(self._path / str(steps[-1])) if steps else None

    def save(self, state: TrainState, history: TrainingHistory) -> None:
        """Begin to write a checkpoint of a state, unless that step has one; it may be deleted or changed afterwards.

        Raises ``OSError`` if this one cannot be begun, or the one before could not be written.
        """
        import orbax.checkpoint as ocp

        self.wait()
        step = int(state.step)
        if not self._writes or step == 0 or step in self._steps():
            return
        # The arrays are copied, because the next step overwrites them.
        arrays = {name: np.array(array) for name, array in flatten(state.to_dict()).items()}
        about = self._about | {"history": history.to_dict()}
        args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about))
        with self._clear_errors():
            if not self._manager().save(step, args=args):
                raise RuntimeError(f"orbax declined to save step {step}")

    def snapshot(self, state: TrainState) -> None:
        """Put the averages of a state beside the checkpoints, see `posthoc`. Raises ``OSError`` if that fails."""
        if self._writes:
            with self._clear_errors():
                write_snapshot(self._path, state)

    def wait(self) -> None:
        """Return when the last `save` is on disk. Raises ``OSError`` if it could not be written."""
        if self._open_manager is not None:
            with self._clear_errors():
                self._open_manager.wait_until_finished()

    def close(self) -> None:
        """Wait as `wait` does, and end the thread that writes."""
        manager, self._open_manager = self._open_manager, None
        if manager is not None:
            with self._clear_errors():
                manager.close()
            logging.getLogger("absl").removeFilter(_without_orbax)  # not after an error: threads may still be going

    def restore(self, state: TrainState, history: TrainingHistory) -> tuple[TrainState, TrainingHistory]:
        """State and history of the last whole checkpoint, or those given if there is none.

        Raises ``ValueError`` if it belongs to a run with other settings or another network (naming what differs) or
        other data, `DamagedModelError` if there are checkpoints and none can be read. One that cannot be read while an
        older one can gives a warning.
        """
        unreadable = []
        for step in reversed(self._steps()):
            where = str(self._path / str(step))
            try:
                arrays, about = self._read(step)
                config, digest, network = FitConfig.from_dict(about["config"]), about["data"], about["network"]
                saved_history = TrainingHistory.from_dict(about["history"])
            except Exception as error:  # whatever orbax meets in a damaged directory
                unreadable.append(f"{where} cannot be read ({type(error).__name__}: {str(error)[:200]})")
                continue
            # Two runs that differ only in how often they are saved are the same run, and a longer one goes on with it.
            longer = ("steps",) if self._config.steps > config.steps else ()
            same = {name: getattr(config, name) for name in ("checkpoint_every", "checkpoints_kept", *longer)}
            if differences := dataclasses.replace(self._config, **same).differences(config):
                raise ValueError(
                    f"`checkpoint_dir` holds a run with other settings in {where}: {'; '.join(differences)}. "
                    "Give the same `config` to go on with that run, or another directory"
                )
            if digest != self._data:
                raise ValueError(
                    f"`checkpoint_dir` holds a run with other data in {where} (other points, another type, or other "
                    "`conditions`); give another directory"
                )
            if differences := _differences(self._network, network):
                raise ValueError(
                    f"`checkpoint_dir` holds a run with another network in {where}: {'; '.join(differences)}. Give "
                    "the same `network` to go on with that run, or another directory"
                )
            restored = jax.tree.map(jnp.array, unflatten(state.to_dict(), arrays, where))
            for line in unreadable:
                warn(f"{line}; going on from {where}")
            self._put_aside([number for number in self._steps() if number > step])
            return TrainState.from_dict(restored), saved_history
        if unreadable:
            raise DamagedModelError(f"`checkpoint_dir` has no readable checkpoint: {'; '.join(unreadable)}")
        if self._writes and self._config.ema.snapshots:
            remove_snapshots(self._path)  # of a run that left no checkpoint
        return state, history

    def _put_aside(self, damaged: list[int]) -> None:
        """Make room for new checkpoints of the steps whose checkpoints cannot be read."""
        if damaged and self._writes:
            self.close()  # orbax remembers what it has found
            for step in damaged:
                target = self._path / f"{step}.damaged"
                shutil.rmtree(target, ignore_errors=True)
                (self._path / str(step)).rename(target)

    def _read(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(state=ocp.args.StandardRestore(), about=ocp.args.JsonRestore())
        restored = cast(Any, self._manager().restore(step, args=args))  # a Composite, as the arguments are
        return restored.state, restored.about

    def _steps(self) -> list[int]:
        if not self._path.is_dir():
            return []
        return sorted(int(path.name) for path in self._path.iterdir() if path.name.isdecimal() and path.is_dir())

    def _manager(self):
        """orbax's manager, of this process alone: it must not wait for others, which do not write."""
        import orbax.checkpoint as ocp

        if self._open_manager is None:
            # orbax logs several tracebacks for every error, which is raised here too.
            logging.getLogger("absl").addFilter(_without_orbax)
            if self._writes:
                self._remove_unfinished()
            process = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process{process}"
            )
            self._open_manager = ocp.CheckpointManager(
                self._path,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=self._config.checkpoints_kept,
                    multiprocessing_options=alone,
                    create=False,
                ),
            )
        return self._open_manager

    def _remove_unfinished(self) -> None:
        """Delete what a save that was killed or failed left behind.

        Not left to orbax, which gives up if a file vanishes meanwhile: after a failed save in this process, its threads
        may still be going. Renamed first, so that they find nothing where the next save writes.
        """
        for path in list(self._path.glob(f"*{_UNFINISHED}*")):
            aside = path.with_name(f"{path.name.partition(_UNFINISHED)[0]}{_UNFINISHED}.{uuid.uuid4().hex}")
            with contextlib.suppress(OSError):
                shutil.rmtree(path.rename(aside), ignore_errors=True)  # what is left is found again next time

    @contextlib.contextmanager
    def _clear_errors(self):
        """Whatever goes wrong while writing, as an ``OSError`` that says where, why, and what is left."""
        try:
            yield
        except Exception as error:
            self.failed = True
            whole = self._steps()
            kept = f"the last whole one is {self._path / str(whole[-1])}" if whole else "there is none before it"
            raise OSError(
                f"a checkpoint could not be written to `checkpoint_dir` {self._path} ({_reason(error)}); {kept}. "
                "When there is room for more, the same call to `fit` goes on from there"
            ) from error


def identify_network(network: Network, constants: dict[str, Any], teacher: Any = None) -> dict[str, Any]:
    """What tells a network from others whose weights have the same names and shapes: its description (for one of the
    user's own, the name of its class) and the SHA-256 of its variables that are not trained; and what it is taught by,
    likewise. As JSON gives it back."""
    described = describe_network(network) or {"kind": type(network).__name__}
    described = described | {"constants": _digest(flatten(constants).items())}
    if teacher is not None:
        named = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(teacher)]
        described = described | {"teacher": f"{type(teacher.model).__name__} {_digest(named)}"}
    return json.loads(json.dumps(described))


def _digest(arrays: Iterable[tuple[str, Any]]) -> str:
    digest = hashlib.sha256()
    for name, leaf in sorted(arrays, key=operator.itemgetter(0)):
        array = np.array(leaf, order="C")
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _differences(here: Any, there: Any, name: str = "") -> list[str]:
    """Where two descriptions differ, one line each."""
    if not (isinstance(here, dict) and isinstance(there, dict)):
        return [] if here == there else [f"{name}: {here} here, {there} there"]
    names = here | there
    return [line for name in names for line in _differences(here.get(name), there.get(name), name)]


def _reason(error: Exception) -> str:
    """What the system said, in few words; tensorstore puts its number at the end of a long line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if number := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(number[1]))
    return f"{type(error).__name__}: {str(error)[:300]}"


def _without_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
