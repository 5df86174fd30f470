"""Polygamma functions and their differences, without the cancellation that subtracting them has.

With psi_n the n-th derivative of the digamma function psi_0, and Bernoulli numbers B_2k, for n > 0 and large x

    |psi_n(x)| = (n-1)! / x^n + n! / (2 x^(n+1)) + sum_k B_2k (2k+n-1)! / (2k)! / x^(2k+n),                     (1)

for n = 0, where the sign is the other one, with -log(x) as the first term. That is exact up to rounding from x = 16,
where the recurrence |psi_n(x)| = |psi_n(x + 1)| + n! / x^(n+1) leads. All terms but the small ones with B_2k are
positive, and remain so in differences and in derivatives, which are polygamma functions of the next order.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

_Values = Array | np.ndarray

# B_2, B_4, ...: those that trigamma functions need, and one more for each derivative.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
_ENOUGH = 5
_SHIFTS = np.arange(16.0)


def _series(n: int) -> list[float]:
    """The coefficients of the sum over k in (1), from the last."""
    numbers = enumerate(_BERNOULLI[: _ENOUGH + n], 1)
    return [b * math.factorial(2 * k + n - 1) / math.factorial(2 * k) for k, b in numbers][::-1]


def _steps(x: _Values) -> _Values:
    """``x``, ``x + 1``, ..., along a new last axis."""
    return x[..., None] + _SHIFTS.astype(x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def polygamma(n: int, x: _Values) -> Array:
    """``|psi_n(x)|`` for n > 0 and positive ``x``."""
    a = 1 / (x + _SHIFTS.size)
    tail = jnp.zeros_like(x)
    for coefficient in _series(n):
        tail = (tail + coefficient) * a**2
    tail = a**n * (math.factorial(n - 1) + math.factorial(n) / 2 * a + tail)
    return math.factorial(n) * jnp.sum((1 / _steps(x)) ** (n + 1), -1) + tail


@polygamma.defjvp
def _polygamma_jvp(n, primals, tangents):
    return polygamma(n, *primals), -polygamma(n + 1, *primals) * tangents[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def polygamma_change(n: int, x: _Values, y: _Values) -> Array:
    """``|psi_n(x) - psi_n(x + y)|`` for positive ``x`` and ``y`` of the same shape, accurate to rounding however small
    ``y / x`` is.

    A power in (1) changes by ``a^m - b^m = (a - b) (a^(m-1) + a^(m-2) b + ... + b^(m-1))``, a - b = y a b; and the sum
    over k, a polynomial in the square, by its divided difference, which Horner's scheme has too.
    """
    a, b = 1 / _steps(x), 1 / (_steps(x) + y[..., None])
    head = math.factorial(n) * jnp.sum(y[..., None] * a * b * _power_sum(a, b, n), -1)
    a, b = 1 / (x + _SHIFTS.size), 1 / (x + _SHIFTS.size + y)
    value, slope = jnp.zeros_like(x), jnp.zeros_like(x)
    for coefficient in [*_series(n), 0.0]:
        slope = slope * b**2 + value
        value = value * a**2 + coefficient
    tail = math.factorial(n) / 2 * _power_sum(a, b, n) + b**n * (a + b) * slope
    if n:
        tail = tail + (math.factorial(n - 1) + value) * _power_sum(a, b, n - 1)
    return head + y * a * b * tail + (0 if n else jnp.log1p(y * a))


@polygamma_change.defjvp
def _polygamma_change_jvp(n, primals, tangents):
    x, y = primals
    along_x, along_y = -polygamma_change(n + 1, x, y), polygamma(n + 1, x + y)
    return polygamma_change(n, x, y), along_x * tangents[0] + along_y * tangents[1]


def _power_sum(a: _Values, b: _Values, m: int) -> Array:
    """``a^m + a^(m-1) b + ... + b^m``."""
    total = jnp.ones_like(a)
    for power in range(1, m + 1):
        total = total * a + b**power
    return total


def trigamma_excess(x: _Values) -> Array:
    """``psi_1(x) - 1/x`` for positive ``x``, accurate to rounding for small and large ``x``.

    By the recurrence ``e(x) = e(x + 1) + 1 / (x^2 (x + 1))``.
    """
    steps, a = _steps(x), 1 / (x + _SHIFTS.size)
    tail = jnp.zeros_like(x)
    for number in reversed(_BERNOULLI[:_ENOUGH]):
        tail = (tail + number) * a**2
    return jnp.sum(1 / steps**2 / (steps + 1), -1) + a * (a / 2 + tail)


@jax.custom_jvp
def digamma_gap(x: _Values) -> Array:
    """``log(x) - psi_0(x)`` for positive ``x``: positive, about ``1 / x`` for small and ``1 / (2 x)`` for large ``x``.

    By the recurrence ``g(x) = g(x + 1) + 1 / x - log(1 + 1 / x)``.
    """
    a = 1 / (x + _SHIFTS.size)
    tail = jnp.zeros_like(x)
    for coefficient in _series(0):
        tail = (tail + coefficient) * a**2
    return tail + a / 2 - jnp.sum(log1p_excess(1 / _steps(x)), -1)


@digamma_gap.defjvp
def _digamma_gap_jvp(primals, tangents):
    return digamma_gap(*primals), -trigamma_excess(*primals) * tangents[0]


def log1p_excess(x: _Values) -> Array:
    """``log(1 + x) - x`` for ``x > -1``, about ``-x^2 / 2`` for small ``x``.

    With r = x / (2 + x), log(1 + x) = 2 artanh(r), and 2 r - x = -r x.
    """
    near = jnp.abs(x) < 0.3
    small = jnp.where(near, x, 0)
    r = small / (2 + small)
    series = jnp.zeros_like(x)
    for n in range(23, 1, -2):
        series = (series + 2 / n) * r**2
    large = jnp.where(near, 1, x)
    return jnp.where(near, r * (series - small), jnp.log1p(large) - large)


def log_ratio_excess(x: _Values, unit: _Values, change: _Values) -> Array:
    """``log(x / unit) - change`` for positive ``x``, with ``change = x / unit - 1`` known to more digits than that."""
    near = jnp.abs(change) < 0.3
    far = jnp.log(jnp.where(near, 1, x)) - jnp.log(unit) - change
    return jnp.where(near, log1p_excess(jnp.where(near, change, 0)), far)


def superadditivity(x: _Values, y: _Values) -> Array:
    """``h(x + y) - h(x) - h(y)`` for positive ``x`` and ``y`` and ``h = 1 / psi_1``: positive, about 1/2 for large
    arguments and ``2 x y`` for small ones."""
    swap = x < y
    large, small = jnp.where(swap, y, x), jnp.where(swap, x, y)
    arguments = jnp.stack([large, small, x + y])
    excess = arguments * trigamma_excess(arguments)
    h, shortfall = arguments / (1 + excess), arguments * excess / (1 + excess)  # which add up to the argument
    # h is convex, so that h(large + small) - h(large), as a product, is well above h(small) where h bends; large
    # arguments have h nearly straight, and the shortfalls differ. Neither loses more than a factor of three.
    bent = polygamma_change(1, large, small) * h[0] * h[2] - h[1]
    return jnp.where(small < 1, bent, shortfall[0] + shortfall[1] - shortfall[2])
