"""diffusers' ``UNet2DModel``: its settings, and the network in flax."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import check_choice, check_count
from ..._types import Scalar, Vector
from ...diffusion.networks.denoiser import Constant
from .layers import (
    ACTIVATIONS,
    DownBlock,
    Downsample,
    Image,
    Initial,
    MidBlock,
    Resnet,
    Style,
    TimestepEmbedding,
    UpBlock,
    Upsample,
    averaged,
    groups_of,
    repeated,
    sinusoids,
)
from .settings import Settings, image_shape
from .skip_blocks import ATTENTION_GROUPS, IMAGE_CHANNELS, SkipDownBlock, SkipUpBlock

_DOWN = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D")
_UP = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D")
# Fourier features of the timestep: how their frequencies are drawn.
_FOURIER_SCALE = 16.0


@dataclasses.dataclass(frozen=True)
class UNetSettings(Settings):
    """The settings of a ``UNet2DModel``, with diffusers' names and defaults; see there for what they mean.

    Raises ``ValueError`` that names a setting that makes no sense or that this library does not serve, and lists what
    it knows.
    """

    class_name = "UNet2DModel"

    sample_size: Any = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int | None = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("in_channels", "out_channels", "layers_per_block"):
            check_count(name, getattr(self, name))
        check_count("downsample_padding", self.downsample_padding, 0)
        for name, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            for block in getattr(self, name):
                check_choice(name, block, known)
        self._check_skips()
        self.check_widths("down_block_types", "up_block_types")
        check_choice("mid_block_type", self.mid_block_type, ("UNetMidBlock2D", None))
        check_choice("time_embedding_type", self.time_embedding_type, ("positional", "fourier"))
        check_choice("resnet_time_scale_shift", self.resnet_time_scale_shift, ("default", "scale_shift"))
        check_choice("act_fn", self.act_fn, ACTIVATIONS)
        for name in ("downsample_type", "upsample_type"):
            check_choice(name, getattr(self, name), ("conv", "resnet"))
        for name in ("class_embed_type", "num_class_embeds"):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` must be null: networks that take classes are not read, got {self!r}")
        self._check_heads()

    def _check_skips(self) -> None:
        """Blocks with "Skip" in their names hand an image from one to the next, so that it is all of them or none."""
        for name, channels in (("down_block_types", self.in_channels), ("up_block_types", self.out_channels)):
            kinds = getattr(self, name)
            skips = [_is_skip(kind) for kind in kinds]
            if any(skips) and not all(skips):
                raise ValueError(f"`{name}` must all or none have Skip in their names, got {list(kinds)}")
            if any(skips) and channels != IMAGE_CHANNELS:
                which = name.replace("block_types", "channels").replace("down", "in").replace("up", "out")
                raise ValueError(f"`{which}` must be {IMAGE_CHANNELS} for {kinds[0]}, got {channels}")
            if not any(skips) or self.norm_num_groups is not None:
                check_count("norm_num_groups", self.norm_num_groups)

    def _check_heads(self) -> None:
        """A head has at most the channels of each block that attends."""
        widths = self.block_out_channels
        blocks = [
            *zip(widths, self.down_block_types, strict=True),
            *zip(widths[::-1], self.up_block_types, strict=True),
        ]
        for width, kind in blocks:
            if _is_skip(kind) and _attends(kind) and width % ATTENTION_GROUPS:
                raise ValueError(
                    f"`block_out_channels` must be divisible by {ATTENTION_GROUPS} where {kind} attends, got {width}"
                )
        if self.attention_head_dim is None:
            return
        attending = [width for width, kind in blocks if _attends(kind)]
        attending += [widths[-1]] if self.add_attention and self.mid_block_type is not None else []
        if attending and check_count("attention_head_dim", self.attention_head_dim) > min(attending):
            raise ValueError(
                f"`attention_head_dim` must be at most the channels of the blocks that attend, {min(attending)}, got "
                f"{self.attention_head_dim}"
            )


class UNet2DModel(nnx.Module):
    """The network of diffusers' unconditional pipelines: ``(x, t)`` to an image, for one image ``x`` ``(h, w, c)``.

    Its parameters have the paths that diffusers gives them, with flax's names for the last part and flax's axes
    (see ``files``). Dropout is left out.

    **Arguments**

    - ``settings``: those of ``config.json``, as a dictionary or as `UNetSettings`.
    - ``key``: for the initial weights; without one there are shapes in place of arrays.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.adapters.diffusers import UNet2DModel
    >>> blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "block_out_channels": [8]}
    >>> network = UNet2DModel(blocks | {"norm_num_groups": 4, "sample_size": 4})  # without weights
    >>> jax.eval_shape(lambda network, x, t: network(x, t), network, jnp.zeros((4, 4, 3)), 10.0).shape
    (4, 4, 3)
    """

    def __init__(self, settings: Mapping[str, Any] | UNetSettings, *, key: PRNGKeyArray | None = None):
        s = settings if isinstance(settings, UNetSettings) else UNetSettings.from_dict(settings)
        self.settings, self.shape = s, image_shape(s)
        initial, channels = Initial(key), s.block_out_channels
        features = s.time_embedding_dim or 4 * channels[0]
        style = Style(
            s.norm_num_groups, s.norm_eps, s.act_fn, features, s.resnet_time_scale_shift != "default", initial
        )

        self.conv_in = initial.conv(s.in_channels, channels[0])
        fourier = s.time_embedding_type == "fourier"
        self.time_proj = _FourierFeatures(channels[0], initial) if fourier else None
        self.time_embedding = TimestepEmbedding(channels[0] * (2 if fourier else 1), features, initial)
        self.down_blocks = nnx.List(_down_blocks(s, style))
        self.mid_block = None if s.mid_block_type is None else _mid_block(s, style)
        self.up_blocks = nnx.List(_up_blocks(s, style))
        self.conv_norm_out = style.norm(channels[0])
        self.conv_out = initial.conv(channels[0], s.out_channels)

    def __call__(self, x: Float[Array, "h w c"], t: Scalar) -> Float[Array, "h w k"]:
        """The output for one image at the timestep ``t``, which need not be an integer."""
        t = jnp.asarray(t, x.dtype)
        embedding = self.time_embedding(self._features(t))
        image = 2 * x[None] - 1 if self.settings.center_input_sample else x[None]
        h = self.conv_in(image)
        kept = [h]
        for block in self.down_blocks:
            h, more, image = block(h, embedding, image)
            kept.extend(more)
        h, said = h if self.mid_block is None else self.mid_block(h, embedding), None
        for block in self.up_blocks:
            h, said = block(h, kept, embedding, said)
        h = self.conv_out(nnx.silu(self.conv_norm_out(h)))
        h = (h if said is None else h + said)[0]
        return h if self.time_proj is None else h / t

    def _features(self, t: Scalar) -> Vector:
        if self.time_proj is not None:
            return self.time_proj(t)
        s = self.settings
        size = s.block_out_channels[0]
        return sinusoids(t, size, freq_shift=s.freq_shift, cosines_first=s.flip_sin_to_cos)


class _FourierFeatures(nnx.Module):
    """Sines and cosines of the logarithm of a noise level at fixed random frequencies."""

    def __init__(self, size: int, initial: Initial):
        self.weight = Constant(initial.normal(size, _FOURIER_SCALE))

    def __call__(self, t: Scalar) -> Vector:
        # Angles of a hundred radians are rounded to 1e-5: in diffusers' order, to what the network was trained on.
        angles = jnp.log(t) * self.weight[...] * (2 * jnp.pi)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def _head_dim(settings: UNetSettings, channels: int, attends: bool) -> int | None:
    if not attends:
        return None
    return channels if settings.attention_head_dim is None else settings.attention_head_dim


def _is_skip(kind: str) -> bool:
    return "Skip" in kind


def _attends(kind: str) -> bool:
    return "Attn" in kind


def _step(
    kind: str,
    type_of_attending: str,
    channels: int,
    style: Style,
    resample: Callable[[Image], Image],
    convolution: Callable[[], nnx.Module],
) -> nnx.Module:
    """What changes the resolution after a block: a residual block after two kinds always, after those that attend by a
    setting, and else a convolution."""
    if kind.startswith("Resnet") or (_attends(kind) and type_of_attending == "resnet"):
        return Resnet(channels, channels, style, resample=resample)
    return convolution()


def _down_blocks(s: UNetSettings, style: Style) -> list[DownBlock | SkipDownBlock]:
    blocks, inputs, last = [], s.block_out_channels[0], len(s.block_out_channels) - 1
    for i, (kind, channels) in enumerate(zip(s.down_block_types, s.block_out_channels, strict=True)):
        head_dim = _head_dim(s, channels, _attends(kind))
        if _is_skip(kind):
            block = SkipDownBlock(inputs, channels, s.layers_per_block, style, head_dim=head_dim, step=i < last)
        else:
            plain = functools.partial(Downsample, channels, s.downsample_padding, style.initial)
            step = _step(kind, s.downsample_type, channels, style, averaged, plain) if i < last else None
            block = DownBlock(inputs, channels, s.layers_per_block, style, head_dim=head_dim, step=step)
        blocks.append(block)
        inputs = channels
    return blocks


def _mid_block(s: UNetSettings, style: Style) -> MidBlock:
    channels, groups = s.block_out_channels[-1], s.attn_norm_num_groups
    if groups is None and not style.scale_shift:
        groups = groups_of(channels, s.norm_num_groups)
    style = dataclasses.replace(style, scale_factor=s.mid_block_scale_factor)
    return MidBlock(channels, style, head_dim=_head_dim(s, channels, s.add_attention), groups=groups)


def _up_blocks(s: UNetSettings, style: Style) -> list[UpBlock | SkipUpBlock]:
    """Each block takes what the way down kept at its resolution, and one from the resolution above."""
    widths, blocks = s.block_out_channels[::-1], []
    now, last = widths[0], len(widths) - 1
    for i, (kind, channels) in enumerate(zip(s.up_block_types, widths, strict=True)):
        skipped = [channels] * s.layers_per_block + [widths[min(i + 1, last)]]
        inputs = list(zip([now] + [channels] * s.layers_per_block, skipped, strict=True))
        head_dim = _head_dim(s, channels, _attends(kind))
        if _is_skip(kind):
            block = SkipUpBlock(inputs, channels, style, head_dim=head_dim, step=i < last)
        else:
            plain = functools.partial(Upsample, channels, style.initial)
            step = _step(kind, s.upsample_type, channels, style, repeated, plain) if i < last else None
            block = UpBlock([sum(pair) for pair in inputs], channels, style, head_dim=head_dim, step=step)
        blocks.append(block)
        now = channels
    return blocks
