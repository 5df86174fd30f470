"""Data-parallel training: the points of a batch are divided among the devices of a mesh, everything else is on all.

With a mesh of ``None`` all functions leave what they are given as it is. In the compiled steps, the gradient of a
divided batch becomes a sum over the devices by itself.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..config import FitConfig


def check_mesh(mesh: Any, config: FitConfig) -> None:
    """Raise ``ValueError`` unless ``mesh`` is ``None`` or can train with ``config``."""
    if mesh is None:
        return
    good = isinstance(mesh, Mesh) and len(mesh.axis_names) == 1 and mesh.axis_types == (AxisType.Auto,)
    if not good:
        raise ValueError(
            '`mesh` must be a jax.sharding.Mesh with one axis of type Auto, as of jax.make_mesh((n,), ("data",), '
            f"axis_types=(AxisType.Auto,)), got {mesh!r}"
        )
    if not (_processes(mesh) == {jax.process_index()} or len(_processes(mesh)) == jax.process_count()):
        raise ValueError(
            f"`mesh` must have devices of this process only, or of all {jax.process_count()}, got those of processes "
            f"{sorted(_processes(mesh))}"
        )
    if config.batch_size % mesh.size:
        raise ValueError(
            f"`batch_size` must be a multiple of the {mesh.size} devices of `mesh`, got {config.batch_size}"
        )


def has_several_processes(mesh: Mesh | None) -> bool:
    """Whether other processes train along."""
    return mesh is not None and len(_processes(mesh)) > 1


def is_writer(mesh: Mesh | None) -> bool:
    """Whether this process writes files. Among processes that train together, the one with index 0 does."""
    return not has_several_processes(mesh) or jax.process_index() == 0


def replicated(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays that every process has, as arrays on every device of ``mesh``."""
    return tree if mesh is None else jax.tree.map(lambda leaf: _put(np.asarray(leaf), mesh, PartitionSpec()), tree)


def divided(batches: Any, mesh: Mesh | None) -> Any:
    """Batches ``(steps, n, ...)`` that every process has, with the points divided among the devices of ``mesh``."""
    return batches if mesh is None else jax.tree.map(lambda leaf: _put(leaf, mesh, _spec(mesh, 1)), batches)


def keep_replicated(tree: Any, mesh: Mesh | None) -> Any:
    """Inside ``jit``: ``tree`` on every device."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def keep_divided(tree: Any, mesh: Mesh | None, axis: int = 0) -> Any:
    """Inside ``jit``: every leaf of ``tree`` with ``axis`` divided among the devices."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, _spec(mesh, axis)))


def local(tree: Any, mesh: Mesh | None) -> Any:
    """Replicated arrays as arrays of this process alone."""
    return tree if mesh is None else jax.tree.map(lambda leaf: jax.numpy.asarray(np.asarray(leaf)), tree)


def check_agreement(value: int, mesh: Mesh | None, message: str) -> None:
    """Wait for all processes of ``mesh``, and raise ``ValueError`` with ``message`` unless they have the same ``value``
    (of less than 31 bits)."""
    values = _gathered(value, mesh)
    if (values != values[0]).any():
        raise ValueError(f"{message}, got {values.tolist()}")


def in_any_process(value: bool, mesh: Mesh | None) -> bool:
    """Whether ``value`` is true in any process of ``mesh``; all of them must ask."""
    return bool(_gathered(value, mesh).any())


def _gathered(value: Any, mesh: Mesh | None) -> np.ndarray:
    """The values that the processes of ``mesh`` have, ``(processes,)``."""
    if not has_several_processes(mesh):
        return np.asarray(value).reshape(1)
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(np.asarray(value))).reshape(-1)


def _processes(mesh: Mesh) -> set[int]:
    return {device.process_index for device in mesh.devices.flat}


def _put(array: Any, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    # Each device asks for its own part, which also works for devices of other processes.
    return jax.make_array_from_callback(np.shape(array), NamedSharding(mesh, spec), lambda part: array[part])


def _spec(mesh: Mesh, axis: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, *mesh.axis_names)
