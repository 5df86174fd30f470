"""What the noise level changes: the dimension over noise levels, and what remains where the noise goes to zero."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import as_float, as_point, check_count, check_finite, is_concrete
from .._numerics import with_own_settings
from .._types import Point, Scalar
from ..scores import AbstractScore
from .dimension import intrinsic_dimension


def dimension_curve(
    score_at: Callable[[Scalar], AbstractScore],
    x: Point,
    noise_levels: Float[Array, " n"],
    *,
    probes: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, " n"]:
    """The `intrinsic_dimension` at ``x`` for each noise level, shape ``(n,)``.

    **Arguments**

    - ``score_at``: function of a noise level that gives the score, such as ``model.score_at`` of a `DiffusionModel` or
      ``lambda sigma: score.noised(1.0, sigma)`` of a mixture.
    - ``x``: a clean point, shape ``(d,)``.
    - ``noise_levels``: positive and increasing, shape ``(n,)``.
    - ``probes``, ``key``: as in `intrinsic_dimension`, with the same directions at all levels.

    At levels below the noise of the data the curve is at d, above the size of the data it goes to 0; between them, flat
    parts are dimensions: `knee` finds the first, and `scoregeo.plotting.dimension_curve` draws it. Raises
    ``ValueError`` as `intrinsic_dimension`, and for levels that do not increase.

    >>> import jax.numpy as jnp
    >>> from scoregeo import GaussianMixtureScore
    >>> from scoregeo.manifold import dimension_curve
    >>> plane = GaussianMixtureScore(jnp.ones(1), jnp.zeros((1, 3)), jnp.diag(jnp.array([9.0, 4.0, 1e-6]))[None])
    >>> levels = jnp.array([1e-4, 1e-2, 0.1, 100.0])
    >>> dimensions = dimension_curve(lambda sigma: plane.noised(1.0, sigma), jnp.zeros(3), levels)
    >>> [round(float(dimension)) for dimension in dimensions]
    [3, 2, 2, 0]
    """
    levels = check_levels(noise_levels).astype(as_point(x, "x").dtype)
    values = [intrinsic_dimension(score_at(level), x, level, probes=probes, key=key) for level in levels]
    return jnp.stack(values)


@with_own_settings
def slope_dimension(
    score_at: Callable[[Scalar], AbstractScore],
    x: Point,
    noise_levels: Float[Array, " n"],
    *,
    probes: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Scalar:
    """The dimension of the data at ``x`` by all noise levels together: d plus the slope of log p over log sigma.

    The volume of a ball of radius sigma grows as sigma^k on data of dimension k, and so the density of the noised data
    at ``x`` as sigma^(k - d). The slope is that of the line through ``(log sigma, log p)`` with least squares (Tempczyk
    et al. 2022, arXiv 2203.09256), where log p is the integral of its derivative, which the score knows: that is
    `intrinsic_dimension` minus d (by the trapezoidal rule between the levels).

    Arguments and errors as in `dimension_curve`, with at least two levels; choose them in a flat part of the curve.

    >>> import jax.numpy as jnp
    >>> from scoregeo import KernelDensityScore
    >>> from scoregeo.manifold import slope_dimension
    >>> line = jnp.stack([jnp.linspace(-1.0, 1.0, 200), jnp.zeros(200), jnp.zeros(200)], 1)
    >>> levels = jnp.array([0.03, 0.05, 0.08])
    >>> round(float(slope_dimension(lambda sigma: KernelDensityScore(line, sigma), jnp.zeros(3), levels)), 2)
    1.0
    """
    levels = check_levels(noise_levels, least=2).astype(as_point(x, "x").dtype)
    rates = dimension_curve(score_at, x, levels, probes=probes, key=key) - jnp.size(x)
    logs = jnp.log(levels)
    steps = jnp.diff(logs) * (rates[1:] + rates[:-1]) / 2
    log_prob = jnp.concatenate([jnp.zeros(1, rates.dtype), jnp.cumsum(steps)])
    centred = logs - jnp.mean(logs)
    return jnp.size(x) + centred @ log_prob / (centred @ centred)


def knee(noise_levels: Float[Array, " n"], dimensions: Float[Array, " n"]) -> Scalar:
    """The noise level where a curve of dimensions, which falls from that of the space, has turned flat: read it there.

    The turn is the point of the curve farthest below the line through its ends, over the logarithm of the noise level
    (Satopaa et al. 2011, "Kneedle"). From there on, the first level is taken at which the curve is less steep than at
    the next one: at the turn itself it is still too high. Give a range of levels from where the data's own noise is
    seen to beyond the flat part.

    **Arguments**

    - ``noise_levels``: positive and increasing, shape ``(n,)`` with n >= 3.
    - ``dimensions``: those of `dimension_curve`, or their mean over points, shape ``(n,)``.

    Returns one of the levels, neither the first nor the last; NaN if no point is below that line. Raises ``ValueError``
    for wrong shapes.

    >>> import jax.numpy as jnp
    >>> from scoregeo.manifold import knee
    >>> float(knee(jnp.array([1.0, 2.0, 4.0, 8.0, 16.0]), jnp.array([10.0, 2.5, 2.1, 2.0, 1.0])))
    4.0
    """
    levels = check_levels(noise_levels, least=3)
    dimensions = as_float(dimensions, "dimensions")
    if dimensions.shape != levels.shape:
        raise ValueError(f"`dimensions` must have shape {levels.shape}, as the levels, got {dimensions.shape}")
    logs = jnp.log(levels)
    chord = dimensions[0] + (dimensions[-1] - dimensions[0]) * (logs - logs[0]) / (logs[-1] - logs[0])
    depth = (chord - dimensions)[1:-1]
    steepness = jnp.abs((dimensions[2:] - dimensions[:-2]) / (logs[2:] - logs[:-2]))
    flat = steepness <= jnp.append(steepness[1:], jnp.inf)
    place = jnp.argmax(flat & (jnp.arange(depth.size) >= jnp.argmax(depth)))
    least = 8 * jnp.finfo(dimensions.dtype).eps * jnp.max(jnp.abs(dimensions))
    return jnp.where(jnp.max(depth) > least, levels[1:-1][place], jnp.nan)


@with_own_settings
def extrapolate(noise_levels: Float[Array, " n"], values: Any, degree: int | None = None) -> Array:
    """What ``values`` at the noise levels go to where the noise goes to zero: a polynomial in the squared noise level.

    **Arguments**

    - ``noise_levels``: positive and increasing, shape ``(n,)``.
    - ``values``: ``(n, ...)``, such as `gauss_curvature` at these levels: with an error in powers of sigma^2.
    - ``degree``: that of the polynomial, at most n - 1, fitted by least squares. By default n - 1, through all values
      (Richardson 1911): right for exact scores. For learned ones, whose errors it would multiply, take 1.

    Returns the shape of one value. Raises ``ValueError`` for wrong shapes.

    >>> import jax.numpy as jnp
    >>> from scoregeo.manifold import extrapolate
    >>> levels = jnp.array([0.1, 0.2, 0.4])
    >>> round(float(extrapolate(levels, 3.0 - 5.0 * levels**2)), 4)
    3.0
    """
    levels = check_levels(noise_levels)
    values = as_float(values, "values")
    if values.ndim == 0 or values.shape[0] != levels.size:
        raise ValueError(f"`values` must have shape ({levels.size}, ...), as the levels, got {values.shape}")
    degree = levels.size - 1 if degree is None else check_count("degree", degree, 0)
    if degree >= levels.size:
        raise ValueError(f"`degree` must be less than the number of levels, {levels.size}, got {degree}")
    # Squares over the largest, so that powers are of one size.
    squares = (levels / levels[-1]).astype(values.dtype) ** 2
    powers = squares[:, None] ** jnp.arange(degree + 1)
    first = jnp.linalg.lstsq(powers, values.reshape(levels.size, -1))[0][0]
    return first.reshape(values.shape[1:])


def check_levels(noise_levels: Any, least: int = 1) -> Float[Array, " n"]:
    """``noise_levels`` as at least ``least`` positive numbers that increase."""
    levels = as_float(noise_levels, "noise_levels")
    if levels.ndim != 1 or levels.size < least:
        raise ValueError(f"`noise_levels` must have shape (n,) with n >= {least}, got {levels.shape}")
    check_finite(levels, "noise_levels")
    if is_concrete(levels):
        numbers = np.asarray(levels)
        if not (numbers > 0).all() or not (np.diff(numbers) > 0).all():
            raise ValueError(f"`noise_levels` must be positive and increase, got {numbers}")
    return levels
