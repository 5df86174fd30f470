"""Matrices of distances, as `pairwise_dist` and `graph_dist` give them: what everything that takes one checks first."""

from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from .._checks import as_float, is_concrete

# How many pairs a message names.
_NAMED = 3
# Symmetry up to the rounding of float32, in which many files hold distances, relative to the largest of them.
_SYMMETRIC = 1e-4


def check_distances(distances: Any, name: str = "distances", least: int = 1) -> Float[Array, "n n"]:
    """``distances`` as a square floating-point array of at least ``least`` rows that is a matrix of distances.

    Raises ``ValueError`` that names the argument and the first pairs where entries are NaN, infinite or negative, where
    the diagonal is not zero, and where the matrix is not symmetric (up to 1e-4 of its largest entry); ``TypeError`` for
    what does not hold real numbers. Values that are traced are not looked at.

    >>> import jax.numpy as jnp
    >>> check_distances(jnp.array([[0.0, 1.0], [1.0, 0.0]])).shape
    (2, 2)
    """
    matrix = as_float(distances, name)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < least:
        raise ValueError(f"`{name}` must have shape (n, n) with n >= {least}, got {matrix.shape}")
    if not is_concrete(matrix):
        return matrix
    values = np.asarray(matrix)
    unknown = ~np.isfinite(values)
    if unknown.any():
        raise ValueError(
            f"`{name}` must be finite, but {_pairs(unknown)} NaN or infinite: leave out what could not be solved (the "
            "codes that `pairwise_dist` returns say which), or fill in the bounds of `graph_dist`"
        )
    negative = values < 0
    if negative.any():
        raise ValueError(f"`{name}` must be non-negative, but {_pairs(negative)} negative")
    slack = _SYMMETRIC * values.max()
    nonzero = np.diagonal(values) > slack
    if nonzero.any():
        first = int(np.argmax(nonzero))
        raise ValueError(
            f"`{name}` must have a diagonal of zeros, but {nonzero.sum()} of {len(values)} entries are not: the first "
            f"is {values[first, first]:.6g} of point {first}"
        )
    skew = np.triu(np.abs(values - values.T) > slack)
    if skew.any():
        i, j = (int(k) for k in np.argwhere(skew)[0])
        raise ValueError(
            f"`{name}` must be symmetric, but {_pairs(skew)} not: {values[i, j]:.6g} one way and {values[j, i]:.6g} "
            f"the other for ({i}, {j})"
        )
    return matrix


def _pairs(bad: Bool[np.ndarray, "n n"]) -> str:
    """How many pairs are bad, and which are the first: "1 pair, (0, 2), is"."""
    i, j = np.nonzero(bad)
    pairs = sorted({(int(min(a, b)), int(max(a, b))) for a, b in zip(i, j, strict=True)})
    named = ", ".join(map(str, pairs[:_NAMED])) + (", ..." if len(pairs) > _NAMED else "")
    return f"1 pair, {named}, is" if len(pairs) == 1 else f"{len(pairs)} pairs, {named}, are"
