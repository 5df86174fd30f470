"""The main job: from data to a trained score, a metric, certified geodesics between real points, pictures and a
report."""

import dataclasses
import os
import pathlib
import platform
import shutil
import time
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import datasets
from ._atomic import make_writable, write_figure, write_json, write_npy
from ._types import Points
from .diffusion import DiffusionModel, FitConfig, ScoreReport, evaluate_score, fit
from .geodesics import Geodesic, geodesic
from .metrics import SteinMetric
from .recorded import POINTS_FILE, SOLVER, Geometry, double_precision, geodesic_table, solve
from .scores import AbstractScore, log_prob_along


@dataclasses.dataclass(frozen=True)
class Task:
    """One data set of the demo: how to train on it, at which noise level to look at it, and between which points."""

    dataset: datasets.Dataset
    config: FitConfig
    sigma: float
    contrast: float
    pairs: list[tuple[int, int]]


def calibrate(score: AbstractScore, points: Points, contrast: float) -> float:
    """The strength at which the median of ``strength |s|^2`` over ``points`` ``(n, d)`` is ``contrast``."""
    squares = jnp.sum(jax.vmap(score)(points) ** 2, -1)
    return contrast / float(jnp.median(squares))


def moons(quick: bool, seed: int) -> Task:
    """Two moons: a curved density whose exact score is known at every noise level."""
    data = datasets.two_moons(jax.random.key(seed), 4000)
    targets = [([-1.5, 0.1], [0.5, 0.1]), ([-0.5, 0.0], [1.5, 0.0]), ([-0.7, 0.75], [0.7, -0.75])]
    pairs = [tuple(_nearest(data.points, np.array(p)) for p in ends) for ends in targets]
    config = FitConfig(seed=seed, steps=600 if quick else 4000, warmup_steps=50)
    return Task(data, config, sigma=0.2, contrast=10.0, pairs=pairs)


def digits(quick: bool, seed: int) -> Task:
    """Scikit-learn's real handwritten digits, 8 x 8: a pair of images for each of several pairs of classes."""
    data = datasets.digits()
    labels = np.asarray(data.labels)
    rng = np.random.default_rng(seed)
    classes = [(3, 8), (1, 7), (0, 6), (4, 9)][: 2 if quick else 4]
    pairs = [tuple(int(rng.choice(np.flatnonzero(labels == c))) for c in ends) for ends in classes]
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
    pairs = [tuple(int(i) for i in rng.choice(n, 2, replace=False)) for _ in range(3)]
    width = 96 if dim <= 8 else 256
    config = FitConfig(seed=seed, steps=600 if quick else 4000, batch_size=min(512, n), width=width, warmup_steps=50)
    return Task(data, config, sigma=0.3, contrast=10.0, pairs=pairs)


def run_demo(data: str, out: str | os.PathLike, *, quick: bool, seed: int, console: Any) -> dict[str, Any]:
    """Run the demo for ``data`` ("all", "moons", "digits" or a path), write into ``out``, return the report.

    Data are read and the output folder is tried before anything is trained or written.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"`--seed` must be from 0 to {2**32 - 1}, got {seed}")
    builders = {"moons": moons, "digits": digits}
    chosen = list(builders) if data == "all" else [data]
    tasks = {
        (name if name in builders else pathlib.Path(name).stem): (
            builders[name](quick, seed) if name in builders else from_file(name, quick, seed)
        )
        for name in chosen
    }
    out = pathlib.Path(out)
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


def run_task(name: str, task: Task, out: pathlib.Path, console: Any) -> dict[str, Any]:
    """Train, build the metric, solve, certify, draw and save one data set of the demo."""
    points, folder = task.dataset.points, out / name
    console.rule(f"[bold]{name}[/bold]: {points.shape[0]} points in {points.shape[1]} dimensions")
    start = time.perf_counter()
    model = fit(points, task.config, checkpoint_dir=folder / "checkpoint", standardization=task.dataset.standardization)
    training = time.perf_counter() - start
    model.save(folder / "model")
    write_npy(folder / "model" / POINTS_FILE, np.asarray(task.dataset.undo(points)))
    # The run is complete: its checkpoint has served.
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)

    accuracy = check_score(model, task)
    if accuracy is not None:
        console.print(accuracy)
    with double_precision():
        score = model.score_at(task.sigma)
        points = jnp.asarray(np.asarray(points, np.float64))
        strength = calibrate(score, points, task.contrast)
        geometry = Geometry(task.sigma, strength, task.contrast, task.dataset.image_shape)
        geometry.save(folder / "model")
        metric = geometry.metric(model)
        paths, records = [], []
        # The first solve compiles; what is reported for a pair is the solve alone.
        first = time.perf_counter()
        i, j = task.pairs[0]
        jax.block_until_ready(geodesic(metric, points[i], points[j], solver=SOLVER, throw=False))
        first = time.perf_counter() - first
        for i, j in task.pairs:
            path, record = solve(metric, points[i], points[j])
            paths.append(path)
            records.append({"from": i, "to": j, **record})
        middle = [middle_log_density(score, path) for path in paths]
        for record, values in zip(records, middle, strict=True):
            record |= values
        console.print(geodesic_table(records))
        pictures = draw(name, task, metric, paths, out)
    for picture in pictures:
        console.print(f"wrote {picture}")
    console.print(f"wrote {folder / 'model'}")
    return {
        "points": list(points.shape),
        "sigma": task.sigma,
        "strength": strength,
        "contrast": task.contrast,
        "units": "standardised" if task.dataset.standardization is not None else "data",
        "dtype": str(points.dtype),
        "training": {
            "steps": task.config.steps,
            "seconds": training,
            "train_loss": float(model.history.train_loss[-1]),
            "held_out_loss": float(model.history.held_out_loss[-1]),
        },
        "score_accuracy": None if accuracy is None else accuracy.to_dict(),
        "first_solve_seconds": first,
        "geodesics": records,
        "pictures": [picture.name for picture in pictures],
        "model": f"{name}/model",
    }


def check_score(model: DiffusionModel, task: Task) -> ScoreReport | None:
    """The error of the learned score where the exact one is known at every noise level, else ``None``."""
    exact = task.dataset.score
    if not (hasattr(exact, "noised") and hasattr(exact, "sample")):
        return None
    return evaluate_score(model, exact, sigmas=(0.1, 0.2, 0.5), key=jax.random.key(1))


def middle_log_density(score: AbstractScore, path: Geodesic) -> dict[str, float]:
    """log p half-way, relative to the start, on the geodesic and on the straight line."""
    ts = jnp.linspace(0, 1, 201, dtype=path.points.dtype)
    line = jnp.linspace(path.points[0], path.points[-1], ts.size)
    return {
        "log_p_middle": float(log_prob_along(score, path.evaluate(ts))[100]),
        "log_p_middle_straight": float(log_prob_along(score, line)[100]),
    }


def draw(name: str, task: Task, metric: SteinMetric, paths: list[Geodesic], out: pathlib.Path) -> list[pathlib.Path]:
    """The pictures of one data set: strips for images, the field for the plane, principal components for the rest."""
    from .plotting import pictures

    if task.dataset.image_shape is not None:
        figure = pictures.strips(task.dataset, metric, paths)
        target = out / ("digits.png" if name == "digits" else f"{name}-strips.png")
    elif task.dataset.points.shape[1] == 2:
        figure = pictures.plane(task.dataset, metric, paths)
        target = out / ("metric.png" if name == "moons" else f"{name}-metric.png")
    else:
        figure = pictures.projection(task.dataset, paths)
        target = out / f"{name}-projection.png"
    write_figure(target, figure)
    return [target]


def versions() -> dict[str, str]:
    """What ran: Python, the machine, the packages that decide the numbers."""
    names = ("jax", "jaxlib", "flax", "optax", "diffrax", "equinox", "numpy")
    found = {name: metadata.version(name) for name in names}
    return {"python": platform.python_version(), "device": jax.devices()[0].device_kind, **found}


def _nearest(points: Points, target: np.ndarray) -> int:
    return int(np.argmin(np.sum((np.asarray(points) - target) ** 2, -1)))
