"""Schedules that shrink the data as the noise grows, so that the variance stays bounded: `VP`, `SubVP`, `Cosine`."""

import math

import jax.numpy as jnp

from .base import (
    AbstractUniformTime,
    Entries,
    check_finite_fields,
    check_order,
    check_positive,
    check_times_inside,
)


class _AbstractLinearBeta(AbstractUniformTime):
    """What `VP` and `SubVP` share: ``alpha(t) = exp(-B(t)/2)``, where ``B`` is the integral of a linear ``beta``."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __check_init__(self):
        check_finite_fields(self)
        check_positive(self, "beta_min", "t_min")
        if self.beta_max < self.beta_min:
            raise ValueError(f"`beta_max` must be at least `beta_min` = {self.beta_min}, got {self.beta_max}")
        check_order(self, "t_min", "t_max")

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


class VP(_AbstractLinearBeta):
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


class SubVP(_AbstractLinearBeta):
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


class Cosine(AbstractUniformTime):
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
        check_finite_fields(self)
        if self.offset < 0:
            raise ValueError(f"`offset` must be at least 0, got {self.offset}")
        check_times_inside(self)

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


def _one_minus_exp(x: Entries | float) -> Entries:
    """``1 - exp(-x)`` for ``x >= 0``, with all digits in its derivative too."""
    # JAX differentiates expm1(y) as expm1(y) + 1, which cancels where y is far below zero.
    return jnp.where(x > 1, 1 - jnp.exp(-x), -jnp.expm1(-x))
