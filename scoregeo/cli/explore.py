"""``scoregeo explore``: a page to explore a metric in a browser, in one file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..datasets import two_moons
from ..datasets.files import name_of, standardized
from ..diffusion import DiffusionModel
from ..explore import Plane, normals_page, score_page, write_page
from ..scores import AbstractScore, KernelDensityScore
from ._command import Command
from ._geometry import GEOMETRY_FILE, Geometry, check_known_sigma, double_precision, known_sigmas
from ._io import PointsOptions, load_model, some_rows, training_points, unit_of_length
from ._output import check_output
from ._report import Report

# Noise levels about the one in the middle, where nobody gives any.
_FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
# Data that have a name; their score is exact.
_MOONS, _MOONS_LEVELS = "moons", (0.1, 0.15, 0.2, 0.3, 0.4)
# So many points stand for a file: a kernel density asks for all of them at every point of the grid.
_MOST = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explore(Command):
    """The arguments of ``scoregeo explore``."""

    out: Path
    """The .html file to write. It needs no server and no network."""
    model: Path | None = None
    """Folder of a saved model."""
    data: str | None = None
    """Without a model: a file of points, whose kernel density gives the score; or moons, whose score is exact. With
    one: the file of the points to show, in the units of the data; by default those it was trained on."""
    normals: bool = False
    """In place of a model and data: the Fisher-Rao geometry of two normal distributions."""
    metric: Literal["stein", "power", "score-jacobian"] | None = None
    """Metric that is shown at first, described by `scoregeo distance --help`; by default stein. The page offers all
    that the score allows."""
    sigma: float | None = None
    """Noise level that is shown at first, in the coordinates of the model; of a file of points, the bandwidth. By
    default the one kept with the model, or Scott's bandwidth."""
    ratio: float = 100.0
    """How many times as much leaving the data costs at first, in squared lengths."""
    sigmas: tuple[float, ...] = ()
    """The noise levels of the slider; by default five about --sigma."""
    through: tuple[int, ...] = ()
    """Of points in more than two dimensions, the rows of three: the page shows the plane through them. By default, that
    of the first two principal components."""
    resolution: int = 128
    """Steps of the grid along its longer side."""
    references: int = 3
    """For how many pairs the library solves the geodesic in each metric, to compare; 0 is faster."""
    seed: int = 0
    """Seed of what is random: points drawn from a large file, or from a model that kept none."""

    reading: PointsOptions = PointsOptions()

    examples: ClassVar = (
        "--model model --out page.html",
        "--model model --metric power --sigma 0.3 --ratio 1000 --out page.html",
        "--data points.csv --sigmas 0.2 0.4 --out page.html",
        "--normals --out normals.html",
    )

    def run(self, report: Report) -> None:
        """Make the page and write it; prints how large it is."""
        given = [name for name, value in (("--model", self.model), ("--data", self.data)) if value is not None]
        if self.normals == bool(given):
            got = ", ".join((*given, "--normals")) if self.normals else "none of them"
            raise ValueError(f"`--model`, `--data` or `--normals` must say what to explore, got {got}")
        if self.normals and (idle := self._idle_with_normals()):
            raise ValueError(f"`{idle[0]}` is for a model or data, but `--normals` has neither")
        self._check_sigma()
        check_output("out", self.out, (".html",))
        if self.normals:
            page = normals_page()
        else:
            report.compiles_for(_MOONS if self.data == _MOONS else "points" if self.model is None else "model")
            solving = f"the score on a grid, and {self.references} geodesics in each metric"
            with double_precision(), report.busy(solving if self.references else "the score on a grid"):
                page = self._page_of_score(report)
        write_page(self.out, page)
        report.keep(bytes=len(page.encode()))
        report.wrote(self.out, f"{len(page.encode()) / 1e6:.2f} MB")

    def _check_sigma(self) -> None:
        if self.sigma is None:
            return
        if not (self.sigma > 0 and np.isfinite(self.sigma)):
            raise ValueError(f"`--sigma` must be a positive number, got {self.sigma}")
        if self.sigmas and self.sigma not in self.sigmas:
            raise ValueError(f"`--sigma` must be one of `--sigmas`, where these are given, got {self.sigma}")

    def _idle_with_normals(self) -> list[str]:
        """The options that are given, and of which the page of normal distributions makes nothing."""
        fields = [
            field for field in dataclasses.fields(self) if field.name not in ("out", "normals", "reading", "output")
        ]
        idle = [f"--{field.name}" for field in fields if getattr(self, field.name) != field.default]
        return idle + self.reading.chosen()

    def _page_of_score(self, report: Report) -> str:
        settings: dict[str, Any] = {
            "metric": self.metric,
            "noise_level": self.sigma,
            "ratio": self.ratio,
            "resolution": self.resolution,
            "references": self.references,
        }
        if self.model is not None:
            score, points, levels, unit = self._of_model(self.model, report)
            title = f"Geodesics of {'/'.join(self.model.resolve().parts[-2:])}"
        elif self.data == _MOONS:
            if self.reading.chosen():
                raise ValueError(f"`{self.reading.chosen()[0]}` is for a file, but `--data` is {_MOONS}")
            moons = two_moons(jax.random.key(self.seed), 400)
            assert moons.score is not None
            levels = self.sigmas or (_MOONS_LEVELS if self.sigma is None else _about(self.sigma))
            score, points = moons.score, np.asarray(moons.points)
            title, unit = "Geodesics of two moons", "units of the data"
        else:
            score, points, levels, unit = self._of_file(Path(str(self.data)), report)
            title = f"Geodesics of {name_of(str(self.data))}"
        plane = plane_through(points, self.through)
        return score_page(score, points, noise_levels=levels, plane=plane, title=title, unit=unit, **settings)

    def _of_model(self, folder: Path, report: Report) -> tuple[AbstractScore, np.ndarray, Sequence[float], str]:
        """The score of a saved model, points in its coordinates, noise levels, and the unit of length."""
        model = load_model(folder, report)
        if self.sigma is not None:
            check_known_sigma(self.sigma, model)
        levels = self.sigmas or _levels_of(model, folder, self.sigma)
        for sigma in levels:
            check_known_sigma(sigma, model, "sigmas")
        if self.data is not None:
            points = self.reading.points_for(model, Path(self.data), report)
        elif (points := training_points(model, folder)) is None:
            points = model.sample(jax.random.key(self.seed), 500)
            report.note("the model has kept no points: 500 are drawn from it")
        return model.score_at(levels[0]), np.asarray(points, np.float64), levels, unit_of_length(model)

    def _of_file(self, path: Path, report: Report) -> tuple[AbstractScore, np.ndarray, Sequence[float], str]:
        """The same of the kernel density of the points of a file, standardised."""
        points = np.asarray(standardized(self.reading.read(path, report), name_of(path)).points, np.float64)
        n, d = points.shape
        if n > _MOST:
            if self.through:
                raise ValueError(
                    f"`--through` needs a file of at most {_MOST} points, of which none is left out, got {n}"
                )
            points = points[some_rows(n, _MOST, self.seed, report)]
        scott = len(points) ** (-1 / (d + 4))  # for variance one
        levels = self.sigmas or _about(scott if self.sigma is None else self.sigma)
        score = KernelDensityScore(jnp.asarray(points), float(levels[0]))
        return score, points, levels, "standardised units"


def _about(sigma: float) -> tuple[float, ...]:
    """Noise levels about one."""
    return tuple(factor * sigma for factor in _FACTORS)


def _levels_of(model: DiffusionModel, folder: Path, sigma: float | None = None) -> tuple[float, ...]:
    """Noise levels about ``sigma``, by default the one that is kept with a model, as far as it knows them."""
    if sigma is None and not (folder / GEOMETRY_FILE).exists():
        raise ValueError(f"`--model` {folder} has no {GEOMETRY_FILE}; give --sigma")
    middle = Geometry.load(folder).sigma if sigma is None else sigma
    least, most = known_sigmas(model)
    return tuple(level for level in _about(middle) if least <= level <= most) or (middle,)


def plane_through(points: np.ndarray, rows: tuple[int, ...]) -> Plane | None:
    """The plane that ``--through`` asks for, if it is given."""
    if not rows:
        return None
    if len(set(rows)) != 3 or not all(0 <= row < len(points) for row in rows):
        raise ValueError(f"`--through` must be three different rows from 0 to {len(points) - 1}, got {rows}")
    if points.shape[1] == 2:
        raise ValueError("`--through` is for points in more than two dimensions, but these have two")
    return Plane.through(points[list(rows)])
