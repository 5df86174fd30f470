"""Model files: ``config.json`` and ``model.safetensors``, written so that what is on disk is whole or absent.

Weights are flat, named arrays (``net.layers.0.kernel``). Both files are written under temporary names and renamed, the
weights first; ``config.json`` holds their SHA-256, so a mixture of two saves or a damaged byte is noticed on reading.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from .._atomic import temporary_name

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class DamagedModelError(ValueError):
    """A model directory or checkpoint is incomplete, garbled, or not what the settings say; the message says where."""


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by dotted names: ``{"net": {"head": {"bias": b}}}`` has ``net.head.bias``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def unflatten(template: Any, arrays: Mapping[str, Any], where: str) -> Any:
    """The pytree of the structure of ``template`` with leaves from ``arrays`` by name.

    Raises `DamagedModelError` (naming ``where``) if a name is missing or left over, or a shape or dtype differs.
    """
    wanted = flatten(template)
    missing, left_over = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or left_over:
        raise DamagedModelError(
            f"{where}: the names of the arrays are wrong; missing {missing}, unexpected {left_over}"
        )
    for name, leaf in wanted.items():
        got = arrays[name]
        if (got.shape, got.dtype) != (leaf.shape, leaf.dtype):
            raise DamagedModelError(
                f"{where}: array {name!r} must have shape {leaf.shape} and dtype {leaf.dtype}, "
                f"got {got.shape} and {got.dtype}"
            )
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in wanted])


def check_directory(directory: str | os.PathLike, name: str) -> pathlib.Path:
    """The absolute path of a directory that exists, or could be made, and can be written to; nothing is created.

    Raises ``NotADirectoryError`` or ``PermissionError`` naming the argument ``name``.
    """
    path = pathlib.Path(directory).absolute()
    # The nearest ancestor that exists decides. (`exists` is false below a file.)
    ancestor = next(parent for parent in (path, *path.parents) if parent.exists())
    if not ancestor.is_dir():
        raise NotADirectoryError(f"`{name}` must be a directory that can be written to, but {ancestor} is a file")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise PermissionError(f"`{name}` must be a directory that can be written to, but {ancestor} is read-only")
    return path


def write_model(directory: str | os.PathLike, config: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write a model directory (made if needed); an older model in it is replaced. See the module's docstring."""
    from safetensors.numpy import save

    path = check_directory(directory, "directory")
    weights = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    config = dict(config) | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    path.mkdir(parents=True, exist_ok=True)
    with (
        _temporary(path / WEIGHTS_FILE, weights) as new_weights,
        _temporary(path / CONFIG_FILE, text.encode()) as new_config,
    ):
        os.replace(new_weights, path / WEIGHTS_FILE)
        os.replace(new_config, path / CONFIG_FILE)


def read_config(directory: str | os.PathLike) -> dict[str, Any]:
    """The dictionary in ``config.json``.

    Raises ``FileNotFoundError`` if there is no such directory, `DamagedModelError` if the file is missing or garbled.
    """
    path = pathlib.Path(directory).absolute()
    if not path.is_dir():
        raise FileNotFoundError(
            f"`directory` must be a model directory written by `DiffusionModel.save`, but {path} does not exist"
        )
    try:
        config = json.loads((path / CONFIG_FILE).read_bytes())
    except FileNotFoundError:
        raise DamagedModelError(f"{path} is not a whole model directory: {CONFIG_FILE} is missing") from None
    except ValueError as error:
        raise DamagedModelError(f"{path / CONFIG_FILE} is damaged: it is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise DamagedModelError(
            f"{path / CONFIG_FILE} is damaged: it must hold a dictionary, got {type(config).__name__}"
        )
    return config


def read_weights(directory: str | os.PathLike, sha256: str | None) -> dict[str, np.ndarray]:
    """The arrays in ``model.safetensors`` by name; raises `DamagedModelError` if they are not those of the digest."""
    from safetensors.numpy import load

    path = pathlib.Path(directory).absolute() / WEIGHTS_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DamagedModelError(f"{path.parent} is not a whole model directory: {WEIGHTS_FILE} is missing") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedModelError(f"{path} is damaged: its SHA-256 is not the one in {CONFIG_FILE}")
    try:
        return load(content)
    except Exception as error:  # safetensors raises its own error type, KeyError or ValueError
        raise DamagedModelError(f"{path} is damaged: it is not a safetensors file ({error})") from error


@contextlib.contextmanager
def _temporary(path: pathlib.Path, content: bytes) -> Iterator[pathlib.Path]:
    """A file with the given content beside ``path``, on disk; removed at the end if nobody renamed it."""
    with temporary_name(path) as temporary:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
