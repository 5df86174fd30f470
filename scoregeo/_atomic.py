"""Files that are either whole or not there: written under a temporary name beside their own, then renamed."""

import contextlib
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def temporary_name(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name beside ``path`` with the same ending; a file of that name is removed at the end unless it was renamed."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary name to write to, which becomes ``path`` if the block ends without an error."""
    with temporary_name(path) as temporary:
        yield temporary
        os.replace(temporary, path)


def write_json(path: pathlib.Path, values: Any) -> None:
    """Write ``values``; what is not finite becomes null."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_finite(values), indent=2, allow_nan=False) + "\n")


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not np.isfinite(values) else values


def write_npy(path: pathlib.Path, array: np.ndarray) -> None:
    """Write one array to a .npy file."""
    with replacing(path) as temporary:
        np.save(temporary, array)


def write_npz(path: pathlib.Path, **arrays: Any) -> None:
    """Write ``arrays`` by name to a .npz file."""
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def write_figure(path: pathlib.Path, figure: Any) -> None:
    """Write a matplotlib figure."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def make_writable(directory: pathlib.Path, name: str) -> None:
    """Make ``directory`` if needed and try to write into it; raises ``OSError`` naming the argument if that fails."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(f"`{name}` must be a folder that can be written, got {directory}: {error.strerror}") from error


def write_durably(path: pathlib.Path, data: bytes) -> None:
    """Write ``data`` so that, once this returns, the file survives a crash of the machine."""
    with temporary_name(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    # The new name is an entry of the folder. Some file systems cannot be asked to keep one, and do it by themselves.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
