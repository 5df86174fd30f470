"""What ``scoregeo train``, ``sample``, ``likelihood`` and ``evaluate`` do: score models on files.

Points in files are in the units of the data; the standardisation that a model keeps stands between them and it.
"""

import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import datasets
from ._atomic import make_writable, write_figure, write_json, write_npy
from ._files import read_npy, read_points
from .cli import CommandError, Evaluate, Likelihood, Sample, Train
from .diffusion import (
    DDIM,
    DiffusionModel,
    DPMSolver,
    Heun,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseSDE,
    evaluate_held_out,
    fit,
    log_prob,
    memorization,
)
from .diffusion.training.ema import takes_snapshots
from .recorded import GEOMETRY_FILE, POINTS_FILE, check_output

SAMPLERS = {
    "ode": ProbabilityFlow,
    "sde": ReverseSDE,
    "heun": Heun,
    "ddim": DDIM,
    "dpm": DPMSolver,
    "pc": PredictorCorrector,
}
_BATCH = 2048  # points side by side


def run_train(arguments: Train, console: Any) -> None:
    """Train on a file and save the model; a run that was interrupted goes on where it was."""
    points, image_shape = read_points(arguments.data, key=arguments.key, columns=arguments.columns or None)
    data = datasets.standardized(points, arguments.data.stem, image_shape)
    labels = None if arguments.labels is None else read_npy(arguments.labels, "labels")
    if labels is not None and (labels.dtype.kind == "f" or labels.shape != (len(points),) or labels.min() < 0):
        raise ValueError(
            f"`--labels` must hold an integer from 0 on for each of the {len(points)} points, got {labels.dtype} of "
            f"shape {labels.shape}" + ("" if labels.size == 0 else f" with a smallest value of {labels.min()}")
        )
    out = pathlib.Path(arguments.out)
    make_writable(out, "--out")
    checkpoint = out / "checkpoint"
    settings = {"standardization": data.standardization, "conditions": labels}
    model = fit(data.points, arguments.config, checkpoint_dir=checkpoint, **settings)
    (out / GEOMETRY_FILE).unlink(missing_ok=True)  # of another model that was here
    model.save(out)
    write_npy(out / POINTS_FILE, points)
    if takes_snapshots(arguments.config.ema):
        console.print(f"kept {checkpoint} with the snapshots for posthoc_ema")
    else:  # the run is complete: its checkpoint has served
        shutil.rmtree(checkpoint, ignore_errors=True)
    console.print(f"loss {model.history.train_loss[-1]:.4f}, held out {model.history.held_out_loss[-1]:.4f}")
    console.print(f"wrote {out}")


def run_sample(arguments: Sample, console: Any) -> None:
    """Draw samples and write them, in the units of the data."""
    if arguments.n < 1:
        raise ValueError(f"`--n` must be at least 1, got {arguments.n}")
    model = load_model(arguments.model)
    check_target(arguments.out, ".npy")
    settings = {} if arguments.steps is None else {"steps": arguments.steps}
    if settings and arguments.sampler == "ode":
        raise ValueError("`--steps` is not for `--sampler ode`, whose steps are adaptive")
    sampler = SAMPLERS[arguments.sampler](**settings)
    key = jax.random.key(arguments.seed)
    settings = {"sampler": sampler, "condition": arguments.condition, "guidance": arguments.guidance}
    parts = [
        model.sample(jax.random.fold_in(key, start), min(_BATCH, arguments.n - start), **settings)
        for start in range(0, arguments.n, _BATCH)
    ]
    points = np.concatenate([np.asarray(part) for part in parts])
    if model.standardization is not None:
        mean, scale = units_of(model)
        points = points * scale + mean
    write_npy(arguments.out, points)
    console.print(f"wrote {arguments.n} samples to {arguments.out}")


def run_likelihood(arguments: Likelihood, console: Any) -> None:
    """Log densities of the points of a file, in nats and in the units of the data."""
    model = load_model(arguments.model)
    if arguments.out is not None:
        check_target(arguments.out, ".npy")
    points = points_for(model, arguments.data, arguments.key, arguments.columns)
    settings = {"probes": arguments.probes, "condition": arguments.condition}
    key = jax.random.key(arguments.seed)
    parts = [
        log_prob(model, points[i : i + _BATCH], **settings, key=jax.random.fold_in(key, i))
        for i in range(0, len(points), _BATCH)
    ]
    values = np.concatenate([np.asarray(part.log_prob, np.float64) for part in parts])
    evaluations = np.concatenate([np.asarray(part.evaluations) for part in parts])
    if model.standardization is not None:
        # Densities change by the volume that one standardised unit fills.
        values -= np.sum(np.log(np.broadcast_to(model.standardization.scale, (model.dim,))))
    nats, n = values.mean(), len(values)
    # One point says nothing about the spread.
    error = f" +- {values.std(ddof=1) / np.sqrt(n):.4f}" if n > 1 else ""
    bits = -nats / model.dim / np.log(2)
    trace = "exact trace" if arguments.probes is None else f"{arguments.probes} probes"
    console.print(
        f"mean log density {nats:.4f}{error} nats, {bits:.4f} bits per dimension "
        f"({n} point{'s' * (n > 1)}, {trace}, {evaluations.mean():.0f} evaluations each)",
        soft_wrap=True,
    )
    if arguments.out is not None:
        write_npy(arguments.out, values)
        console.print(f"wrote {arguments.out}")


def run_evaluate(arguments: Evaluate, console: Any) -> None:
    """Judge a model by points that it was not trained on; its training points are kept beside it."""
    if arguments.samples < 0:
        raise ValueError(f"`--samples` must be at least 0, got {arguments.samples}")
    model = load_model(arguments.model)
    if arguments.out is not None:
        check_target(arguments.out, ".json")
    check_output("picture", arguments.picture, ".png")
    points = points_for(model, arguments.data, arguments.key, arguments.columns)
    units = "data" if model.standardization is None else "standardised"
    report_key, sample_key = jax.random.split(jax.random.key(arguments.seed))
    report = evaluate_held_out(model, points, arguments.sigmas, key=report_key, condition=arguments.condition)
    console.print(report)
    console.print(f"noise levels and distances are in {units} units")
    values = {"units": units, "held_out": report.to_dict()}
    kept, found = pathlib.Path(arguments.model) / POINTS_FILE, None
    if arguments.samples > 0 and not kept.exists():
        console.print(f"no {POINTS_FILE} beside the model: samples are not compared with what it was trained on")
    elif arguments.samples > 0:
        samples = model.sample(sample_key, arguments.samples, condition=arguments.condition)
        found = memorization(samples, points_for(model, kept), points)
        console.print(found)
        values["memorization"] = found.to_dict()
    if arguments.out is not None:
        write_json(arguments.out, values)
        console.print(f"wrote {arguments.out}")
    if arguments.picture is not None:
        from .plotting import evaluation_figure

        write_figure(arguments.picture, evaluation_figure(report, found, units=units))
        console.print(f"wrote {arguments.picture}")


def load_model(folder: pathlib.Path) -> DiffusionModel:
    """The saved model, or a `CommandError` that names the argument."""
    try:
        return DiffusionModel.load(folder)
    except (OSError, TypeError, ValueError) as error:
        raise CommandError(f"`--model` {folder} cannot be used: {error}") from error


def points_for(
    model: DiffusionModel, path: pathlib.Path, key: str | None = None, columns: Sequence[str] = ()
) -> jax.Array:
    """The points of a file, in the coordinates of ``model``; raises ``ValueError`` for another dimension."""
    points, _ = read_points(path, key=key, columns=columns or None)
    if points.shape[1] != model.dim:
        raise ValueError(f"{path} must have points of dimension {model.dim}, as the model has, got {points.shape[1]}")
    if model.standardization is not None:
        mean, scale = units_of(model)
        points = (points - mean) / scale
    return jnp.asarray(points, model.dtype)


def units_of(model: DiffusionModel) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of the standardisation, to be used on the host in float64: a large offset eats float32."""
    return tuple(np.asarray(value, np.float64) for value in (model.standardization.mean, model.standardization.scale))


def check_target(path: pathlib.Path, suffix: str) -> None:
    """Refuse a file to write of another kind, or in a folder that cannot be written, before anything is computed."""
    if path.suffix != suffix:
        raise ValueError(f"`--out` must end in {suffix}, got {path}")
    if path.is_dir():
        raise OSError(f"`--out` must be a file, got the folder {path}")
    make_writable(path.parent, "--out")
