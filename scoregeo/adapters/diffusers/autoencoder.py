"""diffusers' ``AutoencoderKL``: between images and the latents that latent diffusion models work on."""

import dataclasses
import math
import os
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from flax import nnx

from ..._checks import as_point, check_choice, check_count
from ..._types import Point, Vector
from .files import as_dtype, existing_folder, read_json, read_tensors, with_tensors
from .layers import ACTIVATIONS, DownBlock, Downsample, Image, Initial, MidBlock, Style, UpBlock, Upsample
from .settings import Settings, image_shape

_DOWN, _UP = ("DownEncoderBlock2D",), ("UpDecoderBlock2D",)
_EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class AutoencoderSettings(Settings):
    """The settings of an ``AutoencoderKL``, with diffusers' names and defaults; see there for what they mean.

    Raises ``ValueError`` that names a setting that makes no sense or that this library does not serve, and lists what
    it knows.
    """

    class_name = "AutoencoderKL"

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = _DOWN
    up_block_types: tuple[str, ...] = _UP
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: Any = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: Any = None
    latents_std: Any = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("in_channels", "out_channels", "layers_per_block", "latent_channels", "norm_num_groups"):
            check_count(name, getattr(self, name))
        check_choice("act_fn", self.act_fn, ACTIVATIONS)
        for name, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            for block in getattr(self, name):
                check_choice(name, block, known)
        self.check_widths("down_block_types", "up_block_types")


class AutoencoderKL(eqx.Module):
    """An autoencoder whose latents are close to normal; `load_autoencoder` makes one.

    Images and latents are flat, in the order ``(h, w, c)``; images from -1 to 1. Latents are those of diffusers'
    ``AutoencoderKL``; a diffusion model in latent space works on ``scaling_factor`` times these. The methods are
    pytrees whose weights are traced: ``PullbackMetric(autoencoder.decode)`` is the metric of the latent space.
    """

    graphdef: Any = eqx.field(static=True)
    weights: Any
    settings: AutoencoderSettings = eqx.field(static=True)

    def __init__(self, network: "_Autoencoder", settings: AutoencoderSettings):
        self.graphdef, state = nnx.split(network)
        self.weights, self.settings = nnx.to_pure_dict(state), settings

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(h, w, c)`` of the images."""
        return image_shape(self.settings)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(h, w, c)`` of the latents."""
        height, width, _ = self.shape
        factor = 2 ** (len(self.settings.block_out_channels) - 1)
        return height // factor, width // factor, self.settings.latent_channels

    @property
    def scaling_factor(self) -> float:
        """What a diffusion model in latent space multiplies latents with."""
        return self.settings.scaling_factor

    def encode(self, x: Point) -> Vector:
        """The mean of the latents of an image ``x`` ``(d,)``."""
        x = as_point(x, "x", math.prod(self.shape))
        return self._network.encode(x.reshape(1, *self.shape)).reshape(-1)

    def decode(self, z: Vector) -> Point:
        """The image ``(d,)`` of latents ``z``, flat."""
        z = as_point(z, "z", math.prod(self.latent_shape))
        return self._network.decode(z.reshape(1, *self.latent_shape)).reshape(-1)

    @property
    def _network(self) -> "_Autoencoder":
        return nnx.merge(self.graphdef, self.weights)


def load_autoencoder(
    folder: str | os.PathLike, *, sample_size: int | tuple[int, int] | None = None, dtype: Any = jnp.float32
) -> AutoencoderKL:
    """The ``AutoencoderKL`` in a folder that diffusers wrote: with ``config.json`` and its weights, or with ``vae/``.

    ``sample_size`` is height and width of the images, where they are not those of the settings, and ``dtype`` the type
    of the weights in memory, of at least single precision. Raises what `load_diffusers` raises.
    """
    path, dtype = existing_folder(folder, AutoencoderSettings.class_name), as_dtype(dtype)
    place = path / "vae" if (path / "vae").is_dir() else path
    settings = AutoencoderSettings.from_dict(read_json(place / "config.json"))
    if sample_size is not None:
        settings = dataclasses.replace(settings, sample_size=sample_size)
    image_shape(settings)
    tensors = read_tensors(place, AutoencoderSettings.class_name)
    return AutoencoderKL(with_tensors(_Autoencoder(settings), tensors, str(place), dtype), settings)


class _Autoencoder(nnx.Module):
    """Encoder and decoder, with shapes in place of weights."""

    def __init__(self, s: AutoencoderSettings):
        initial = Initial(None)
        style = Style(s.norm_num_groups, _EPS, s.act_fn, None, False, initial)
        self.encoder, self.decoder = _Encoder(s, style), _Decoder(s, style)
        latents = s.latent_channels
        self.quant_conv = initial.conv(2 * latents, 2 * latents, size=1) if s.use_quant_conv else None
        self.post_quant_conv = initial.conv(latents, latents, size=1) if s.use_post_quant_conv else None

    def encode(self, x: Image) -> Image:
        """The mean, which is the first half of what the encoder says."""
        h = self.encoder(x)
        h = h if self.quant_conv is None else self.quant_conv(h)
        return h[..., : h.shape[-1] // 2]

    def decode(self, z: Image) -> Image:
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))


def _middle(s: AutoencoderSettings, style: Style) -> MidBlock:
    channels = s.block_out_channels[-1]
    return MidBlock(channels, style, head_dim=channels if s.mid_block_add_attention else None, groups=style.groups)


class _Encoder(nnx.Module):
    def __init__(self, s: AutoencoderSettings, style: Style):
        widths, initial = s.block_out_channels, style.initial
        self.conv_in = initial.conv(s.in_channels, widths[0])
        self.down_blocks = nnx.List(
            DownBlock(
                inputs,
                width,
                s.layers_per_block,
                style,
                head_dim=None,
                step=Downsample(width, 0, initial) if i < len(widths) - 1 else None,
            )
            for i, (inputs, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
        self.mid_block = _middle(s, style)
        self.conv_norm_out = style.norm(widths[-1])
        self.conv_out = initial.conv(widths[-1], 2 * s.latent_channels)

    def __call__(self, x: Image) -> Image:
        h = self.conv_in(x)
        for block in self.down_blocks:
            h, _, _ = block(h, None)
        return self.conv_out(nnx.silu(self.conv_norm_out(self.mid_block(h, None))))


class _Decoder(nnx.Module):
    def __init__(self, s: AutoencoderSettings, style: Style):
        widths, initial = s.block_out_channels[::-1], style.initial
        self.conv_in = initial.conv(s.latent_channels, widths[0])
        self.mid_block = _middle(s, style)
        self.up_blocks = nnx.List(
            UpBlock(
                [inputs] + [width] * s.layers_per_block,
                width,
                style,
                head_dim=None,
                step=Upsample(width, initial) if i < len(widths) - 1 else None,
            )
            for i, (inputs, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
        self.conv_norm_out = style.norm(widths[-1])
        self.conv_out = initial.conv(widths[-1], s.out_channels)

    def __call__(self, z: Image) -> Image:
        h = self.mid_block(self.conv_in(z), None)
        for block in self.up_blocks:
            h, _ = block(h, None, None)
        return self.conv_out(nnx.silu(self.conv_norm_out(h)))
