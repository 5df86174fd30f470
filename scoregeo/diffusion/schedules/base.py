r"""Noise schedules: how much signal and how much noise a diffused point has at time ``t``.

A schedule is a path of Gaussian corruptions of the data ``x_0``,

    x_t = alpha(t) x_0 + sigma(t) eps,      eps ~ N(0, I),                                        (1)

which is the law of the linear stochastic differential equation ``dx = f(t) x dt + g(t) dw`` with

    f = d log(alpha)/dt,      g^2 = d(sigma^2)/dt - 2 f sigma^2                                   (2)

(Song et al. 2021, arXiv 2011.13456). Dividing (1) by ``alpha`` gives ``x_0`` plus noise of standard deviation
``sigma/alpha``, the *noise level*: two schedules with the same noise level see the same data through the same noise, so
one network trained by noise level serves every schedule. ``g^2 = 2 sigma^2 d log(sigma/alpha)/dt`` follows from (2)
(3).

| schedule | alpha | sigma | noise level | f | g^2 |
|---|---|---|---|---|---|
| `EDM` | 1 | t | t | 0 | 2 t |
| `VE` | 1 | a (b/a)^t | sigma | 0 | 2 sigma^2 log(b/a) |
| `VP` | exp(-B/2) | sqrt(1 - exp(-B)) | sqrt(exp(B) - 1) | -beta/2 | beta |
| `SubVP` | exp(-B/2) | 1 - exp(-B) | 2 sinh(B/2) | -beta/2 | beta (1 - exp(-2 B)) |
| `Cosine` | cos(phi)/cos(phi_0) | sqrt(1 - alpha^2) | sigma/alpha | -phi' tan(phi) | 2 phi' tan(phi) |
| `RectifiedFlow` | 1 - t | t | t/(1 - t) | -1/(1 - t) | 2 t/(1 - t) |

(``a``, ``b``: the least and the largest sigma; ``B`` is the integral of ``beta``; ``phi`` is linear in ``t``.)
"""

import abc
import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._types import Point, Points, Scalar


class AbstractSchedule(eqx.Module):
    """A Gaussian path ``x_t = alpha(t) x_0 + sigma(t) eps`` for ``t`` in ``[t_min, t_max]``, noise growing with ``t``.

    All methods take a scalar and work under ``jit``, ``grad`` and ``vmap``.
    """

    t_min: eqx.AbstractVar[float]  # the time with the least noise, where sampling ends
    t_max: eqx.AbstractVar[float]  # the time with the most noise, where sampling starts

    @abc.abstractmethod
    def alpha(self, t: Scalar) -> Scalar:
        """Factor of the data at time ``t``."""

    @abc.abstractmethod
    def sigma(self, t: Scalar) -> Scalar:
        """Standard deviation of the noise that is added at time ``t``."""

    @abc.abstractmethod
    def drift(self, t: Scalar) -> Scalar:
        """``f(t) = d log(alpha)/dt``: the drift of the forward equation is ``f(t) x``."""

    @abc.abstractmethod
    def squared_diffusion(self, t: Scalar) -> Scalar:
        """``g(t)^2``, the squared diffusion coefficient of the forward equation."""

    @abc.abstractmethod
    def time_at(self, noise_level: Scalar) -> Scalar:
        """The time whose noise level ``sigma/alpha`` is the given one (the inverse of `noise_level`)."""

    @abc.abstractmethod
    def training_levels(self, key: PRNGKeyArray, n: int, dtype: Any = None) -> Float[Array, " n"]:
        """``n`` noise levels to train on, one in each of ``n`` equally likely parts of the training distribution.

        Such a stratified draw has the same mean of any loss as independent draws, and less variance.
        """

    @abc.abstractmethod
    def sampling_levels(self, n: int, dtype: Any = None) -> Float[Array, " n"]:
        """``n >= 2`` decreasing noise levels, from that of ``t_max`` to that of ``t_min``, at which samplers stop."""

    def time_at_log_snr(self, log_snr: Scalar) -> Scalar:
        """The time whose logarithm of the signal-to-noise ratio is the given one (the inverse of `log_snr`)."""
        return self.time_at(jnp.exp(-0.5 * jnp.asarray(log_snr)))

    def noise_level(self, t: Scalar) -> Scalar:
        """``sigma(t)/alpha(t)``: the noise on the data, in units of the data."""
        return self.sigma(t) / self.alpha(t)

    def log_snr(self, t: Scalar) -> Scalar:
        """Logarithm of the signal-to-noise ratio, ``log(alpha^2/sigma^2)``; decreases with ``t``."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def prior_sample(self, key: PRNGKeyArray, mean: Point, n: int) -> Points:
        """``n`` draws, shape ``(n, d)``, of the prior ``N(alpha mean, sigma^2 I)`` at ``t_max``, where samplers start.

        ``mean`` is the mean of the data, shape ``(d,)``. The prior is the law of ``x_t`` at ``t_max`` but for the
        covariance of the data, which it leaves out: the noise is that much larger.
        """
        centre, spread = self._prior(mean)
        return centre + spread * jax.random.normal(key, (n, mean.size), mean.dtype)

    def prior_log_prob(self, x: Point, mean: Point) -> Scalar:
        """Normalised log density of the prior (see `prior_sample`) at ``x``; ``x`` and ``mean`` have shape ``(d,)``."""
        centre, spread = self._prior(mean)
        z = (x - centre) / spread
        return -0.5 * jnp.vdot(z, z) - x.size * (jnp.log(spread) + 0.5 * math.log(2 * math.pi))

    def _prior(self, mean: Point) -> tuple[Point, Scalar]:
        """Mean and standard deviation of the prior."""
        t = jnp.asarray(self.t_max, mean.dtype)
        return self.alpha(t) * mean, self.sigma(t)


class _UniformTime(AbstractSchedule):
    """A schedule whose training times and sampling times are uniform in ``[t_min, t_max]``."""

    def training_levels(self, key, n, dtype=None):
        return self.noise_level(self.t_min + (self.t_max - self.t_min) * uniform_draws(key, n, dtype))

    def sampling_levels(self, n, dtype=None):
        return self.noise_level(jnp.linspace(self.t_max, self.t_min, n, dtype=dtype))


class EDM(AbstractSchedule):
    """Noise without shrinking, ``alpha = 1`` and ``sigma(t) = t`` (Karras et al. 2022, arXiv 2206.00364, table 1).

    **Arguments**

    - ``p_mean``, ``p_std``: training levels are log-normal, ``log sigma ~ N(p_mean, p_std^2)``.
    - ``sigma_min``, ``sigma_max``: the range of sampling, in the units of the data.
    - ``rho``: sampling levels are equally spaced in ``sigma^(1/rho)``; larger puts more of them at small noise.

    The defaults suit data whose standard deviation is about 0.5 to 1.
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __check_init__(self):
        _check_finite_fields(self)
        _check_positive(self, "p_std", "sigma_min", "rho")
        _check_order(self, "sigma_min", "sigma_max")

    @property
    def t_min(self) -> float:
        """The least noise, ``sigma_min``."""
        return self.sigma_min

    @property
    def t_max(self) -> float:
        """The most noise, ``sigma_max``."""
        return self.sigma_max

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return jnp.asarray(t)

    def drift(self, t):
        return jnp.zeros_like(t)

    def squared_diffusion(self, t):
        return 2.0 * jnp.asarray(t)

    def time_at(self, noise_level):
        return jnp.asarray(noise_level)

    def training_levels(self, key, n, dtype=None):
        normal = math.sqrt(2) * jax.lax.erf_inv(2 * uniform_draws(key, n, dtype) - 1)
        return jnp.exp(self.p_mean + self.p_std * normal)

    def sampling_levels(self, n, dtype=None):
        u = jnp.linspace(0.0, 1.0, n, dtype=dtype)
        start, end = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return ((1 - u) * start + u * end) ** self.rho


class VE(_UniformTime):
    """The variance-exploding path, ``alpha = 1`` and geometric ``sigma(t) = sigma_min (sigma_max/sigma_min)^t`` for
    ``t`` in [0, 1] (Song et al. 2021; the noise of Song & Ermon 2019 in continuous time).

    Training levels are log-uniform and sampling levels are a geometric sequence, both between the arguments. At
    ``t = 0`` the data already have noise ``sigma_min``: the path starts there, not at the data.

    **Arguments**

    - ``sigma_min``, ``sigma_max``: the range of noise levels, in the units of the data.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __check_init__(self):
        _check_finite_fields(self)
        _check_positive(self, "sigma_min")
        _check_order(self, "sigma_min", "sigma_max")

    @property
    def t_min(self) -> float:
        """0, the time of ``sigma_min``."""
        return 0.0

    @property
    def t_max(self) -> float:
        """1, the time of ``sigma_max``."""
        return 1.0

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return self.sigma_min * jnp.exp(self._log_ratio * jnp.asarray(t))

    def drift(self, t):
        return jnp.zeros_like(t)

    def squared_diffusion(self, t):
        return 2 * self._log_ratio * self.sigma(t) ** 2

    def time_at(self, noise_level):
        return jnp.log(jnp.asarray(noise_level) / self.sigma_min) / self._log_ratio


class _LinearBeta(_UniformTime):
    """What `VP` and `SubVP` share: ``alpha(t) = exp(-B(t)/2)``, where ``B`` is the integral of a linear ``beta``."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __check_init__(self):
        _check_finite_fields(self)
        _check_positive(self, "beta_min", "t_min")
        if self.beta_max < self.beta_min:
            raise ValueError(f"`beta_max` must be at least `beta_min` = {self.beta_min}, got {self.beta_max}")
        _check_order(self, "t_min", "t_max")

    def _beta(self, t):
        return self.beta_min + (self.beta_max - self.beta_min) * jnp.asarray(t)

    def _integrated_beta(self, t):
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def _time_of_integral(self, integral):
        # The root of the quadratic B(t) in the form that does not cancel.
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * slope * integral))

    def alpha(self, t):
        return jnp.exp(-0.5 * self._integrated_beta(t))

    def drift(self, t):
        return -0.5 * self._beta(t)


class VP(_LinearBeta):
    """The variance-preserving path of linear ``beta``, ``alpha^2 + sigma^2 = 1`` (Song et al. 2021; DDPM in continuous
    time).

    ``alpha(t) = exp(-B(t)/2)`` with ``B(t) = beta_min t + (beta_max - beta_min) t^2 / 2``. Training times and sampling
    times are uniform in ``[t_min, t_max]``; with the defaults that is noise levels from 0.01 to 152.

    **Arguments**

    - ``beta_min``, ``beta_max``: the rate ``beta(t)`` at ``t = 0`` and ``t = 1``.
    - ``t_min``, ``t_max``: range of times.
    """

    def sigma(self, t):
        return jnp.sqrt(_one_minus_exp(self._integrated_beta(t)))

    def squared_diffusion(self, t):
        return self._beta(t)

    def time_at(self, noise_level):
        # (sigma/alpha)^2 = exp(B) - 1
        return self._time_of_integral(jnp.log1p(jnp.asarray(noise_level) ** 2))


class SubVP(_LinearBeta):
    """The sub-VP path: the ``alpha`` of `VP` with less noise, ``sigma = 1 - alpha^2`` (Song et al. 2021, sec. 3.4).

    The variance is below that of `VP` at all times, since ``sigma`` is the square of its ``sigma``; at small times much
    below. Training times and sampling times are uniform in ``[t_min, t_max]``; with the defaults that is noise levels
    from 0.0001 to 152.

    **Arguments**

    - ``beta_min``, ``beta_max``: the rate ``beta(t)`` at ``t = 0`` and ``t = 1``.
    - ``t_min``, ``t_max``: range of times.
    """

    def sigma(self, t):
        return _one_minus_exp(self._integrated_beta(t))

    def squared_diffusion(self, t):
        return self._beta(t) * _one_minus_exp(2 * self._integrated_beta(t))

    def time_at(self, noise_level):
        # sigma/alpha = exp(B/2) - exp(-B/2)
        return self._time_of_integral(2 * jnp.arcsinh(0.5 * jnp.asarray(noise_level)))


class Cosine(_UniformTime):
    """The cosine path, ``alpha(t) = cos(phi(t))/cos(phi(0))`` and ``alpha^2 + sigma^2 = 1``, with
    ``phi(t) = (pi/2) (t + offset)/(1 + offset)`` (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17).

    There is no signal left at ``t = 1``, so times are clipped to ``[t_min, t_max]`` (the continuous counterpart of
    their largest ``beta``). Training times and sampling times are uniform in that range; with the defaults that is
    noise levels from 0.006 to 128.

    **Arguments**

    - ``offset``: keeps the noise from vanishing too fast near ``t = 0``; with 0 the noise level is ``tan(pi t/2)``.
    - ``t_min``, ``t_max``: range of times, within (0, 1).
    """

    offset: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.995

    def __check_init__(self):
        _check_finite_fields(self)
        if self.offset < 0:
            raise ValueError(f"`offset` must be at least 0, got {self.offset}")
        _check_times_inside(self)

    @property
    def _rate(self) -> float:
        """The derivative of ``phi``."""
        return 0.5 * math.pi / (1 + self.offset)

    @property
    def _start(self) -> float:
        """``phi(0)``."""
        return self._rate * self.offset

    def alpha(self, t):
        # pi/2 - phi = rate (1 - t) keeps its digits near t = 1, cos(phi) does not.
        return jnp.sin(self._rate * (1 - jnp.asarray(t))) / math.cos(self._start)

    def sigma(self, t):
        # cos(phi(0))^2 - cos(phi)^2 = sin(phi - phi(0)) sin(phi + phi(0)): 1 - alpha^2 would cancel.
        t = jnp.asarray(t)
        product = jnp.sin(self._rate * t) * jnp.sin(self._rate * (t + 2 * self.offset))
        return jnp.sqrt(product) / math.cos(self._start)

    def drift(self, t):
        return -0.5 * self.squared_diffusion(t)

    def squared_diffusion(self, t):
        t = jnp.asarray(t)
        return 2 * self._rate * jnp.sin(self._rate * (t + self.offset)) / jnp.sin(self._rate * (1 - t))

    def time_at(self, noise_level):
        # cos(phi) = cos(phi(0))/sqrt(1 + r^2) makes tan(phi) cos(phi(0)) = sqrt(r^2 + sin(phi(0))^2) = top. The rest is
        # tan(phi - phi(0)), with tan(phi) - tan(phi(0)) in the form that does not cancel.
        squared = jnp.asarray(noise_level) ** 2
        sine, cosine = math.sin(self._start), math.cos(self._start)
        top = jnp.sqrt(squared + sine**2)
        return jnp.arctan2(squared * cosine / (top + sine), cosine**2 + top * sine) / self._rate


class RectifiedFlow(_UniformTime):
    """The straight path from data to noise, ``alpha = 1 - t`` and ``sigma = t`` (Liu et al. 2023, arXiv 2209.03003; the
    conditional optimal transport path of flow matching, Lipman et al. 2023, arXiv 2210.02747).

    Its velocity is ``eps - x_0``. The data are at ``t = 0``, as for all schedules here; both papers count time the
    other way. ``f`` and ``g^2`` are infinite at ``t = 1``, so times are clipped to ``[t_min, t_max]``. Training times
    and sampling times are uniform in that range; with the defaults that is noise levels from 0.002 to 199.

    **Arguments**

    - ``t_min``, ``t_max``: range of times, within (0, 1).
    """

    t_min: float = 0.002
    t_max: float = 0.995

    def __check_init__(self):
        _check_finite_fields(self)
        _check_times_inside(self)

    def alpha(self, t):
        return 1 - jnp.asarray(t)

    def sigma(self, t):
        return jnp.asarray(t)

    def drift(self, t):
        return -1 / self.alpha(t)

    def squared_diffusion(self, t):
        return 2 * self.noise_level(t)

    def time_at(self, noise_level):
        noise_level = jnp.asarray(noise_level)
        return noise_level / (1 + noise_level)


SCHEDULES = {
    "Cosine": Cosine,
    "EDM": EDM,
    "RectifiedFlow": RectifiedFlow,
    "SubVP": SubVP,
    "VE": VE,
    "VP": VP,
}


def uniform_draws(key: PRNGKeyArray, n: int, dtype: Any = None, *, stratified: bool = True) -> Float[Array, " n"]:
    """``n`` uniform draws from (0, 1): independent, or one in each of the intervals ``[i/n, (i+1)/n]``."""
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    u = jax.random.uniform(key, (n,), dtype)
    if stratified:
        u = (jnp.arange(n, dtype=dtype) + u) / n
    # The normal quantile is infinite at 0 and at 1, which rounding reaches.
    eps = float(jnp.finfo(dtype).eps)
    return jnp.clip(u, eps, 1 - eps)


def _one_minus_exp(x: Scalar) -> Scalar:
    """``1 - exp(-x)`` for ``x >= 0``, with all digits in its derivative too."""
    # JAX differentiates expm1(y) as expm1(y) + 1, which cancels where y is far below zero.
    return jnp.where(x > 1, 1 - jnp.exp(-x), -jnp.expm1(-x))


def _check_finite_fields(schedule: AbstractSchedule) -> None:
    for field in dataclasses.fields(schedule):
        value = getattr(schedule, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"`{field.name}` must be a finite number, got {value!r}")


def _check_positive(schedule: AbstractSchedule, *names: str) -> None:
    for name in names:
        if getattr(schedule, name) <= 0:
            raise ValueError(f"`{name}` must be positive, got {getattr(schedule, name)}")


def _check_order(schedule: AbstractSchedule, less: str, more: str) -> None:
    if getattr(schedule, more) <= getattr(schedule, less):
        raise ValueError(
            f"`{more}` must be greater than `{less}` = {getattr(schedule, less)}, got {getattr(schedule, more)}"
        )


def _check_times_inside(schedule: AbstractSchedule) -> None:
    _check_positive(schedule, "t_min")
    _check_order(schedule, "t_min", "t_max")
    if schedule.t_max >= 1:
        raise ValueError(f"`t_max` must be less than 1, where there is no signal, got {schedule.t_max}")
