"""Networks for images (and sequences) that ``scoregeo train`` makes, and the shape of the points of a model."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from .._atomic import write_json
from ..diffusion import DiffusionModel, DiT, FitConfig, Potential, UNet
from ..diffusion.networks import Network
from ..diffusion.networks.potential import without_potential

# The file beside a model with the shape of the images that its points are.
IMAGES_FILE = "images.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which network is trained. --width, --depth and --potential above are those of mlp."""

    network: Literal["mlp", "unet", "dit"] = "mlp"
    """unet and dit are for images: of --image-shape, or of the shape that the data have; of one row (1 n c),
    sequences."""
    image_shape: tuple[int, ...] = ()
    """Height, width and perhaps channels of the images that the points are, for data that do not say."""
    net_width: int = 32
    """Channels of a unet at full resolution, or features of a patch of a dit."""
    multipliers: tuple[int, ...] = (1, 2, 2)
    """Channels of a unet at each resolution, as multiples; every next one is half the resolution before."""
    blocks: int = 2
    """Residual blocks of a unet at each resolution, or blocks of a dit."""
    attend_at: tuple[int, ...] = ()
    """Heights of the feature maps of a unet at which every block ends in attention."""
    patch: int = 2
    """Side of a patch of a dit, in pixels."""
    heads: int = 4
    """Heads of the attention."""
    attention: Literal["softmax", "linear", "focus"] = "softmax"
    """Attention of a dit: softmax takes the square of the number of patches, linear and focus as many as there are."""
    compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """What a unet or dit computes in while it trains; the saved model computes in the type of its weights."""

    def make(
        self, dim: int, found_shape: tuple[int, ...] | None, labels: np.ndarray | None, config: FitConfig
    ) -> Network | None:
        """The network, or ``None`` for that of `fit`; raises ``ValueError`` for options that do not fit it."""
        shape = self.shape_of(dim, found_shape)
        if self.network == "mlp":
            fields = {field.name: field.default for field in dataclasses.fields(NetworkOptions)}
            odd = [name for name in fields if name != "image_shape" and getattr(self, name) != fields[name]]
            if odd:
                given = ", ".join(f"`--{name.replace('_', '-')}`" for name in odd)
                raise ValueError(f"{given} need `--network unet` or `dit`, got mlp")
            return None
        if shape is None:
            raise ValueError(f"`--image-shape` must be given for `--network {self.network}`: the data do not say")
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        told = {} if labels is None else {"classes": int(labels.max()) + 1}
        settings = {"heads": self.heads, "compute_dtype": self.compute_dtype, "key": key, **told}
        h, w, *c = shape
        shape = h, w, (c or [1])[0]
        network: Network
        if self.network == "unet":
            network = UNet(shape, self.net_width, self.multipliers, self.blocks, self.attend_at, **settings)
        else:
            network = DiT(shape, self.patch, self.net_width, self.blocks, attention=self.attention, **settings)
        return Potential(network) if config.potential else network

    def shape_of(self, dim: int, found: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The shape of the images that points of dimension ``dim`` are, if anything says so."""
        if not self.image_shape:
            return found
        if len(self.image_shape) not in (2, 3) or math.prod(self.image_shape) != dim:
            raise ValueError(
                f"`--image-shape` must be height, width and perhaps channels of {dim} numbers, got {self.image_shape}"
            )
        return self.image_shape


def kept_image_shape(folder: Path, model: DiffusionModel) -> tuple[int, ...] | None:
    """The shape of the images that the points of a saved model are: as ``train`` keeps it, or as its network says;
    ``None`` for points that are none. Raises ``ValueError`` for a damaged file."""
    path = folder / IMAGES_FILE
    if not path.exists():
        return getattr(without_potential(model.denoiser.net), "shape", None)
    try:
        shape = tuple(int(side) for side in json.loads(path.read_text())["image_shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"`--model` {folder} is damaged: {IMAGES_FILE} is not what scoregeo wrote") from error
    if math.prod(shape) not in (model.dim, 0 if model.standardization is None else model.standardization.mean.size):
        raise ValueError(f"`--model` {folder} is damaged: images of shape {shape} in dimension {model.dim}")
    return shape


def keep_image_shape(folder: Path, shape: tuple[int, ...] | None, label_names: tuple[str, ...] | None) -> None:
    """Write the shape of images, and what their labels are called, beside a model; for points that are none, remove
    what was there before."""
    if shape is None:
        (folder / IMAGES_FILE).unlink(missing_ok=True)
    else:
        names = {} if label_names is None else {"label_names": list(label_names)}
        write_json(folder / IMAGES_FILE, {"image_shape": list(shape)} | names)
