"""The interface of a score: a vector field ``s(x) = grad log p(x)`` on data space."""

import abc
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_scalar, is_concrete, is_real, warn
from .._numerics import is_traced
from .._protocols import KnowsNoiseLevel
from .._types import Point, Scalar, Vector

# So many standard deviations away from the data no score was learned, and none of a kernel density means anything.
_FAR = 1e3


class AbstractScore(eqx.Module):
    """A score function ``s : R^d -> R^d``, as an immutable pytree whose parameters are traced.

    **Fields**

    - ``conservative``: static. ``True`` promises that the Jacobian of the score is symmetric at every point, because
      the score is the gradient of a function by construction. Learned networks are usually not; then formulas need a
      curl term.

    Scores that know their log density (up to a constant) also have ``log_prob(x) -> scalar``.
    """

    conservative: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def __call__(self, x: Point) -> Vector:
        """The score at one point ``x`` of shape ``(d,)``; the result has the same shape. Use ``jax.vmap`` for
        batches."""


@functools.singledispatch
def highest_log_prob(score: AbstractScore, dim: int) -> Scalar | float:
    """A number that ``score.log_prob`` does not exceed in R^``dim``; infinity where none is known. A density that knows
    registers."""
    return jnp.inf


class DataSpread(NamedTuple):
    """Mean and standard deviation of data, of each coordinate or of all.

    ``source`` says what data these are: those that a score holds, or those that its kind is made for.
    """

    mean: Any
    deviation: Any
    source: str = "the data that the score knows"


@functools.singledispatch
def spread_of_data(score: AbstractScore) -> DataSpread | None:
    """The spread of the data whose score this is, ``None`` where it does not know. A type that knows without much work
    registers."""
    return None


def warn_if_far(score: AbstractScore, x: Point) -> None:
    """Warn where ``x`` is a thousand standard deviations and more away from the data that ``score`` knows. What is
    traced passes."""
    known = spread_of_data(score)
    if known is None or is_traced((known.mean, known.deviation, x)):
        return
    point, mean, deviation = (np.asarray(a) for a in (x, known.mean, known.deviation))
    if mean.shape not in ((), point.shape):
        return
    deviations = np.abs(point - mean) / np.where(deviation > 0, deviation, np.inf)
    if deviations.max() > _FAR:
        column = int(deviations.argmax())
        warn(
            f"a point is {deviations.max():.3g} standard deviations away from {known.source}: its coordinate {column} "
            f"is {float(point[column]):.6g}, the mean of the data {np.broadcast_to(mean, point.shape)[column]:.6g}. "
            "Nothing is known there. Are both in the same units, with the same standardisation?",
        )


@functools.singledispatch
def at_noise_level(score: AbstractScore, noise_level: Scalar | float) -> AbstractScore:
    """The score of the same data at another noise level, a standard deviation in the units of the data.

    Of a `NetworkScore` the network at that level, of a `KernelDensityScore` that of this bandwidth, of a Gaussian or a
    mixture, which stand for clean data, that with noise added. ``noise_level`` is traced. Raises ``TypeError`` for a
    type that knows one level only; a type that knows more registers on this function.

    >>> import jax.numpy as jnp
    >>> from scoregeo import KernelDensityScore
    >>> from scoregeo.scores import at_noise_level
    >>> at_noise_level(KernelDensityScore(jnp.zeros((1, 2)), 1.0), 2.0)(jnp.array([4.0, 0.0])).tolist()
    [-1.0, 0.0]
    """
    raise TypeError(f"`score` must be one that knows other noise levels, got {type(score).__name__}")


def field(score: Callable[[Point], Vector]) -> Callable[[Point], Vector]:
    """``score`` in the precision of the point, whatever that of its parameters; raises as `check_score_value`."""
    return lambda x: check_score_value(score(x), x)


def check_score_value(value: Any, x: Any) -> Float[Array, "*d"]:
    """``value`` as the score at ``x``, in the precision of ``x``.

    Raises ``ValueError`` if its shape is not that of ``x``, ``TypeError`` if it does not hold real numbers, or is not
    one array.
    """
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        array = None
    if isinstance(value, tuple | list | dict) and (array is None or array.shape != x.shape):
        raise TypeError(
            f"`score` must return one array of shape {x.shape}, got a {type(value).__name__} of {len(value)}: give a "
            "function that returns the part that is the score, such as `lambda x: net(x)[0]`"
        )
    if array is None:
        raise TypeError(f"`score` must return an array of shape {x.shape}, got {type(value).__name__}")
    value = array
    if not is_real(value.dtype):
        raise TypeError(f"`score` must return real numbers, got dtype {value.dtype}")
    if value.shape != x.shape:
        batch = value.shape == (1, *x.shape)
        advice = ": a batch of one point (give `lambda x: net(x[None])[0]`)" if batch else ""
        raise ValueError(
            f"`score` must return shape {x.shape} for a point of shape {x.shape}, got {value.shape}{advice}"
        )
    return value.astype(x.dtype)


def noise_level_of(score: AbstractScore, noise_level: Any) -> Scalar:
    """The standard deviation of the noise in the density whose score this is: ``noise_level``, or if that is ``None``
    what the score knows (a `NetworkScore` does).

    Raises ``ValueError`` if both are missing, or differ, or if it is not positive and finite. A traced one that is not
    positive becomes NaN.
    """
    known = score.noise_level if isinstance(score, KnowsNoiseLevel) else None
    if noise_level is None:
        if known is None:
            raise ValueError(
                f"`noise_level` is missing: a {type(score).__name__} does not know at which noise level it is the score"
            )
        return as_scalar(known, "noise_level", positive=True)
    noise_level = as_scalar(noise_level, "noise_level", positive=True)
    if known is not None and is_concrete(known) and is_concrete(noise_level):
        given, own = float(noise_level), float(known)
        if not abs(given - own) <= 1e-4 * abs(own):  # one of them may have been rounded in single precision
            raise ValueError(
                f"`noise_level` must be that of the score, {own:.6g}, or left out, got {given:.6g}: ask the model for "
                "its score at another noise level"
            )
    return noise_level
