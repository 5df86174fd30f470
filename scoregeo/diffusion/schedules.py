r"""Noise schedules: how much signal and how much noise a diffused point has at time ``t``.

A schedule is a path of Gaussian corruptions of the data ``x_0``,

    x_t = alpha(t) x_0 + sigma(t) eps,      eps ~ N(0, I),                                        (1)

which is the law of the linear stochastic differential equation ``dx = f(t) x dt + g(t) dw`` with

    f = d log(alpha)/dt,      g^2 = d(sigma^2)/dt - 2 f sigma^2                                   (2)

(Song et al. 2021, arXiv 2011.13456). Dividing (1) by ``alpha`` gives ``x_0`` plus noise of standard deviation
``sigma/alpha``, the *noise level*: two schedules with the same noise level see the same data through the same noise, so
one network trained by noise level serves every schedule. ``g^2 = 2 sigma^2 d log(sigma/alpha)/dt`` follows from (2)
(3).
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._types import Scalar


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

    def noise_level(self, t: Scalar) -> Scalar:
        """``sigma(t)/alpha(t)``: the noise on the data, in units of the data."""
        return self.sigma(t) / self.alpha(t)

    def log_snr(self, t: Scalar) -> Scalar:
        """Logarithm of the signal-to-noise ratio, ``log(alpha^2/sigma^2)``; decreases with ``t``."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))


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
        for name in ("p_std", "sigma_min", "rho"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if self.sigma_max <= self.sigma_min:
            raise ValueError(f"`sigma_max` must be greater than `sigma_min` = {self.sigma_min}, got {self.sigma_max}")

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
        normal = math.sqrt(2) * jax.lax.erf_inv(2 * _stratified(key, n, dtype) - 1)
        return jnp.exp(self.p_mean + self.p_std * normal)

    def sampling_levels(self, n, dtype=None):
        u = jnp.linspace(0.0, 1.0, n, dtype=dtype)
        start, end = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return ((1 - u) * start + u * end) ** self.rho


class VP(AbstractSchedule):
    """The variance-preserving path of linear ``beta``, ``alpha^2 + sigma^2 = 1`` (Song et al. 2021; DDPM in continuous
    time).

    ``alpha(t) = exp(-B(t)/2)`` with ``B(t) = beta_min t + (beta_max - beta_min) t^2 / 2``. Training times and sampling
    times are uniform in ``[t_min, t_max]``; with the defaults that is noise levels from 0.01 to 152.

    **Arguments**

    - ``beta_min``, ``beta_max``: the rate ``beta(t)`` at ``t = 0`` and ``t = 1``.
    - ``t_min``, ``t_max``: range of times.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __check_init__(self):
        _check_finite_fields(self)
        for name in ("beta_min", "t_min"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if self.beta_max < self.beta_min:
            raise ValueError(f"`beta_max` must be at least `beta_min` = {self.beta_min}, got {self.beta_max}")
        if self.t_max <= self.t_min:
            raise ValueError(f"`t_max` must be greater than `t_min` = {self.t_min}, got {self.t_max}")

    def _integrated_beta(self, t):
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t):
        return jnp.exp(-0.5 * self._integrated_beta(t))

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(-self._integrated_beta(t)))

    def drift(self, t):
        return -0.5 * self.squared_diffusion(t)

    def squared_diffusion(self, t):
        return self.beta_min + (self.beta_max - self.beta_min) * jnp.asarray(t)

    def time_at(self, noise_level):
        # (sigma/alpha)^2 = exp(B) - 1; the root of the quadratic B(t) in the form that does not cancel.
        integral = jnp.log1p(jnp.asarray(noise_level) ** 2)
        return (
            2 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral))
        )

    def training_levels(self, key, n, dtype=None):
        return self.noise_level(self.t_min + (self.t_max - self.t_min) * _stratified(key, n, dtype))

    def sampling_levels(self, n, dtype=None):
        return self.noise_level(jnp.linspace(self.t_max, self.t_min, n, dtype=dtype))


SCHEDULES = {"EDM": EDM, "VP": VP}


def schedule_to_dict(schedule: AbstractSchedule) -> dict[str, Any]:
    """A schedule of this package as a dictionary for JSON: its ``kind`` and its parameters."""
    kind = type(schedule).__name__
    if SCHEDULES.get(kind) is not type(schedule):
        raise TypeError(f"`schedule` must be one of {', '.join(SCHEDULES)} to be saved, got {kind}")
    return {"kind": kind} | {field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}


def schedule_from_dict(values: Mapping[str, Any]) -> AbstractSchedule:
    """The inverse of `schedule_to_dict`; raises ``ValueError`` for an unknown kind or parameter."""
    if not isinstance(values, Mapping) or values.get("kind") not in SCHEDULES:
        raise ValueError(
            f"`schedule` must be a dictionary whose `kind` is one of {', '.join(SCHEDULES)}, got {values!r}"
        )
    kind = SCHEDULES[values["kind"]]
    parameters = {name: value for name, value in values.items() if name != "kind"}
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(parameters) - set(known)):
        raise ValueError(f"`schedule` has unknown parameters {unknown}; {kind.__name__} has {known}")
    return kind(**parameters)


def _stratified(key: PRNGKeyArray, n: int, dtype: Any) -> Float[Array, " n"]:
    """``n`` numbers in (0, 1), one uniform draw in each of the intervals ``[i/n, (i+1)/n]``."""
    # The bounds keep the ends away from 0 and 1 in float32 too: there the normal quantile is infinite.
    return (
        jnp.arange(n) + jax.random.uniform(key, (n,), dtype or jnp.result_type(float), minval=1e-4, maxval=0.9999)
    ) / n


def _check_finite_fields(schedule: AbstractSchedule) -> None:
    for field in dataclasses.fields(schedule):
        value = getattr(schedule, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"`{field.name}` must be a finite number, got {value!r}")
