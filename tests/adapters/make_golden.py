"""Writes the folders ``golden_diffusers/*``: tiny networks with diffusers' random weights, and what torch says of them.

Run in an environment with torch and diffusers (``.ci/torch`` makes one): ``python tests/adapters/make_golden.py``.
"""

import json
import shutil

import diffusers
import torch
from golden_check import PLACE
from safetensors.numpy import save_file
from torch_oracle import randomised, value_and_derivatives

BLOCKS = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (4, 8),
    "norm_num_groups": 2,
    "layers_per_block": 1,
}
# The settings of networks and schedulers, and a timestep.
NETWORKS = {
    "ddpm": (
        {
            **BLOCKS,
            "sample_size": 8,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": None,
            "downsample_padding": 0,
            "freq_shift": 1,
            "flip_sin_to_cos": False,
            "norm_eps": 1e-6,
        },
        diffusers.DDPMScheduler(),
        300,
    ),
    "scale_shift": (
        {
            **BLOCKS,
            "in_channels": 2,
            "out_channels": 2,
            "sample_size": (4, 6),
            "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
            "attention_head_dim": 4,
            "resnet_time_scale_shift": "scale_shift",
        },
        diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
        17,
    ),
    "fourier": (
        {
            **BLOCKS,
            "block_out_channels": (4, 4),
            "sample_size": 8,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            "time_embedding_type": "fourier",
            "mid_block_scale_factor": 1.5,
            "add_attention": False,
        },
        diffusers.ScoreSdeVeScheduler(sigma_max=50.0),
        2.5,
    ),
    "skip": (
        {
            **BLOCKS,
            "in_channels": 3,
            "out_channels": 3,
            "sample_size": 8,
            "down_block_types": ("SkipDownBlock2D",) * 2,
            "up_block_types": ("SkipUpBlock2D",) * 2,
            "norm_num_groups": None,
            "time_embedding_type": "fourier",
            "mid_block_scale_factor": 2**0.5,
            "add_attention": False,
        },
        diffusers.ScoreSdeVeScheduler(sigma_max=50.0),
        1.5,
    ),
    "resnets": (
        {
            **BLOCKS,
            "block_out_channels": (4, 4),
            "sample_size": 4,
            "down_block_types": ("ResnetDownsampleBlock2D",) * 2,
            "up_block_types": ("ResnetUpsampleBlock2D",) * 2,
            "add_attention": False,
        },
        diffusers.DDPMScheduler(),
        40,
    ),
}


AUTOENCODER = {
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (2, 4),
    "layers_per_block": 1,
    "latent_channels": 2,
    "norm_num_groups": 2,
    "sample_size": 8,
}


def autoencoder():
    torch.manual_seed(10)
    module = randomised(diffusers.AutoencoderKL(**AUTOENCODER), 10)
    folder = PLACE / "autoencoder"
    module.save_pretrained(folder)
    parts = {
        "encode": value_and_derivatives(lambda x: module.encode(x).latent_dist.mean, (1, 8, 8), 11),
        "decode": value_and_derivatives(lambda z: module.decode(z).sample, (2, 4, 4), 12),
    }
    arrays = {f"{part}.{name}": array for part, named in parts.items() for name, array in named.items()}
    save_file(arrays, folder / "expected.safetensors")


def main():
    shutil.rmtree(PLACE, ignore_errors=True)
    autoencoder()
    for seed, (name, (settings, scheduler, t)) in enumerate(NETWORKS.items()):
        torch.manual_seed(seed)
        unet = randomised(diffusers.UNet2DModel(**settings), seed)
        folder = PLACE / name
        unet.save_pretrained(folder / "unet")
        scheduler.save_pretrained(folder / "scheduler")
        size = settings["sample_size"]
        shape = (settings["in_channels"], *((size, size) if isinstance(size, int) else size))
        arrays = value_and_derivatives(lambda x, unet=unet, t=t: unet(x, torch.tensor(t)).sample, shape, seed)
        save_file(arrays, folder / "expected.safetensors")
        (folder / "timestep.json").write_text(json.dumps(t) + "\n")


if __name__ == "__main__":
    main()
