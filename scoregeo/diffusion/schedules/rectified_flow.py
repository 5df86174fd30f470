"""The straight path between data and noise: `RectifiedFlow`."""

import jax.numpy as jnp

from .base import AbstractUniformTime, check_finite_fields, check_times_inside


class RectifiedFlow(AbstractUniformTime):
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
        check_finite_fields(self)
        check_times_inside(self)

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
