"""Closed forms of the spaces that families are made of, and families that are such a space in other coordinates.

Three spaces, each up to a factor c of its metric:

    a line                     ds^2 = c du^2                                                             (1)
    half-planes {y > 0}        ds^2 = c (dx^2 + dy^2) / y^2      curvature -1 / c                        (2)
    the positive part of the sphere |z| = 1, in p = z^2,
                               ds^2 = c sum dp_i^2 / p_i         curvature 1 / (4 c)                     (3)

Short distances and velocities are computed from differences of coordinates, and so keep their relative accuracy;
formulas for far points add positive terms only.
"""

import abc
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import safe_sqrt
from ..._types import Point, Scalar, Vector
from ..exact import AbstractExactFamily


def sinhc(x: Scalar) -> Scalar:
    """``sinh(x) / x``, one at zero; its derivative is accurate there too."""
    small = jnp.abs(x) < 0.05
    s = jnp.where(small, x, 0) ** 2
    series = 1 + s / 6 * (1 + s / 20 * (1 + s / 42))
    x = jnp.where(small, 1, x)
    return jnp.where(small, series, jnp.sinh(x) / x)


def _squared_arc(arc: Callable[[Array], Array], q: Scalar) -> Scalar:
    """``arc(sqrt(q))^2`` for arcsin or arcsinh: smooth at zero, which automatic differentiation does not see."""
    sign = 1 if arc is jnp.arcsin else -1
    near = jnp.abs(q) < 0.03
    s = jnp.where(near, q, 0)
    series = jnp.ones_like(q)
    for n in range(11, 0, -1):
        series = 1 + sign * s * 2 * n**2 / ((2 * n + 1) * (n + 1)) * series
    return jnp.where(near, s * series, arc(jnp.sqrt(jnp.where(near, 0.5, q))) ** 2)


def half_plane_squared_dist(a: Point, b: Point, gap: Vector) -> Scalar:
    """The square of the hyperbolic distance ``2 arcsinh(|gap| / (2 sqrt(a_y b_y)))`` of points ``(x, y)``, c = 1 in
    (2). ``gap`` is ``b - a``, for close points to more digits than these have."""
    return 4 * _squared_arc(jnp.arcsinh, jnp.sum((gap / a[1]) * (gap / b[1])) / 4)


def half_plane_path(a: Point, b: Point, gap: Vector, t: Scalar) -> Point:
    """The hyperbolic geodesic from ``a`` to ``b`` at time ``t``; ``gap`` as in `half_plane_squared_dist`.

    ``(1, x, x^2 + y^2) / y`` are linear coordinates of the hyperboloid, where with r the distance the geodesic is
    ``w(1 - t) A + w(t) B``, ``w(t) = sinh(t r) / sinh(r)``: so ``1 / y`` and ``x / y`` are such sums, with positive
    terms. Near points use ``w(1 - t) = 1 - k - w(t)`` with ``k = 2 sinh(t r / 2) sinh((1 - t) r / 2) / cosh(r / 2)``:
    then only differences of the points enter.
    """
    r = safe_sqrt(half_plane_squared_dist(a, b, gap))

    def w(t):
        return t * sinhc(t * r) / sinhc(r)

    k = t * (1 - t) * r**2 / 2 * sinhc(t * r / 2) * sinhc((1 - t) * r / 2) / jnp.cosh(r / 2)
    near, far = 1 - k - w(t) * gap[1] / b[1], w(1 - t) + w(t) * a[1] / b[1]
    y = a[1] / jnp.where(r < 1, near, far)
    return jnp.stack([a[0] + w(t) * y / b[1] * gap[0], y])


def half_plane_exp(a: Point, v: Vector) -> Point:
    """Where the hyperbolic geodesic from ``a`` with velocity ``v`` is at time 1.

    With w = v / a_y and r = |w|: ``(a_x + a_y w_x sinhc(r) / h, a_y / h)`` where ``h = cosh(r) - w_y sinhc(r)``.
    """
    w = v / a[1]
    r = safe_sqrt(jnp.sum(w**2))
    # h = exp(-r) + sinhc(r) (r - w_y), whose terms are not negative; r - w_y = w_x^2 / (r + w_y) where that cancels.
    rising = w[1] > 0
    gap = jnp.where(rising, w[0] ** 2 / jnp.where(rising, r + w[1], 1), r - w[1])
    h = jnp.exp(-r) + sinhc(r) * gap
    return jnp.stack([a[0] + a[1] * w[0] * sinhc(r) / h, a[1] / h])


def _root_difference(p: Point, q: Point) -> Vector:
    """``sqrt(q) - sqrt(p)``, accurate for close points."""
    total = safe_sqrt(p) + safe_sqrt(q)
    return (q - p) / jnp.where(total > 0, total, 1)


def simplex_squared_dist(p: Point, q: Point) -> Scalar:
    """The square of the distance ``2 arccos(sum sqrt(p_i q_i))`` of probabilities, which is ``4 arcsin`` of half a
    chord; c = 1 in (3)."""
    return 16 * _squared_arc(jnp.arcsin, jnp.sum(_root_difference(p, q) ** 2) / 4)


def simplex_path(p: Point, q: Point, t: Scalar) -> Point:
    """The geodesic from ``p`` to ``q`` at time ``t``: the square of the arc of a great circle from sqrt(p) to sqrt(q).

    With angle f, ``z(t) = w(1 - t) sqrt(p) + w(t) sqrt(q)``, ``w(t) = sin(t f) / sin(f)``, and ``w(1 - t) = 1 + k -
    w(t)`` with ``k = 2 sin(t f / 2) sin((1 - t) f / 2) / cos(f / 2)``. The angle is at most a right one.
    """
    f = safe_sqrt(simplex_squared_dist(p, q)) / 2
    w = t * jnp.sinc(t * f / jnp.pi) / jnp.sinc(f / jnp.pi)
    k = t * (1 - t) * f**2 / 2 * jnp.sinc(t * f / (2 * jnp.pi)) * jnp.sinc((1 - t) * f / (2 * jnp.pi)) / jnp.cos(f / 2)
    return (safe_sqrt(p) * (1 + k) + w * _root_difference(p, q)) ** 2


def simplex_exp(p: Point, v: Vector) -> Point:
    """Where the geodesic from ``p`` with velocity ``v`` is at time 1; NaN if it left the simplex before.

    The part of ``v`` that leaves the simplex, ``sum(v) p``, is removed.
    """
    z = jnp.sqrt(p)
    u = (v - jnp.sum(v) * p) / (2 * z)  # dz
    f = safe_sqrt(jnp.sum(u**2))
    end = z * jnp.cos(f) + u * jnp.sinc(f / jnp.pi)
    # An arc shorter than a half circle whose ends have positive coordinates has them all the way.
    inside = (f < jnp.pi) & jnp.all(end > -8 * jnp.finfo(p.dtype).eps)
    return jnp.where(inside, end**2, jnp.nan)


def log_ratio(a: Array, b: Array) -> Array:
    """``log(b / a)`` of positive numbers, accurate where they are close; antisymmetric to the last digit."""
    # Of arguments that are positive: log1p of XLA loses two digits of negative ones.
    rises = b > a
    excess = jnp.where(rises, b - a, a - b) / jnp.where(rises, a, b)
    near = excess < float(jnp.finfo(excess.dtype).max) ** 0.5
    size = jnp.log1p(jnp.where(near, excess, 0))
    return jnp.where(near, jnp.where(rises, size, -size), jnp.log(b) - jnp.log(a))


class AbstractLineFamily(AbstractExactFamily):
    """A family of one parameter: a part of the line (1), with coordinate ``u``."""

    @property
    @abc.abstractmethod
    def factor(self) -> float | Scalar:
        """The factor c of the metric."""

    @property
    @abc.abstractmethod
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest ``u``."""

    @abc.abstractmethod
    def to_line(self, theta: Point) -> Scalar:
        """The coordinate ``u`` of ``theta``."""

    @abc.abstractmethod
    def from_line(self, u: Scalar) -> Point:
        """The point with coordinate ``u``."""

    @abc.abstractmethod
    def gap(self, a: Point, b: Point) -> Scalar:
        """``u(b) - u(a)``, with full relative accuracy for close points."""

    def shifted(self, theta: Point, step: Scalar) -> Point:
        """The point whose coordinate ``u`` is that of ``theta`` plus ``step``."""
        return self.from_line(self.to_line(theta) + step)

    def path(self, a: Point, b: Point, t: Scalar) -> Point:
        """The path of constant speed in ``u``."""
        return self.shifted(a, t * self.gap(a, b))

    def closed_squared_dist(self, a: Point, b: Point) -> Scalar:
        """``c (u(b) - u(a))^2``."""
        return jnp.asarray(self.factor, a.dtype) * self.gap(a, b) ** 2

    def closed_exp(self, theta: Point, v: Vector) -> Point:
        """The point that is further along the line by the change of ``u`` along ``v``; NaN if the start is at an end of
        the line, or the point beyond one."""
        start, step = jax.jvp(self.to_line, (theta,), (v,))
        low, high = self.ends
        rounding = 8 * jnp.finfo(theta.dtype).eps * (jnp.abs(start) + jnp.abs(step))
        u = start + step
        inside = (u >= low - rounding) & (u <= high + rounding) & (self.domain(theta) > 0)
        return jnp.where(inside, self.shifted(theta, jnp.clip(step, low - start, high - start)), jnp.nan)


class AbstractHalfPlaneFamily(AbstractExactFamily):
    """A family of independent parts with two parameters each: a product of half-planes (2)."""

    @property
    @abc.abstractmethod
    def factor(self) -> float:
        """The factor c of the metric."""

    @abc.abstractmethod
    def to_half_planes(self, theta: Point) -> Float[Array, "parts 2"]:
        """The points ``(x, y)`` that ``theta`` is, one for each part."""

    @abc.abstractmethod
    def from_half_planes(self, points: Float[Array, "parts 2"]) -> Point:
        """The inverse of `to_half_planes`."""

    @abc.abstractmethod
    def gap(self, a: Point, b: Point) -> Float[Array, "parts 2"]:
        """``to_half_planes(b) - to_half_planes(a)``, with full relative accuracy for close points."""

    def path(self, a: Point, b: Point, t: Scalar) -> Point:
        """The product of the geodesics of the half-planes."""
        parts = self.to_half_planes(a), self.to_half_planes(b), self.gap(a, b)
        return self.from_half_planes(jax.vmap(half_plane_path, (0, 0, 0, None))(*parts, t))

    def closed_squared_dist(self, a: Point, b: Point) -> Scalar:
        """``c`` times the sum of squares of the hyperbolic distances of the parts."""
        parts = self.to_half_planes(a), self.to_half_planes(b), self.gap(a, b)
        return self.factor * jnp.sum(jax.vmap(half_plane_squared_dist)(*parts))

    def closed_exp(self, theta: Point, v: Vector) -> Point:
        """The product of the exponential maps of the half-planes; never leaves the family."""
        return self.from_half_planes(jax.vmap(half_plane_exp)(*jax.jvp(self.to_half_planes, (theta,), (v,))))
