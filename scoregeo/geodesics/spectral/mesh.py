"""Where a path wants its elements, and how a path is carried from one set of elements to another."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.polynomial import legendre

from ..._batching import over_columns
from ..._types import Point
from ..curves import PiecewisePolynomial
from .legendre import HIGHEST, Basis, Breaks, Coefficients, legendre_values, uniform

_NEIGHBOURS = 3


class Path(NamedTuple):
    """Coefficients ``(k, m, d)`` and breaks ``(k + 1,)``; elements of width zero at the end are unused."""

    c: Coefficients
    breaks: Breaks


def interlaced(elements: int) -> Float[np.ndarray, " breaks"]:
    """``elements`` elements that lie across equal ones: no inner break is near one of theirs."""
    # Between 0.4 and 0.7 of an element behind a break of theirs; the last element is wider by a third for that.
    inner = np.arange(1, elements) - 0.6 + 0.3 * (np.arange(1, elements) - 0.5) / max(elements - 1, 1)
    return np.array([0.0, *inner / elements, 1.0])


def shares(elements: Sequence[int], level: int | Array, across: Bool[Array, ""] | bool, dtype) -> Breaks:
    """Breaks of as many elements as ``level`` has, equal ones or, ``across`` these, `interlaced` ones; padded with ones
    to the most."""
    both = [[uniform(k) for k in elements], [interlaced(k) for k in elements]]
    padded = [
        [np.pad(breaks, (0, max(elements) + 1 - breaks.size), constant_values=1) for breaks in row] for row in both
    ]
    equal, other = (jnp.asarray(np.stack(row), dtype)[level] for row in padded)
    return jnp.where(across, other, equal)


def adapted_breaks(path: Path, x: Point, y: Point, basis: Basis, shares: Breaks) -> Breaks:
    """Elements that divide the turning of ``path``, sampled at the times of its ``basis``, as ``shares`` divide [0, 1];
    there may be ones at the end of these, for elements that are not used.

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
    turning = _running_sums(jnp.concatenate([zero, rate * step]).reshape(-1, basis.u.size))
    total = turning[-1]
    # A straight path, or one that is not finite, has no preference.
    usable = jnp.isfinite(total) & (total > 0)
    turning = jnp.where(usable, turning / jnp.where(usable, total, 1), t)
    times = jnp.concatenate([zero, t, one])
    cumulative = 0.2 * times + 0.8 * jnp.concatenate([zero, turning, one])
    # Where that reaches the shares, as a sum of what each interval adds: looking for the interval is more to compile.
    rise = jnp.diff(cumulative)
    part = (shares[:, None] - cumulative[:-1]) / jnp.where(rise > 0, rise, 1)
    return jnp.where(shares < 1, jnp.sum(jnp.clip(part, 0, 1) * jnp.diff(times), -1), 1).at[0].set(0)


def _running_sums(rows: Float[Array, "k n"]) -> Float[Array, " k_n"]:
    # In two steps, by products with small matrices: `jnp.cumsum` takes longer to compile.
    k, n = rows.shape
    before = jnp.matmul(np.tril(np.ones((k, k)), -1).astype(rows.dtype), jnp.sum(rows, 1), precision=HIGHEST)
    inside = jnp.matmul(rows, np.triu(np.ones((n, n))).astype(rows.dtype), precision=HIGHEST)
    return (before[:, None] + inside).reshape(-1)


def polynomial_curve(x: Point, y: Point, path: Path) -> PiecewisePolynomial:
    """``path`` as a curve that can be evaluated anywhere."""
    widths = jnp.diff(path.breaks)
    used = widths > 0
    root = jnp.sqrt(jnp.where(used, widths, 1))
    earlier = np.tril(np.ones((widths.size, widths.size)), -1).astype(widths.dtype)
    displacements = jnp.matmul(earlier * jnp.where(used, root, 0), path.c[:, 0], precision=HIGHEST)
    starts = x + path.breaks[:-1, None] * (y - x) + displacements
    velocities = (path.c / root[:, None, None]).at[:, 0].add(y - x)
    return PiecewisePolynomial(path.breaks, starts, velocities)


def merge(c: Coefficients) -> Float[Array, "pairs m d"]:
    """The single polynomial ``(1, m, d)`` nearest to a path on equal elements with coefficients ``c`` ``(k, m, d)``."""
    matrix = _merging(*c.shape[:2]).astype(c.dtype)
    return over_columns(lambda c: jnp.einsum("eij,eid->jd", matrix, c, precision=HIGHEST), c)[None]


@functools.lru_cache(maxsize=64)
def _merging(k: int, m: int) -> np.ndarray:
    """``int p_ei p_j`` of the polynomials on k equal elements and on one, ``(k, m, m)``. None of p_0: the path ends
    where it should."""
    nodes, weights = legendre.leggauss(m)
    root = np.sqrt(2 * np.arange(m) + 1)
    times = (np.arange(k)[:, None] + (nodes + 1) / 2) / k
    local, whole = legendre.legvander(nodes, m - 1) * root, legendre.legvander(2 * times - 1, m - 1) * root
    return np.einsum("q,qi,eqj->eij", weights / 2 / k**0.5, local, whole) * (np.arange(m) > 0)


def transfer(path: Path, basis: Basis) -> Coefficients:
    """``path`` in the coefficients of ``basis``: exact where that can hold it."""
    k, m, _ = path.c.shape
    t = basis.times
    e = jnp.sum(path.breaks[1:-1] < t[:, None], -1)
    h = jnp.diff(path.breaks)
    p, _ = legendre_values(m, (t - path.breaks[e]) / h[e])
    # As one matrix product: gathering coefficients for every time would copy them many times over.
    own = (e[:, None] == np.arange(k))[:, :, None]
    matrix = jnp.where(own, (p / jnp.sqrt(h[e])[:, None])[:, None], 0)
    matrix = matrix.reshape(t.size, k * m)
    velocities = over_columns(lambda c: jnp.matmul(matrix, c, precision=HIGHEST), path.c.reshape(k * m, -1))
    weighted = basis.weights[:, None] * velocities
    return basis.adjoint(jnp.zeros_like(weighted), weighted)
