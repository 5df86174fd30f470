"""Schedules that add noise and do not shrink the data: `EDM` and `VE`."""

import math

import jax
import jax.numpy as jnp

from .base import (
    AbstractSchedule,
    AbstractUniformTime,
    check_finite_fields,
    check_order,
    check_positive,
    uniform_draws,
)


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
        check_finite_fields(self)
        check_positive(self, "p_std", "sigma_min", "rho")
        check_order(self, "sigma_min", "sigma_max")

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


class VE(AbstractUniformTime):
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
        check_finite_fields(self)
        check_positive(self, "sigma_min")
        check_order(self, "sigma_min", "sigma_max")

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
