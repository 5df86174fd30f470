"""Networks of Hugging Face's diffusers (https://huggingface.co/docs/diffusers) in JAX, from the files that it writes.

Neither diffusers nor torch is needed: a folder has the settings of a network in JSON and its weights in safetensors
files, and the networks are written here again, in flax. What is served: unconditional ``UNet2DModel`` of
``DownBlock2D``, ``AttnDownBlock2D``, ``SkipDownBlock2D``, ``AttnSkipDownBlock2D``, ``ResnetDownsampleBlock2D`` and
those for the way up, trained with discrete steps (``DDPMScheduler`` and its relatives) or on a variance-exploding path
(``ScoreSdeVeScheduler``), and ``AutoencoderKL``.
"""

from .autoencoder import AutoencoderKL, AutoencoderSettings, load_autoencoder
from .network import DiffusersNetwork
from .pipeline import load_diffusers, save_diffusers
from .schedulers import DiscreteVP, Scheduler
from .unet import UNet2DModel, UNetSettings

__all__ = [
    "AutoencoderKL",
    "AutoencoderSettings",
    "DiffusersNetwork",
    "DiscreteVP",
    "Scheduler",
    "UNet2DModel",
    "UNetSettings",
    "load_autoencoder",
    "load_diffusers",
    "save_diffusers",
]
