r"""The score of the data from what a network predicts of a noisy point: noise, clean point, v, score or velocity.

On a path ``x_t = alpha(t) x_0 + sigma(t) eps`` from data to noise, a network learns the mean, given ``x_t``, of
``a x_0 + b eps``:

    eps       (0, 1)
    x0        (1, 0)
    v         (-sigma, alpha)            Salimans & Ho 2022, arXiv 2202.00512
    score     (0, -1/sigma)              the gradient of log p_t(x_t)
    velocity  (alpha', sigma')           flow matching, rectified flow, stochastic interpolants                  (1)

With ``alpha E[x_0] + sigma E[eps] = x_t``, a prediction ``m`` of kind ``(a, b)`` gives the mean noise,

    E[eps | x_t] = (a x_t - alpha m)/D,      D = a sigma - b alpha,                                              (2)

and that the score of ``x_t``, which is ``-E[eps | x_t]/sigma`` (Tweedie's formula). Dividing by ``alpha``, the point
``x = x_t/alpha = x_0 + r eps`` is one of the data with noise of standard deviation ``r = sigma/alpha`` added, and its
score is

    s(x) = alpha s_t(alpha x) = k (m(alpha x) - a x),      k = alpha^2/(sigma D).                                (3)
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from .._checks import as_float, as_scalar, check_choice, check_finite, is_concrete
from .._function import TracedFunction, as_arguments
from .._numerics import is_traced
from .._types import Point, Scalar, Vector
from .base import AbstractScore, DataSpread, at_noise_level, spread_of_data
from .density import check_dtype, check_shape, field_value

PREDICTIONS = ("eps", "x0", "v", "score", "velocity")
# By how much of a noise level rounding may leave the range of a schedule.
_SLACK = 1e-5
# A schedule ends in noise that hides the data, which is then of about this part of its size, or of size one.
_HIDDEN = 0.01


class PredictionScore(AbstractScore):
    """The score of the data at one noise level, from a network that predicts something else: exact, equation (3).

    It is the score of the data with Gaussian noise of standard deviation ``noise_level`` added, at points in the units
    of the data, as `DiffusionModel.score_at` gives it. The network sees what it was trained on, the scaled point
    ``alpha x``; other scalings of its input and output (by ``sigma_data``, say) are part of ``fn``.

    **Arguments**

    - ``fn``: the network, a function ``(x_t, t, *args)`` that returns its prediction in the shape of ``x_t``; see
      `FunctionScore` for what it may be (linen, nnx, equinox).
    - ``*args``: arrays, weights, or a condition, passed on to ``fn``, traced.
    - ``prediction``: ``"eps"``; ``"x0"``; ``"v"``, which is ``alpha eps - sigma x_0``; ``"score"``, that of ``x_t``; or
      ``"velocity"``, which is ``dx_t/dt``.
    - ``schedule``: the path ``x_t = alpha(t) x_0 + sigma(t) eps`` that the network was trained on: a schedule of
      `scoregeo.diffusion`, such as ``VP()`` or ``RectifiedFlow()``, or a pair of functions ``(alpha, sigma)`` of ``t``
      (which ``"velocity"`` differentiates). Here ``x_0`` are data and ``eps`` is standard normal.
    - ``t``, or ``noise_level``: the time that the network is given, or the noise level in the units of the data, for
      schedules that know the time of one. Scalars, traced.
    - ``data_at``: where the network's time has the data. 0: its time is that of ``schedule``, and those of
      `scoregeo.diffusion` have the data at 0. 1: its time is 1 minus that of ``schedule``, as in Lipman et al. and Liu
      et al.: noise at 0, data at 1.
    - ``conservative``: ``True`` only if ``fn`` is a gradient field of ``x_t`` by construction.
    - ``shape``, ``dtype``: what ``fn`` takes and returns, see `FunctionScore`; the time comes in the precision of the
      point.

    Raises ``ValueError`` for an unknown ``prediction``, both or none of ``t`` and ``noise_level``, a noise level that
    the schedule does not have, and a time at which there is no score: where ``sigma`` is 0 there is no noise, where
    ``alpha`` is 0 there are no data. A traced time of that kind gives NaN or infinity.

    >>> import jax.numpy as jnp
    >>> from scoregeo import PredictionScore
    >>> from scoregeo.diffusion import VP
    >>> eps = lambda x_t, t, scale: scale * x_t  # the network, trained on N(0, I): E[eps | x_t] = sigma x_t
    >>> score = PredictionScore(eps, 0.6, prediction="eps", schedule=VP(), noise_level=0.75)
    >>> [round(value, 4) for value in score(jnp.array([1.0, 2.0])).tolist()]  # -x/(1 + 0.75^2)
    [-0.64, -1.28]
    """

    function: TracedFunction
    args: tuple
    path: "_Path"
    t: Scalar
    noise_level: Scalar
    signal: Scalar
    offset: Scalar
    gain: Scalar
    prediction: str = eqx.field(static=True)
    conservative: bool = eqx.field(static=True)
    shape: tuple[int, ...] | None = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable[..., Vector],
        *args: Any,
        prediction: str,
        schedule: Any,
        t: ArrayLike | None = None,
        noise_level: ArrayLike | None = None,
        data_at: int = 0,
        conservative: bool = False,
        shape: tuple[int, ...] | None = None,
        dtype: Any = None,
    ):
        self.function, self.args = TracedFunction(fn, "fn"), as_arguments(args, "args")
        self.prediction = check_choice("prediction", prediction, PREDICTIONS)
        self.path = _Path(schedule, check_choice("data_at", data_at, (0, 1)))
        if (t is None) == (noise_level is None):
            raise ValueError(f"give either `t` or `noise_level`, got t={t!r} and noise_level={noise_level!r}")
        if t is None:
            t = self.path.time_at(noise_level)
        self.t = as_float(t, "t").astype(jnp.result_type(float))
        if self.t.shape != ():
            raise ValueError(f"`t` must be a scalar, got shape {self.t.shape}")
        check_finite(self.t, "t")
        self.signal, self.noise_level, self.offset, self.gain = self.path.coefficients(self.t, prediction)
        self.conservative = conservative
        self.shape, self.dtype = check_shape(shape), check_dtype(dtype)

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``, shape ``(d,)``, a point in the units of the data."""
        signal, offset, gain, t = (a.astype(x.dtype) for a in (self.signal, self.offset, self.gain, self.t))
        value = field_value(self.function, signal * x, (t, *self.args), self.shape, self.dtype)
        return gain * (value - offset * x)

    def at_time(self, t: ArrayLike) -> "PredictionScore":
        """The score of the same network at another time of its own; see ``t``."""
        t = as_float(t, "t").astype(self.t.dtype)
        parts = (t, *self.path.coefficients(t, self.prediction))
        return eqx.tree_at(lambda s: (s.t, s.signal, s.noise_level, s.offset, s.gain), self, parts)


class VelocityScore(AbstractScore):
    """The score of the data from the velocity of flow matching, rectified flow or a stochastic interpolant: exact.

    A velocity field ``v(x_t, t) = E[dx_t/dt | x_t]`` on ``x_t = alpha(t) x_0 + sigma(t) eps`` holds the score at every
    time (Albergo et al. 2023, arXiv 2303.08797). This is the one of the data with noise of standard deviation
    ``sigma/alpha`` added, at points in the units of the data: `PredictionScore` with ``prediction="velocity"``, which
    says what the arguments are and what is refused.

    **Arguments**

    - ``velocity``: function ``(x_t, t, *args) -> dx_t/dt`` with respect to its own ``t``.
    - ``schedule``: such as ``RectifiedFlow()``, or functions ``(alpha, sigma)``: the factors of data and noise.
    - ``t``: the time that ``velocity`` is given, traced.
    - ``*args``: passed on to ``velocity``, traced.
    - ``data_at``: 0 if ``velocity`` has the data at time 0, as ``schedule``; 1 for the papers' convention, noise at 0
      and data at 1.
    - ``conservative``, ``shape``, ``dtype``: as of `PredictionScore`.

    >>> import jax.numpy as jnp
    >>> from scoregeo import VelocityScore
    >>> from scoregeo.diffusion import RectifiedFlow
    >>> data_first = lambda x, t: (2 * t - 1) / (t**2 + (1 - t) ** 2) * x  # data N(0, I), x_t = (1 - t) x_0 + t eps
    >>> score = VelocityScore(data_first, RectifiedFlow(), 0.2)
    >>> round(score(jnp.array([1.0])).item(), 4), round(float(score.noise_level), 4)  # -1/(1 + 0.25^2)
    (-0.9412, 0.25)
    >>> data_last = lambda x, t: -data_first(x, 1 - t)
    >>> round(VelocityScore(data_last, RectifiedFlow(), 0.8, data_at=1)(jnp.array([1.0])).item(), 4)
    -0.9412
    """

    predicted: PredictionScore
    conservative: bool = eqx.field(static=True)

    def __init__(
        self,
        velocity: Callable[..., Vector],
        schedule: Any,
        t: ArrayLike,
        *args: Any,
        data_at: int = 0,
        conservative: bool = False,
        shape: tuple[int, ...] | None = None,
        dtype: Any = None,
    ):
        self.predicted = PredictionScore(
            velocity, *args, prediction="velocity", schedule=schedule, t=t, data_at=data_at,
            conservative=conservative, shape=shape, dtype=dtype,
        )  # fmt: skip
        self.conservative = conservative

    @property
    def noise_level(self) -> Scalar:
        """The standard deviation of the noise in the density whose score this is, in the units of the data."""
        return self.predicted.noise_level

    def __call__(self, x: Point) -> Vector:
        """The score at ``x``, shape ``(d,)``, a point in the units of the data."""
        return self.predicted(x)


@at_noise_level.register
def _(score: PredictionScore, noise_level: Scalar | float) -> PredictionScore:
    return score.at_time(score.path.time_at(noise_level))


@at_noise_level.register
def _(score: VelocityScore, noise_level: Scalar | float) -> VelocityScore:
    return eqx.tree_at(lambda s: s.predicted, score, at_noise_level(score.predicted, noise_level))


@spread_of_data.register
def _(score: PredictionScore) -> DataSpread | None:
    """What the data of its schedule are like: the network itself does not say."""
    if is_traced(score.noise_level):
        return None
    size = max(1.0, _HIDDEN * score.path.most_noise())
    return DataSpread(0.0, (size**2 + float(score.noise_level) ** 2) ** 0.5, "data of a size that suits the schedule")


@spread_of_data.register
def _(score: VelocityScore) -> DataSpread | None:
    return spread_of_data(score.predicted)


class _Path(eqx.Module):
    """The path of a schedule, or of a pair of functions, in the time of the network."""

    alpha: TracedFunction
    sigma: TracedFunction
    inverse: TracedFunction | None
    bounds: tuple[float, float] | None = eqx.field(static=True)
    reversed: bool = eqx.field(static=True)

    def __init__(self, schedule: Any, data_at: int):
        pair = isinstance(schedule, tuple | list) and len(schedule) == 2
        parts: Any = schedule if pair else [getattr(schedule, name, None) for name in ("alpha", "sigma")]
        if not all(map(callable, parts)):
            raise TypeError(
                "`schedule` must be a schedule such as scoregeo.diffusion.VP(), or a pair of functions (alpha, sigma) "
                f"of time, got {schedule!r}"
            )
        self.alpha, self.sigma = (TracedFunction(part, "schedule") for part in parts)
        inverse = getattr(schedule, "time_at", None)
        self.inverse = None if inverse is None else TracedFunction(inverse, "schedule")
        # A schedule of the user's may go on for ever.
        first, last = (getattr(schedule, name, None) for name in ("t_min", "t_max"))
        self.bounds = None if first is None or last is None else (float(first), float(last))
        self.reversed = data_at == 1

    def factors(self, t: Scalar) -> tuple[Scalar, Scalar]:
        """``alpha`` and ``sigma`` at time ``t`` of the network."""
        t = 1 - t if self.reversed else t
        alpha, sigma = jnp.asarray(self.alpha(t), t.dtype), jnp.asarray(self.sigma(t), t.dtype)
        if alpha.shape != () or sigma.shape != ():
            raise ValueError(f"`schedule` must give scalars at a scalar time, got {alpha.shape} and {sigma.shape}")
        return alpha, sigma

    def most_noise(self) -> float:
        """The largest factor of the noise; 0 for a pair of functions, whose end is not known."""
        return 0.0 if self.bounds is None else float(self.sigma(jnp.asarray(self.bounds[1], jnp.result_type(float))))

    def time_at(self, noise_level: Any) -> Scalar:
        """The time of the network at which the noise level is the given one."""
        if self.inverse is None:
            raise TypeError("`noise_level` needs a schedule with `time_at`, and a pair of functions has none: give `t`")
        noise_level = as_scalar(noise_level, "noise_level", positive=True)
        if self.bounds is not None:
            times = [jnp.asarray(t, noise_level.dtype) for t in self.bounds]
            least, most = (self.sigma(t) / self.alpha(t) for t in times)
            _check_level(noise_level, least, most)
        t = jnp.asarray(self.inverse(noise_level), noise_level.dtype)
        return 1 - t if self.reversed else t

    def coefficients(self, t: Scalar, prediction: str) -> tuple[Scalar, Scalar, Scalar, Scalar]:
        """``alpha``, the noise level ``r``, and ``a`` and ``k`` of equation (3), at time ``t`` of the network."""
        alpha, sigma = self.factors(t)
        if prediction == "velocity":
            a, b = jax.jvp(self.factors, (t,), (jnp.ones_like(t),))[1]
        else:
            zero, one = jnp.zeros_like(t), jnp.ones_like(t)
            table = {"eps": (zero, one), "x0": (one, zero), "v": (-sigma, alpha), "score": (zero, -1 / sigma)}
            a, b = table[prediction]
        determinant = a * sigma - b * alpha
        _check_factors(t, alpha, sigma, determinant)
        # Where both are negative, their ratio would pass for a noise level.
        alpha, sigma = (jnp.where(factor > 0, factor, jnp.nan) for factor in (alpha, sigma))
        return alpha, sigma / alpha, a, alpha**2 / (sigma * determinant)


def _check_level(noise_level: Scalar, least: Scalar, most: Scalar) -> None:
    """Raise ``ValueError`` for a noise level that no network was trained on; traced values pass."""
    if not all(map(is_concrete, (noise_level, least, most))):
        return
    if not float(least) * (1 - _SLACK) <= float(noise_level) <= float(most) * (1 + _SLACK):
        raise ValueError(
            f"`noise_level` must be one of the schedule's, from {float(least):.4g} to {float(most):.4g}, got "
            f"{float(noise_level):.4g}"
        )


def _check_factors(t: Scalar, alpha: Scalar, sigma: Scalar, determinant: Scalar) -> None:
    """Raise ``ValueError`` where there is no score; traced values pass."""
    if not all(map(is_concrete, (t, alpha, sigma, determinant))):
        return
    values = {"data": float(alpha), "noise": float(sigma)}
    # What is left of zero after rounding counts as zero, such as the cosine of pi/2.
    least = 8 * float(jnp.finfo(t.dtype).eps) * max(abs(value) for value in values.values())
    for what, value in values.items():
        if not value > least or not np.isfinite(value):
            raise ValueError(
                f"there is no score at `t` = {float(t):.6g}: the factor of the {what} in x_t, by `schedule`, must be "
                f"positive, got {value:.3g}. Choose a time between the ends"
            )
    if float(determinant) == 0 or not np.isfinite(float(determinant)):
        raise ValueError(
            f"there is no score at `t` = {float(t):.6g}: `schedule` says that the ratio of noise and data does not "
            "change there, so that the velocity says nothing of the noise. Choose a time between the ends"
        )
