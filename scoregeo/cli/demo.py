"""``scoregeo demo``, the main job: from data to a trained score, a metric, certified geodesics between real points,
pictures and a report."""

import dataclasses
import pathlib
import platform
import shutil
import time
from importlib import metadata
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from .. import datasets
from .._atomic import make_writable, write_figure, write_json, write_npy
from .._types import Points
from ..diffusion import DiffusionModel, FitConfig, ScoreReport, evaluate_score, fit
from ..diffusion.evaluation.base import ScoreReference
from ..geodesics import Geodesic, geodesic
from ..metrics import SteinMetric
from ..scores import AbstractScore, log_prob_along
from ._command import Command, CommandError
from ._geometry import SOLVER, Geometry, double_precision, geodesic_table, solve
from ._io import POINTS_FILE


@dataclasses.dataclass(frozen=True)
class Demo(Command):
    """The arguments of ``scoregeo demo``."""

    data: str = "all"
    """moons, digits, all (both), or the path of a .npy, .npz, .csv or .parquet file."""
    out: pathlib.Path = pathlib.Path("scoregeo-demo")
    """Folder for pictures, report.json and the models."""
    quick: bool = False
    """Train briefly: to see that everything runs, not how good it gets."""
    seed: int = 0
    """Seed of everything random: the same seed gives the same numbers."""

    def run(self, console: Console) -> None:
        """Run the demo and write its report; raises `CommandError` at the end if some geodesic did not converge."""
        report = run_demo(self.data, self.out, quick=self.quick, seed=self.seed, console=console)
        console.print(f"wrote {self.out / 'report.json'} ({report['seconds']:.0f} s)")
        failed = [g for data in report["data"].values() for g in data["geodesics"] if not g["converged"]]
        if failed:
            raise CommandError(
                f"{len(failed)} geodesics did not converge: see the status in {self.out / 'report.json'}"
            )


@dataclasses.dataclass(frozen=True)
class Task:
    """One data set of the demo: how to train on it, at which noise level to look at it, and between which points."""

    dataset: datasets.Dataset
    config: FitConfig
    sigma: float
    contrast: float
    pairs: list[tuple[int, int]]


def moons(quick: bool, seed: int) -> Task:
    """Two moons: a curved density whose exact score is known at every noise level."""
    data = datasets.two_moons(jax.random.key(seed), 4000)
    targets = [([-1.5, 0.1], [0.5, 0.1]), ([-0.5, 0.0], [1.5, 0.0]), ([-0.7, 0.75], [0.7, -0.75])]
    pairs = [(_nearest(data.points, np.array(p)), _nearest(data.points, np.array(q))) for p, q in targets]
    config = FitConfig(seed=seed, steps=600 if quick else 4000, warmup_steps=50)
    return Task(data, config, sigma=0.2, contrast=10.0, pairs=pairs)


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
    return Task(data, config, sigma=0.3, contrast=300.0, pairs=pairs)


def from_file(path: str, quick: bool, seed: int) -> Task:
    """A data set of the user's own: geodesics between three random pairs of its points."""
    data = datasets.load(path)
    n, dim = data.points.shape
    if n < 8:
        raise ValueError(f"`--data` {path} must have at least 8 points, got {n}")
    if not np.ptp(np.asarray(data.points), axis=0).any():
        raise ValueError(f"`--data` {path} must have points that differ, got {n} copies of one point")
    rng = np.random.default_rng(seed)
    pairs = [(int(i), int(j)) for i, j in (rng.choice(n, 2, replace=False) for _ in range(3))]
    width = 96 if dim <= 8 else 256
    config = FitConfig(seed=seed, steps=600 if quick else 4000, batch_size=min(512, n), width=width, warmup_steps=50)
    return Task(data, config, sigma=0.3, contrast=10.0, pairs=pairs)


# The data sets that the demo knows by name.
_TASKS = {"moons": moons, "digits": digits}


def run_demo(data: str, out: pathlib.Path, *, quick: bool, seed: int, console: Console) -> dict[str, Any]:
    """Run the demo for ``data`` ("all", "moons", "digits" or a path), write into ``out``, return the report.

    Data are read and the output folder is tried before anything is trained or written.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"`--seed` must be from 0 to {2**32 - 1}, got {seed}")
    if data == "all":
        tasks = {name: make(quick, seed) for name, make in _TASKS.items()}
    elif data in _TASKS:
        tasks = {data: _TASKS[data](quick, seed)}
    else:
        tasks = {pathlib.Path(data).stem: from_file(data, quick, seed)}
    make_writable(out, "--out")
    start = time.perf_counter()
    report = {
        "scoregeo": metadata.version("scoregeo"),
        "seed": seed,
        "quick": quick,
        "versions": versions(),
        "data": {},
    }
    for name, task in tasks.items():
        report["data"][name] = run_task(name, task, out, console)
        write_json(out / "report.json", report)
    report["seconds"] = time.perf_counter() - start
    write_json(out / "report.json", report)
    return report


def run_task(name: str, task: Task, out: pathlib.Path, console: Console) -> dict[str, Any]:
    """Train, build the metric, solve, certify, draw and save one data set of the demo."""
    n, dim = task.dataset.points.shape
    console.rule(f"[bold]{name}[/bold]: {n} points in {dim} dimensions")
    model, training = train(task, out / name)
    accuracy = check_score(model, task)
    if accuracy is not None:
        console.print(accuracy)
    with double_precision():
        geometry, points = choose_geometry(model, task)
        geometry.save(out / name / "model")
        metric = geometry.metric(model)
        first_solve, paths, records = solve_pairs(metric, points, task.pairs)
        console.print(geodesic_table(records))
        picture = draw(name, task.dataset, metric, paths, out)
    console.print(f"wrote {picture}")
    console.print(f"wrote {out / name / 'model'}")
    return {
        "points": [n, dim],
        "sigma": geometry.sigma,
        "strength": geometry.strength,
        "contrast": geometry.contrast,
        "units": "standardised" if task.dataset.standardization is not None else "data",
        "dtype": str(points.dtype),
        "training": training,
        "score_accuracy": None if accuracy is None else accuracy.to_dict(),
        "first_solve_seconds": first_solve,
        "geodesics": records,
        "pictures": [picture.name],
        "model": f"{name}/model",
    }


def train(task: Task, folder: pathlib.Path) -> tuple[DiffusionModel, dict[str, Any]]:
    """The model of a data set, saved in ``folder`` with the points, and what the report says about its training."""
    data, checkpoint = task.dataset, folder / "checkpoint"
    start = time.perf_counter()
    model = fit(data.points, task.config, checkpoint_dir=checkpoint, standardization=data.standardization)
    seconds = time.perf_counter() - start
    model.save(folder / "model")
    write_npy(folder / "model" / POINTS_FILE, np.asarray(data.undo(data.points)))
    # The run is complete and needs its checkpoint no more.
    shutil.rmtree(checkpoint, ignore_errors=True)
    return model, {
        "steps": task.config.steps,
        "seconds": seconds,
        "train_loss": float(model.history.train_loss[-1]),
        "held_out_loss": float(model.history.held_out_loss[-1]),
    }


def check_score(model: DiffusionModel, task: Task) -> ScoreReport | None:
    """The error of the learned score where the exact one is known at every noise level, else ``None``."""
    exact = task.dataset.score
    if not (hasattr(exact, "noised") and hasattr(exact, "sample")):
        return None
    return evaluate_score(model, cast(ScoreReference, exact), sigmas=(0.1, 0.2, 0.5), key=jax.random.key(1))


def choose_geometry(model: DiffusionModel, task: Task) -> tuple[Geometry, Points]:
    """The metric of the task, and the points ``(n, d)`` in double precision; call inside `double_precision`."""
    points = jnp.asarray(np.asarray(task.dataset.points, np.float64))
    strength = calibrate(model.score_at(task.sigma), points, task.contrast)
    return Geometry(task.sigma, strength, task.contrast, task.dataset.image_shape), points


def calibrate(score: AbstractScore, points: Points, contrast: float) -> float:
    """The strength at which the median of ``strength |s|^2`` over ``points`` ``(n, d)`` is ``contrast``."""
    squares = jnp.sum(jax.vmap(score)(points) ** 2, -1)
    return contrast / float(jnp.median(squares))


def solve_pairs(
    metric: SteinMetric, points: Points, pairs: list[tuple[int, int]]
) -> tuple[float, list[Geodesic], list[dict[str, Any]]]:
    """How long the first solve takes, which compiles; then the geodesics of all pairs, and their records."""
    start = time.perf_counter()
    i, j = pairs[0]
    jax.block_until_ready(geodesic(metric, points[i], points[j], solver=SOLVER, throw=False))
    first_solve = time.perf_counter() - start
    paths, records = [], []
    for i, j in pairs:
        path, record = solve(metric, points[i], points[j])
        paths.append(path)
        records.append({"from": i, "to": j, **record, **middle_log_density(metric.score, path)})
    return first_solve, paths, records


def middle_log_density(score: AbstractScore, path: Geodesic) -> dict[str, float]:
    """log p half-way, relative to the start, on the geodesic and on the straight line."""
    ts = jnp.linspace(0, 1, 201, dtype=path.points.dtype)
    line = jnp.linspace(path.points[0], path.points[-1], ts.size)
    return {
        "log_p_middle": float(log_prob_along(score, path.evaluate(ts))[100]),
        "log_p_middle_straight": float(log_prob_along(score, line)[100]),
    }


def draw(
    name: str, dataset: datasets.Dataset, metric: SteinMetric, paths: list[Geodesic], out: pathlib.Path
) -> pathlib.Path:
    """Write the picture of one data set into ``out``; returns the file."""
    from ..plotting import pictures

    kind, figure = pictures.suitable(dataset, metric, paths)
    # The pictures of the demo's own data have names of their own, which the documentation shows.
    names = {("digits", "strips"): "digits.png", ("moons", "metric"): "metric.png"}
    target = out / names.get((name, kind), f"{name}-{kind}.png")
    write_figure(target, figure)
    return target


def versions() -> dict[str, str]:
    """What ran: Python, the machine, the packages that decide the numbers."""
    names = ("jax", "jaxlib", "flax", "optax", "diffrax", "equinox", "numpy")
    found = {name: metadata.version(name) for name in names}
    return {"python": platform.python_version(), "device": jax.devices()[0].device_kind, **found}


def _nearest(points: Points, target: np.ndarray) -> int:
    return int(np.argmin(np.sum((np.asarray(points) - target) ** 2, -1)))
