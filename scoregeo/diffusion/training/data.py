"""Where the batches of a run come from: an array in memory, a file that is mapped into it, or an iterator.

An array stays on the device, and every step draws its batch there. From a file or an iterator, the batches of a chunk
of steps are put together on the host, and only these are ever in memory. A file gives the batches that an array of the
same numbers gives.

Points reach the device without their mean, which is subtracted on the host in float64: float32 holds no date or
coordinate to the digits in which it varies. Vectors that condition are standardised there in the same way.
"""

import abc
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ..._checks import as_native, as_numbers, as_points, warn
from ..._numerics import as_double, warn_if_unresolved
from ...datasets import Dataset, Standardization
from ...datasets.base import moments
from ..config import FitConfig, StepConfig
from .rows import blocks, check_rows, digest, is_wide, kept_dtype, middle_halves, row_moments

# Columns whose ranges differ by more have different units; of pixels, one may just differ from the others by so much.
_SAME_UNITS = 300.0
# A range of so many middle halves of its column, and of so many of any column, which a pixel that is almost always
# paper has not: there are points that do not belong to them.
_OUTLIER, _STANDS_OUT = 1000.0, 4.0
# A column whose range is more middle halves hardly ever varies, as pixels at an edge: its range is not its unit.
_VARIES = 30.0
HELD_OUT_DRAWS = 2048  # noisy points in the held-out loss: enough for a standard error of about two per cent
_LARGEST_LABEL = np.iinfo(np.int32).max
RENUMBER = "number the classes 0, 1, ..., as `numpy.unique(labels, return_inverse=True)[1]` does"


class Sample(NamedTuple):
    """Points ``(n, d)`` and their conditions: labels ``(n,)``, vectors ``(n, m)``, or ``None``.

    What `AbstractData` gives is without the mean of the data, and its vectors are standardised.
    """

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
    - ``mean``, ``deviations``: mean and standard deviation of each coordinate of the training points, ``(d,)`` in
      float64.
    - ``ranges``: largest minus smallest value of each coordinate of the training points, ``(d,)``.
    - ``middles``: how far the middle half of their values is apart, ``(d,)``, of some of the points.
    - ``condition_units``: how vectors that condition were standardised; ``None`` for labels.
    - ``held_out``: a `Sample` that is not trained on, or ``None``.
    - ``resident``: the training points, if they are in memory, as a `Sample`; else ``None``.
    - ``example``: a condition that a network for these data has to take (the largest label), or ``None``.
    - ``different``: how many different labels that is the largest of; 0 without labels.
    - ``classes``: how many classes the network knows, set once there is one; ``None`` for unknown. Later labels must be
      among them.
    """

    dtype: Any
    mean: np.ndarray
    deviations: np.ndarray
    ranges: np.ndarray
    middles: np.ndarray
    condition_units: Standardization | None
    held_out: Sample | None
    resident: Sample | None
    example: Array | None
    different: int
    classes: int | None = None

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        return len(self.mean)

    @property
    def spread(self) -> float:
        """Standard deviation of the training points over all coordinates."""
        return float(np.sqrt(np.mean(self.deviations**2)))

    def centred(self, points: Any) -> np.ndarray:
        """``points`` ``(n, d)`` in float64 minus the mean, and only then in the type that is trained in."""
        result = np.empty(points.shape, self.dtype)
        for start, block in blocks(points, np.float64):
            result[start : start + len(block)] = block - self.mean
        return result

    def check_resolution(self, level: float, standardized: bool) -> None:
        """Warn where coordinates vary by less than the smallest noise ``level`` or, unless somebody chose their units,
        far less than others; where some points are far from all others, and where float32 cannot hold the data in the
        units in which they come."""
        stands_out = (self.middles > 0) & (self.ranges > _STANDS_OUT * self.middles.max())
        far = np.where(stands_out, self.ranges / np.where(stands_out, self.middles, 1), 0)
        if far.max() > _OUTLIER:
            column = int(far.argmax())
            warn(
                f"`data` have points far from all others: in column {column} their range is {far[column]:.3g} times "
                "that of their middle half. The units that noise is measured in are made by these points, and the "
                "score between them and the rest is not learned: leave them out, or transform the column (a logarithm)",
            )
        else:
            self._check_scales(level, standardized)
        if self.dtype != np.float32:
            return
        advice = (
            "training, `sample` and `log_prob` treat it in float64, but scores and metrics take points in float32. "
            "Standardise the data (scoregeo.datasets.Standardization), or enable JAX's float64"
        )
        varies = np.where(self.ranges > 0, self.deviations, np.inf)
        warn_if_unresolved(self.mean, varies, "`data` have", advice)

    def _check_scales(self, level: float, standardized: bool) -> None:
        varying = (self.ranges > 0) & (self.ranges < _VARIES * self.middles)
        # A range is at least about four standard deviations.
        if (hidden := np.flatnonzero(varying & (self.ranges < 4 * level))).size:
            column = int(hidden[0])
            warn(
                f"`data` vary in column {column} by {self.ranges[column]:.3g} in all, which the smallest noise level "
                f"of {level:.3g} (`schedule`) hides: nothing is learned about it. Standardise the data "
                "(scoregeo.datasets.Standardization, with a scale for each column where their units differ)",
            )
            return
        if standardized or not varying.any():  # pixels and principal components vary by as much as they do
            return
        varies = np.where(varying, self.ranges, np.nan)
        small, large = int(np.nanargmin(varies)), int(np.nanargmax(varies))
        if varies[large] > _SAME_UNITS * varies[small]:
            warn(
                f"`data` vary by {varies[large]:.3g} in column {large} and by {varies[small]:.3g} in column {small}: "
                "noise is the same in all columns, and at most of its levels hides the smaller one. Standardise the "
                "data (scoregeo.datasets.Standardization, with a scale for each column)",
            )

    @abc.abstractmethod
    def batches(self, key: PRNGKeyArray, start: int, steps: int) -> Sample | None:
        """Points ``(steps, n, d)`` and conditions of so many steps from ``start`` on; ``None`` for resident data."""

    @abc.abstractmethod
    def digest(self) -> str:
        """What tells these data from others, so that a checkpoint is not continued with those."""


def of_dataset(data: Any, standardization: Any) -> tuple[Any, Any]:
    """The points of a `Dataset` and the units they are in; other ``data`` as they come. Raises ``ValueError`` where
    units are given twice."""
    if not isinstance(data, Dataset):
        return data, standardization
    if standardization is None or standardization is data.standardization:
        return data.points, data.standardization
    if data.standardization is None:
        return data.points, standardization
    raise ValueError("`standardization` must be None for a Dataset that has its own, got another one")


def as_data(data: Any, conditions: Any, config: FitConfig) -> AbstractData:
    """The data that `fit` was given; raises ``ValueError`` or ``TypeError`` for what cannot be trained on."""
    batches = isinstance(data, Iterable) and not hasattr(data, "shape") and not isinstance(data, list | tuple | str)
    if callable(data) or batches:
        if conditions is not None:
            raise ValueError("`conditions` must be None for batches: give pairs (points, conditions) as `data`")
        return _Batches(cast(Callable[[int], Iterable] | Iterable, data), config)
    if not isinstance(data, np.memmap):
        data = as_numbers(data, "`data`")
        if data.dtype.kind == "f":  # files may have half precision
            data = data.astype(np.promote_types(data.dtype, np.float32), copy=False)
        rows = as_double(data) if is_wide(data.dtype) else data
        as_points(rows, "data")  # refuses what is no table of numbers
        return _Rows(rows, conditions, config, resident=True)
    if data.ndim != 2 or data.size == 0 or data.dtype.kind not in "iuf":
        raise ValueError(
            f"`data` must have real numbers of shape (n, d) with n, d >= 1, got {data.dtype} of shape {data.shape}"
        )
    check_rows(data, "`data`")
    return _Rows(data, conditions, config, resident=False)


class _Rows(AbstractData):
    """Rows of one array, split into those trained on and those held out by a permutation that depends on the seed."""

    def __init__(self, rows: np.ndarray, conditions: Any, config: FitConfig, *, resident: bool):
        n = len(rows)
        if n < 3:
            raise ValueError(f"`data` must have at least 3 points, got {n}")
        self._rows, self._config, self.dtype = rows, config, kept_dtype(rows.dtype)
        conditions = as_conditions(conditions, n, config)
        count, order = 0, np.arange(n)
        if config.holdout:
            count = max(1, round(config.holdout * n))
            order = np.asarray(jax.random.permutation(jax.random.fold_in(jax.random.key(config.seed), 2), n))
        self._train = order[count:]
        kept = np.ones(n, bool)
        kept[order[:count]] = False
        self.mean, self.deviations, self.ranges = row_moments(rows, kept)
        self.middles = middle_halves(rows)
        self.condition_units = _condition_units(conditions, self._train)
        self._conditions = _in_units(conditions, self.condition_units, self.dtype)
        self.held_out = self._on_device(order[: min(count, HELD_OUT_DRAWS)]) if count else None
        # Points that fit into the reference set fit into memory, and the steps then take all of them.
        resident = resident or config.reference_size >= len(self._train)
        self.resident = self._on_device(self._train) if resident else None
        self.example, self.different = _largest(self._conditions)

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
        return digest((self._rows, *conditions), self.dtype)

    def _take(self, index: np.ndarray) -> Sample:
        conditions = None if self._conditions is None else self._conditions[index]
        return Sample(self.centred(self._rows[index]), conditions)

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
        self.dtype, every = kept_dtype(first.points.dtype), np.arange(len(first.points))
        self.mean, self.deviations, self.ranges = row_moments(first.points, np.ones(len(every), bool))
        self.middles = middle_halves(first.points)
        self.condition_units = _condition_units(first.conditions, every)
        raw, first = first, self._prepared(first)
        self._digest = digest((raw.points, *jax.tree.leaves(first.conditions)), self.dtype)
        self.held_out = jax.tree.map(jnp.asarray, first.take(slice(HELD_OUT_DRAWS))) if config.holdout else None
        self.example, self.different = _largest(first.conditions)

    def batches(self, key, start, steps):
        ahead = self._set_aside + start - self._read
        if ahead and self._open:
            self._iterator = _iterator(self._open(self._read + ahead))
        elif ahead:
            next(itertools.islice(self._iterator, ahead, ahead), None)
        self._read += ahead
        return self._prepared(self._join(steps, np.stack))

    def digest(self) -> str:
        return self._digest

    def _prepared(self, sample: Sample) -> Sample:
        """As the device wants it."""
        return Sample(self.centred(sample.points), _in_units(sample.conditions, self.condition_units, self.dtype))

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
        points = as_native(points, where, ValueError)
        good = points.ndim == 2 and len(points) == self._size and points.shape[1] > 0 and points.dtype.kind in "iuf"
        if not good:
            raise ValueError(
                f"{where} must have real numbers of shape ({self._size}, d), got {points.dtype} of shape {points.shape}"
            )
        points = as_double(points) if is_wide(points.dtype) else points.astype(np.float32)
        check_rows(points, where)
        conditions = as_conditions(conditions, self._size, self._config, f" of {where}")
        labels = conditions if conditions is not None and conditions.ndim == 1 else None
        if self.classes is not None and labels is not None and labels.max() >= self.classes:
            raise ValueError(
                f"`conditions` of {where} must be labels from 0 to {self.classes - 1}, as the network knows, got "
                f"{labels.max()}. Without a `network`, the batches held out decide"
            )
        return Sample(points, conditions)


def as_conditions(conditions: Any, n: int, config: FitConfig, where: str = "") -> np.ndarray | None:
    """Labels as integers or vectors in float64; raises ``ValueError`` for anything else."""
    if conditions is None:
        return None
    name = f"`conditions`{where}"
    values = as_native(conditions, name, ValueError)
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
    if labels and values.max() > _LARGEST_LABEL:
        raise ValueError(f"{name} must be labels of at most {_LARGEST_LABEL}, got {values.max()}: {RENUMBER}")
    if vectors and not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{name} must be finite, got {values[row, column]} in row {row}, column {column}")
    if config.reference_size:
        raise ValueError("`reference_size` must be 0 with `conditions`: the reference is drawn from all points")
    return values.astype(np.int32 if labels else np.float64)


def _condition_units(conditions: np.ndarray | None, rows: np.ndarray) -> Standardization | None:
    """The standardisation of vectors by those in ``rows``; ``None`` for labels."""
    if conditions is None or conditions.ndim == 1:
        return None
    return Standardization(*moments(conditions[rows], per_feature=True))


def _in_units(conditions: np.ndarray | None, units: Standardization | None, dtype: Any) -> np.ndarray | None:
    if conditions is None or units is None:
        return conditions
    return ((conditions - units.mean) / units.scale).astype(dtype)


def _largest(conditions: np.ndarray | None) -> tuple[Array | None, int]:
    """The largest label (or entries of vectors), and how many different labels there are."""
    if conditions is None:
        return None, 0
    return jnp.asarray(conditions.max(0)), len(np.unique(conditions)) if conditions.ndim == 1 else 0


@functools.partial(jax.jit, static_argnames=("steps", "count", "n"))
def _draws(key, start, steps, count, n):
    """The numbers of the points of so many steps, as the steps themselves would draw them."""

    def one(step):
        return jax.random.randint(step_keys(key, step)[0], (count,), 0, n)

    return jax.vmap(one)(start + jnp.arange(steps))


def _iterator(batches: Any) -> Iterator:
    if not isinstance(batches, Iterable):
        raise TypeError(f"`data` must return an iterator of batches, got {type(batches).__name__}")
    return iter(batches)
