"""A U-Net for images and sequences, through the door of flat vectors."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_count
from ..._types import Point, Scalar, Vector
from .attention import SelfAttention
from .conditioning import ConditionalNetwork, LevelEmbedding, as_sizes, sides
from .convolution import convolution

# Images (or sequences) inside have a leading axis of one: the group normalisation of flax takes the first axis for a
# batch.
_Image = Float[Array, "1 ... _"]  # sides and channels


class UNet(ConditionalNetwork):
    """A convolutional network that sees an image or a sequence at several resolutions (Ronneberger et al. 2015, arXiv
    1505.04597).

    Blocks and their order are those of Ho et al. (2020, arXiv 2006.11239) with the changes that Karras et al. (2022,
    arXiv 2206.00364, app. F.2) collect: the noise level scales and shifts the features of every block, and sums with a
    skipped path are divided by ``sqrt(2)``. From one resolution to the next, 2x2 means go down and repeated pixels go
    up (of sequences, means of two), each followed by a convolution.

    **Arguments**

    - ``shape``: ``(h, w, c)`` of the images. A point is the image flattened in this order, ``d = h w c``. Images of one
      row, ``(1, n, c)``, are sequences, such as time series of ``c`` channels.
    - ``width``: channels at full resolution, at least 4.
    - ``multipliers``: channels at each resolution, as multiples of ``width``; every next resolution is half the one
      before, so ``h`` and ``w`` (or ``n``) must be divisible by ``2**(len(multipliers) - 1)``.
    - ``blocks``: residual blocks at each resolution (one more on the way up).
    - ``attention``: heights (or lengths) of the feature maps at which every block ends in self-attention, for example
      ``(8,)``.
      The block in the middle, at the lowest resolution, always does.
    - ``heads``: heads of the attention; the number divides its channels.
    - ``classes`` or ``condition_dim``: the network takes a label, or a vector of that length, as its condition (see
      `ConditionalNetwork.__call__`).
    - ``compute_dtype``: such as ``jnp.bfloat16``, in which all but the last layer compute; ``None`` for the dtypes of
      point and weights. Weights and output keep theirs.
    - ``key``: a ``jax.random`` key for the initial weights. The last layer starts at zero.
    - ``dtype``: type of the weights, float32 by default.

    Raises ``ValueError`` naming a setting that makes no sense.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.diffusion import UNet
    >>> network = UNet((8, 8, 1), width=8, multipliers=(1, 2), blocks=1, classes=10, key=jax.random.key(0))
    >>> jax.jit(network)(jnp.ones(64), jnp.array(0.1), 3).shape
    (64,)
    """

    settings = ("shape", "width", "multipliers", "blocks", "attention", "heads")

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (),
        heads: int = 1,
        *,
        classes: int | None = None,
        condition_dim: int | None = None,
        compute_dtype: Any = None,
        key: PRNGKeyArray,
        dtype: Any = jnp.float32,
    ):
        self.shape, self.multipliers = as_sizes("shape", shape, 3), as_sizes("multipliers", multipliers)
        self.attention = as_sizes("attention", attention)
        width = self.width = check_count("width", width, 4)
        blocks, heads = self.blocks, self.heads = check_count("blocks", blocks), check_count("heads", heads)
        self._check_resolutions()
        super().__init__(math.prod(self.shape), classes, condition_dim, compute_dtype)

        rngs, colours, channels = nnx.Rngs(key), self.shape[-1], self._channels
        settings = {"compute_dtype": self.compute_dtype, "dtype": dtype, "rngs": rngs, "axes": len(sides(self.shape))}
        self.embedding = LevelEmbedding(self._features, self, dtype=dtype, rngs=rngs)
        self.stem = _convolution(colours, width, **settings)
        down, skipped = self._way_down(settings)
        self.down = nnx.List(down)
        lowest = channels[-1]
        self.middle = nnx.List([_Block(lowest, lowest, self._features, n, **settings) for n in (heads, 0)])
        self.up = nnx.List(self._way_up(skipped, settings))
        self.norm = _group_norm(channels[0], compute_dtype=self.compute_dtype, dtype=dtype, rngs=rngs)
        # The head computes in the precision of the weights: it averages out how features were rounded before.
        self.head = _convolution(
            channels[0],
            colours,
            axes=len(sides(self.shape)),
            compute_dtype=None,
            dtype=dtype,
            rngs=rngs,
            kernel_init=nnx.initializers.zeros,
        )

    @property
    def _heights(self) -> list[int]:
        """Height (of sequences, length) of the feature maps at each resolution."""
        return [sides(self.shape)[0] // 2**i for i in range(len(self.multipliers))]

    @property
    def _channels(self) -> list[int]:
        """Channels of the feature maps at each resolution."""
        return [self.width * multiplier for multiplier in self.multipliers]

    @property
    def _features(self) -> int:
        """Size of the embedding of the noise level."""
        return 4 * self.width

    def _check_resolutions(self) -> None:
        if not self.multipliers:
            raise ValueError("`multipliers` must have at least one entry, got none")
        factor = 2 ** (len(self.multipliers) - 1)
        if any(side % factor for side in sides(self.shape)):
            of = "a height and a width" if len(sides(self.shape)) == 2 else "a length"
            raise ValueError(
                f"`shape` must have {of} divisible by {factor}, because {len(self.multipliers)} "
                f"`multipliers` halve the resolution {len(self.multipliers) - 1} times; got {self.shape}"
            )
        heights, channels = self._heights, self._channels
        if unknown := sorted(set(self.attention) - set(heights)):
            raise ValueError(f"`attention` must name heights of feature maps, {heights}, got {unknown}")
        attending = {channels[-1]} | {channels[heights.index(height)] for height in self.attention}
        if indivisible := sorted(n for n in attending if n % self.heads):
            raise ValueError(f"`heads` must divide the channels where blocks attend, {indivisible}, got {self.heads}")

    def _block(self, inputs: int, level: int, settings: dict[str, Any]) -> "_Block":
        """A block at one resolution, from so many channels."""
        heads = self.heads if self._heights[level] in self.attention else 0
        return _Block(inputs, self._channels[level], self._features, heads, **settings)

    def _way_down(self, settings: dict[str, Any]) -> tuple[list[nnx.Module], list[int]]:
        """The layers from full resolution to the lowest, and the channels of what each hands to the way up."""
        channels, layers, skipped = self._channels, [], [self.width]
        for level in range(len(channels)):
            if level > 0:
                layers.append(_Resample(channels[level - 1], _halve, **settings))
                skipped.append(channels[level - 1])
            for _ in range(self.blocks):
                layers.append(self._block(skipped[-1], level, settings))
                skipped.append(channels[level])
        return layers, skipped

    def _way_up(self, skipped: list[int], settings: dict[str, Any]) -> list[nnx.Module]:
        """The layers from the lowest resolution back to the full one; ``skipped`` is used up."""
        channels, layers = self._channels, []
        now = channels[-1]
        for level in reversed(range(len(channels))):
            for _ in range(self.blocks + 1):
                layers.append(self._block(now + skipped.pop(), level, settings))
                now = channels[level]
            if level > 0:
                layers.append(_Resample(now, _double, **settings))
        return layers

    def output(self, x: Point, c_noise: Scalar, condition: Any) -> Vector:
        """The output for one flat image or sequence, shape ``(d,)``."""
        level = self.embedding(c_noise, condition)
        h = self.stem(x.reshape(1, *sides(self.shape), self.shape[-1]))
        skipped = [h]
        for layer in self.down:
            h = layer(h, level)
            skipped.append(h)
        for layer in self.middle:
            h = layer(h, level)
        for layer in self.up:
            if isinstance(layer, _Block):
                h = jnp.concatenate([h, skipped.pop()], -1)
            h = layer(h, level)
        h = nnx.silu(self.norm(h))
        return self.head(h.astype(jnp.promote_types(h.dtype, x.dtype))).reshape(-1)


class _Block(nnx.Module):
    """A residual block: two convolutions, the second after a scale and a shift by the level; then perhaps attention."""

    def __init__(
        self,
        inputs: int,
        channels: int,
        features: int,
        heads: int,
        *,
        axes: int,
        compute_dtype: Any,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        settings = {"compute_dtype": compute_dtype, "dtype": dtype, "rngs": rngs}
        convolution, zeros = functools.partial(_convolution, axes=axes, **settings), nnx.initializers.zeros
        self.first_norm = _group_norm(inputs, **settings)
        self.first = convolution(inputs, channels)
        self.level = nnx.Linear(features, 2 * channels, dtype=compute_dtype, param_dtype=dtype, rngs=rngs)
        self.second_norm = _group_norm(channels, **settings)
        self.second = convolution(channels, channels, kernel_init=zeros)
        self.skip = None if inputs == channels else convolution(inputs, channels, size=1)
        self.attention_norm = _group_norm(channels, **settings) if heads else None
        self.attention = SelfAttention(channels, heads, kernel_init=zeros, **settings) if heads else None

    def __call__(self, x: _Image, level: Vector) -> _Image:
        scale, shift = jnp.split(self.level(level), 2)
        h = self.first(nnx.silu(self.first_norm(x)))
        h = self.second(nnx.silu(self.second_norm(h) * (1 + scale) + shift))
        h = _sum(x if self.skip is None else self.skip(x), h)
        if self.attention is None or self.attention_norm is None:
            return h
        tokens = self.attention_norm(h).reshape(-1, h.shape[-1])
        return _sum(h, self.attention(tokens).reshape(h.shape))


class _Resample(nnx.Module):
    """Half or twice the resolution, then a convolution; the level is not used."""

    def __init__(self, channels: int, change: Any, **settings: Any):
        self.change = change
        self.convolution = _convolution(channels, channels, **settings)

    def __call__(self, x: _Image, level: Vector) -> _Image:
        return self.convolution(self.change(x))


def _halve(x: _Image) -> _Image:
    _, *lengths, c = x.shape
    pairs = [part for length in lengths for part in (length // 2, 2)]
    return jnp.mean(x.reshape(1, *pairs, c), tuple(range(2, 2 * len(lengths) + 1, 2)))


def _double(x: _Image) -> _Image:
    for axis in range(1, x.ndim - 1):
        x = jnp.repeat(x, 2, axis)
    return x


def _sum(skipped: _Image, h: _Image) -> _Image:
    """The sum of two paths, divided so that two independent ones keep their variance."""
    return (skipped + h) * math.sqrt(0.5)


def _convolution(
    inputs: int, outputs: int, *, axes: int, compute_dtype: Any, dtype: Any, rngs: nnx.Rngs, size: int = 3, **settings
):
    return nnx.Conv(
        inputs,
        outputs,
        (size,) * axes,
        conv_general_dilated=convolution,
        dtype=compute_dtype,
        param_dtype=dtype,
        rngs=rngs,
        **settings,
    )


def _group_norm(channels: int, *, compute_dtype: Any, dtype: Any, rngs: nnx.Rngs) -> nnx.GroupNorm:
    # At most 32 groups of at least 4 channels: a group of one number would be nothing but zero.
    groups = max(n for n in range(1, 33) if channels % n == 0 and (n == 1 or channels // n >= 4))
    return nnx.GroupNorm(
        channels,
        groups,
        epsilon=1e-5,
        use_fast_variance=False,  # the fast one is a difference of large numbers, and its derivatives lose digits
        dtype=compute_dtype,
        param_dtype=dtype,
        rngs=rngs,
    )
