"""``scoregeo demo``, the main job: from data to a trained score, a metric, certified geodesics between real points,
pictures and a report."""

import dataclasses
import pathlib
import platform
import shutil
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from .._atomic import make_writable, write_figure, write_json, write_npy
from .._types import Points
from ..datasets.files import name_of
from ..diffusion import DiffusionModel, ScoreReport, evaluate_score, fit
from ..diffusion.evaluation.base import ScoreReference
from ..geodesics import AbstractStart, Geodesic
from ..geodesics.baselines import nodes_of
from ..metrics import AbstractMetric
from ..scores import AbstractScore, log_prob_along
from . import _interrupts
from ._command import Command, CommandError
from ._families import score_of
from ._geometry import Geometry, calibrate, double_precision, geodesic_table, solve
from ._io import POINTS_FILE, PointsOptions
from ._report import Report
from ._tasks import TASKS, Task, from_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """The arguments of ``scoregeo demo``."""

    data: str = "all"
    """moons, letters, digits, all (three), or the path of a file or folder that `scoregeo.datasets.load` reads."""
    out: pathlib.Path = pathlib.Path("scoregeo-demo")
    """Folder for pictures, report.json and the models."""
    quick: bool = False
    """Train briefly: to see that everything runs, not how good it gets."""
    seed: int = 0
    """Seed of everything random: the same seed gives the same numbers."""

    reading: PointsOptions = PointsOptions()

    compiles_most: ClassVar = True
    examples: ClassVar = (
        "--data moons --quick",
        "--data points.csv --out my-demo --seed 1",
    )

    def run(self, report: Report) -> None:
        """Run the demo and write its report; raises `CommandError` at the end if some geodesic did not converge."""
        values = run_demo(self, report)
        report.keep(**values)
        report.wrote(self.out / "report.json", f"what was measured, in {values['seconds']:.0f} s,")
        failed = [g for data in values["data"].values() for g in data["geodesics"] if not g["converged"]]
        if failed:
            raise CommandError(
                f"{len(failed)} geodesics did not converge: see the status in {self.out / 'report.json'}"
            )


def run_demo(arguments: Demo, report: Report) -> dict[str, Any]:
    """Run the demo, write into the folder ``--out``, return the report.

    Data are read and the output folder is tried before anything is trained or written.
    """
    data, out, quick, seed = arguments.data, arguments.out, arguments.quick, arguments.seed
    if not 0 <= seed < 2**32:
        raise ValueError(f"`--seed` must be from 0 to {2**32 - 1}, got {seed}")
    if (data == "all" or data in TASKS) and arguments.reading.chosen():
        raise ValueError(f"`{arguments.reading.chosen()[0]}` is for a file, but `--data` is {data}")
    if data == "all":
        tasks = {name: make(quick, seed) for name, make in TASKS.items()}
    elif data in TASKS:
        tasks = {data: TASKS[data](quick, seed)}
    else:
        tasks = {name_of(data): from_file(data, arguments.reading.read(pathlib.Path(data), report), quick, seed)}
    make_writable(out, "--out")
    start = time.perf_counter()
    values = {
        "scoregeo": metadata.version("scoregeo"),
        "seed": seed,
        "quick": quick,
        "versions": versions(),
        "data": {},
    }
    for name, task in tasks.items():
        values["data"][name] = run_task(name, task, out, report)
        write_json(out / "report.json", values)
    values["seconds"] = time.perf_counter() - start
    write_json(out / "report.json", values)
    return values


def run_task(name: str, task: Task, out: pathlib.Path, report: Report) -> dict[str, Any]:
    """Train, build the metric, solve, certify, draw and save one data set of the demo."""
    n, dim = task.dataset.points.shape
    report.rule(f"[bold]{name}[/bold]: {n} points in {dim} dimensions")
    model, training = train(task, out / name, report)
    with report.busy("the error of the score, where the true one is known"):
        accuracy = check_score(model, task)
    if accuracy is not None:
        report.say(accuracy)
    with double_precision():
        with report.busy("measuring how strong the metrics are to be"):
            geometry, points = choose_geometry(model, task)
            geometry.save(out / name / "model")
            stein = geometry.metric(model)
            metrics = {"Stein": stein} | {rival: make(model, points) for rival, make in task.rivals.items()}
        start, paths, records = task.start(points), {}, []
        for metric_name, metric in metrics.items():
            with report.busy(f"geodesics, {metric_name}"):
                paths[metric_name], solved = solve_pairs(metric, points, task.pairs, start)
            for i, (path, record) in enumerate(zip(paths[metric_name], solved, strict=True)):
                record |= {"metric": metric_name, **middle_log_density(score_of(stein), path)} | away(task, i, path)
            report.say(geodesic_table(solved, title=f"geodesics of {name}, {metric_name}"))
            records += solved
        with report.busy("drawing"):
            picture = draw(name, task, stein, paths, out)
    report.wrote(picture)
    report.wrote(out / name / "model")
    return {
        "points": [n, dim],
        "sigma": geometry.sigma,
        "strength": geometry.strength,
        "contrast": geometry.contrast,
        "units": "standardised" if task.dataset.standardization is not None else "data",
        "dtype": str(points.dtype),
        "training": training,
        "score_accuracy": None if accuracy is None else accuracy.to_dict(),
        "geodesics": records,
        "pictures": [picture.name],
        "model": f"{name}/model",
    }


def train(task: Task, folder: pathlib.Path, report: Report) -> tuple[DiffusionModel, dict[str, Any]]:
    """The model of a data set, saved in ``folder`` with the points, and what the report says about its training."""
    data, checkpoint = task.dataset, folder / "checkpoint"
    start = time.perf_counter()
    with _interrupts.training(checkpoint, task.config.steps) as training:
        settings = {"standardization": data.standardization, "callbacks": [training], "progress": not report.quiet}
        with report.first("training"):
            model = fit(data.points, task.config, checkpoint_dir=checkpoint, **settings)
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


def solve_pairs(
    metric: AbstractMetric, points: Points, pairs: list[tuple[int, int]], start: AbstractStart
) -> tuple[list[Geodesic], list[dict[str, Any]]]:
    """The geodesics of all pairs, and their records; the seconds of the first are those of compiling, too."""
    paths, records = [], []
    for i, j in pairs:
        # As nodes, whatever made them, so that data sets of one dimension share a program.
        path, record = solve(metric, points[i], points[j], nodes_of(start, metric, points[i], points[j]))
        paths.append(path)
        records.append({"from": i, "to": j, **record})
    return paths, records


def away(task: Task, i: int, path: Geodesic) -> dict[str, float]:
    """The mean distance of the i-th path, and of the straight line, to where it should be, if anyone knows."""
    if task.truth is None:
        return {}
    ts = np.linspace(0, 1, 61)
    places, found = task.truth(i, ts), np.asarray(task.dataset.undo(path.evaluate(ts)))
    line = places[0] + ts[:, None] * (places[-1] - places[0])
    mean = lambda points: float(np.linalg.norm(points - places, axis=1).mean())  # noqa: E731
    return {"from_the_truth": mean(found), "from_the_truth_straight": mean(line)}


def middle_log_density(score: AbstractScore, path: Geodesic) -> dict[str, float]:
    """log p half-way, relative to the start, on the geodesic and on the straight line."""
    ts = jnp.linspace(0, 1, 201, dtype=path.points.dtype)
    line = jnp.linspace(path.points[0], path.points[-1], ts.size)
    return {
        "log_p_middle": float(log_prob_along(score, path.evaluate(ts))[100]),
        "log_p_middle_straight": float(log_prob_along(score, line)[100]),
    }


def draw(
    name: str, task: Task, metric: AbstractMetric, paths: Mapping[str, list[Geodesic]], out: pathlib.Path
) -> pathlib.Path:
    """Write the picture of one data set into ``out``; returns the file."""
    from ..plotting import pictures

    kind, figure = pictures.suitable(task.dataset, metric, paths, task.truth)
    # The pictures of the demo's own data have names of their own, which the documentation shows.
    names = {
        ("digits", "strips"): "digits.png",
        ("letters", "strips"): "letters.png",
        ("moons", "metric"): "metric.png",
    }
    target = out / names.get((name, kind), f"{name}-{kind}.png")
    write_figure(target, figure)
    return target


def versions() -> dict[str, str]:
    """What ran: Python, the machine, the packages that decide the numbers."""
    names = ("jax", "jaxlib", "flax", "optax", "diffrax", "equinox", "numpy")
    found = {name: metadata.version(name) for name in names}
    return {"python": platform.python_version(), "device": jax.devices()[0].device_kind, **found}
