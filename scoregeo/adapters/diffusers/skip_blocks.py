"""The blocks of score networks for images, NCSN++ (Song et al. 2021, arXiv 2011.13456): beside the features, they make
the image itself smaller on the way down and put it together on the way up, with smooth filters.

diffusers calls them ``SkipDownBlock2D`` and ``SkipUpBlock2D``, with attention ``AttnSkipDownBlock2D`` and
``AttnSkipUpBlock2D``; the pipelines of ``ScoreSdeVeScheduler`` have them.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ..._types import Vector
from .layers import Image, Resnet, Style, attentions_of, down_layers, up_layers

IMAGE_CHANNELS = 3
ATTENTION_GROUPS = 32


class SkipDownBlock(nnx.Module):
    """Residual blocks at one resolution, each perhaps with attention; then, if ``step``, half the resolution, and what
    a matrix makes of the smaller image is added to the features.

    ``head_dim=None`` is without attention. Sums of two paths are divided by the root of two.
    """

    def __init__(self, inputs: int, channels: int, layers: int, style: Style, *, head_dim: int | None, step: bool):
        style, attending = _styles(style)
        self.resnets = nnx.List([Resnet(size, channels, style) for size in [inputs] + [channels] * (layers - 1)])
        self.attentions = attentions_of(layers, channels, head_dim, attending)
        self.resnet_down = Resnet(channels, channels, style, resample=halved, shortcut=True) if step else None
        self.skip_conv = style.initial.conv(IMAGE_CHANNELS, channels, size=1) if step else None

    def __call__(self, x: Image, embedding: Vector | None, image: Image) -> tuple[Image, list[Image], Image]:
        """The features, those after every layer for the way up, and the image at the resolution of the features."""
        kept = down_layers(self.resnets, self.attentions, x, embedding)
        if self.resnet_down is not None and self.skip_conv is not None:
            image = halved(image)
            kept.append(self.skip_conv(image) + self.resnet_down(kept[-1], embedding))
        return kept[-1], kept, image


class SkipUpBlock(nnx.Module):
    """Residual blocks, perhaps attention after all of them; the image at twice its resolution; then, if ``step``, what
    the features say of the image is added to it, and the features have twice their resolution.

    ``inputs`` are the channels that each residual block gets from the one before and from the way down.
    """

    def __init__(
        self, inputs: Sequence[tuple[int, int]], channels: int, style: Style, *, head_dim: int | None, step: bool
    ):
        style, attending = _styles(style)
        # With attention, diffusers counts groups of other channels: those of the way down alone are divided by four.
        groups = [None if head_dim is None else min(a + b // 4, ATTENTION_GROUPS) for a, b in inputs]
        self.resnets = nnx.List(
            [Resnet(sum(sizes), channels, style, groups=n) for sizes, n in zip(inputs, groups, strict=True)]
        )
        self.attentions = attentions_of(1, channels, head_dim, attending)
        self.resnet_up = Resnet(channels, channels, style, resample=doubled, shortcut=True) if step else None
        self.skip_norm = style.norm(channels) if step else None
        self.skip_conv = style.initial.conv(channels, IMAGE_CHANNELS) if step else None

    def __call__(
        self, x: Image, kept: list[Image], embedding: Vector | None, image: Image | None
    ) -> tuple[Image, Image | None]:
        """The features, and the image as far as it is known, at the resolution at which the features came; the last of
        ``kept`` are used up, one for each residual block."""
        x = up_layers(self.resnets, nnx.List([]), x, kept, embedding)
        for attention in self.attentions:
            x = attention(x)
        image = None if image is None else doubled(image)
        if self.resnet_up is None or self.skip_norm is None or self.skip_conv is None:
            return x, image
        said = self.skip_conv(nnx.silu(self.skip_norm(x)))
        return self.resnet_up(x, embedding), said if image is None else image + said


def _styles(style: Style) -> tuple[Style, Style]:
    """Those of residual blocks and of attention, which these networks fix."""
    style = dataclasses.replace(style, groups=None, scale_factor=math.sqrt(2))
    return style, dataclasses.replace(style, groups=ATTENTION_GROUPS)


def halved(x: Image) -> Image:
    """Half the resolution: every second value of the image smoothed with weights 1, 3, 3, 1 along both axes, and zero
    outside."""
    for axis in (1, 2):
        size = x.shape[axis]
        wide = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])
        first, second, third, fourth = (jax.lax.slice_in_dim(wide, k, k + size - 1, 2, axis) for k in range(4))
        x = (first + 3 * (second + third) + fourth) / 8
    return x


def doubled(x: Image) -> Image:
    """Twice the resolution: between two values those at a quarter and three quarters of the way, along both axes, and
    zero outside."""
    for axis in (1, 2):
        size = x.shape[axis]
        wide = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])
        before, after = (jax.lax.slice_in_dim(wide, k, k + size, 1, axis) for k in (0, 2))
        pairs = jnp.stack([(before + 3 * x) / 4, (3 * x + after) / 4], axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x
