"""``scoregeo train``: the score of the points in a file."""

import dataclasses
import functools
import json
import shutil
import typing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tyro

from ..._atomic import make_writable, write_npy
from ..._types import Points
from ...datasets.files import FilePoints, name_of, standardized
from ...diffusion import DiffusionModel, FitConfig, fit
from ...diffusion.config import KINDS
from .. import _interrupts
from .._command import ARGUMENT_TYPES, Command
from .._geometry import GEOMETRY_FILE, Geometry, double_precision
from .._io import POINTS_FILE, PointsOptions, read_npy
from .._network import NetworkOptions, keep_image_shape
from .._report import Report

# The word for the classes that the data have themselves.
_OF_DATA = Path("data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Command):
    """The arguments of ``scoregeo train``."""

    data: Path
    """A file or folder that `scoregeo.datasets.load` reads; points are standardised, and the model remembers how."""
    out: Path
    """Folder of the model: config.json, model.safetensors, and the points."""
    labels: Path | None = None
    """A .npy file with a class for each point, integers 0, 1, ...: what --condition of the other commands can name; or
    data for the classes in the data themselves (sub-folders of images, the column that --label names)."""
    training: FitConfig = FitConfig()
    """Settings of `fit`; those called NAME by the name of their kind, or as in config.json."""
    network: NetworkOptions = NetworkOptions()
    reading: PointsOptions = PointsOptions()

    examples: ClassVar = (
        "--data points.csv --out model",
        "--data points.csv --columns x y --out model --steps 20000 --schedule VP --seed 1",
        "--data images.npy --image-shape 28 28 --network unet --labels classes.npy --out model",
    )

    def run(self, report: Report) -> None:
        """Train and save the model; a run that was interrupted goes on where it was."""
        found = self.reading.read(self.data, report)
        data, labels = standardized(found, name_of(self.data)), self._labels(found)
        make_writable(self.out, "--out")
        checkpoint = self.out / "checkpoint"
        dim, shape = data.points.shape[1], self.network.shape_of(found.points.shape[1], found.image_shape)
        network = self.network.make(dim, shape, labels, self.training)
        settings: dict[str, Any] = {"standardization": data.standardization, "conditions": labels, "network": network}
        with _interrupts.training(checkpoint, self.training.steps) as training:
            settings |= {"checkpoint_dir": checkpoint, "callbacks": [training], "progress": not report.quiet}
            report.compiles_for(self.network.network)
            with report.first("training"):
                model = fit(data.points, self.training, **settings)
            if self.network.compute_dtype is not None:  # geometry wants all digits
                model = model.with_compute_dtype(None)
            self._save(model, found.points, checkpoint, report)
            keep_image_shape(self.out, shape, None if labels is None else found.label_names)
            self._recommend(model, data.points, shape, report)

    def _labels(self, found: FilePoints) -> np.ndarray | None:
        """The class of each point, if classes are asked for."""
        if self.reading.label is not None or self.labels == _OF_DATA:
            if self.labels not in (None, _OF_DATA):
                raise ValueError("`--labels` and `--label` must not both be given")
            if found.labels is None:
                raise ValueError(f"`--labels data` must come with data that have classes, but {self.data} has none")
            return found.labels
        if self.labels is None:
            return None
        labels = read_npy(self.labels, "labels")
        if labels.dtype.kind == "f" or labels.shape != (found.total,) or labels.min() < 0:
            raise ValueError(
                f"`--labels` must hold an integer from 0 on for each of the {found.total} points, got {labels.dtype} "
                f"of shape {labels.shape}" + ("" if labels.size == 0 else f" with a smallest value of {labels.min()}")
            )
        return labels[found.rows]

    def _save(self, model: DiffusionModel, points: np.ndarray, checkpoint: Path, report: Report) -> None:
        # A metric that is kept here belongs to a model that was here before.
        (self.out / GEOMETRY_FILE).unlink(missing_ok=True)
        model.save(self.out)
        write_npy(self.out / POINTS_FILE, points)
        if self.training.ema.snapshots > 0:
            report.say(f"kept {checkpoint} with the snapshots for posthoc_ema")
        else:  # the run is complete and needs its checkpoint no more
            shutil.rmtree(checkpoint, ignore_errors=True)
        report.say(f"loss {model.history.train_loss[-1]:.4f}, held out {model.history.held_out_loss[-1]:.4f}")
        losses = {"train_loss": model.history.train_loss[-1], "held_out_loss": model.history.held_out_loss[-1]}
        report.keep(**losses, steps=model.history.last_step, points=len(points), dimension=model.dim)
        report.wrote(self.out)

    def _recommend(self, model: DiffusionModel, points: Points, shape: tuple[int, ...] | None, report: Report) -> None:
        """Keep a metric beside the model, so that the other commands have one."""
        try:
            with double_precision(), report.busy("measuring how strong the metric is to be"):
                geometry = Geometry.recommended(model, points, shape)
        except ValueError as error:  # a network that knows no score without a condition
            report.note(f"no metric is kept beside the model: {error}")
            return
        if not (np.isfinite(geometry.strength) and geometry.strength > 0):
            report.note("no metric is kept beside the model: its score is zero or not finite at most of the points")
            return
        geometry.save(self.out)
        report.keep(geometry=geometry.about() | {"contrast": geometry.contrast})
        times = np.sqrt(1 + geometry.contrast)
        report.say(
            f"kept a metric beside it: noise level {geometry.sigma:g}, strength {geometry.strength:.3g} (on the data a "
            f"step along the score is {times:.1f} times as long as across it); --sigma and --strength choose another"
        )


@functools.cache
def _types_of_objects() -> dict[str, Any]:
    """The settings of `FitConfig` that are objects, such as ``schedule``, and their types."""
    values, types = FitConfig().to_dict(), typing.get_type_hints(FitConfig)
    return {name: types[name] for name, value in values.items() if isinstance(value, dict) or name == "levels"}


@ARGUMENT_TYPES.primitive_rule
def _settings_by_name(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Let a setting that is an object be written as the name of its kind, or as JSON as in config.json."""
    name = next((name for name, hint in _types_of_objects().items() if info.type == hint), None)
    if name is None:
        return None

    def read(words):
        (text,) = words
        if text == "None":
            return None
        known = KINDS[name].types
        if not text.startswith("{") and text not in known:
            raise ValueError(f"must be one of {', '.join(known)}, or as in config.json, got {text}")
        values = json.loads(text) if text.startswith("{") else {"kind": text}
        return getattr(FitConfig.from_dict({name: values}), name)

    def write(value):
        values = dataclasses.replace(FitConfig(), **{name: value}).to_dict()[name]
        if values is None:
            return ["None"]
        return [values["kind"] if read([values["kind"]]) == value else json.dumps(values)]

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1, metavar="NAME", instance_from_str=read, is_instance=lambda value: True, str_from_instance=write
    )
