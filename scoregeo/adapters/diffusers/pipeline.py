"""Whole pipelines of diffusers: a folder as a `DiffusionModel`, and back."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...diffusion import Denoiser, DiffusionModel, FitConfig
from .autoencoder import AutoencoderKL
from .files import as_dtype, existing_folder, read_json, read_tensors, tensors_of, with_tensors, write_folder
from .network import DiffusersNetwork
from .schedulers import Scheduler
from .unet import UNet2DModel, UNetSettings

_SCHEDULER_FILE = "scheduler_config.json"
# The version of diffusers whose format this is.
_FORMAT = {"_diffusers_version": "0.42.1"}
# By how much the mean and the standard deviation of standardised data may miss zero and one.
_SLACK = 1e-4


def load_diffusers(
    folder: str | os.PathLike,
    *,
    scheduler: Mapping[str, Any] | Scheduler | None = None,
    sample_size: int | tuple[int, int] | None = None,
    dtype: Any = jnp.float32,
) -> DiffusionModel:
    """The model in a folder of an unconditional pipeline (``DDPMPipeline``, ``DDIMPipeline``, ``ScoreSdeVePipeline``).

    **Arguments**

    - ``folder``: one with ``unet/config.json`` and ``scheduler/scheduler_config.json``, or with ``config.json`` of the
      network itself, and the weights beside it: ``diffusion_pytorch_model.safetensors``, or several such files and
      their index.
    - ``scheduler``: in place of the folder's, a dictionary as in ``scheduler_config.json``, or a `Scheduler`.
    - ``sample_size``: height and width of the images, where they are not those of the settings.
    - ``dtype``: type of the weights in memory, of at least single precision.

    **Returns** a `DiffusionModel`: ``score_at(sigma)``, ``sample``, ``log_prob``, ``latent``. Points are images
    flattened in the order ``(h, w, c)``, in the units that the network was trained in: from -1 to 1 for discrete steps,
    mostly from 0 to 1 for ``ScoreSdeVeScheduler``. ``sigma`` is a standard deviation in these units; between the steps
    of the scheduler its logarithm is linear.

    Raises ``FileNotFoundError`` for a missing file, ``ValueError`` for a block, a scheduler or a setting that is not
    known, and for a pickle, ``scoregeo.diffusion.DamagedModelError`` for tensors that are missing, left over or of
    another shape, and for a file that is not whole.
    """
    path, dtype = existing_folder(folder, UNetSettings.class_name), as_dtype(dtype)
    place = path / "unet" if (path / "unet").is_dir() else path
    settings = UNetSettings.from_dict(read_json(place / "config.json"))
    if sample_size is not None:
        settings = dataclasses.replace(settings, sample_size=sample_size)
    if not isinstance(scheduler, Scheduler):
        scheduler = Scheduler.from_dict(_scheduler_settings(path) if scheduler is None else scheduler)
    tensors = read_tensors(place, UNetSettings.class_name)
    unet = with_tensors(UNet2DModel(settings), tensors, str(place), dtype)
    network = DiffusersNetwork(unet, scheduler)
    denoiser = Denoiser(network, 1.0, jnp.zeros(network.dim, dtype))
    return DiffusionModel(denoiser, FitConfig(schedule=scheduler.schedule, potential=False))


def _scheduler_settings(path: pathlib.Path) -> dict[str, Any]:
    places = [path / "scheduler" / _SCHEDULER_FILE, path / _SCHEDULER_FILE, path.parent / "scheduler" / _SCHEDULER_FILE]
    for file in places:
        if file.exists():
            return read_json(file)
    raise FileNotFoundError(
        f"{places[0]} does not exist: give the settings of the scheduler that the network was trained with, such as "
        '`scheduler={"_class_name": "DDPMScheduler", "beta_schedule": "linear"}`'
    )


@functools.singledispatch
def save_diffusers(model: Any, folder: str | os.PathLike) -> None:
    """Write a model as diffusers reads it: as a ``DDPMPipeline`` or ``ScoreSdeVePipeline``, or as an ``AutoencoderKL``.

    ``model`` is one of `load_diffusers`, one of `load_autoencoder`, or one of `fit` with a `DiffusersNetwork`. A
    pipeline knows nothing of the mean and the scale of the data, so these must have been standardised: mean zero and
    variance one (``Standardization.fit(x, per_feature=False)``, and ``holdout=0`` in `FitConfig`).

    Raises ``TypeError`` for another model, ``ValueError`` for data that were not standardised, and what a folder that
    cannot be written raises.
    """
    raise TypeError(f"`model` must be a DiffusionModel or an AutoencoderKL, got {type(model).__name__}")


@save_diffusers.register
def _(model: AutoencoderKL, folder: str | os.PathLike) -> None:
    network = nnx.merge(model.graphdef, model.weights)
    write_folder(folder, {"config.json": model.settings.to_dict() | _FORMAT}, tensors_of(network))


@save_diffusers.register
def _(model: DiffusionModel, folder: str | os.PathLike) -> None:
    denoiser = model.denoiser
    network = denoiser.net
    if not isinstance(network, DiffusersNetwork):
        raise TypeError(
            f"`model` must have a DiffusersNetwork, which diffusers can express, got {type(network).__name__}"
        )
    mean, scale = np.abs(np.asarray(model.mean)).max(), float(denoiser.sigma_data[...])
    if mean > _SLACK or abs(scale - 1) > _SLACK:
        raise ValueError(
            "`model` must be of data of mean zero and standard deviation one, because a pipeline does not keep them, "
            f"got a mean of up to {mean:.3g} and a standard deviation of {scale:.3g}: fit to standardised data, with "
            "`holdout=0`"
        )
    continuous = network.scheduler.prediction == "score"
    scheduler = network.scheduler.to_dict()
    pipeline = {
        "_class_name": "ScoreSdeVePipeline" if continuous else "DDPMPipeline",
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", UNetSettings.class_name],
    }
    settings = {
        "unet/config.json": network.unet.settings.to_dict() | _FORMAT,
        f"scheduler/{_SCHEDULER_FILE}": scheduler | _FORMAT,
        "model_index.json": pipeline | _FORMAT,
    }
    write_folder(folder, settings, tensors_of(network.unet))
