"""Pairs solved from two starts, the straight line and a path of one's own, of which the least length counts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import check_count
from .._numerics import program
from .._results import RESULTS
from .._types import Point, Points, Scalar
from ..geodesics import AbstractBoundarySolver, Polyline
from ..geodesics.base import default_solver
from ..geodesics.checks import check_solver
from ..geodesics.curves import node_times
from ..metrics import AbstractMetric

# A solve keeps about this many numbers per dimension, and there are two of them for a pair.
_NUMBERS_PER_DIMENSION = 2048


class TwoStarts:
    """Solves batches of ``size`` pairs, one program for all of them.

    The distance of a pair is the least length over the starts whose solve gave a geodesic (accurate or not); where none
    did, the least finite length, with its code.
    """

    def __init__(
        self, metric: AbstractMetric, solver: AbstractBoundarySolver | None, batch_size: int | None, like: Points
    ):
        solver = default_solver(metric, length_only=True) if solver is None else solver
        check_solver(solver)
        if batch_size is None:
            batch_size = max(1, 2**28 // (_NUMBERS_PER_DIMENSION * like.shape[1] * like.dtype.itemsize))
        self.size = check_count("batch_size", batch_size)
        self._arrays, self._static = eqx.partition((metric, solver), eqx.is_array)
        self._dtype = like.dtype

    def solve(self, xs: Any, ys: Any, paths: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lengths, numbers of codes, and whether it was the path that led there, of up to ``size`` pairs ``(n, d)``
        with paths ``(n, nodes, d)``."""
        xs, ys, paths = (np.asarray(part) for part in (xs, ys, paths))
        # From the first point to itself, which is solved at once.
        left = self.size - len(xs)
        here = (xs[:1], xs[:1], np.broadcast_to(xs[:1, None], (1, *paths.shape[1:])))
        x, y, path = (
            jnp.asarray(np.concatenate([part, np.repeat(fill, left, 0)]), self._dtype)
            for part, fill in zip((xs, ys, paths), here, strict=True)
        )
        solved = _solve(self._arrays, x, y, path, self._static)
        return tuple(np.asarray(part)[: len(xs)] for part in solved)  # pyright: ignore[reportReturnType]


@program
def _solve(arrays: Any, xs: Points, ys: Points, paths: Float[Array, "n k d"], static: Any):
    metric, solver = eqx.combine(arrays, static)

    def solve(x: Point, y: Point, path: Points):
        straight = x + node_times(x.dtype)[:, None] * (y - x)
        ends = jnp.asarray((0.0, 1.0), x.dtype)
        found = jax.vmap(lambda nodes: solver.solve(metric, x, y, Polyline(nodes), ends))(jnp.stack([straight, path]))
        return least(found.length, found.result)

    return jax.vmap(solve)(xs, ys, paths)


def least(lengths: Float[Array, " s"], results: RESULTS) -> tuple[Scalar, Any, Any]:
    """The least of several lengths, the number of its code, and whether it is not the first."""
    geodesics = (results == RESULTS.successful) | (results == RESULTS.accuracy_not_reached)
    finite = jnp.isfinite(lengths)
    order = jnp.where(geodesics & finite, lengths, jnp.inf)
    order = jnp.where(jnp.any(geodesics & finite), order, jnp.where(finite, lengths, jnp.inf))
    best = jnp.argmin(order)
    (codes,) = jax.tree.leaves(results)
    return lengths[best], codes[best], best > 0
