"""What ``scoregeo compare`` does: distances between points of files under metrics of one saved model."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._atomic import write_figure
from ._results import RESULTS
from ._types import Point, Points, Scalar
from .cli import CommandError, Compare
from .diffusion import DiffusionModel
from .fisher_rao.comparison import Comparison, compare
from .geodesics import SpectralNewton, geodesic
from .metrics import SteinMetric
from .model_commands import load_model, points_for
from .recorded import (
    GEOMETRY_FILE,
    POINTS_FILE,
    SOLVER,
    Geometry,
    check_known_sigma,
    check_output,
    double_precision,
)

# Lengths to four digits, as elsewhere on the command line; nobody asks for the paths.
_LENGTHS = SpectralNewton(rtol=1e-4, path_rtol=1.0)
_DRAWN = 3


def run_compare(arguments: Compare, console: Any) -> None:
    """Print, write and draw the comparison; pairs whose solve failed are told at the end, with exit status 2."""
    model = load_model(arguments.model)
    sigma, strengths = _settings(arguments, model)
    check_output("out", arguments.out, ".csv")
    check_output("picture", arguments.picture, ".png")
    with double_precision():
        xs, ys = _points(arguments, model)
        score = model.score_at(sigma)
        metrics = {f"Stein {strength:g}": SteinMetric(score, strength) for strength in strengths}
        result = compare(xs, ys, metrics={"Euclidean": _euclidean} | metrics, solver=_LENGTHS, seed=arguments.seed)
        console.print(str(result), soft_wrap=True, markup=False, highlight=False)
        units = "standardised units" if model.standardization is not None else "units of the data"
        console.print(f"distances in {units}, noise level {sigma:g}")
        figure = None
        if arguments.picture is not None:
            kept = pathlib.Path(arguments.model) / POINTS_FILE
            background = points_for(model, kept) if kept.exists() else xs
            figure = _picture(result, xs, xs if ys is None else ys, metrics, background)
        if arguments.out is not None:
            result.to_csv(arguments.out)
            console.print(f"wrote {arguments.out}")
        if figure is not None:
            write_figure(arguments.picture, figure)
            console.print(f"wrote {arguments.picture}")
    failed = sum(result.failed.values())
    if failed:
        raise CommandError(
            f"{failed} of {len(metrics) * len(result.table)} geodesics did not converge: see their status"
        )


def _euclidean(x: Point, y: Point) -> Scalar:
    return jnp.linalg.norm(x - y)


def _settings(arguments: Compare, model: DiffusionModel) -> tuple[float, tuple[float, ...]]:
    """The noise level and the strengths: as given, or as kept with the model."""
    folder = pathlib.Path(arguments.model)
    sigma, strengths = arguments.sigma, arguments.strengths
    if sigma is None or not strengths:
        if not (folder / GEOMETRY_FILE).exists():
            raise ValueError(f"`--model` {folder} has no {GEOMETRY_FILE}; give --sigma and --strengths")
        kept = Geometry.load(folder)
        sigma, strengths = kept.sigma if sigma is None else sigma, strengths or (kept.strength,)
    check_known_sigma(sigma, model)
    if len({f"{strength:g}" for strength in strengths}) < len(strengths):
        raise ValueError(f"`--strengths` must be different, got {' '.join(f'{s:g}' for s in strengths)}")
    for strength in strengths:
        if not (np.isfinite(strength) and strength >= 0):
            raise ValueError(f"`--strengths` must be non-negative numbers, got {strength}")
    return sigma, strengths


def _points(arguments: Compare, model: DiffusionModel) -> tuple[Points, Points | None]:
    """The points of the files in the coordinates of the model, the same rows of both."""
    sides = [points_for(model, path) for path in (arguments.data, arguments.to) if path is not None]
    n = len(sides[0])
    if len(sides[-1]) != n:
        raise ValueError(f"`--to` must have as many points as `--data`, {n}, got {len(sides[-1])}")
    if arguments.n < 3:
        raise ValueError(f"`--n` must be at least 3, got {arguments.n}")
    if n > arguments.n:
        drawn = np.sort(np.random.default_rng(arguments.seed).choice(n, arguments.n, replace=False))
        sides = [side[drawn] for side in sides]
    xs, *ys = (jnp.asarray(side, jnp.float64) for side in sides)
    return xs, ys[0] if ys else None


def _picture(result: Comparison, xs: Points, ys: Points, metrics: dict[str, SteinMetric], background: Points) -> Any:
    from .plotting.comparison import comparison_figure

    if xs.shape[1] != 2:
        return comparison_figure(result)
    name, metric = list(metrics.items())[-1]
    ratio = np.where(result.complete, result.table[name] / result.table["Euclidean"], -np.inf)
    most = [row for row in np.argsort(-ratio)[:_DRAWN] if np.isfinite(ratio[row])]
    ends = [(xs[result.table["first"][row]], ys[result.table["second"][row]]) for row in most]
    solved = [jax.block_until_ready(geodesic(metric, x, y, solver=SOLVER, throw=False)) for x, y in ends]
    paths = [path for path in solved if bool(path.result == RESULTS.successful)]
    return comparison_figure(result, paths=paths, points=background)
