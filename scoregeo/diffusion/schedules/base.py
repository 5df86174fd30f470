"""What every schedule can be asked, and what several of them share."""

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._types import Point, Points, Scalar

# Times or noise levels: one, or many of any shape.
Entries: TypeAlias = Float[Array, "..."]


class AbstractSchedule(eqx.Module):
    """A Gaussian path ``x_t = alpha(t) x_0 + sigma(t) eps`` for ``t`` in ``[t_min, t_max]``, noise growing with ``t``.

    All methods take a scalar, or an array entry by entry, and work under ``jit``, ``grad`` and ``vmap``.
    """

    if TYPE_CHECKING:  # a type checker takes an AbstractVar for an argument, which it is not where it is a property

        @property
        def t_min(self) -> float: ...

        @property
        def t_max(self) -> float: ...

    else:
        t_min: eqx.AbstractVar[float]  # the time with the least noise, where sampling ends
        t_max: eqx.AbstractVar[float]  # the time with the most noise, where sampling starts

    @abc.abstractmethod
    def alpha(self, t: Entries) -> Entries:
        """Factor of the data at time ``t``."""

    @abc.abstractmethod
    def sigma(self, t: Entries) -> Entries:
        """Standard deviation of the noise that is added at time ``t``."""

    @abc.abstractmethod
    def drift(self, t: Entries) -> Entries:
        """``f(t) = d log(alpha)/dt``: the drift of the forward equation is ``f(t) x``."""

    @abc.abstractmethod
    def squared_diffusion(self, t: Entries) -> Entries:
        """``g(t)^2``, the squared diffusion coefficient of the forward equation."""

    @abc.abstractmethod
    def time_at(self, noise_level: Entries) -> Entries:
        """The time whose noise level ``sigma/alpha`` is the given one (the inverse of `noise_level`)."""

    @abc.abstractmethod
    def training_levels(self, key: PRNGKeyArray, n: int, dtype: Any = None) -> Float[Array, " n"]:
        """``n`` noise levels to train on, one in each of ``n`` equally likely parts of the training distribution.

        Such a stratified draw has the same mean of any loss as independent draws, and less variance.
        """

    @abc.abstractmethod
    def sampling_levels(self, n: int, dtype: Any = None) -> Float[Array, " n"]:
        """``n >= 2`` decreasing noise levels, from that of ``t_max`` to that of ``t_min``, at which samplers stop."""

    def time_at_log_snr(self, log_snr: Entries) -> Entries:
        """The time whose logarithm of the signal-to-noise ratio is the given one (the inverse of `log_snr`)."""
        return self.time_at(jnp.exp(-0.5 * jnp.asarray(log_snr)))

    def noise_range(self, dtype: Any = None) -> tuple[Scalar, Scalar]:
        """The least and the largest noise level, those of ``t_min`` and ``t_max``, in ``dtype`` if that is given."""
        # By default as they are: times in float32 would move the ends by their rounding.
        ends: Any = (self.t_min, self.t_max) if dtype is None else jnp.asarray([self.t_min, self.t_max], dtype)
        least, most = ends
        return self.noise_level(least), self.noise_level(most)

    def noise_level(self, t: Entries) -> Entries:
        """``sigma(t)/alpha(t)``: the noise on the data, in units of the data."""
        return self.sigma(t) / self.alpha(t)

    def log_snr(self, t: Entries) -> Entries:
        """Logarithm of the signal-to-noise ratio, ``log(alpha^2/sigma^2)``; decreases with ``t``."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def prior_sample(self, key: PRNGKeyArray, mean: Point, n: int) -> Points:
        """``n`` draws, shape ``(n, d)``, of the prior ``N(alpha mean, sigma^2 I)`` at ``t_max``, where samplers start.

        ``mean`` is the mean of the data, shape ``(d,)``. The prior is the law of ``x_t`` at ``t_max`` but for the
        covariance of the data, which it leaves out: the noise is that much larger.
        """
        centre, spread = self._prior(mean)
        return centre[None] + spread * jax.random.normal(key, (n, mean.size), mean.dtype)

    def prior_log_prob(self, x: Point, mean: Point) -> Scalar:
        """Normalised log density of the prior (see `prior_sample`) at ``x``; ``x`` and ``mean`` have shape ``(d,)``."""
        centre, spread = self._prior(mean)
        z = (x - centre) / spread
        return -0.5 * jnp.vdot(z, z) - x.size * (jnp.log(spread) + 0.5 * math.log(2 * math.pi))

    def _prior(self, mean: Point) -> tuple[Point, Scalar]:
        """Mean and standard deviation of the prior."""
        t = jnp.asarray(self.t_max, mean.dtype)
        return self.alpha(t) * mean, self.sigma(t)


class AbstractUniformTime(AbstractSchedule):
    """A schedule whose training times and sampling times are uniform in ``[t_min, t_max]``."""

    def training_levels(self, key, n, dtype=None):
        return self.noise_level(self.t_min + (self.t_max - self.t_min) * uniform_draws(key, n, dtype))

    def sampling_levels(self, n, dtype=None):
        return self.noise_level(jnp.linspace(self.t_max, self.t_min, n, dtype=dtype))


def uniform_draws(key: PRNGKeyArray, n: int, dtype: Any = None, *, stratified: bool = True) -> Float[Array, " n"]:
    """``n`` uniform draws from (0, 1): independent, or one in each of the intervals ``[i/n, (i+1)/n]``."""
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    u = jax.random.uniform(key, (n,), dtype)
    if stratified:
        u = (jnp.arange(n, dtype=dtype) + u) / n
    # The normal quantile is infinite at 0 and at 1, which rounding reaches.
    eps = float(jnp.finfo(dtype).eps)
    return jnp.clip(u, eps, 1 - eps)


def check_finite_fields(schedule: AbstractSchedule) -> None:
    for field in dataclasses.fields(schedule):
        value = getattr(schedule, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"`{field.name}` must be a finite number, got {value!r}")


def check_positive(schedule: AbstractSchedule, *names: str) -> None:
    for name in names:
        if getattr(schedule, name) <= 0:
            raise ValueError(f"`{name}` must be positive, got {getattr(schedule, name)}")


def check_order(schedule: AbstractSchedule, less: str, more: str) -> None:
    if getattr(schedule, more) <= getattr(schedule, less):
        raise ValueError(
            f"`{more}` must be greater than `{less}` = {getattr(schedule, less)}, got {getattr(schedule, more)}"
        )


def check_times_inside(schedule: AbstractSchedule) -> None:
    check_positive(schedule, "t_min")
    check_order(schedule, "t_min", "t_max")
    if schedule.t_max >= 1:
        raise ValueError(f"`t_max` must be less than 1, where there is no signal, got {schedule.t_max}")
