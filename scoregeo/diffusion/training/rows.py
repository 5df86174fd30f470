"""Passes over the rows of data on the host, in blocks: a file that is mapped into memory is never there as a whole."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

_BLOCK = 2**16  # rows that are read at a time
_SOME = 1024  # rows that tell how the others are spread


def kept_dtype(dtype: Any) -> Any:
    """Float64 for float64 and integers if JAX has it enabled, else float32."""
    return jax.dtypes.canonicalize_dtype(np.float64) if is_wide(dtype) else np.dtype(np.float32)


def is_wide(dtype: Any) -> bool:
    """Whether numbers of this type are kept in float64 on the host until the mean is subtracted."""
    return dtype.kind in "iu" or dtype.itemsize >= 8


def blocks(rows: Any, dtype: Any) -> Iterator[tuple[int, np.ndarray]]:
    """The rows in order, not too many at a time, and the number of the first of each block."""
    for start in range(0, len(rows), _BLOCK):
        yield start, np.asarray(rows[start : start + _BLOCK], dtype)


def check_rows(rows: Any, where: str) -> None:
    """Raise ``ValueError`` where rows are not finite; says how many entries and where the first is."""
    count, first = 0, None
    for start, block in blocks(rows, rows.dtype):
        block = np.asarray(block, kept_dtype(rows.dtype))
        bad = np.argwhere(~np.isfinite(block))
        if len(bad) and first is None:
            first = (start + int(bad[0, 0]), int(bad[0, 1]))
        count += len(bad)
    if count:
        raise ValueError(
            f"{where} must be finite, but {count} of {rows.size} entries are NaN or infinite (first at {first})"
        )


def row_moments(rows: Any, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and range of each coordinate over the rows that are kept; on the host in float64,
    because the mean of many points must not lose digits."""
    count, mean, squares = 0, 0.0, 0.0
    least, most = np.inf, -np.inf
    for start, block in blocks(rows, np.float64):
        block = block[kept[start : start + len(block)]]
        if len(block) == 0:
            continue
        least, most = np.minimum(least, block.min(0)), np.maximum(most, block.max(0))
        # The sums of squares about both means, and what moving them to the common one adds.
        here, total = block.mean(0), count + len(block)
        squares = squares + np.sum((block - here) ** 2, 0) + (here - mean) ** 2 * (count * len(block) / total)
        mean = mean + (here - mean) * (len(block) / total)
        count = total
    deviations = np.sqrt(squares / count)
    if not (deviations > 0).any():
        raise ValueError(
            "`data` must have points that differ, but those that give its mean and standard deviation (all that are "
            "not held out; of batches, the first few) are copies of one point"
        )
    return np.asarray(mean), deviations, np.asarray(most - least)


def middle_halves(rows: Any) -> np.ndarray:
    """The distance between the quartiles of each coordinate, of up to `_SOME` rows; on the host in float64."""
    step = -(-len(rows) // _SOME)
    low, high = np.quantile(np.asarray(rows[::step], np.float64), (0.25, 0.75), axis=0)
    return high - low


def digest(arrays: Iterable[Any], dtype: Any) -> str:
    """SHA-256 of shapes and values; floating-point numbers as ``dtype``."""
    sha = hashlib.sha256()
    for array in arrays:
        kind = dtype if array.dtype.kind == "f" else array.dtype
        sha.update(f"{array.shape}{kind}".encode())
        for _, block in blocks(array, kind):
            # NumPy's annotations say from Python 3.12 on only that an array is a buffer.
            sha.update(np.ascontiguousarray(block))  # pyright: ignore[reportArgumentType]
    return sha.hexdigest()
