"""``scoregeo compare``: distances between the points of files under several metrics of one saved model, and distances
between normal distributions about those points."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..._results import RESULTS
from ..._types import Point, Points, Scalar
from ...comparison import Comparison, Entry, compare
from ...datasets.files import read_points
from ...diffusion import DiffusionModel
from ...fisher_rao import (
    FibreSolver,
    FisherRaoMetric,
    FlatPriorStart,
    MultivariateNormal,
    SpacetimeDescent,
    SpacetimeMetric,
    hellinger,
    sqrt_jeffreys,
    wasserstein,
)
from ...geodesics import geodesic
from ...metrics import AbstractMetric
from .._command import Command, CommandError
from .._geometry import LENGTHS, Geometry, double_precision, lengths_solver_for, solver_for
from .._io import PointsOptions, load_model, some_rows, training_points, unit_of_length
from .._metric import Kind, MetricOptions
from .._output import PICTURES, check_output, write_picture, write_results
from .._report import Report

# How many geodesics the picture shows.
_DRAWN = 3
# How many coordinates are solved side by side: the spacetime metric differentiates the denoiser in each at every node.
_TOGETHER = 256
# What the metrics of the score are called in tables.
_NAMES: dict[str, str] = {
    "stein": "Stein",
    "inverse-stein": "inverse Stein",
    "score-jacobian": "score Jacobian",
    "power": "power",
    "energy": "energy",
    "score-norm": "score norm",
}
# What a distance is computed by.
_Metric: TypeAlias = AbstractMetric | Callable[[Any, Any], Scalar] | Entry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """The arguments of ``scoregeo compare``."""

    model: Path
    """Folder of a saved model."""
    data: Path
    """A file of points, in the units of the data."""
    to: Path | None = None
    """A file of as many points: pairs are made of the same rows. By default, all pairs among the points of --data."""
    n: int = 20
    """How many points of a file to take, at random, if it has more."""
    metric: tuple[Kind, ...] = ()
    """Metrics of the score, one distance for each; by default the one kept with the model. `scoregeo
    distance --help` describes them."""
    sigma: float | None = None
    """Noise level of the score; by default the one kept with the model."""
    ratio: tuple[float, ...] = ()
    """How many times as much each metric costs off the data as on them, in squared lengths: one distance for each
    number. For another --metric than the kept one 100 by default."""
    strength: tuple[float, ...] = ()
    """The strengths themselves, in place of --ratio."""
    log_snr: float | None = None
    """Also the diffusion edit distance of the model, with noise of this log signal-to-noise ratio at both ends."""
    covariances: Path | None = None
    """A .npy file (n, d, d): also distances of the normal distributions with the points of --data as means and these
    covariances, in the units of the data."""
    to_covariances: Path | None = None
    """The same for the points of --to."""
    out: Path | None = None
    """A .csv, .parquet or .npz file for the distances and the status of every pair, with the rows of the files, counted
    from 0."""
    picture: Path | None = None
    """A .png, .pdf or .svg file: correlations, distances against each other, and in the plane the geodesics that bend
    most."""
    seed: int = 0
    """Seed of the points drawn, and of the intervals."""
    reading: PointsOptions = PointsOptions()

    examples: ClassVar = (
        "--model model --data points.csv",
        "--model model --data points.csv --metric stein power score-jacobian --ratio 100 --picture distances.png",
        "--model model --data points.csv --metric stein --strength 0.1 1 10 --out distances.csv",
    )

    def run(self, report: Report) -> None:
        """Print, write and draw the comparison; raises `CommandError` at the end if some solve failed."""
        model = load_model(self.model, report)
        check_output("out", self.out, (".csv", ".parquet", ".npz"))
        check_output("picture", self.picture, PICTURES)
        geometries = _geometries(self, model, report)
        with double_precision():
            rows, sides = _sides(self, model, report)
            xs, ys = sides[0].points, sides[1].points if len(sides) > 1 else None
            of_score = {name: geometry.metric(model) for name, geometry in geometries.items()}
            metrics: dict[str, _Metric] = {"Euclidean": _euclidean}
            metrics |= {name: Entry(metric, solver=lengths_solver_for(metric)) for name, metric in of_score.items()}
            if self.log_snr is not None:
                metrics["spacetime"] = _spacetime(self.log_snr, model, sides)
            if self.covariances is not None:
                metrics |= _between_normals(model.dim, sides)
            settings = {"batch_size": max(1, _TOGETHER // model.dim), "progress": report.shows_progress}
            with report.first("distances"):
                result = compare(xs, ys, metrics=metrics, solver=LENGTHS, seed=self.seed, **settings)
            report.say(str(result))
            (sigma,) = {geometry.sigma for geometry in geometries.values()}
            report.say(f"lengths in {unit_of_length(model)}; the score is that at noise level {sigma:g}")
            table = _in_the_file(result, rows).table
            columns = {name: table[name] for name in table.dtype.names or ()}
            chosen = {name: geometry.about() for name, geometry in geometries.items()}
            report.keep(sigma=sigma, metrics=chosen, failed=result.failed, pairs=columns)
            # Drawn before anything is written: if that fails, nothing is left behind.
            figure = None
            if self.picture is not None:
                kept = training_points(model, self.model)
                background = xs if kept is None else jnp.asarray(kept)
                with report.busy("geodesics for the picture"):
                    figure = _picture(result, xs, xs if ys is None else ys, of_score, background)
            write_results(report, self.out, columns, array="Euclidean", columns=columns)
            write_picture(report, self.picture, figure)
        failed = sum(result.failed.values())
        if failed:
            advice = "see their status" if self.out is not None else "--out writes their status"
            total = len(metrics) * len(result.table)
            raise CommandError(f"{failed} of {total} distances could not be computed: {advice}")


class _Side(NamedTuple):
    """One end of every pair: points ``(n, d)`` in the coordinates of the model, and the normal distributions about
    them, if there are any, as parameters ``(n, p)`` of `MultivariateNormal`."""

    points: Points
    normals: Points | None


def _euclidean(x: Point, y: Point) -> Scalar:
    return jnp.linalg.norm(x - y)


def _geometries(arguments: Compare, model: DiffusionModel, report: Report) -> dict[str, Geometry]:
    """The metrics asked for, by the names of their distances: each --metric with each --ratio or --strength."""
    found: dict[str, Geometry] = {}
    if arguments.ratio and arguments.strength:
        raise ValueError("`--strength` and `--ratio` both say how strong the metric is: give one of them")
    strong = [(r, None) for r in arguments.ratio] or [(None, s) for s in arguments.strength] or [(None, None)]
    for kind in arguments.metric or (None,):
        for ratio, strength in strong:
            options = MetricOptions(kind=kind, sigma=arguments.sigma, ratio=ratio, strength=strength)
            geometry = options.of(arguments.model, model, report)
            name = f"{_NAMES[geometry.kind]} " + (f"{geometry.strength:g}" if ratio is None else f"ratio {ratio:g}")
            if name in found:
                raise ValueError(f"the metrics to compare must be different, but {name} is given twice")
            found[name] = geometry
    return found


def _sides(arguments: Compare, model: DiffusionModel, report: Report) -> tuple[np.ndarray, list[_Side]]:
    """Which rows are taken, and what the files of --data and, if it is given, --to hold in them."""
    if arguments.to is None and arguments.to_covariances is not None:
        raise ValueError("`--to-covariances` must come with `--to`")
    if arguments.to is not None and (arguments.covariances is None) != (arguments.to_covariances is None):
        raise ValueError("`--covariances` and `--to-covariances` must both be given with `--to`, or neither")
    files = [path for path in (arguments.data, arguments.to) if path is not None]
    found = [
        arguments.reading.rows_for(model, path, report, name) for path, name in zip(files, ("data", "to"), strict=False)
    ]
    n, kept, total = len(found[0].points), found[0].rows, found[0].total
    if found[-1].total != total:
        raise ValueError(f"`--to` must have as many points as `--data`, {total}, got {found[-1].total}")
    if not np.array_equal(found[-1].rows, kept):
        raise ValueError("`--drop` must leave out the same rows of `--to` as of `--data`, but it does not")
    if n < 3:
        raise ValueError(f"`--data` must have at least 3 points, got {n}")
    if arguments.n < 3:
        raise ValueError(f"`--n` must be at least 3, got {arguments.n}")
    rows = some_rows(n, arguments.n, arguments.seed, report)
    options = {"--covariances": arguments.covariances, "--to-covariances": arguments.to_covariances}
    sides = []
    for side, (option, path) in zip([part.points for part in found], options.items(), strict=False):
        means = jnp.asarray(side, jnp.float64)[rows]
        covs = None if path is None else _covariances(model, total, path, option)[kept[rows]]
        sides.append(_Side(means, None if covs is None else _pack(means, covs)))
    return kept[rows], sides


def _in_the_file(result: Comparison, rows: np.ndarray) -> Comparison:
    """``result`` with the rows of the file in its table, in place of places among the ``rows`` that were taken."""
    table = result.table.copy()
    for end in ("first", "second"):
        table[end] = rows[table[end]]
    return dataclasses.replace(result, table=table)


def _covariances(model: DiffusionModel, n: int, path: Path, option: str) -> np.ndarray:
    """The covariances of a file, ``(n, d, d)``, in the coordinates of the model."""
    try:
        found = read_points(path)
    except ValueError as error:
        raise ValueError(f"`{option}`: {error}") from error
    except OSError as error:
        raise OSError(f"`{option}`: {error}") from error
    units = model.standardization
    flat, shape = found.points, found.image_shape
    d = model.dim if units is None else units.mean.size
    if shape != (d, d) or len(flat) != n:
        got = (len(flat), *(flat.shape[1:] if shape is None else shape))
        raise ValueError(f"`{option}` must hold an array of shape ({n}, {d}, {d}), got {got}")
    covs = flat.reshape(n, d, d)
    transposed = covs.swapaxes(1, 2)
    # Many files hold float32, so what they call symmetric is symmetric to the rounding of float32.
    skew = np.abs(covs - transposed).max((1, 2)) > 1e-4 * np.abs(covs).max((1, 2))
    covs = (covs + transposed) / 2
    bad = skew | (np.linalg.eigvalsh(covs)[:, 0] <= 0)
    if bad.any():
        row = int(np.argmax(bad))
        problem = "is not symmetric" if skew[row] else f"has the eigenvalue {np.linalg.eigvalsh(covs[row])[0]:.3g}"
        raise ValueError(f"`{option}` must hold positive definite matrices, but that of row {row} {problem}")
    if units is not None and units.axes is not None:
        covs = np.asarray(units.axes, np.float64) @ covs @ np.asarray(units.axes, np.float64).T
    if units is not None:
        scale = np.broadcast_to(np.asarray(units.scale, np.float64), (model.dim,))
        covs = covs / np.outer(scale, scale)
    return covs


def _pack(means: Points, covs: np.ndarray) -> Points:
    """The parameters ``(n, p)`` of `MultivariateNormal` for ``means`` ``(n, d)`` and ``covs`` ``(n, d, d)``."""
    family = MultivariateNormal(means.shape[1])
    return jnp.stack([family.pack(mean, cov) for mean, cov in zip(means, covs, strict=True)])


def _spacetime(log_snr: float, model: DiffusionModel, sides: list[_Side]) -> Entry:
    """The diffusion edit distance (see `diffusion_edit_distance`), with a status for each pair."""
    metric = SpacetimeMetric(model)
    if not metric.domain(jnp.append(jnp.zeros(model.dim), log_snr)) > 0:
        low, high = (float(end) for end in metric.log_snr_range(jnp.float64))
        raise ValueError(f"`--log-snr` must be in the range of the model, {low:.4g} to {high:.4g}, got {log_snr:g}")
    ends = [jax.vmap(lambda x: metric.point(x, log_snr))(side.points) for side in sides]
    xs, ys = ends[0], ends[1] if len(ends) > 1 else None
    return Entry(metric, xs, ys, solver=SpacetimeDescent(), init=FlatPriorStart())


def _between_normals(dim: int, sides: list[_Side]) -> dict[str, Entry]:
    """The distances of the normal distributions in ``sides``, by name."""
    family = MultivariateNormal(dim)
    xs, ys = sides[0].normals, sides[1].normals if len(sides) > 1 else None

    def of(function):
        return Entry(lambda a, b: function(*family.unpack(a), *family.unpack(b)), xs, ys)

    return {
        "Fisher-Rao": Entry(FisherRaoMetric(family), xs, ys, solver=FibreSolver()),
        "sqrt Jeffreys": of(sqrt_jeffreys),
        "Hellinger": of(hellinger),
        "Wasserstein": of(wasserstein),
    }


def _picture(result: Comparison, xs: Points, ys: Points, metrics: dict[str, AbstractMetric], background: Points) -> Any:
    """Correlations and a scatter plot; in the plane also the geodesics that are longest for their straight line."""
    from ...plotting import comparison_figure

    name, metric = list(metrics.items())[-1]
    if xs.shape[1] != 2:
        return comparison_figure(result, scatter=("Euclidean", name))
    straight, ratio = result.table["Euclidean"], np.full(len(result.table), -np.inf)
    np.divide(result.table[name], straight, out=ratio, where=result.complete & (straight > 0))
    most = [row for row in np.argsort(-ratio)[:_DRAWN] if np.isfinite(ratio[row])]
    ends = [(xs[result.table["first"][row]], ys[result.table["second"][row]]) for row in most]
    solved = [jax.block_until_ready(geodesic(metric, x, y, solver=solver_for(metric), throw=False)) for x, y in ends]
    paths = [path for path in solved if bool(path.result == RESULTS.successful)]
    return comparison_figure(result, paths=paths, points=background, scatter=("Euclidean", name))
