"""The options that say which metric of a model to use."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
import tyro

from ..diffusion import DiffusionModel
from ._families import FAMILIES, strength_for
from ._geometry import GEOMETRY_FILE, Geometry, check_known_sigma, double_precision
from ._io import POINTS_FILE, training_points
from ._network import kept_image_shape
from ._report import Report

# The names of `FAMILIES`.
Kind: TypeAlias = Literal["stein", "inverse-stein", "score-jacobian", "power", "energy", "score-norm"]
# What another metric than the kept one costs off the data, if nobody says.
RATIO = 100.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """The metric, made of the score s of the model. What is not given is as kept beside the model, in geometry.json."""

    kind: Annotated[Kind | None, tyro.conf.arg(name="metric")] = None
    """stein: I + strength s s^T; inverse-stein: its inverse; score-jacobian: I + strength sigma^4 J^T J with the
    Jacobian J of s; a factor for all directions: power, p^(-2 strength); energy, linear in -log p off the data;
    score-norm, 1 + strength |s|^2."""
    sigma: float | None = None
    """Noise level of the score, in the coordinates of the model."""
    ratio: float | None = None
    """How many times as much the metric costs off the data as on them, in squared lengths: says how strong it is. For
    another --metric than the kept one 100 by default."""
    strength: float | None = None
    """The strength itself, in place of --ratio."""

    def of(self, folder: Path, model: DiffusionModel, report: Report) -> Geometry:
        """The metric kept beside the ``model`` in ``folder``, with what is given in place of its own; the ``report`` is
        told while a ratio is measured.

        Raises ``ValueError`` for a noise level that the model does not know, a strength or ratio that makes no sense,
        and where something is neither given nor kept.
        """
        self._check()
        kept = Geometry.load(folder) if self._needs_kept() or (folder / GEOMETRY_FILE).exists() else None
        kind = self.kind or ("stein" if kept is None else kept.kind)
        report.compiles_for(kind)
        sigma = kept.sigma if self.sigma is None and kept is not None else self.sigma
        assert sigma is not None  # else `_needs_kept`
        check_known_sigma(sigma, model)
        shape = kept_image_shape(folder, model) if kept is None or kept.image_shape is None else kept.image_shape
        if shape is not None and (len(shape) not in (2, 3) or np.prod(shape) != model.dim):
            raise ValueError(f"`--model` {folder} is damaged: images of shape {shape} in dimension {model.dim}")
        if self.strength is not None:
            strength, contrast = self.strength, float("nan")
        elif kept is not None and kept.kind == kind and self.ratio is None:
            strength, contrast = kept.strength, kept.contrast
        else:
            strength, contrast = None, float("nan")
        points = None
        if strength is None or FAMILIES[kind].needs_points:
            points = self._points(folder, model, kind)
        if strength is None:
            assert points is not None
            with double_precision(), report.busy("measuring how strong the metric is to be"):
                ratio = RATIO if self.ratio is None else self.ratio
                strength = strength_for(kind, model.score_at(sigma), points, ratio)
        return Geometry(sigma, strength, contrast, shape, kind, points)

    def _check(self) -> None:
        if self.strength is not None and self.ratio is not None:
            raise ValueError("`--strength` and `--ratio` both say how strong the metric is: give one of them")
        if self.sigma is not None and not (self.sigma > 0 and np.isfinite(self.sigma)):
            raise ValueError(f"`--sigma` must be a positive number, got {self.sigma}")
        if self.strength is not None and not (self.strength >= 0 and np.isfinite(self.strength)):
            raise ValueError(f"`--strength` must be a non-negative number, got {self.strength}")
        if self.ratio is not None and not (self.ratio >= 1 and np.isfinite(self.ratio)):
            raise ValueError(f"`--ratio` must be a number of at least 1, got {self.ratio}")

    def _needs_kept(self) -> bool:
        """Whether something is asked of the metric kept beside the model."""
        return self.sigma is None or (self.kind is None and self.strength is None and self.ratio is None)

    def _points(self, folder: Path, model: DiffusionModel, kind: str) -> np.ndarray:
        points = training_points(model, folder)
        if points is None:
            option = f"--metric {kind}" if FAMILIES[kind].needs_points else "--ratio"
            advice = "train it again" if FAMILIES[kind].needs_points else "give --strength"
            raise ValueError(
                f"`{option}` needs the points that the model was trained on, but {folder} has no {POINTS_FILE}; "
                f"{advice}"
            )
        return np.asarray(points, np.float64)
