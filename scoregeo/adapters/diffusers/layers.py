"""The layers that diffusers' networks are made of, for images ``(1, h, w, c)``.

Attributes have the names that diffusers' files give their tensors, so that a path in a module is a name in a file.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ..._types import Scalar, Vector
from ...diffusion.networks.convolution import convolution

Image = Float[Array, "1 _ _ _"]  # height, width and channels

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": nnx.silu,
    "swish": nnx.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
}


@dataclasses.dataclass(frozen=True)
class Style:
    """What the layers of one network share.

    **Fields**

    - ``groups``, ``eps``: of the group normalisation; for ``groups`` of ``None`` see `groups_of`.
    - ``activation``: a name in ``ACTIVATIONS``.
    - ``time_features``: size of the embedding of the timestep, ``None`` for a network that is told none.
    - ``scale_shift``: whether the timestep scales and shifts the features, or only shifts them.
    - ``scale_factor``: what sums of two paths are divided by.
    - ``initial``: where initial weights come from.
    """

    groups: int | None
    eps: float
    activation: str
    time_features: int | None
    scale_shift: bool
    initial: "Initial"
    scale_factor: float = 1.0

    def norm(self, channels: int) -> "GroupNorm":
        """A group normalisation of so many channels."""
        return self.initial.group_norm(channels, groups_of(channels, self.groups), self.eps)


def groups_of(channels: int, groups: int | None) -> int:
    """Into how many groups ``channels`` are normalised: ``groups``, or as many as have four channels, at most 32."""
    return min(channels // 4, 32) if groups is None else groups


class Initial:
    """Layers with initial weights that are drawn with a key; without one, with shapes in place of arrays."""

    def __init__(self, key: PRNGKeyArray | None):
        self.rngs = nnx.Rngs(0 if key is None else key)
        # With shapes alone no array is made and nothing is traced: a large network is there at once.
        self._drawn = key is not None
        self._weights: dict[str, Any] = {} if self._drawn else {"kernel_init": _shape_alone, "bias_init": _shape_alone}
        self._norm: dict[str, Any] = {} if self._drawn else {"scale_init": _shape_alone, "bias_init": _shape_alone}

    def linear(self, inputs: int, outputs: int) -> nnx.Linear:
        """A matrix and a shift."""
        return nnx.Linear(inputs, outputs, rngs=self.rngs, **self._weights)

    def conv(self, inputs: int, outputs: int, *, size: int = 3, stride: int = 1, padding: Any = "SAME") -> nnx.Conv:
        """A convolution whose program is fast on CPUs inside loops too."""
        settings: dict[str, Any] = {"strides": stride, "padding": padding, "conv_general_dilated": convolution}
        return nnx.Conv(inputs, outputs, (size, size), rngs=self.rngs, **settings, **self._weights)

    def group_norm(self, channels: int, groups: int, eps: float) -> "GroupNorm":
        """Normalisation of groups of channels."""
        return GroupNorm(channels, groups, epsilon=eps, rngs=self.rngs, **self._norm)

    def normal(self, size: int, scale: float) -> Any:
        """``size`` normal numbers."""
        draw = nnx.initializers.normal(scale) if self._drawn else _shape_alone
        return draw(self.rngs.params(), (size,), jnp.float32)


def _shape_alone(key: PRNGKeyArray, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), dtype)


class GroupNorm(nnx.GroupNorm):
    """Group normalisation of an image that loses few digits in single precision: a variance is the mean of squares of
    what is left without the mean, and means are those of rows, then of these. XLA on CPUs adds numbers one by one, and
    over the many of a whole image rounding errors add up, layer by layer."""

    def __call__(self, x: Image) -> Image:  # pyright: ignore[reportIncompatibleMethodOverride]
        def mean(values: Float[Array, "_ _ g _"]) -> Float[Array, "g 1"]:
            # The barrier keeps XLA from making one sum of the two.
            return jax.lax.optimization_barrier(values.mean((1, 3))).mean(0)[:, None]

        grouped = x.reshape(*x.shape[1:3], self.num_groups, -1)
        rest = grouped - mean(grouped)
        normal = rest * jax.lax.rsqrt(mean(rest**2) + self.epsilon)
        scale, bias = self.scale, self.bias
        assert scale is not None
        assert bias is not None
        return normal.reshape(x.shape) * scale[...] + bias[...]


class TimestepEmbedding(nnx.Module):
    """Two layers between the features of the timestep and the embedding that the blocks see."""

    def __init__(self, inputs: int, features: int, initial: Initial):
        self.linear_1 = initial.linear(inputs, features)
        self.linear_2 = initial.linear(features, features)

    def __call__(self, features: Float[Array, " k"]) -> Float[Array, " m"]:
        return self.linear_2(nnx.silu(self.linear_1(features)))


class Resnet(nnx.Module):
    """A residual block that the embedding of the timestep shifts, or scales and shifts, or does not reach.

    ``resample`` changes the resolution of both paths, ``shortcut`` has a matrix in the short one also where the number
    of channels stays, and ``groups`` are those of the first normalisation where they are not those of ``style``.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        style: Style,
        *,
        resample: Callable[[Image], Image] | None = None,
        shortcut: bool = False,
        groups: int | None = None,
    ):
        initial, features = style.initial, style.time_features
        self.activation, self.scale_shift = style.activation, style.scale_shift
        self.scale_factor, self.resample = style.scale_factor, resample
        self.norm1 = style.norm(inputs) if groups is None else initial.group_norm(inputs, groups, style.eps)
        self.conv1 = initial.conv(inputs, channels)
        shifts = channels * (2 if style.scale_shift else 1)
        self.time_emb_proj = None if features is None else initial.linear(features, shifts)
        self.norm2 = style.norm(channels)
        self.conv2 = initial.conv(channels, channels)
        matrix = shortcut or inputs != channels
        self.conv_shortcut = initial.conv(inputs, channels, size=1) if matrix else None

    def __call__(self, x: Image, embedding: Vector | None) -> Image:
        activation = ACTIVATIONS[self.activation]
        h = activation(self.norm1(x))
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = self.conv1(h)
        if self.time_emb_proj is None or embedding is None:
            h = self.norm2(h)
        elif self.scale_shift:
            scale, shift = jnp.split(self.time_emb_proj(activation(embedding)), 2)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + self.time_emb_proj(activation(embedding)))
        h = self.conv2(activation(h))
        return ((x if self.conv_shortcut is None else self.conv_shortcut(x)) + h) / self.scale_factor


class Attention(nnx.Module):
    """Self-attention between the places of an image, added to it. ``groups=None``: without a normalisation before."""

    def __init__(self, channels: int, head_dim: int, groups: int | None, style: Style):
        initial, self.scale_factor = style.initial, style.scale_factor
        self.heads, self.head_dim = channels // head_dim, head_dim
        width = self.heads * head_dim
        self.group_norm = None if groups is None else initial.group_norm(channels, groups, style.eps)
        self.to_q, self.to_k, self.to_v = (initial.linear(channels, width) for _ in range(3))
        self.to_out = nnx.List([initial.linear(width, channels)])

    def __call__(self, x: Image) -> Image:
        tokens = x if self.group_norm is None else self.group_norm(x)
        tokens = tokens.reshape(-1, x.shape[-1])
        queries, keys, values = (
            layer(tokens).reshape(len(tokens), self.heads, self.head_dim) for layer in (self.to_q, self.to_k, self.to_v)
        )
        logits = jnp.einsum("qhc,khc->hqk", queries, keys) * self.head_dim**-0.5
        weights = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        seen = jnp.einsum("hqk,khc->qhc", weights.astype(values.dtype), values).reshape(len(tokens), -1)
        return (self.to_out[0](seen).reshape(x.shape) + x) / self.scale_factor


class Downsample(nnx.Module):
    """Half the resolution; ``padding=0`` stands for one row and one column after the image, none before."""

    def __init__(self, channels: int, padding: int, initial: Initial):
        edge = (0, 1) if padding == 0 else (padding, padding)
        self.conv = initial.conv(channels, channels, stride=2, padding=(edge, edge))

    def __call__(self, x: Image, embedding: Vector | None) -> Image:
        return self.conv(x)


class Upsample(nnx.Module):
    """Twice the resolution by repeated pixels, then a convolution."""

    def __init__(self, channels: int, initial: Initial):
        self.conv = initial.conv(channels, channels)

    def __call__(self, x: Image, embedding: Vector | None) -> Image:
        return self.conv(repeated(x))


def repeated(x: Image) -> Image:
    """Twice the resolution: every pixel four times."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def averaged(x: Image) -> Image:
    """Half the resolution: means of four pixels."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


class DownBlock(nnx.Module):
    """Residual blocks at one resolution, each perhaps with attention, then perhaps half the resolution.

    ``head_dim=None`` is without attention, ``step`` is the layer that halves the resolution, if one does.
    """

    def __init__(
        self, inputs: int, channels: int, layers: int, style: Style, *, head_dim: int | None, step: nnx.Module | None
    ):
        self.resnets = nnx.List([Resnet(size, channels, style) for size in [inputs] + [channels] * (layers - 1)])
        self.attentions = attentions_of(layers, channels, head_dim, style)
        self.downsamplers = nnx.List([] if step is None else [step])

    def __call__(self, x: Image, embedding: Vector | None, image: Any = None) -> tuple[Image, list[Image], Any]:
        """The features, those after every layer for the way up, and ``image``, which is not looked at."""
        kept = down_layers(self.resnets, self.attentions, x, embedding)
        for layer in self.downsamplers:
            kept.append(layer(kept[-1], embedding))
        return kept[-1], kept, image


class MidBlock(nnx.Module):
    """Two residual blocks at the lowest resolution, with attention between them unless ``head_dim`` is ``None``."""

    def __init__(self, channels: int, style: Style, *, head_dim: int | None, groups: int | None):
        self.resnets = nnx.List([Resnet(channels, channels, style) for _ in range(2)])
        self.attentions = nnx.List([] if head_dim is None else [Attention(channels, head_dim, groups, style)])

    def __call__(self, x: Image, embedding: Vector | None) -> Image:
        x = self.resnets[0](x, embedding)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, embedding)


class UpBlock(nnx.Module):
    """Residual blocks of ``inputs`` channels each, perhaps with attention, then perhaps twice the resolution: ``step``
    is the layer that does that."""

    def __init__(
        self, inputs: Sequence[int], channels: int, style: Style, *, head_dim: int | None, step: nnx.Module | None
    ):
        self.resnets = nnx.List([Resnet(size, channels, style) for size in inputs])
        self.attentions = attentions_of(len(inputs), channels, head_dim, style)
        self.upsamplers = nnx.List([] if step is None else [step])

    def __call__(
        self, x: Image, kept: list[Image] | None, embedding: Vector | None, image: Image | None = None
    ) -> tuple[Image, Image | None]:
        """The features, and ``image``, which is not looked at; the last of ``kept``, if there are any, are used up, one
        for each residual block."""
        x = up_layers(self.resnets, self.attentions, x, kept, embedding)
        for layer in self.upsamplers:
            x = layer(x, embedding)
        return x, image


def attentions_of(layers: int, channels: int, head_dim: int | None, style: Style) -> Sequence["Attention"]:
    """So many layers of attention; none where ``head_dim`` is ``None``."""
    count = 0 if head_dim is None else layers
    groups = groups_of(channels, style.groups)
    return nnx.List([Attention(channels, head_dim or 1, groups, style) for _ in range(count)])


def down_layers(
    resnets: nnx.List, attentions: Sequence["Attention"], x: Image, embedding: Vector | None
) -> list[Image]:
    """The features after each of ``resnets``, with its attention, if there are any."""
    kept = []
    for i, resnet in enumerate(resnets):
        x = resnet(x, embedding)
        x = attentions[i](x) if len(attentions) else x
        kept.append(x)
    return kept


def up_layers(
    resnets: nnx.List, attentions: Sequence["Attention"], x: Image, kept: list[Image] | None, embedding: Vector | None
) -> Image:
    """The features after all ``resnets``, each of which is given the last of ``kept`` too, if there are any."""
    for i, resnet in enumerate(resnets):
        x = resnet(x if kept is None else jnp.concatenate([x, kept.pop()], -1), embedding)
        x = attentions[i](x) if len(attentions) else x
    return x


def sinusoids(t: Scalar, size: int, *, freq_shift: float, cosines_first: bool) -> Vector:
    """Sines and cosines of the timestep at ``size // 2`` frequencies from 1 down to about 1e-4."""
    half = size // 2
    frequencies = jnp.exp(-math.log(10000.0) * jnp.arange(half, dtype=t.dtype) / (half - freq_shift))
    waves = [jnp.sin(t * frequencies), jnp.cos(t * frequencies)]
    return jnp.pad(jnp.concatenate(waves[::-1] if cosines_first else waves), (0, size % 2))
