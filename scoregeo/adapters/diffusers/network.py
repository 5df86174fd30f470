r"""diffusers' networks as networks of this library: what they say of a noisy point, in the terms of a `Denoiser`.

With noise of standard deviation ``r`` and ``S^2 = 1 + r^2``, a denoiser for data of mean zero and variance one sees
``u = x/S``, which on a variance-preserving path is diffusers' ``x_t``, and has the score ``s = -u/S + F/(r S)``. Hence

    F = r u - S eps,      F = (S x_0 - u)/r,      F = -v,      F = r S s + r u

for a network that predicts the noise, the clean point, ``v``, or the score itself. These are identities: they hold
whatever the variance of the data is.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from ..._types import Point, Scalar, Vector
from ...diffusion.schedules import VE
from .schedulers import Scheduler
from .unet import UNet2DModel


class DiffusersNetwork(nnx.Module):
    """A `UNet2DModel` with the scheduler that says what its timesteps and its output mean, as a network for `fit` and
    `Denoiser`: ``(u, c_noise)`` to ``(d,)``, for a flat image ``u`` in the order ``(h, w, c)``.

    **Arguments**

    - ``unet``: the network.
    - ``scheduler``: what it is told and what it says. To train from scratch, ``"v_prediction"`` has a target of the
      same size at all noise levels.

    Raises ``ValueError`` if the network returns other channels than the scheduler says.

    >>> from scoregeo.adapters.diffusers import DiffusersNetwork, DiscreteVP, Scheduler, UNet2DModel
    >>> blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "block_out_channels": [8]}
    >>> unet = UNet2DModel(blocks | {"norm_num_groups": 4, "sample_size": 4})  # without weights
    >>> DiffusersNetwork(unet, Scheduler(DiscreteVP(), "v_prediction")).dim
    48
    """

    conservative = False

    def __init__(self, unet: UNet2DModel, scheduler: Scheduler):
        if not isinstance(unet, UNet2DModel):
            raise TypeError(f"`unet` must be a UNet2DModel of scoregeo.adapters.diffusers, got {type(unet).__name__}")
        if not isinstance(scheduler, Scheduler):
            raise TypeError(f"`scheduler` must be a Scheduler, got {type(scheduler).__name__}")
        channels = unet.shape[-1] * (2 if scheduler.learned_variance else 1)
        if unet.settings.out_channels != channels:
            raise ValueError(
                f"`out_channels` must be {channels} for {unet.shape[-1]} `in_channels` and this scheduler, got "
                f"{unet.settings.out_channels}"
            )
        self.unet, self.scheduler = unet, scheduler

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(h, w, c)`` of the images."""
        return self.unet.shape

    @property
    def dim(self) -> int:
        """Dimension d of the points, ``h w c``."""
        return math.prod(self.shape)

    def __call__(self, u: Point, c_noise: Scalar, condition: Any = None) -> Vector:
        """``F`` at ``u`` ``(d,)`` and ``c_noise = log(r)/4``; there is no condition."""
        if condition is not None:
            raise ValueError("`condition` must be None: this network takes no conditions")
        if jnp.shape(u) != (self.dim,):
            raise ValueError(f"`x` must have shape ({self.dim},), got {jnp.shape(u)}; use jax.vmap for a batch")
        r = jnp.exp(4 * jnp.asarray(c_noise, u.dtype))
        total = jnp.sqrt(1 + r**2)
        seen = total * u if isinstance(self.scheduler.schedule, VE) else u
        output = self.unet(seen.reshape(self.shape), self.scheduler.timestep(r))
        output = output[..., : self.shape[-1]].reshape(-1)
        if self.scheduler.prediction == "epsilon":
            return r * u - total * output
        if self.scheduler.prediction == "sample":
            return (total * output - u) / r
        return -output if self.scheduler.prediction == "v_prediction" else r * total * output + r * u
