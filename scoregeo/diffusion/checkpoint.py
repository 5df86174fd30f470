"""Checkpoints of a training run. The only file that knows orbax, whose interface is still moving.

What is saved is a flat dictionary of named arrays (weights, their average, the optimiser's moments, the step, the key)
and a JSON dictionary (settings, digest of the data, history). orbax writes each checkpoint beside its place and renames
it.
"""

import os
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .config import FitConfig
from .files import DamagedModelError, check_directory, flatten, unflatten
from .model import TrainingHistory

_KEPT = 2


class Checkpoints:
    """The checkpoints of one run in one directory; the last two are kept.

    **Arguments**

    - ``directory``: made on the first `save`.
    - ``config``: settings of the run; ``data``: digest of its data. A checkpoint of another run is refused.
    """

    def __init__(self, directory: str | os.PathLike, config: FitConfig, data: str):
        self._path = check_directory(directory, "checkpoint_dir")
        self._config = config
        self._data = data

    @property
    def last(self) -> str | None:
        """Directory of the last whole checkpoint, or ``None``."""
        steps = self._steps()
        return str(self._path / str(steps[-1])) if steps else None

    def save(self, state: dict[str, Any], history: TrainingHistory) -> None:
        """Write a checkpoint of a state, unless that step has one; returns when it is on disk."""
        import orbax.checkpoint as ocp

        step = int(state["step"])
        if step == 0 or step in self._steps():
            return
        arrays = {name: np.asarray(array) for name, array in flatten(state).items()}
        about = {"config": self._config.to_dict(), "data": self._data, "history": history.to_dict()}
        with self._manager() as manager:
            manager.save(
                step, args=ocp.args.Composite(state=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about))
            )

    def restore(self, state: dict[str, Any], history: TrainingHistory) -> tuple[dict[str, Any], TrainingHistory]:
        """State and history of the last whole checkpoint, or those given if there is none.

        Raises ``ValueError`` if it belongs to a run with other settings (saying which) or other data,
        `DamagedModelError` if there are checkpoints and none can be read. One that cannot be read while an older one
        can gives a warning.
        """
        unreadable = []
        for step in reversed(self._steps()):
            where = str(self._path / str(step))
            try:
                arrays, about = self._read(step)
                config, digest = FitConfig.from_dict(about["config"]), about["data"]
                saved_history = TrainingHistory.from_dict(about["history"])
            except Exception as error:  # whatever orbax meets in a damaged directory
                unreadable.append(f"{where} cannot be read ({type(error).__name__}: {str(error)[:200]})")
                continue
            if differences := self._config.differences(config):
                raise ValueError(
                    f"`checkpoint_dir` holds a run with other settings in {where}: {'; '.join(differences)}. "
                    "Give the same `config` to go on with that run, or another directory"
                )
            if digest != self._data:
                raise ValueError(f"`checkpoint_dir` holds a run with other data in {where}; give another directory")
            restored = jax.tree.map(jnp.asarray, unflatten(state, arrays, where))
            for line in unreadable:
                warnings.warn(f"{line}; going on from {where}", stacklevel=3)
            return restored, saved_history
        if unreadable:
            raise DamagedModelError(f"`checkpoint_dir` has no readable checkpoint: {'; '.join(unreadable)}")
        return state, history

    def _read(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        import orbax.checkpoint as ocp

        with self._manager() as manager:
            args = ocp.args.Composite(state=ocp.args.StandardRestore(), about=ocp.args.JsonRestore())
            restored = manager.restore(step, args=args)
        return restored.state, restored.about

    def _steps(self) -> list[int]:
        if not self._path.is_dir():  # asking orbax would make it
            return []
        with self._manager() as manager:
            return sorted(manager.all_steps())

    def _manager(self):
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT, enable_async_checkpointing=False, create=True)
        return ocp.CheckpointManager(self._path, options=options)
