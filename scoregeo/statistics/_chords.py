"""Lengths of edges in a metric, straight or bent, with an estimate of their errors; and what bends a straight one
towards a geodesic, by a few steps of descent: a cheap curve whose length is a bound from above.

A line from a to b gets the bend ``sum_k phi_k(t) c_k``, with polynomials phi_k that vanish at both ends and whose
derivatives are Legendre's, orthonormal on [0, 1]. In the Euclidean metric the energy is then
``(|b - a|^2 + |c|^2) / 2``, so that steps of descent need no other scale; their sizes are those of Barzilai & Borwein
(1988), divided by four where the energy would rise.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._numerics import with_own_settings
from .._pairs.progress import progress_bar
from .._types import Point, Points, Scalar
from ..metrics import AbstractMetric

# Gauss points on a panel of an edge; panels double until two numbers of them agree.
_GAUSS, _MOST_PANELS = 4, 256
# Where the metric has kinks, the finer of two numbers may be as wrong as the difference of both, or more.
_CAUTION = 2
# How many edges are measured side by side.
_EDGES = 1024
# How many polynomials bend a line, the Gauss points of its energy, the steps of descent.
_BENDS, _NODES, _STEPS = 3, 8, 6
# How many lines are bent side by side.
_LINES = 256


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


def bend(metric: AbstractMetric, xs: Points, pairs: Int[np.ndarray, "p 2"]) -> Float[np.ndarray, "p k d"]:
    """What bends the straight lines of the ``pairs`` to shorten them, zero where nothing does: the coefficients of t,
    t^2, ... on the way, as for `chord_lengths`."""
    arrays, static = eqx.partition(metric, eqx.is_array)
    size, parts = side_by_side(_LINES, len(pairs)), []
    for start in range(0, len(pairs), size):
        some = pairs[start : start + size]
        found = _bend_block(arrays, xs, jnp.asarray(np.resize(some, (size, 2))), static)
        parts.append(np.asarray(found)[: len(some)])
    return np.einsum("jk,pkd->pjd", _powers(), np.concatenate(parts))


def _powers() -> np.ndarray:
    """The coefficients of t, t^2, ... in each polynomial, ``(k + 1, k)``; that of 1 is zero."""
    from numpy.polynomial import Legendre, Polynomial

    columns = []
    for k in range(1, _BENDS + 1):
        slope = Legendre.basis(k, domain=[0, 1]) * np.sqrt(2 * k + 1)
        whole = slope.integ(lbnd=0).convert(kind=Polynomial, domain=[-1, 1]).coef
        columns.append(np.pad(whole[1:], (0, _BENDS + 2 - len(whole))))
    return np.stack(columns, -1)


class _Descent(NamedTuple):
    c: Float[Array, "k d"]
    energy: Scalar
    gradient: Float[Array, "k d"]
    step: Scalar


@eqx.filter_jit
@with_own_settings
def _bend_block(arrays: Any, xs: Points, pairs: Int[Array, "p 2"], static: Any) -> Float[Array, "p k d"]:
    metric = eqx.combine(arrays, static)
    z, weights = np.polynomial.legendre.leggauss(_NODES)
    t, weights = jnp.asarray((z + 1) / 2, xs.dtype), jnp.asarray(weights / 2, xs.dtype)
    k, powers = jnp.arange(1, _BENDS + 2), jnp.asarray(_powers(), xs.dtype)
    places, slopes = t[:, None] ** k @ powers, k * t[:, None] ** (k - 1) @ powers

    def one(pair):
        a, b = xs[pair[0]], xs[pair[1]]

        def energy(c):
            points, velocities = a + t[:, None] * (b - a) + places @ c, b - a + slopes @ c
            return weights @ jax.vmap(lambda x, v: _squared_speed(metric, x, v))(points, velocities) / 2

        evaluate = jax.value_and_grad(energy)

        def step(_, now: _Descent) -> _Descent:
            c = now.c - now.step * now.gradient
            value, gradient = evaluate(c)
            falls = (value < now.energy) & jnp.all(jnp.isfinite(gradient))
            moved, turned = c - now.c, gradient - now.gradient
            across = jnp.abs(jnp.sum(moved * turned))
            size = jnp.where(across > 0, jnp.sum(moved**2) / jnp.where(across > 0, across, 1), now.step)
            new = _Descent(c, value, gradient, size)
            return jax.tree.map(lambda p, q: jnp.where(falls, p, q), new, now._replace(step=now.step / 4))

        straight = jnp.zeros((_BENDS, a.size), xs.dtype)
        value, gradient = evaluate(straight)
        # As if the metric were a multiple of Euclid's, with the same energy.
        first = jnp.sum((b - a) ** 2) / jnp.where(value > 0, 2 * value, 1)
        return jax.lax.fori_loop(0, _STEPS, step, _Descent(straight, value, gradient, first)).c

    return jax.vmap(one)(pairs)


def _squared_speed(metric: AbstractMetric, x: Point, v: Point) -> Scalar:
    return jnp.where(metric.domain(x) > 0, metric.at(x).squared_norm(v), jnp.inf)
