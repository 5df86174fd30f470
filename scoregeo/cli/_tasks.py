"""The data sets of the demo: how to train on each, between which points, and in which metrics."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from .. import datasets
from .._types import Points
from ..datasets.files import FilePoints, name_of, standardized
from ..diffusion import EDM, DiffusionModel, FitConfig
from ..geodesics import AbstractStart, GraphInit, StraightLine
from ..metrics import AbstractMetric, ConformalMetric, ScoreJacobianMetric
from ._geometry import CONTRAST, SIGMA

Truth = Callable[[int, np.ndarray], np.ndarray]
Maker = Callable[[DiffusionModel, Points], AbstractMetric]


@dataclasses.dataclass(frozen=True)
class Task:
    """One data set of the demo: how to train on it, at which noise level to look at it, between which points, and
    beside which other metrics; where solves start, from the points. ``truth(i, ts)`` is where the i-th path should be,
    if anyone knows."""

    dataset: datasets.Dataset
    config: FitConfig
    sigma: float
    contrast: float
    pairs: list[tuple[int, int]]
    rivals: Mapping[str, Maker] = dataclasses.field(default_factory=dict)
    start: Callable[[Points], AbstractStart] = lambda points: StraightLine()
    truth: Truth | None = None


def power(sigma: float, ratio: float) -> Maker:
    """``p^(-2b) I`` at noise level ``sigma``, that costs ``ratio`` times as much between the data as on them."""
    return lambda model, points: ConformalMetric.power(model.score_at(sigma), points, ratio)


def score_jacobian(sigma: float) -> Maker:
    """``I + 100 sigma^4 J^T J`` at noise level ``sigma``."""
    return lambda model, points: ScoreJacobianMetric(model.score_at(sigma), sigma, 100.0)


def moons(quick: bool, seed: int) -> Task:
    """Two moons: a curved density whose exact score is known at every noise level."""
    data = datasets.two_moons(jax.random.key(seed), 4000)
    targets = [([-1.5, 0.1], [0.5, 0.1]), ([-0.5, 0.0], [1.5, 0.0]), ([-0.7, 0.75], [0.7, -0.75])]
    pairs = [(_nearest(data.points, np.array(p)), _nearest(data.points, np.array(q))) for p, q in targets]
    config = FitConfig(seed=seed, steps=600 if quick else 4000, warmup_steps=50)
    rivals = {"power of p": power(0.2, 100.0), "score Jacobian": score_jacobian(0.2)}
    return Task(data, config, sigma=0.2, contrast=10.0, pairs=pairs, rivals=rivals)


def letters(quick: bool, seed: int) -> Task:
    """Rotated letters: images on closed curves, so that the true path between two of them is known. Solves start from a
    graph through the data, as is good for images; the score Jacobian takes too long here."""
    steps, letters = 360, "FR"
    images = datasets.rotated_letters(letters, steps)
    # As many as digits have pixels, and the same network: they share compiled programs.
    data = images.principal_components(64)
    turns = [(0, 20, 90), (1, 200, 90)]
    pairs = [(letter * steps + start, letter * steps + (start + turn) % steps) for letter, start, turn in turns]
    config = FitConfig(
        seed=seed,
        steps=300 if quick else 2500,
        batch_size=256,
        learning_rate=2e-3,
        width=256,
        depth=3,
        reference_size=len(data.points),
        schedule=EDM(sigma_min=2e-4),  # the last components vary by little more than the default
    )

    def truth(i: int, ts: np.ndarray) -> np.ndarray:
        letter, start, turn = turns[i]
        angles = (start + turn * ts) * 360 / steps
        return np.asarray(datasets.rotated_letters(letters[letter], angles).points)

    rivals = {"power of p": power(0.2, 1e4)}
    return Task(data, config, sigma=0.4, contrast=30.0, pairs=pairs, rivals=rivals, start=GraphInit, truth=truth)


def digits(quick: bool, seed: int) -> Task:
    """Scikit-learn's real handwritten digits, 8 x 8: a pair of images for each of several pairs of classes."""
    data = datasets.digits()
    labels = np.asarray(data.labels)
    rng = np.random.default_rng(seed)
    classes = [(3, 8), (1, 7), (0, 6), (4, 9)][: 2 if quick else 4]
    pairs = [
        (int(rng.choice(np.flatnonzero(labels == a))), int(rng.choice(np.flatnonzero(labels == b)))) for a, b in classes
    ]
    config = FitConfig(
        seed=seed,
        steps=300 if quick else 4000,
        batch_size=128,
        learning_rate=1e-3,
        width=256,
        depth=3,
        warmup_steps=100,
    )
    return Task(data, config, sigma=0.3, contrast=300.0, pairs=pairs, rivals={"power of p": power(0.1, 1e3)})


def from_file(path: str, found: FilePoints, quick: bool, seed: int) -> Task:
    """A data set of the user's own: geodesics between three random pairs of its points."""
    data = standardized(found, name_of(path))
    n, dim = data.points.shape
    if n < 8:
        raise ValueError(f"`--data` {path} must have at least 8 points, got {n}")
    if not np.ptp(np.asarray(data.points), axis=0).any():
        raise ValueError(f"`--data` {path} must have points that differ, got {n} copies of one point")
    rng = np.random.default_rng(seed)
    pairs = [(int(i), int(j)) for i, j in (rng.choice(n, 2, replace=False) for _ in range(3))]
    width = 96 if dim <= 8 else 256
    config = FitConfig(seed=seed, steps=600 if quick else 4000, batch_size=min(512, n), width=width, warmup_steps=50)
    return Task(data, config, sigma=SIGMA, contrast=CONTRAST, pairs=pairs)


# The data sets that the demo knows by name.
TASKS = {"moons": moons, "letters": letters, "digits": digits}


def _nearest(points: Points, target: np.ndarray) -> int:
    return int(np.argmin(np.sum((np.asarray(points) - target) ** 2, -1)))
