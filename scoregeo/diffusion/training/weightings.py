r"""Weightings of the training loss: how much each noise level counts.

All are factors of one loss, `denoising_loss`, which in terms of the denoiser, of the noise and of the score is

    E |F - F*|^2 = S^2/(r c)^2 E|D - x_0|^2 = (S/c)^2 E|eps' - eps|^2 = (r S/c)^2 E|s' - s|^2    (1)

at noise level ``r``, for data of standard deviation ``c = sigma_data`` and ``S^2 = r^2 + c^2`` (up to what the data
leave uncertain). The minimiser is the same for all of them; a network of finite size and a run of finite length make
them differ. What a level counts in the end is the weight times how often the level is drawn (`noise_levels`).
"""

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ..._checks import check_number
from ..._types import Scalar
from ..networks.conditioning import noise_features
from ..schedules import AbstractSchedule


class AbstractWeighting(eqx.Module):
    """A factor of `denoising_loss` that depends on the noise level.

    Training asks for `initial` once and for `apply` at every point. What a subclass has to define is the call; one
    whose weight is trained along with the network replaces the other two, as `LearnedWeighting` does.
    """

    def initial(self, dtype: Any = None) -> dict[str, Array]:
        """Parameters that are trained along with the network, as they are at the start; none by default."""
        return {}

    def apply(
        self,
        parameters: Mapping[str, Array],
        loss: Scalar,
        sigma: Scalar,
        sigma_data: Scalar,
        schedule: AbstractSchedule,
    ) -> Scalar:
        """What is minimised at one noise level, given the ``loss`` there: by default the weight times the loss.

        ``parameters`` are those that `initial` made, as training has changed them; the rest is as for the call.
        """
        return self(sigma, sigma_data, schedule) * loss

    @abc.abstractmethod
    def __call__(self, sigma: Scalar, sigma_data: Scalar, schedule: AbstractSchedule) -> Scalar:
        """The weight before training, positive.

        **Arguments**

        - ``sigma``: the noise level ``sigma(t)/alpha(t)``, in the units of the data.
        - ``sigma_data``: the standard deviation of the data.
        - ``schedule``: tells time from noise level, for the weightings that are defined in time.
        """


class EDMWeighting(AbstractWeighting):
    """Every level counts the same to a network that knows nothing: weight 1 (Karras et al. 2022, eq. 8)."""

    def __call__(self, sigma, sigma_data, schedule):
        return jnp.ones_like(sigma)


class SimpleWeighting(AbstractWeighting):
    """The squared error of the noise, ``|eps' - eps|^2`` (Ho et al. 2020, arXiv 2006.11239, "L_simple")."""

    def __call__(self, sigma, sigma_data, schedule):
        return sigma_data**2 / (sigma**2 + sigma_data**2)


class LikelihoodWeighting(AbstractWeighting):
    """``g(t)^2`` times the squared error of the score of ``x_t`` (Song et al. 2021, arXiv 2101.09258).

    With levels drawn uniformly in time (`UniformTimes`) half the loss bounds the negative log likelihood, up to a
    constant. It grows as ``1/sigma`` towards small noise for `EDM`.
    """

    def __call__(self, sigma, sigma_data, schedule):
        # g^2 |s_t' - s_t|^2 = (g/sigma(t))^2 |eps' - eps|^2, and (1).
        t = schedule.time_at(sigma)
        return schedule.squared_diffusion(t) / schedule.sigma(t) ** 2 * sigma_data**2 / (sigma**2 + sigma_data**2)


class MinSNRWeighting(AbstractWeighting):
    """The squared error of the denoiser times ``min(SNR, gamma)`` (Hang et al. 2023, arXiv 2303.09556).

    ``SNR = (sigma_data/sigma)^2``, and the error is in units of ``sigma_data``: neither depends on the units.

    **Arguments**

    - ``gamma``: signal-to-noise ratio above which a level counts less, positive.
    """

    gamma: float = 5.0

    def __check_init__(self):
        check_number(self, "gamma", lambda value: value > 0, "positive")

    def __call__(self, sigma, sigma_data, schedule):
        return jnp.minimum(sigma_data**2, self.gamma * sigma**2) / (sigma**2 + sigma_data**2)


class LearnedWeighting(AbstractWeighting):
    """Every level counts the same to the network as it is now: the loss ``E`` becomes ``E/exp(u) + u`` with a function
    ``u(sigma)`` that is trained along with the network (Karras et al. 2024, arXiv 2312.02696, sec. 2.2).

    For a given network the best ``u`` is the logarithm of the loss at that level, so gradients of all levels have the
    same size. Unlike the others this is not a function of the noise level alone: its ``parameters`` (ten of them, of
    Fourier features of ``log(sigma)``) are trained with the weights, and thrown away at the end. The loss may be
    negative.
    """

    def __call__(self, sigma, sigma_data, schedule):
        return jnp.ones_like(sigma)

    def initial(self, dtype: Any = None) -> dict[str, Array]:
        """Parameters to start from, with ``u = 0`` at every level."""
        zero = jnp.zeros((), dtype)
        return {"bias": zero, "features": jnp.zeros_like(noise_features(zero))}

    def log_variance(self, parameters: Mapping[str, Array], sigma: Scalar) -> Scalar:
        """``u(sigma)`` for one noise level."""
        return parameters["bias"] + jnp.vdot(parameters["features"], noise_features(jnp.log(sigma) / 4))

    def apply(
        self,
        parameters: Mapping[str, Array],
        loss: Scalar,
        sigma: Scalar,
        sigma_data: Scalar | None = None,
        schedule: AbstractSchedule | None = None,
    ) -> Scalar:
        """``loss/exp(u) + u`` at one noise level; the last two arguments make no difference."""
        u = self.log_variance(parameters, sigma)
        return loss * jnp.exp(-u) + u
