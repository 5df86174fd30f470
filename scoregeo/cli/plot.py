"""``scoregeo plot``: pictures of a metric in the plane, side by side, or one that moves."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..diffusion import DiffusionModel
from ..explore import Plane
from ..explore.plane import log_prob_on
from ..metrics import AbstractMetric
from ..scores.line_integral import with_log_prob
from ._command import Command
from ._families import FAMILIES
from ._geometry import Geometry, double_precision, known_sigmas
from ._io import PointsOptions, load_model, training_points, unit_of_length
from ._metric import RATIO, MetricOptions
from ._output import PICTURES, check_output, write_picture
from ._report import Report
from .explore import plane_through
from .pairs._pair import read_point

# So many points of the data are shown, and so much of their extent is left around them.
_SHOWN, _MARGIN = 400, 0.15
# What an animation sweeps if nobody says: so many values, from the least to the largest multiple of the one chosen.
_FRAMES, _REACH, _FPS = 12, 8.0, 4
_ANIMATIONS = (".gif", ".mp4")

Kind = Literal["density", "score", "ellipses", "volume", "curvature", "fan", "distance"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot(Command):
    """The arguments of ``scoregeo plot``."""

    model: Path
    """Folder of a saved model, of two dimensions or more."""
    out: Path
    """A .png, .pdf or .svg file; or, with --sweep, a .gif (or .mp4, where ffmpeg is installed)."""
    show: tuple[Kind, ...] = ("ellipses",)
    """Pictures, side by side. density: that of the model; score: arrows; ellipses: what the metric takes for discs;
    volume: log sqrt(det G); curvature: Gauss's; fan: geodesics from --at in all directions; distance: from --at to
    everywhere."""
    at: str | None = None
    """Where a fan and distances begin: index of a point that the model was trained on, or a file with one point in the
    units of the data. By default the point of the data nearest their mean."""
    radius: float | None = None
    """Length of the geodesics of a fan, in the metric; by default a quarter of the longer side of the picture."""
    through: tuple[int, ...] = ()
    """In more than two dimensions, the rows of three points that the plane goes through; by default it is that of the
    first two principal components."""
    data: Path | None = None
    """A file of points to show, in the units of the data; by default those the model was trained on."""
    sweep: Literal["sigma", "ratio", "strength", "radius"] | None = None
    """What changes from frame to frame of a .gif: the metric, or how far a fan has grown."""
    values: tuple[float, ...] = ()
    """What --sweep takes, one value for each frame; by default 12 values about the one chosen, and up to it of a
    radius."""
    resolution: int = 80
    """Steps of the maps along the longer side of the picture."""
    metric: MetricOptions = MetricOptions()
    reading: PointsOptions = PointsOptions()

    examples: ClassVar = (
        "--model model --out metric.png",
        "--model model --show density ellipses curvature fan --metric power --ratio 1000 --out metric.pdf",
        "--model model --sweep sigma --values 0.1 0.2 0.4 0.8 --out levels.gif",
        "--model model --show fan --sweep radius --out fan.gif",
    )

    def run(self, report: Report) -> None:
        """Draw the pictures and write them."""
        if not self.show:
            raise ValueError("`--show` must name at least one picture, got none")
        if self.resolution < 2:
            raise ValueError(f"`--resolution` must be at least 2, got {self.resolution}")
        if self.radius is not None and not (np.isfinite(self.radius) and self.radius > 0):
            raise ValueError(f"`--radius` must be a positive number, got {self.radius}")
        if self.sweep is None and (self.values or self.out.suffix in _ANIMATIONS):
            raise ValueError("`--values` and a .gif need `--sweep`, which says what changes from frame to frame")
        if self.sweep == "radius":
            self._check_radii()
        check_output("out", self.out, PICTURES if self.sweep is None else _ANIMATIONS)
        model = load_model(self.model, report)
        if model.dim < 2:
            raise ValueError(f"`--model` {self.model} must have at least two dimensions to draw, but has {model.dim}")
        geometry = self.metric.of(self.model, model, report)
        scene = self._scene(model, report)
        report.keep(**geometry.about(), show=self.show)
        with double_precision():
            if self.sweep is not None:
                self._animate(self.sweep, scene, geometry, model, report)
                return
            from ..plotting import pictures

            with report.busy("drawing"):
                figure, axes = pictures.panels(len(self.show))
                self._draw(figure, axes, scene, geometry, model)
            write_picture(report, self.out, figure)

    def _check_radii(self) -> None:
        if "fan" not in self.show:
            raise ValueError(f"`--sweep radius` needs `--show fan`, which has a radius, got {' '.join(self.show)}")
        if not all(np.isfinite(value) and value > 0 for value in self.values):
            raise ValueError(f"`--values` must be positive radii, got {' '.join(f'{v:g}' for v in self.values)}")

    def _scene(self, model: DiffusionModel, report: Report) -> "_Scene":
        """What all pictures show: a part of the plane, points, and where geodesics begin."""
        kept = training_points(model, self.model)
        points = kept if self.data is None else self.reading.points_for(model, self.data, report)
        if points is None:
            raise ValueError(f"`--data` must be given: {self.model} has not kept the points it was trained on")
        points = np.asarray(points, np.float64)
        plane = plane_through(points, self.through)
        if plane is None:
            plane = Plane.whole() if model.dim == 2 else Plane.principal(points)
        if model.dim > 2:
            report.note(f"drawn in {plane.description}: geodesics there are those of the slice, not of the space")
        shown = plane.coordinates(points)
        if self.at is None:
            at = shown[np.argmin(np.sum((points - points.mean(0)) ** 2, 1))]
        else:
            units = model.standardization
            point = read_point(self.at, "at", self.model, model.dim)
            at = plane.coordinates(np.asarray(point if units is None else units.apply(point))[None])[0]
        margin = _MARGIN * np.ptp(shown, axis=0).max()
        low, high = np.minimum(shown.min(0), at) - margin, np.maximum(shown.max(0), at) + margin
        return _Scene(plane, points, shown[:: -(-len(shown) // _SHOWN)], at, (low[0], high[0]), (low[1], high[1]))

    def _animate(self, sweep: str, scene: "_Scene", geometry: Geometry, model: DiffusionModel, report: Report) -> None:
        from ..plotting import pictures, write_animation

        values = self.values or tuple(
            float(value) for value in self._default_values(sweep, geometry, model, scene.extent)
        )
        # What else says how strong the metric is makes room for what is swept.
        cleared = {"ratio": {"strength": None}, "strength": {"ratio": None}}.get(sweep, {})
        if sweep == "radius":
            frames = [geometry] * len(values)
        else:
            chosen = [dataclasses.replace(self.metric, **cleared, **{sweep: value}) for value in values]
            frames = [options.of(self.model, model, report) for options in chosen]
        report.keep(sweep=sweep, values=values)
        with report.bar(len(frames), "drawing", "frames") as advance:

            def draw(figure: Any, frame: tuple[float, Geometry]) -> None:
                axes = list(figure.subplots(1, len(self.show), squeeze=False)[0])
                told = f", {sweep} {frame[0]:.3g}" if sweep in ("ratio", "radius") else ""
                picture = dataclasses.replace(self, radius=frame[0]) if sweep == "radius" else self
                picture._draw(figure, axes, scene, frame[1], model, told)
                advance(1)

            pairs = list(zip(values, frames, strict=True))
            write_animation(self.out, draw, pairs, figsize=pictures.panels_size(len(self.show)), fps=_FPS)
        report.wrote(self.out)

    def _default_values(self, sweep: str, geometry: Geometry, model: DiffusionModel, extent: float) -> np.ndarray:
        if sweep == "radius":  # the fan grows at one speed
            most = extent / 2 if self.radius is None else self.radius
            return np.linspace(0, most, _FRAMES + 1)[1:]
        if sweep == "sigma":
            least, most = known_sigmas(model)
            ends = max(least, geometry.sigma / _REACH**0.5), min(most, geometry.sigma * _REACH**0.5)
        elif sweep == "strength":
            if geometry.strength == 0:
                raise ValueError("`--values` must be given for `--sweep strength`: the strength of the metric is 0")
            ends = geometry.strength / _REACH, geometry.strength * _REACH
        else:
            ratio = RATIO if self.metric.ratio is None else self.metric.ratio
            ends = max(1.1, ratio / _REACH), ratio * _REACH
        return np.geomspace(*ends, _FRAMES)

    def _draw(
        self,
        figure: Any,
        axes: list[Any],
        scene: "_Scene",
        geometry: Geometry,
        model: DiffusionModel,
        title: str = "",
    ) -> None:
        score = with_log_prob(model.score_at(geometry.sigma), jnp.asarray(scene.points))
        metric = scene.plane.restrict(geometry.metric(model))
        radius = scene.extent / 4 if self.radius is None else self.radius
        for kind, ax in zip(self.show, axes, strict=True):
            ax.set_xlabel(scene.label(0, model))
            ax.set_ylabel(scene.label(1, model))
            artist = _PICTURES[kind].draw(ax, _Picture(scene, score, metric, radius, self.resolution))
            if _PICTURES[kind].colorbar:
                figure.colorbar(artist, ax=ax, shrink=0.8, extend="both" if kind != "distance" else "neither")
            ax.set_title(_PICTURES[kind].title, fontsize=11)
            ax.set_xlim(*scene.xlim)
            ax.set_ylim(*scene.ylim)
        chosen = f"sigma {geometry.sigma:.3g}, strength {geometry.strength:.3g}"
        figure.suptitle(f"{FAMILIES[geometry.kind].formula}: {chosen}{title}", fontsize=10)


class _Scene(NamedTuple):
    """The plane, the points in all dimensions ``(n, d)``, those that are shown and where geodesics begin, in its
    coordinates, and its part that is drawn."""

    plane: Plane
    points: np.ndarray
    shown: np.ndarray
    at: np.ndarray
    xlim: tuple[float, float]
    ylim: tuple[float, float]

    @property
    def extent(self) -> float:
        """The longer side of what is drawn."""
        return max(self.xlim[1] - self.xlim[0], self.ylim[1] - self.ylim[0])

    def label(self, axis: int, model: DiffusionModel) -> str:
        """What to write at an axis."""
        name = f"$x_{axis + 1}$" if self.plane.is_whole else f"axis {axis + 1} of the plane"
        return f"{name} ({unit_of_length(model)})"


class _Picture(NamedTuple):
    """What one picture is drawn from."""

    scene: _Scene
    score: Any
    metric: AbstractMetric
    radius: float
    resolution: int

    @property
    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return self.scene.xlim, self.scene.ylim


class _Kind(NamedTuple):
    title: str
    draw: Callable[[Any, _Picture], Any]
    colorbar: bool = False


def _density(ax: Any, picture: _Picture) -> Any:
    from ..plotting import density

    density(ax, lambda u: log_prob_on(picture.scene.plane, picture.score, u), *picture.limits)
    return ax.scatter(*picture.scene.shown.T, s=3, c="#333333", alpha=0.35, linewidths=0, zorder=1)


def _arrows(ax: Any, picture: _Picture) -> Any:
    from ..plotting import score_field

    plane = picture.scene.plane
    _density(ax, picture)
    return score_field(ax, lambda u: plane.pull(picture.score(plane.point(u))), *picture.limits)


def _ellipses(ax: Any, picture: _Picture) -> Any:
    from ..plotting import tissot

    _density(ax, picture)
    return tissot(ax, picture.metric, *picture.limits)


def _volume(ax: Any, picture: _Picture) -> Any:
    from ..plotting import volume_map

    return volume_map(ax, picture.metric, *picture.limits, resolution=picture.resolution)


def _curvature(ax: Any, picture: _Picture) -> Any:
    from ..plotting import curvature_map

    return curvature_map(ax, picture.metric, *picture.limits, resolution=picture.resolution)


def _fan(ax: Any, picture: _Picture) -> Any:
    from ..plotting import geodesic_fan

    _density(ax, picture)
    return geodesic_fan(ax, picture.metric, jnp.asarray(picture.scene.at), picture.radius)


def _distance(ax: Any, picture: _Picture) -> Any:
    from ..plotting import distance_field

    return distance_field(ax, picture.metric, picture.scene.at, *picture.limits, resolution=picture.resolution)


_PICTURES: dict[Kind, _Kind] = {
    "density": _Kind("density of the model", _density),
    "score": _Kind("score of the model, and its size", _arrows, colorbar=True),
    "ellipses": _Kind("what the metric takes for discs", _ellipses),
    "volume": _Kind("volume, $\\log\\sqrt{\\det G}$", _volume, colorbar=True),
    "curvature": _Kind("curvature of the metric", _curvature, colorbar=True),
    "fan": _Kind("geodesics from one point", _fan),
    "distance": _Kind("distance from one point", _distance, colorbar=True),
}
