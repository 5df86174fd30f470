r"""Denoising score matching, weighted so that every noise level counts about the same.

The expected squared error of the denoiser, ``E |D(x_0 + sigma eps; sigma) - x_0|^2``, is smallest for the conditional
mean, whose score is exact (Vincent 2011). With the weight ``(sigma^2 + c^2)/(sigma c)^2``, ``c = sigma_data``, of
Karras et al. (2022, eq. 8) it equals the plain squared error of the network against the target below, which has unit
variance at every noise level. So a loss of 1 is what a network that outputs zero has.

The Jacobian can be trained too. In the same units, what counts is how the output of the network changes if the point
moves by the noise, ``x + sigma v`` with ``v ~ N(0, I)``: the error of that change is ``(r S/c)^2 |r (J' - J) v|^2`` for
the Jacobian ``J`` of the score, of which the loss itself is the error ``(r S/c)^2 |s' - s|^2``.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._numerics import as_double
from ..._protocols import CentredModel
from ..._types import Point, Scalar, Vector
from ..networks.denoiser import Denoiser
from .targets import Posterior


class Teacher(eqx.Module):
    """What another score is to copy.

    **Fields**

    - ``model``: a pytree of arrays with ``score_at(sigma)``, whose noise level may be traced.
    - ``jacobian``: weight of the error of the Jacobian, a scalar that is not negative.
    - ``origin``: where the coordinates in which it is asked begin, in those of ``model``.
    """

    model: Any
    jacobian: Scalar
    origin: Any = 0.0

    def about(self, mean: np.ndarray) -> "Teacher":
        """The same in the coordinates ``x - mean``, in which networks are trained."""
        if isinstance(self.model, CentredModel):
            return Teacher(self.model.centred(), self.jacobian, jnp.asarray(as_double(mean) - self.model.mean))
        return Teacher(self.model, self.jacobian, jnp.asarray(mean))


def denoising_target(denoiser: Denoiser, x: Point, noise: Vector, sigma: Scalar) -> Vector:
    """What the network should output for the clean point ``x`` with ``sigma * noise`` added; all in closed form.

    ``(x - mean - c_skip (x - mean + sigma noise))/c_out`` with the cancellations done by hand; shape ``(d,)``.
    """
    data = denoiser.sigma_data[...]
    return (sigma / data * (x - denoiser.mean[...]) - data * noise) / jnp.sqrt(sigma**2 + data**2)


def denoising_loss(
    denoiser: Denoiser, x: Point, noise: Vector, sigma: Scalar, condition: Any = None
) -> Float[Array, ""]:
    """The weighted squared error of the denoiser at one point, averaged over the coordinates.

    ``x`` is a clean point ``(d,)``, ``noise`` a draw of N(0, I) of that shape, ``sigma`` a noise level, ``condition``
    what the network is told besides.
    """
    output = denoiser.network_output(x + sigma * noise, sigma, condition)
    error = output - denoising_target(denoiser, x, noise, sigma)
    return jnp.mean(error**2)


def stable_target(denoiser: Denoiser, posterior: Posterior) -> Vector:
    """What the network should output at the noisy point of ``posterior``; `denoising_target` with the posterior mean in
    place of the clean point. Shape ``(d,)``."""
    mean = posterior.mean()
    return denoising_target(denoiser, mean, (posterior.noisy - mean) / posterior.sigma, posterior.sigma)


def second_order_target(denoiser: Denoiser, posterior: Posterior, v: Vector) -> Vector:
    """The derivative of `stable_target` along ``sigma v`` as the noisy point moves, from the posterior covariance.

    ``(S/c) C v/sigma^2 - (c/S) v``, which is equation (2) of `targets` in the units of the network; shape ``(d,)``.
    """
    data, sigma = denoiser.sigma_data[...], posterior.sigma
    total = jnp.sqrt(sigma**2 + data**2)
    return total / data * posterior.covariance_mv(v / sigma) / sigma - data / total * v


def stable_loss(denoiser: Denoiser, posterior: Posterior) -> Float[Array, ""]:
    """The squared error of the network against `stable_target`, averaged over the coordinates.

    In expectation the gradient is that of `denoising_loss`, as the reference set grows (Xu et al. 2023).
    """
    output = denoiser.network_output(posterior.noisy, posterior.sigma)
    return jnp.mean((output - stable_target(denoiser, posterior)) ** 2)


def second_order_loss(denoiser: Denoiser, posterior: Posterior, v: Vector) -> Float[Array, ""]:
    """The squared error of the derivative of the network along ``sigma v``, averaged over the coordinates, times the
    `reliability` of the posterior.

    ``v`` is a draw of N(0, I), shape ``(d,)``. Costs one JVP of the network.
    """
    sigma = posterior.sigma
    _, derivative = jax.jvp(lambda y: denoiser.network_output(y, sigma), (posterior.noisy,), (sigma * v,))
    error = derivative - second_order_target(denoiser, posterior, v)
    return posterior.reliability() * jnp.mean(error**2)


def distillation_loss(denoiser: Denoiser, teacher: Teacher, noisy: Point, sigma: Scalar, v: Vector) -> Scalar:
    """The squared error of the network against what it would have to output to give the score of ``teacher``, averaged
    over the coordinates, plus ``teacher.jacobian`` times that of its derivative along ``sigma v``.

    ``v`` is a draw of N(0, I), shape ``(d,)``. In the units of the other losses: a network that outputs zero has a loss
    of about 1. Costs one JVP of both.
    """
    data = denoiser.sigma_data[...]
    total = jnp.sqrt(sigma**2 + data**2)
    known = teacher.model.score_at(sigma)

    def error(x):
        score = known(x + jnp.asarray(teacher.origin, x.dtype))
        wanted = sigma * total / data * (score + (x - denoiser.mean[...].astype(x.dtype)) / total**2)
        return denoiser.network_output(x, sigma) - wanted

    difference, derivative = jax.jvp(error, (noisy,), (sigma * v,))
    return jnp.mean(difference**2) + teacher.jacobian * jnp.mean(derivative**2)


def asymmetry_penalty(
    denoiser: Denoiser, x: Point, sigma: Scalar, v: Vector, condition: Any = None
) -> Float[Array, ""]:
    """How far the score is from a gradient field at the noisy point ``x``: ``|A v|^2/d`` for the asymmetric part ``A =
    J - J^T`` of the derivative of the network along the noise.

    ``v`` is a draw of N(0, I), shape ``(d,)``; the expectation is ``|A|_F^2/d`` (Hutchinson). Costs one JVP and one VJP
    (Chao et al. 2023, arXiv 2209.12753).
    """

    def output(noise):
        return denoiser.network_output(x + sigma * noise, sigma, condition)

    zero = jnp.zeros_like(x)
    _, along = jax.jvp(output, (zero,), (v,))
    _, pullback = jax.vjp(output, zero)
    return jnp.mean((along - pullback(v)[0]) ** 2)
