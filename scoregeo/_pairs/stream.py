"""Pairs that are solved in order, block after block: what can be kept, gone on with, and read row by row.

A block holds consecutive pairs, whatever was solved before and wherever: with the same number of devices it is the same
program on the same numbers, and gives the same bits.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh

from .._checks import is_concrete
from .._numerics import is_traced
from .._results import RESULTS
from .._types import Points
from .blocks import replicated, solve_block
from .checkpoint import Block, Checkpoint, describe_problem, open_checkpoint
from .progress import progress_bar

# What the leader of several processes sends first: that all is well, or the place of the kind of an error after that.
_FINE = 0
# The last stands for every other kind.
_ERRORS = (ValueError, OSError, TypeError, RuntimeError)


class Pairs(NamedTuple):
    """All pairs of ``n`` points with ``m`` others, row by row; if ``symmetric``, those above the diagonal."""

    n: int
    m: int
    symmetric: bool

    @property
    def count(self) -> int:
        """How many there are."""
        return self.n * (self.n - 1) // 2 if self.symmetric else self.n * self.m

    def first_of_row(self) -> np.ndarray:
        """The number of the first pair of each row, and that of all pairs; ``(n + 1,)``."""
        lengths = np.arange(self.n)[::-1] if self.symmetric else np.full(self.n, self.m)
        return np.concatenate([[0], np.cumsum(lengths)])

    def indices(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the pairs with these numbers."""
        first = self.first_of_row()
        rows = np.searchsorted(first, pairs, side="right") - 1
        return rows, pairs - first[rows] + (rows + 1 if self.symmetric else 0)


class Problem(NamedTuple):
    """What is asked of every pair: ``how`` is metric, solver and starting rule; ``ys`` is ``xs`` where all pairs are
    among these."""

    how: tuple[Any, Any, Any]
    xs: Points
    ys: Points
    pairs: Pairs
    mesh: Mesh | None

    @property
    def devices(self) -> int:
        """How many solve it."""
        return 1 if self.mesh is None else self.mesh.size


def solve_in_order(
    problem: Problem, batch: int, asked: bool, checkpoint: pathlib.Path | None, progress: bool
) -> Iterator[tuple[int, Block]]:
    """Blocks of ``batch`` pairs for each device in order, each with the number of its first pair; kept in
    ``checkpoint`` if that is given, whose own size of blocks counts then (see `open_checkpoint` for ``asked``). The
    checkpoint is opened by this call, not when the first block is asked for. Raises ``TypeError`` under a trace."""
    arrays, static = eqx.partition(problem.how, eqx.is_array)
    if is_traced((arrays, problem.xs, problem.ys)):
        raise _traced()
    group = _Group(problem.mesh)
    kept = None if checkpoint is None else group.open(checkpoint, problem, batch, asked)
    return _solve_blocks(problem, static, arrays, group, batch, kept, progress)


def _solve_blocks(
    problem: Problem, static: Any, arrays: Any, group: "_Group", batch: int, kept: Checkpoint | None, progress: bool
) -> Iterator[tuple[int, Block]]:
    total = problem.pairs.count
    size, batch = (batch * problem.devices, batch) if kept is None else (kept.size, kept.batch)
    there = set() if kept is None or not group.leads else kept.present()
    done = sum(min(size, total - block * size) for block in there if 0 <= block * size < total)
    data: tuple[Any, Any, Any] = replicated((arrays, problem.xs, problem.ys), problem.mesh)
    with progress_bar(total, done, shown=progress and group.leads) as advance:
        for block, start in enumerate(range(0, total, size)):
            stop = min(start + size, total)
            body = b"" if kept is None else group.read(kept, block)
            if kept is not None and body:
                solved = kept.decode(body)
            else:
                solved = _solve_block(data, static, problem, start, size, batch)
                if kept is not None:
                    group.write(kept, block, kept.encode(solved))
                advance(0 if block in there else stop - start)
            yield start, Block(*(part[: stop - start] for part in solved))


def rows_in_order(blocks: Iterator[tuple[int, Block]], pairs: Pairs, dtype: Any) -> Iterator[Block]:
    """The rows of the matrix, each as soon as it is complete. Where the matrix is symmetric it is kept on the host,
    because a row begins with what earlier rows found."""
    first = pairs.first_of_row()
    rows = pairs.n if pairs.symmetric else 1
    lengths, codes = np.zeros((rows, pairs.m), dtype), np.zeros((rows, pairs.m), np.int32)
    row = 0
    for start, block in blocks:
        stop = start + len(block.lengths)
        while start < stop:
            here = int(np.searchsorted(first, start, side="right")) - 1
            end = min(stop, int(first[here + 1]))
            into = np.arange(start, end) - first[here] + (here + 1 if pairs.symmetric else 0)
            for whole, part in ((lengths, block.lengths), (codes, block.codes)):
                values = part[: end - start]
                whole[here if pairs.symmetric else 0, into] = values
                if pairs.symmetric:
                    whole[into, here] = values
            block = Block(*(part[end - start :] for part in block))
            start = end
            while row < pairs.n and first[row + 1] <= start:
                yield Block(*(whole[row if pairs.symmetric else 0].copy() for whole in (lengths, codes)))
                row += 1
    for left in range(row, pairs.n):  # of a single point
        yield Block(lengths[left], codes[left])


def as_results(codes: np.ndarray) -> RESULTS:
    """Numbers of codes as a batch of codes."""
    return jax.tree.map(lambda code: jax.numpy.asarray(codes, code.dtype), RESULTS.successful)


def _solve_block(data: tuple[Any, Any, Any], static: Any, problem: Problem, start: int, size: int, batch: int) -> Block:
    """A block of ``size`` pairs from the number ``start`` on: at once, unless it was made for more devices than there
    are, which would have to hold more than ``batch`` pairs each."""
    step = min(size, batch * problem.devices)
    parts = [_solve(data, static, problem, start + done, step) for done in range(0, size, step)]
    return Block(*(np.concatenate(part)[:size] for part in zip(*parts, strict=True)))


def _solve(data: tuple[Any, Any, Any], static: Any, problem: Problem, start: int, size: int) -> Block:
    """Lengths and codes of ``size`` pairs from the number ``start`` on; the last block is filled up with the first
    pairs."""
    devices = problem.devices
    width = -(-size // devices) * devices
    # Neighbours, which are similarly hard, go to different devices.
    order = np.arange(width).reshape(-1, devices).T.reshape(-1)
    indices = problem.pairs.indices((start + order) % problem.pairs.count)
    lengths, results = solve_block(*data, replicated(np.stack(indices), problem.mesh), static, problem.mesh)
    (codes,) = jax.tree.leaves(results)
    if not is_concrete(lengths):
        raise _traced()
    solved = Block(np.empty(width, lengths.dtype), np.empty(width, np.int32))
    solved.lengths[order], solved.codes[order] = np.asarray(lengths), np.asarray(codes)
    return Block(*(part[:size] for part in solved))


def _traced() -> TypeError:
    return TypeError(
        "rows and checkpoints must be asked for outside of `jit`, `vmap` and `grad`, where arguments have values"
    )


def _as_sent(error: Exception) -> tuple[int, str]:
    """The number of the kind of an error, and its text, which names a kind that has no number."""
    for kind, known in enumerate(_ERRORS, start=1):
        if isinstance(error, known):
            return kind, str(error)
    return len(_ERRORS), f"{type(error).__name__}: {error}"


class _Group:
    """The processes that solve together, each on its own devices. One of them reads and writes the checkpoint and tells
    the others, because they may see a file system at different times."""

    def __init__(self, mesh: Mesh | None):
        processes = set() if mesh is None else {device.process_index for device in mesh.devices.flat}
        self.several = len(processes) > 1
        self.leads = not self.several or jax.process_index() == min(processes)
        if self.several and len(processes) < jax.process_count():
            raise ValueError(f"`mesh` must have devices of all {jax.process_count()} processes, or of one, got {mesh}")

    def open(self, folder: pathlib.Path, problem: Problem, batch: int, asked: bool) -> Checkpoint:
        """The checkpoint, opened by the process that leads."""
        pairs, dtype = problem.pairs, problem.xs.dtype
        ys = None if pairs.symmetric else problem.ys
        opened: list[Checkpoint] = []

        def look() -> bytes:
            about = functools.partial(describe_problem, problem.how, problem.xs, ys)
            opened.append(open_checkpoint(folder, about, pairs.count, dtype, batch, problem.devices, asked))
            return np.array([opened[0].size, opened[0].batch], "<i8").tobytes()

        size, batch_there = (int(number) for number in np.frombuffer(self._from_the_leader(look), "<i8"))
        if opened:
            return opened[0]
        return Checkpoint(folder, size, batch_there, np.dtype(dtype), -(-pairs.count // size), b"")

    def read(self, kept: Checkpoint, block: int) -> bytes:
        """The bytes of a block; empty where it is to be solved."""
        return self._from_the_leader(lambda: kept.read(block) or b"")

    def write(self, kept: Checkpoint, block: int, body: bytes) -> None:
        """Keep a block."""

        def keep() -> bytes:
            kept.write(block, body)
            return b""

        self._from_the_leader(keep)

    def _from_the_leader(self, action: Callable[[], bytes]) -> bytes:
        """What ``action`` returns to the process that leads, or the error that it raises there, in every process."""
        if not self.several:
            return action()
        from jax.experimental.multihost_utils import broadcast_one_to_all

        kind, message, error = _FINE, b"", None
        if self.leads:
            try:
                message = action()
            except Exception as caught:  # whatever it is, the others wait for word of it
                kind, text = _as_sent(caught)
                error, message = caught, text.encode(errors="backslashreplace")
        head = np.asarray(broadcast_one_to_all(np.array([kind, len(message)], np.int32), is_source=self.leads))
        kind, length = (int(part) for part in head)
        if length:
            sent = np.frombuffer(message, np.uint8) if self.leads else np.zeros(length, np.uint8)
            message = np.asarray(broadcast_one_to_all(sent, is_source=self.leads)).astype(np.uint8).tobytes()
        if error is not None:
            raise error
        if kind != _FINE:
            raise _ERRORS[kind - 1](message.decode())
        return message
