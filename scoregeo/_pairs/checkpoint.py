"""Solved blocks of pairs in a folder, which survive the end of the process at any moment.

``manifest.json`` says what is solved, and every block has a file of its own: a checksum, which binds it to its place
and to the manifest, then lengths and codes. Files are whole or not there (`_atomic.write_durably`), and what is not as
it was written is solved again.
"""

import contextlib
import hashlib
import json
import pathlib
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from .._atomic import make_writable, write_durably
from .identity import describe, differences, digest

_FORMAT = 2
_MANIFEST, _BLOCK = "manifest.json", "{:09d}.block"
_CHECKSUM = hashlib.sha256().digest_size
# A file that is older is not being written any more.
_SECONDS_TO_WRITE = 3600
# How many differences a refusal names.
_NAMED = 4


class Block(NamedTuple):
    """``lengths`` and ``codes`` of the pairs of a block, both ``(size,)``."""

    lengths: np.ndarray
    codes: np.ndarray


class Checkpoint(NamedTuple):
    """A folder whose manifest has been read: ``size`` pairs in a block, solved ``batch`` at a time on each device, with
    lengths of type ``dtype``."""

    folder: pathlib.Path
    size: int
    batch: int
    dtype: np.dtype
    blocks: int
    seal: bytes

    def path(self, block: int) -> pathlib.Path:
        """The file of a block."""
        return self.folder / _BLOCK.format(block)

    def present(self) -> set[int]:
        """The blocks that have a file, whatever is in it."""
        return {int(path.stem) for path in self.folder.glob("[0-9]*.block") if path.stem.isdecimal()}

    def read(self, block: int) -> bytes | None:
        """The bytes of a block as `encode` made them; ``None`` where it is missing or damaged."""
        try:
            data = self.path(block).read_bytes()
        except OSError:
            return None
        whole = len(data) == _CHECKSUM + self.size * (self.dtype.itemsize + 4)
        body = data[_CHECKSUM:]
        return body if whole and data[:_CHECKSUM] == self._checksum(block, body) else None

    def write(self, block: int, body: bytes) -> None:
        """Keep the bytes of a block; raises ``OSError`` that says how much is kept where that cannot be done."""
        try:
            write_durably(self.path(block), self._checksum(block, body) + body)
        except OSError as error:
            raise OSError(
                f"`checkpoint` {self.folder} cannot be written: {error.strerror or error}. {len(self.present())} of "
                f"{self.blocks} blocks are kept there, and the same call goes on from them"
            ) from error

    def _checksum(self, block: int, body: bytes) -> bytes:
        return hashlib.sha256(self.seal + block.to_bytes(8, "little") + body).digest()

    def encode(self, block: Block) -> bytes:
        """A block as bytes, the same on every machine."""
        little = self.dtype.newbyteorder("<")
        return block.lengths.astype(little).tobytes() + block.codes.astype("<i4").tobytes()

    def decode(self, body: bytes) -> Block:
        """The inverse of `encode`."""
        split = self.size * self.dtype.itemsize
        lengths = np.frombuffer(body[:split], self.dtype.newbyteorder("<")).astype(self.dtype)
        return Block(lengths, np.frombuffer(body[split:], "<i4").astype(np.int32))


def describe_problem(how: tuple[Any, Any, Any], xs: Any, ys: Any | None) -> dict[str, Any]:
    """What is solved, as a manifest holds it; ``how`` is metric, solver and starting rule, ``ys`` is ``None`` where all
    pairs are among ``xs``."""
    parts = {name: describe(part, name) for name, part in zip(("metric", "solver", "init"), how, strict=True)}
    points = {"xs": digest(xs), "ys": None if ys is None else digest(ys)}
    return {"format": _FORMAT, "scoregeo": metadata.version("scoregeo"), "points": points, **parts}


def open_checkpoint(
    folder: pathlib.Path,
    problem: Callable[[], dict[str, Any]],
    pairs: int,
    dtype: Any,
    batch: int,
    devices: int,
    asked: bool,
) -> Checkpoint:
    """The checkpoint in ``folder``, begun there if it is new or empty, with blocks of ``batch`` pairs for each of
    ``devices``; ``asked`` says that the caller insists on ``batch``. Its blocks are the same on any number of devices.

    Raises ``ValueError`` for a folder that holds other things, a checkpoint of another problem or of another batch
    size, and ``OSError`` where the folder cannot be written.
    """
    make_writable(folder, "checkpoint")
    _remove_leftovers(folder)
    path, about = folder / _MANIFEST, problem()
    if path.exists():
        known = _read_manifest(path)
        _check_same(folder, known, about)
        if asked and batch != known["batch_size"]:
            raise ValueError(
                f"`batch_size` must be that of the checkpoint in {folder}, {known['batch_size']}, or left out, got "
                f"{batch}: blocks of another size would be other programs, with other last digits"
            )
    else:
        foreign = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        if foreign:
            raise ValueError(
                f"`checkpoint` must be a new or empty folder, or one that an earlier call began, got {folder}, which "
                f"holds {foreign[0]}"
            )
        known = about | {"batch_size": batch, "devices": devices}
        text = json.dumps(known, indent=1)
        try:
            write_durably(path, text.encode())
        except OSError as error:
            raise OSError(f"`checkpoint` {folder} cannot be written: {error.strerror or error}") from error
    seal = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).digest()
    size = known["batch_size"] * known["devices"]
    return Checkpoint(folder, size, known["batch_size"], np.dtype(dtype), -(-pairs // size), seal)


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Remove what processes that were killed were about to write; what is younger may be another's that lives."""
    for path in folder.glob(".*.block"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _SECONDS_TO_WRITE:
                path.unlink()


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
        if known["format"] != _FORMAT:
            raise ValueError
        if not all(isinstance(known[name], int) and known[name] > 0 for name in ("batch_size", "devices")):
            raise ValueError
    except OSError as error:
        raise OSError(f"`checkpoint`: {path} cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`checkpoint`: {path} is damaged, or of a version of scoregeo that wrote another format. Give another "
            "folder, or remove this one to begin again"
        ) from error
    return known


def _check_same(folder: pathlib.Path, known: dict[str, Any], about: dict[str, Any]) -> None:
    """Raise ``ValueError`` with what differs unless a manifest is of the problem that is asked for."""
    differing = []
    if known.get("scoregeo") != about["scoregeo"]:
        differing.append(f"the version of scoregeo, {known.get('scoregeo')} there and {about['scoregeo']} here")
    points = known.get("points", {})
    differing += [name for name, value in about["points"].items() if points.get(name) != value]
    for name in ("metric", "solver", "init"):
        differing += differences(known.get(name, {}), about[name], name)
    if differing:
        named = ", ".join(differing[:_NAMED]) + (", ..." if len(differing) > _NAMED else "")
        raise ValueError(
            f"`checkpoint` {folder} is of another problem: {named} differ{'s' if len(differing) == 1 else ''}. Give "
            "another folder, or call with what it was begun with"
        )
