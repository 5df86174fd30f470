"""Settings of networks that were published for unconditional images, as their folders have them."""

# https://huggingface.co/google/ddpm-cifar10-32 and ddpm-ema-celebahq-256.
PUBLISHED = {
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
CIFAR = PUBLISHED | {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
CELEBA = PUBLISHED | {
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
}
# https://huggingface.co/google/ncsnpp-celebahq-256; those for bedrooms, churches and faces are alike.
NCSNPP = {
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 256, 256, 256),
    "down_block_types": ("SkipDownBlock2D",) * 4 + ("AttnSkipDownBlock2D",) + ("SkipDownBlock2D",) * 2,
    "up_block_types": ("SkipUpBlock2D",) * 2 + ("AttnSkipUpBlock2D",) + ("SkipUpBlock2D",) * 4,
    "time_embedding_type": "fourier",
    "mid_block_scale_factor": 2**0.5,
    "attention_head_dim": None,
    "norm_num_groups": None,
    "norm_eps": 1e-6,
}
