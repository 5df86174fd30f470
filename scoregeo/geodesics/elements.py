"""Where a path wants its elements, and how a path is carried from one set of elements to another."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import legendre

from .._types import Point
from .basis import Basis, Breaks, Coefficients, legendre_values
from .curves import PiecewisePolynomial

_NEIGHBOURS = 3


class Path(NamedTuple):
    """Coefficients ``(k, m, d)`` and breaks ``(k + 1,)``; elements of width zero at the end are unused."""

    c: Coefficients
    breaks: Breaks


def adapted_breaks(path: Path, x: Point, y: Point, basis: Basis, elements: int) -> Breaks:
    """``elements`` elements that share the turning of ``path``, sampled at the times of its ``basis``, equally.

    Most of them follow the rate |gamma''| / |gamma'| at which the velocity changes, whose inverse is the distance in
    time over which the path looks smooth; a fifth is spread evenly, so that none grows beyond five times the average.
    """
    _, velocities = basis.path(x, y, path.c)
    t = basis.times
    used = jnp.repeat(basis.widths > 0, basis.u.size)
    step = jnp.diff(t)
    speed = jnp.linalg.norm(velocities, axis=-1)
    change = jnp.linalg.norm(jnp.diff(velocities, axis=0), axis=-1)
    scale = step * (speed[1:] + speed[:-1]) / 2
    rate = jnp.where(used[1:] & (scale > 0), change / jnp.where(scale > 0, scale, 1), 0)
    # The largest of a neighbourhood: elements that only just miss a bend would not hold it.
    around = jnp.pad(rate, _NEIGHBOURS, mode="edge")
    rate = jax.lax.reduce_window(around, -jnp.inf, jax.lax.max, (2 * _NEIGHBOURS + 1,), (1,), "valid")
    zero, one = jnp.zeros(1, t.dtype), jnp.ones(1, t.dtype)
    turning = jnp.concatenate([zero, jnp.cumsum(rate * step)])
    total = turning[-1]
    # A straight path, or one that is not finite, has no preference.
    usable = jnp.isfinite(total) & (total > 0)
    turning = jnp.where(usable, turning / jnp.where(usable, total, 1), t)
    times = jnp.concatenate([zero, t, one])
    cumulative = 0.2 * times + 0.8 * jnp.concatenate([zero, turning, one])
    return jnp.interp(jnp.linspace(0, 1, elements + 1, dtype=t.dtype), cumulative, times).at[0].set(0).at[-1].set(1)


def polynomial_curve(x: Point, y: Point, path: Path) -> PiecewisePolynomial:
    """``path`` as a curve that can be evaluated anywhere."""
    widths = jnp.diff(path.breaks)
    used = widths > 0
    root = jnp.sqrt(jnp.where(used, widths, 1))
    steps = jnp.where(used, root, 0)[:, None] * path.c[:, 0]
    starts = x + path.breaks[:-1, None] * (y - x) + jnp.cumsum(steps, 0) - steps
    velocities = (path.c / root[:, None, None]).at[:, 0].add(y - x)
    return PiecewisePolynomial(path.breaks, starts, velocities)


def halved(path: Path) -> Path:
    """The same path with every element divided into two."""
    middles = (path.breaks[1:] + path.breaks[:-1]) / 2
    breaks = jnp.append(jnp.stack([path.breaks[:-1], middles], 1).reshape(-1), path.breaks[-1])
    k, m, d = path.c.shape
    return Path(jnp.einsum("sij,kjd->ksid", _divided(m, 2).astype(path.c.dtype), path.c).reshape(2 * k, m, d), breaks)


def merged(c: Coefficients, parts: int) -> Coefficients:
    """The coefficients nearest to ``c`` on elements of equal width, when as many as ``parts`` become one."""
    if parts == 1:
        return c
    k, m, d = c.shape
    return jnp.einsum("sij,ksid->kjd", _divided(m, parts).astype(c.dtype), c.reshape(k // parts, parts, m, d))


@functools.lru_cache(maxsize=64)
def _divided(m: int, parts: int) -> np.ndarray:
    """From the coefficients of an element to those of its ``parts`` equal parts, ``(parts, m, m)``."""
    nodes, weights = legendre.leggauss(m)
    root = np.sqrt(2 * np.arange(m) + 1)
    here = legendre.legvander(nodes, m - 1) * root
    # The local coordinate in the whole element, from that in each part; both in [-1, 1].
    across = (nodes + 1 + 2 * np.arange(parts)[:, None]) / parts - 1
    whole = legendre.legvander(across, m - 1) * root
    return np.einsum("q,qi,sqj->sij", weights / 2, here, whole) / parts**0.5


def transfer(path: Path, basis: Basis) -> Coefficients:
    """``path`` in the coefficients of ``basis``: exact where that can hold it."""
    k, m, _ = path.c.shape
    t = basis.times
    e = jnp.sum(path.breaks[1:-1] < t[:, None], -1)
    h = jnp.diff(path.breaks)
    p, _ = legendre_values(m, (t - path.breaks[e]) / h[e])
    # As one matrix product: gathering coefficients for every time would copy them many times over.
    matrix = jnp.zeros((t.size, k, m), t.dtype).at[jnp.arange(t.size), e].set(p / jnp.sqrt(h[e])[:, None])
    velocities = matrix.reshape(t.size, k * m) @ path.c.reshape(k * m, -1)
    weighted = basis.weights[:, None] * velocities
    return basis.adjoint(jnp.zeros_like(weighted), weighted)
