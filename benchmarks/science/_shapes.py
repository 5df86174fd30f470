"""Curves and surfaces in R^3 whose arcs, distances and noised scores are known, as the first coordinates of R^D.

With noise of standard deviation sigma, and x = (y, z), y in R^3,

    log p(x) = log q(y) - |z|^2 / (2 sigma^2),

and log q, up to a constant, is

    curves, and the roll along its spiral:  a sum of Gaussians at places closer than sigma,
    the roll across it:                     a difference of normal distribution functions,
    surfaces of revolution:                 a sum over circles of radius r_k at height h_k, each of which gives
        log I0(|y'| r_k / sigma^2) - (|y'|^2 + r_k^2 + (y_3 - h_k)^2) / (2 sigma^2),    y' = (y_1, y_2).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e, log_ndtr

from scoregeo import DensityScore, PullbackMetric, SpectralNewton, geodesic

# Curves are up to 14 long, and the smallest noise level of the study is 0.05: between places a noise level apart, the
# density of the sum differs from that of the curve by exp(-2 pi^2). Circles are closer. One number: one program.
_FINE, _PLACES, _CIRCLES = 8001, 300, 96


class Pairs(NamedTuple):
    """Ends ``(n, 3)`` of pairs and the exact length ``(n,)`` of the geodesic of the shape between them."""

    xs: np.ndarray
    ys: np.ndarray
    arcs: np.ndarray


class Shape(NamedTuple):
    """``score(sigma)`` of its points with noise, in any R^D; ``pairs(random, n)``; the ``distance`` of points
    ``(..., 3)`` from it; and ``sample(random, n)``, points ``(n, 3)`` spread evenly on it."""

    score: Callable[[float], DensityScore]
    pairs: Callable[[np.random.Generator, int], Pairs]
    distance: Callable[[np.ndarray], np.ndarray]
    sample: Callable[[np.random.Generator, int], np.ndarray]

    def off(self, points: np.ndarray) -> np.ndarray:
        """The distance of points ``(..., D)`` of R^D from it."""
        return np.hypot(self.distance(points[..., :3]), np.linalg.norm(points[..., 3:], axis=-1))


# --- Curves -----------------------------------------------------------------------------------------------------------


def _helix(t):
    return np.stack([np.cos(t), np.sin(t), 0.25 * t], -1)


def _trefoil(t):
    return np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], -1) / 3


def _curve_log_prob(x, places, sigma):
    squared = jnp.sum((x[:3] - places) ** 2, -1) + jnp.sum(x[3:] ** 2)
    return jax.nn.logsumexp(-squared / (2 * sigma**2))


class _Curve(NamedTuple):
    """A curve by its arc length."""

    points: np.ndarray
    arc: np.ndarray
    closed: bool

    def at(self, s):
        s = s % self.arc[-1] if self.closed else s
        return np.stack([np.interp(s, self.arc, column) for column in self.points.T], -1)


def _by_arc_length(curve: Callable, last: float, closed: bool) -> _Curve:
    points = curve(np.linspace(0, last, _FINE))
    arc = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    return _Curve(points, arc, closed)


def _nearest(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    return cKDTree(places).query(points)[0]


def _of_curve(curve: _Curve, arcs: tuple[float, float]) -> Shape:
    places = curve.at(np.linspace(0, curve.arc[-1], _PLACES, endpoint=not curve.closed))

    def pairs(random, n):
        length = random.uniform(*arcs, n)
        start = random.uniform(0, curve.arc[-1] - (0 if curve.closed else length), n)
        return Pairs(curve.at(start), curve.at(start + length), length)

    return Shape(
        lambda sigma: DensityScore(_curve_log_prob, places, sigma),
        pairs,
        lambda points: _nearest(points, curve.points),
        lambda random, n: curve.at(random.uniform(0, curve.arc[-1], n)),
    )


def helix() -> Shape:
    """Two turns of radius 1, 1.57 apart."""
    return _of_curve(_by_arc_length(_helix, 4 * np.pi, False), (1.0, 2.5))


def trefoil() -> Shape:
    """The knot."""
    return _of_curve(_by_arc_length(_trefoil, 2 * np.pi, True), (0.7, 1.5))


# --- Surfaces of revolution -------------------------------------------------------------------------------------------


def _revolved_log_prob(x, radii, heights, log_weights, sigma):
    rho = jnp.sqrt(x[0] ** 2 + x[1] ** 2 + 1e-30)
    product = rho * radii / sigma**2
    squared = (rho - radii) ** 2 + (x[2] - heights) ** 2 + jnp.sum(x[3:] ** 2)
    return jax.nn.logsumexp(log_weights + jnp.log(i0e(product)) - squared / (2 * sigma**2))


def _of_revolution(radii, heights, log_weights, pairs, distance, sample) -> Shape:
    return Shape(
        lambda sigma: DensityScore(_revolved_log_prob, radii, heights, log_weights, sigma), pairs, distance, sample
    )


def sphere() -> Shape:
    """Of radius 1."""
    heights, weights = np.polynomial.legendre.leggauss(_CIRCLES)

    def sample(random, n):
        points = random.normal(size=(n, 3))
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    def pairs(random, n):
        arcs, xs, ways = random.uniform(1.0, 2.2, n), sample(random, n), sample(random, n)
        ways = ways - np.sum(ways * xs, 1, keepdims=True) * xs
        ways = ways / np.linalg.norm(ways, axis=1, keepdims=True)
        return Pairs(xs, np.cos(arcs)[:, None] * xs + np.sin(arcs)[:, None] * ways, arcs)

    def distance(points):
        return np.abs(np.linalg.norm(points, axis=-1) - 1)

    return _of_revolution(np.sqrt(1 - heights**2), heights, np.log(weights), pairs, distance, sample)


_R, _TUBE = 1.0, 0.5


def _torus(u):
    rho = _R + _TUBE * jnp.cos(u[1])
    return jnp.stack([rho * jnp.cos(u[0]), rho * jnp.sin(u[0]), _TUBE * jnp.sin(u[1])])


def torus() -> Shape:
    """Of radii 1 and 0.5; its geodesics are those of the chart by two angles, solved by this library to 1e-6."""
    angle = 2 * np.pi * np.arange(_CIRCLES) / _CIRCLES
    radii = _R + _TUBE * np.cos(angle)

    def pairs(random, n):
        # On the outer half, where the geodesic of two near points is one.
        start = np.stack([random.uniform(0, 2 * np.pi, n), random.uniform(-0.8, 0.8, n)], 1)
        end = np.stack([start[:, 0] + random.uniform(0.6, 1.2, n), random.uniform(-1.2, 1.2, n)], 1)
        solver = SpectralNewton(max_elements=1, degree=24, continuation=4, adaptations=0)
        paths = jax.jit(jax.vmap(lambda x, y: geodesic(PullbackMetric(_torus), x, y, solver=solver)))(start, end)
        lengths = np.asarray(paths.length)  # NaN where a solve failed
        assert np.isfinite(lengths).all(), "an arc that is to be exact was not solved"
        return Pairs(np.asarray(jax.vmap(_torus)(start)), np.asarray(jax.vmap(_torus)(end)), np.asarray(lengths))

    def distance(points):
        return np.abs(np.hypot(np.hypot(points[..., 0], points[..., 1]) - _R, points[..., 2]) - _TUBE)

    def sample(random, n):
        angles = random.uniform(0, 2 * np.pi, (4 * n, 2))
        kept = random.uniform(0, _R + _TUBE, 4 * n) < _R + _TUBE * np.cos(angles[:, 1])
        return np.asarray(jax.vmap(_torus)(angles[kept][:n]))

    return _of_revolution(radii, _TUBE * np.sin(angle), np.log(radii), pairs, distance, sample)


# --- Swiss roll -------------------------------------------------------------------------------------------------------

_HEIGHT = 2.0


def _roll_log_prob(x, places, sigma):
    squared = jnp.sum((x[:2] - places) ** 2, -1) + jnp.sum(x[3:] ** 2)
    low, high = -x[2] / sigma, (_HEIGHT - x[2]) / sigma
    # The smaller tail of the two: no difference of numbers near one.
    mirror = low + high < 0
    low, high = jnp.where(mirror, -high, low), jnp.where(mirror, -low, high)
    across = log_ndtr(high) + jnp.log1p(-jnp.exp(log_ndtr(low) - log_ndtr(high)))
    return jax.nn.logsumexp(-squared / (2 * sigma**2)) + across


def swiss_roll() -> Shape:
    """A turn and a half of a spiral whose arms are 1 apart, by a height of 2."""
    spiral = _by_arc_length(
        lambda t: np.stack([t * np.cos(t), t * np.sin(t)], -1)[...] / (2 * np.pi), 4.5 * np.pi, False
    )
    first = np.searchsorted(spiral.points[:, 0] ** 2 + spiral.points[:, 1] ** 2, 0.75**2)
    spiral = _Curve(spiral.points[first:], spiral.arc[first:] - spiral.arc[first], False)
    places = spiral.at(np.linspace(0, spiral.arc[-1], _PLACES))

    def pairs(random, n):
        along, across = random.uniform(1.0, 2.0, n), random.uniform(0.3, _HEIGHT - 0.3, (2, n))
        start = random.uniform(0, spiral.arc[-1] - along)
        xs, ys = (np.column_stack([spiral.at(s), h]) for s, h in zip((start, start + along), across, strict=True))
        return Pairs(xs, ys, np.hypot(along, across[1] - across[0]))

    def distance(points):
        beyond = np.maximum(0, np.maximum(-points[..., 2], points[..., 2] - _HEIGHT))
        return np.hypot(_nearest(points[..., :2], spiral.points), beyond)

    def sample(random, n):
        return np.column_stack([spiral.at(random.uniform(0, spiral.arc[-1], n)), random.uniform(0, _HEIGHT, n)])

    return Shape(partial(DensityScore, _roll_log_prob, places), pairs, distance, sample)


SHAPES = {"helix": helix, "trefoil": trefoil, "sphere": sphere, "torus": torus, "swiss_roll": swiss_roll}
