"""Where the batches of a run come from: an array in memory, a file that is mapped into it, or an iterator.

An array stays on the device, and every step draws its batch there. From a file or an iterator, the batches of a chunk
of steps are put together on the host, and only these are ever in memory. A file gives the batches that an array of the
same numbers gives.
"""

import abc
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ..._checks import as_points
from ..config import FitConfig, StepConfig

HELD_OUT_DRAWS = 2048  # noisy points in the held-out loss: enough for a standard error of about two per cent
_BLOCK = 2**16  # rows that are read at a time


class Sample(NamedTuple):
    """Points ``(n, d)`` and their conditions: labels ``(n,)``, vectors ``(n, m)``, or ``None``."""

    points: Any
    conditions: Any

    def take(self, index: Any) -> "Sample":
        """Those with the given numbers."""
        return jax.tree.map(lambda a: a[index], self)


def step_keys(key: PRNGKeyArray, step: Any) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """The two keys of one step: one chooses its points, the other serves everything else."""
    batch_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
    return batch_key, loss_key


def points_drawn(config: StepConfig, n: int) -> int:
    """How many of ``n`` points a step draws: the first ``points_per_step`` are trained on, and all are the reference
    set, unless that is all ``n`` points anyway."""
    return config.points_per_step if config.reference_size >= n else max(config.points_per_step, config.reference_size)


class AbstractData(abc.ABC):
    """The data of a run.

    **Fields**

    - ``dtype``: type of the points: float64 if they are, float32 otherwise.
    - ``mean``, ``spread``: mean of the training points, ``(d,)``, and their standard deviation over all coordinates.
    - ``held_out``: a `Sample` that is not trained on, or ``None``.
    - ``resident``: the training points, if they are in memory, as a `Sample`; else ``None``.
    - ``example``: a condition that a network for these data has to take (the largest label), or ``None``.
    - ``classes``: how many classes the network knows, set once there is one; ``None`` for unknown. Later labels must be
      among them.
    """

    dtype: Any
    mean: np.ndarray
    spread: float
    held_out: Sample | None
    resident: Sample | None
    example: Array | None
    classes: int | None = None

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        return len(self.mean)

    @abc.abstractmethod
    def batches(self, key: PRNGKeyArray, start: int, steps: int) -> Sample | None:
        """Points ``(steps, n, d)`` and conditions of so many steps from ``start`` on; ``None`` for resident data."""

    @abc.abstractmethod
    def digest(self) -> str:
        """What tells these data from others, so that a checkpoint is not continued with those."""


def as_data(data: Any, conditions: Any, config: FitConfig) -> AbstractData:
    """The data that `fit` was given; raises ``ValueError`` or ``TypeError`` for what cannot be trained on."""
    batches = isinstance(data, Iterable) and not hasattr(data, "shape") and not isinstance(data, list | tuple | str)
    if callable(data) or batches:
        if conditions is not None:
            raise ValueError("`conditions` must be None for batches: give pairs (points, conditions) as `data`")
        return _Batches(cast(Callable[[int], Iterable] | Iterable, data), config)
    if not isinstance(data, np.memmap):
        if isinstance(data, np.ndarray | jax.Array) and data.dtype.kind in "iuf":
            # Arrays from files may have the other byte order, or half precision.
            dtype = data.dtype.newbyteorder("=")
            data = np.asarray(data, np.promote_types(dtype, np.float32) if dtype.kind == "f" else dtype)
        return _Rows(np.asarray(as_points(data, "data")), conditions, config, resident=True)
    if data.ndim != 2 or data.size == 0 or data.dtype.kind not in "iuf":
        raise ValueError(
            f"`data` must have real numbers of shape (n, d) with n, d >= 1, got {data.dtype} of shape {data.shape}"
        )
    _check_finite(data, "`data`")
    return _Rows(data, conditions, config, resident=False)


class _Rows(AbstractData):
    """Rows of one array, split into those trained on and those held out by a permutation that depends on the seed."""

    def __init__(self, rows: np.ndarray, conditions: Any, config: FitConfig, *, resident: bool):
        n = len(rows)
        if n < 3:
            raise ValueError(f"`data` must have at least 3 points, got {n}")
        self._rows, self._config, self.dtype = rows, config, _dtype(rows.dtype)
        self._conditions = as_conditions(conditions, n, self.dtype, config)
        count, order = 0, np.arange(n)
        if config.holdout:
            count = max(1, round(config.holdout * n))
            order = np.asarray(jax.random.permutation(jax.random.fold_in(jax.random.key(config.seed), 2), n))
        self._train = order[count:]
        kept = np.ones(n, bool)
        kept[order[:count]] = False
        self.mean, self.spread = _moments(rows, kept, self.dtype)
        self.held_out = self._on_device(order[: min(count, HELD_OUT_DRAWS)]) if count else None
        # Points that fit into the reference set fit into memory, and the steps then take all of them.
        resident = resident or config.reference_size >= len(self._train)
        self.resident = self._on_device(self._train) if resident else None
        self.example = None if self._conditions is None else jnp.asarray(self._conditions.max(0))

    def batches(self, key, start, steps):
        if self.resident is not None:
            return None
        n = len(self._train)
        index = self._train[np.asarray(_draws(key, start, steps, points_drawn(self._config.step_config, n), n))]
        # A disk reads fastest if each row is asked for once, and in their order.
        rows, place = np.unique(index, return_inverse=True)
        return self._take(rows).take(place.reshape(index.shape))

    def digest(self) -> str:
        conditions = () if self._conditions is None else (self._conditions,)
        return _digest((self._rows, *conditions), self.dtype)

    def _take(self, index: np.ndarray) -> Sample:
        conditions = None if self._conditions is None else self._conditions[index]
        return Sample(np.asarray(self._rows[index], self.dtype), conditions)

    def _on_device(self, index: np.ndarray) -> Sample:
        return jax.tree.map(jnp.asarray, self._take(index))


class _Batches(AbstractData):
    """Batches that the user makes, one for each step. The first ones are not trained on, but held out."""

    resident = None

    def __init__(self, data: Callable[[int], Iterable] | Iterable, config: FitConfig):
        self._open = data if callable(data) else None
        self._iterator = _iterator(data(0) if callable(data) else data)
        self._config, self._size, self._read = config, points_drawn(config.step_config, 2**63), 0
        self._set_aside = -(-HELD_OUT_DRAWS // self._size)
        first = self._join(self._set_aside, np.concatenate)
        self.dtype = first.points.dtype
        self.mean, self.spread = _moments(first.points, np.ones(len(first.points), bool), self.dtype)
        self._digest = _digest(jax.tree.leaves(first), self.dtype)
        self.held_out = jax.tree.map(jnp.asarray, first.take(slice(HELD_OUT_DRAWS))) if config.holdout else None
        self.example = None if first.conditions is None else jnp.asarray(first.conditions.max(0))

    def batches(self, key, start, steps):
        ahead = self._set_aside + start - self._read
        if ahead and self._open:
            self._iterator = _iterator(self._open(self._read + ahead))
        elif ahead:
            next(itertools.islice(self._iterator, ahead, ahead), None)
        self._read += ahead
        return self._join(steps, np.stack)

    def digest(self) -> str:
        return self._digest

    def _join(self, count: int, join: Callable) -> Sample:
        """The next batches, all of the same kind."""
        parts = []
        for number in range(self._read, self._read + count):
            part = self._checked(next(self._iterator, None), f"batch {number} of `data`")
            kinds = [jax.tree.map(lambda a: (a.dtype, a.shape), each) for each in (parts[0] if parts else part, part)]
            if kinds[0] != kinds[1]:
                raise ValueError(f"`data` must give batches of one kind, got {kinds[0]} and {kinds[1]}")
            parts.append(part)
        self._read += count
        return jax.tree.map(lambda *leaves: join(leaves), *parts)

    def _checked(self, batch: Any, where: str) -> Sample:
        if batch is None:
            raise ValueError(
                f"`data` must give {self._set_aside} batches to hold out and one for each of the {self._config.steps} "
                f"steps, but there is no {where}"
            )
        # A pair may be a list, as torch's DataLoader gives it; but a list of length two may also hold two points.
        pair = isinstance(batch, tuple) or (isinstance(batch, list) and len(batch) == 2 and np.ndim(batch[0]) == 2)
        points, conditions = batch if pair and len(batch) == 2 else (batch, None)
        points = np.asarray(points)
        good = points.ndim == 2 and len(points) == self._size and points.shape[1] > 0 and points.dtype.kind in "iuf"
        if not good:
            raise ValueError(
                f"{where} must have real numbers of shape ({self._size}, d), got {points.dtype} of shape {points.shape}"
            )
        points = points.astype(_dtype(points.dtype))
        _check_finite(points, where)
        conditions = as_conditions(conditions, self._size, points.dtype, self._config, f" of {where}")
        labels = conditions if conditions is not None and conditions.ndim == 1 else None
        if self.classes is not None and labels is not None and labels.max() >= self.classes:
            raise ValueError(
                f"`conditions` of {where} must be labels from 0 to {self.classes - 1}, as the network knows, got "
                f"{labels.max()}. Without a `network`, the batches held out decide"
            )
        return Sample(points, conditions)


def as_conditions(conditions: Any, n: int, dtype: Any, config: FitConfig, where: str = "") -> np.ndarray | None:
    """Labels as integers or vectors as floats; raises ``ValueError`` for anything else."""
    if conditions is None:
        return None
    values, name = np.asarray(conditions), f"`conditions`{where}"
    labels = values.ndim == 1 and values.dtype.kind in "iu"
    vectors = values.ndim == 2 and values.dtype.kind in "iuf" and values.shape[1] > 0
    if not (labels or vectors):
        raise ValueError(
            f"{name} must be integer labels of shape (n,) or vectors of shape (n, m), "
            f"got {values.dtype} of shape {values.shape}"
        )
    if len(values) != n:
        raise ValueError(f"{name} must have one entry for each of the {n} points of `data`, got {len(values)}")
    if labels and values.min() < 0:
        raise ValueError(f"{name} must be labels from 0 on, got {values.min()}")
    if vectors and not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{name} must be finite, got {values[row, column]} in row {row}, column {column}")
    if config.reference_size:
        raise ValueError("`reference_size` must be 0 with `conditions`: the reference is drawn from all points")
    return values.astype(np.int32 if labels else dtype)


@functools.partial(jax.jit, static_argnames=("steps", "count", "n"))
def _draws(key, start, steps, count, n):
    """The numbers of the points of so many steps, as the steps themselves would draw them."""

    def one(step):
        return jax.random.randint(step_keys(key, step)[0], (count,), 0, n)

    return jax.vmap(one)(start + jnp.arange(steps))


def _dtype(dtype: Any) -> Any:
    """Float64 for float64 and integers if JAX has it enabled, else float32."""
    wide = dtype.kind in "iu" or dtype.itemsize >= 8
    return jax.dtypes.canonicalize_dtype(np.float64) if wide else np.dtype(np.float32)


def _blocks(rows: Any, dtype: Any) -> Iterator[tuple[int, np.ndarray]]:
    """The rows in order, not too many at a time, and the number of the first of each block."""
    for start in range(0, len(rows), _BLOCK):
        yield start, np.asarray(rows[start : start + _BLOCK], dtype)


def _check_finite(rows: Any, where: str) -> None:
    """Raise ``ValueError`` where rows are not finite; says how many entries and where the first is."""
    count, first = 0, None
    for start, block in _blocks(rows, _dtype(rows.dtype)):
        bad = np.argwhere(~np.isfinite(block))
        if len(bad) and first is None:
            first = (start + int(bad[0, 0]), int(bad[0, 1]))
        count += len(bad)
    if count:
        raise ValueError(
            f"{where} must be finite, but {count} of {rows.size} entries are NaN or infinite (first at {first})"
        )


def _moments(rows: Any, kept: np.ndarray, dtype: Any) -> tuple[np.ndarray, float]:
    """Mean, and standard deviation over all coordinates, of the rows that are kept; on the host in float64, because the
    mean of many points must not lose digits."""
    count, mean, squares = 0, 0.0, 0.0
    for start, block in _blocks(rows, dtype):
        block = block[kept[start : start + len(block)]].astype(np.float64)
        if len(block) == 0:
            continue
        # The sums of squares about both means, and what moving them to the common one adds.
        here, total = block.mean(0), count + len(block)
        squares = squares + np.sum((block - here) ** 2, 0) + (here - mean) ** 2 * (count * len(block) / total)
        mean = mean + (here - mean) * (len(block) / total)
        count = total
    spread = float(np.sqrt(np.mean(squares) / count))
    if not spread > 0:
        raise ValueError(
            "`data` must have points that differ, but those that give its mean and standard deviation (all that are "
            "not held out; of batches, the first few) are copies of one point"
        )
    return np.asarray(mean), spread


def _digest(arrays: Iterable[Any], dtype: Any) -> str:
    """SHA-256 of shapes and values; floating-point numbers as ``dtype``."""
    digest = hashlib.sha256()
    for array in arrays:
        kind = dtype if array.dtype.kind == "f" else array.dtype
        digest.update(f"{array.shape}{kind}".encode())
        for _, block in _blocks(array, kind):
            # NumPy's annotations say from Python 3.12 on only that an array is a buffer.
            digest.update(np.ascontiguousarray(block))  # pyright: ignore[reportArgumentType]
    return digest.hexdigest()


def _iterator(batches: Any) -> Iterator:
    if not isinstance(batches, Iterable):
        raise TypeError(f"`data` must return an iterator of batches, got {type(batches).__name__}")
    return iter(batches)
