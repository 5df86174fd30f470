r"""Denoising score matching, weighted so that every noise level counts about the same.

The expected squared error of the denoiser, ``E |D(x_0 + sigma eps; sigma) - x_0|^2``, is smallest for the conditional
mean, whose score is exact (Vincent 2011). With the weight ``(sigma^2 + c^2)/(sigma c)^2``, ``c = sigma_data``, of
Karras et al. (2022, eq. 8) it equals the plain squared error of the network against the target below, which has unit
variance at every noise level. So a loss of 1 is what a network that outputs zero has.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Point, Scalar, Vector
from .parameterization import Denoiser


def denoising_target(denoiser: Denoiser, x: Point, noise: Vector, sigma: Scalar) -> Vector:
    """What the network should output for the clean point ``x`` with ``sigma * noise`` added; all in closed form.

    ``(x - mean - c_skip (x - mean + sigma noise))/c_out`` with the cancellations done by hand; shape ``(d,)``.
    """
    data = denoiser.sigma_data[...]
    return (sigma / data * (x - denoiser.mean[...]) - data * noise) / jnp.sqrt(sigma**2 + data**2)


def denoising_loss(denoiser: Denoiser, x: Point, noise: Vector, sigma: Scalar) -> Float[Array, ""]:
    """The weighted squared error of the denoiser at one point, averaged over the coordinates.

    ``x`` is a clean point ``(d,)``, ``noise`` a draw of N(0, I) of that shape and ``sigma`` a noise level.
    """
    error = denoiser.network_output(x + sigma * noise, sigma) - denoising_target(denoiser, x, noise, sigma)
    return jnp.mean(error**2)
