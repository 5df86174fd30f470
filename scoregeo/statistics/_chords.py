"""Lengths of edges in a metric, straight or bent, with an estimate of their errors."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._numerics import with_own_settings
from .._pairs.progress import progress_bar
from .._types import Points, Scalar
from ..metrics import AbstractMetric

# Gauss points on a panel of an edge; panels double until two numbers of them agree.
_GAUSS, _MOST_PANELS = 4, 256
# Where the metric has kinks, the finer of two numbers may be as wrong as the difference of both, or more.
_CAUTION = 2
# How many edges are measured side by side.
_EDGES = 1024


def chord_lengths(
    metric: AbstractMetric,
    xs: Points,
    edges: Int[np.ndarray, "e 2"],
    rtol: float,
    progress: bool = False,
    bends: Float[np.ndarray, "e k d"] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of straight edges in the metric, and estimates of their errors; infinite and zero where an edge leaves
    the domain or the metric is not finite on it. With ``bends``, the edges are ``a + t (b - a) + sum_k t^k bends_k``,
    k = 1, 2, ..."""
    if not len(edges):
        return np.zeros(0), np.zeros(0)
    arrays, static = eqx.partition(metric, eqx.is_array)
    size = side_by_side(_EDGES, len(edges))
    lengths, errors = np.zeros(len(edges)), np.full(len(edges), np.inf)
    bends = np.zeros((len(edges), 0, xs.shape[1])) if bends is None else bends

    def measure(active: np.ndarray, panels: int) -> np.ndarray:
        parts = []
        for start in range(0, len(active), size):
            some = active[start : start + size]
            filled = np.resize(some, size)
            curves = jnp.asarray(edges[filled]), jnp.asarray(bends[filled], xs.dtype)
            parts.append(np.asarray(_chord_block(arrays, xs, curves, jnp.asarray(panels), static))[: len(some)])
        return np.concatenate(parts).astype(np.float64)

    active, panels = np.arange(len(edges)), 1
    lengths[:] = measure(active, panels)
    with progress_bar(len(edges), shown=progress) as advance:
        while active.size and panels < _MOST_PANELS:
            panels *= 2
            finer = measure(active, panels)
            with np.errstate(invalid="ignore"):
                errors[active] = _CAUTION * np.abs(finer - lengths[active])
            lengths[active] = finer
            # NaN counts as done.
            unsure = active[errors[active] > rtol * lengths[active]]
            advance(len(active) - len(unsure))
            active = unsure
    lost = ~np.isfinite(lengths) | ~np.isfinite(errors)
    return np.where(lost, np.inf, lengths), np.where(lost, 0, errors)


def side_by_side(most: int, n: int) -> int:
    """How many of ``n`` are taken side by side, at most ``most``: a power of two, so that few numbers compile anew."""
    return min(most, 2 ** int(np.ceil(np.log2(n))))


@eqx.filter_jit
@with_own_settings
def _chord_block(arrays: Any, xs: Points, curves: tuple[Array, Array], panels: Int[Array, ""], static: Any):
    """Lengths of edges by Gauss's rule on so many panels, a number that is traced."""
    metric = eqx.combine(arrays, static)
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
    at, weights = jnp.asarray((nodes + 1) / 2, xs.dtype), jnp.asarray(weights / 2, xs.dtype)

    def speed(edge: Int[Array, "2"], bend: Float[Array, "k d"], t: Scalar) -> Scalar:
        a, b = xs[edge[0]], xs[edge[1]]
        k = jnp.arange(1, bend.shape[0] + 1)
        x = a + t * (b - a) + t**k @ bend
        return jnp.where(metric.domain(x) > 0, metric.norm(x, b - a + (k * t ** (k - 1)) @ bend), jnp.inf)

    def add(panel, lengths):
        times = (panel + at) / panels.astype(xs.dtype)
        speeds = jax.vmap(lambda edge, bend: jax.vmap(lambda t: speed(edge, bend, t))(times))(*curves)
        return lengths + speeds @ weights / panels.astype(xs.dtype)

    return jax.lax.fori_loop(0, panels, add, jnp.zeros(len(curves[0]), xs.dtype))
