"""Several distances between the same pairs, side by side: which agree, how much, and how surely.

Distances in data space (Euclidean, Stein) and between distributions (Fisher-Rao, Wasserstein, ...) have different units
and often different points: the question is not which number is larger but whether they order the pairs in the same way
(Spearman), whether they are proportional (Pearson), and whether points have the same nearest neighbours.

Intervals are percentile intervals of a bootstrap (Efron 1979). Where the pairs are all pairs among n points, they share
points and are not independent: points are resampled, not pairs, and a point is never paired with its own copy. A few
pairs do not show how much they vary. Of 200 intervals of 95% each, for distances along two correlated normal
coordinates, so many held the true linear and rank correlation: 3 pairs 65%, 65%; 10 pairs 88%, 98%; 30 pairs 89%, 94%;
all pairs among 4 points 75%, 88%; among 5 points 97%, 99%; among 20 points 92%, 94%.
"""

import csv
import dataclasses
import io
import operator
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from scipy import stats

from .._atomic import replacing
from .._checks import as_arrays, as_points, check_count
from .._display import beside, captioned, grid, points_svg
from .._results import RESULTS
from .._types import Points, Scalar
from ..geodesics import AbstractBoundarySolver, AbstractStart, geodesic
from ..geodesics.checks import check_metric
from ..metrics import AbstractMetric
from ..operations import pairwise_dist
from .tables import Table, rich_table

# How many geodesics are solved side by side where pairs are given one by one.
_BATCH = 256
# The width of a printed comparison, which no table reaches.
_PAGE = 10_000
# Given pairs, or points, below which a bootstrap interval is no interval (see above).
_FEWEST_PAIRS, _FEWEST_POINTS = 10, 5


@dataclasses.dataclass(frozen=True)
class Entry:
    """One distance of `compare`, with settings of its own.

    **Arguments**

    - ``distance``: a metric, or a function ``(x, y) -> scalar`` that JAX can trace.
    - ``xs``, ``ys``: its own points where these are not those of the other distances (the parameters of distributions,
      say): as in `compare`, and as many.
    - ``solver``: for a metric; default that of `compare`. ``init``: the rule that gives each of its solves a curve to
      start from; default `StraightLine`.
    """

    distance: AbstractMetric | Callable[[Any, Any], Scalar]
    xs: PyTree[Array | np.ndarray] | None = None
    ys: PyTree[Array | np.ndarray] | None = None
    solver: AbstractBoundarySolver | None = None
    init: AbstractStart | None = None


@dataclasses.dataclass(frozen=True)
class Correlations:
    """Correlation coefficients between distances, ``(k, k)``, and their bootstrap interval from ``low`` to ``high``,
    NaN where there are too few pairs for one."""

    values: Float[np.ndarray, "k k"]
    low: Float[np.ndarray, "k k"]
    high: Float[np.ndarray, "k k"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found; ``print`` shows it.

    **Fields**

    - ``names``: the names of the k distances.
    - ``table``: a structured array, one row for each pair: ``first`` and ``second``, the indices of its points; for
      each distance its value under its name (NaN where it could not be computed) and ``<name> status``: ``"ok"``, or
      why not.
    - ``spearman``, ``pearson``: rank and linear correlations, over the pairs of which every distance is known.
    - ``nearest``: for each two distances the fraction of points that have the same nearest neighbour, ``(k, k)``; by
      pairs of which every distance is known. ``None`` unless all pairs among the points were compared.
    - ``level``: the coverage of the intervals.
    """

    names: tuple[str, ...]
    table: np.ndarray
    spearman: Correlations
    pearson: Correlations
    nearest: Float[np.ndarray, "k k"] | None
    level: float

    @property
    def complete(self) -> np.ndarray:
        """For each pair whether every distance is known, ``(m,)``: the correlations are over these pairs."""
        return np.all(np.isfinite(np.stack([self.table[name] for name in self.names])), axis=0)

    @property
    def failed(self) -> dict[str, int]:
        """How many pairs each distance could not be computed for."""
        return {name: int((self.table[f"{name} status"] != "ok").sum()) for name in self.names}

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write the table; the file is either whole or not there. Raises ``FileNotFoundError`` if its folder is not."""
        path = pathlib.Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"`path` must be in a folder that exists, got {path}")
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.table.dtype.names or ())
            writer.writerows(self.table.tolist())

    def _tables(self) -> tuple[Table, Table, str]:
        """What each distance is, how each two of them agree, and a caption for both."""
        sizes = []
        for name, failed in self.failed.items():
            known = self.table[name][np.isfinite(self.table[name])]
            numbers = np.quantile(known, [0, 0.5, 1]) if known.size else np.full(3, np.nan)
            sizes.append([name, str(len(self.table)), str(failed), *(f"{x:.4g}" for x in numbers)])
        agreement = []
        for i, j in zip(*np.tril_indices(len(self.names), -1), strict=True):
            both = self.spearman, self.pearson
            spans = [f"{c.values[i, j]:6.3f} [{c.low[i, j]:6.3f},{c.high[i, j]:6.3f}]" for c in both]
            same = [] if self.nearest is None else [f"{self.nearest[i, j]:.0%}"]
            agreement.append([f"{self.names[j]}, {self.names[i]}", *spans, *same])
        headings = ["correlations", "rank (Spearman)", "linear (Pearson)", "same nearest neighbour"]
        counts = f"over {int(self.complete.sum())} of {len(self.table)} pairs"
        return (
            (["distance", "pairs", "failed", "smallest", "median", "largest"], sizes),
            (headings if self.nearest is not None else headings[:3], agreement),
            f"{counts}; in brackets {100 * self.level:g}% bootstrap intervals",
        )

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        sizes, agreement, caption = self._tables()
        return Group(rich_table(*sizes), "", rich_table(*agreement), Text(caption))

    def _repr_html_(self) -> str:
        sizes, agreement, caption = self._tables()
        what, both = " over ".join(self.names[1::-1]), [self.table[name] for name in self.names[:2]]
        picture = captioned(points_svg(np.stack(both, 1), what), what) if len(both) > 1 else ""
        return beside(grid("Distances", *sizes), picture) + grid("Agreement", *agreement, caption)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        console = Console(file=text, width=_PAGE, color_system=None, force_jupyter=False)
        console.print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def compare(
    xs: PyTree[Array | np.ndarray],
    ys: PyTree[Array | np.ndarray] | None = None,
    *,
    metrics: Mapping[str, AbstractMetric | Callable[[Any, Any], Scalar] | Entry],
    solver: AbstractBoundarySolver | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> Comparison:
    """Distances of the same pairs under several metrics, and how they agree.

    **Arguments**

    - ``xs``, ``ys``: points ``(n, d)``; the pairs are ``(xs[i], ys[i])``, or without ``ys`` all pairs among ``xs``. For
      distances that are functions, any pytrees of arrays with a leading axis of length n.
    - ``metrics``: from names to metrics (geodesic distances, solved side by side), functions ``(x, y) -> distance``,
      or an `Entry` where one needs other points or another solver. Families of distributions are metrics too, with
      their parameters as points: ``Entry(FisherRaoMetric(MultivariateNormal(d)), thetas)``.
    - ``solver``: for the metrics; default that of `scoregeo.dist`.
    - ``resamples``: how many resamples the bootstrap takes; 0 for no intervals (NaN). ``seed``: a number that its
      random numbers follow from.
    - ``level``: the nominal coverage of its intervals. With few pairs they cover less: those of 95% covered 88% with 10
      given pairs, 92% with all pairs among 20 points. Below 10 given pairs (3 pairs: 65%), or 5 points (4 points: 75%),
      there are none: they are NaN.
    - ``batch_size``: how many geodesics are solved side by side; see `scoregeo.pairwise_dist`.
    - ``progress``: show a progress bar for all pairs of a metric.

    **Returns** a `Comparison`. The geodesic of a metric that cannot be solved raises nothing: its pair has a NaN and a
    status, is counted, and left out of the correlations of all distances, which so stay those of the same pairs. So it
    is with a function, where its value is not finite, or where it raises ``RuntimeError`` while it runs; then it is
    called again pair by pair, slowly, to see where. What it raises otherwise (``TypeError``, say) is raised here.

    Raises ``ValueError`` for numbers of points that do not agree, fewer than three pairs or two metrics.

    >>> import jax, jax.numpy as jnp
    >>> from scoregeo.comparison import compare
    >>> xs = jax.random.normal(jax.random.key(0), (6, 2))
    >>> taxi = lambda x, y: jnp.sum(jnp.abs(x - y))
    >>> result = compare(xs, metrics={"straight": lambda x, y: jnp.linalg.norm(x - y), "taxi": taxi})
    >>> result.table.dtype.names
    ('first', 'second', 'straight', 'straight status', 'taxi', 'taxi status')
    >>> bool(result.spearman.low[0, 1] <= result.spearman.values[0, 1] <= result.spearman.high[0, 1])
    True
    """
    entries = _check(metrics, xs, ys, solver)
    check_count("resamples", resamples, 0)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, got {level!r}")
    n = _length(xs, "xs")
    rows, columns = np.triu_indices(n, 1) if ys is None else (np.arange(n), np.arange(n))
    if len(rows) < 3:
        raise ValueError(f"`xs` must make at least 3 pairs, got {len(rows)} of {n} points")
    distances, statuses = {}, {}
    for name, entry in entries.items():
        if isinstance(entry.distance, AbstractMetric):
            distances[name], statuses[name] = _solved(name, entry, rows, columns, batch_size, progress)
        else:
            distances[name], statuses[name] = _computed(name, entry, rows, columns)
    return _summary(distances, statuses, rows, columns, ys is None, resamples, level, seed)


def _check(metrics, xs, ys, solver) -> dict[str, Entry]:
    """Every distance as an `Entry` with points and a solver."""
    if not isinstance(metrics, Mapping) or len(metrics) < 2:
        raise ValueError("`metrics` must be a dictionary from at least two names to metrics or functions")
    entries = {}
    for name, value in metrics.items():
        entry = value if isinstance(value, Entry) else Entry(value)
        where = f"metrics[{name!r}]"
        if not isinstance(name, str) or not name or name in ("first", "second") or name.endswith(" status"):
            raise ValueError(f"`metrics` must have names that are free columns of a table, got {name!r}")
        if not (isinstance(entry.distance, AbstractMetric) or callable(entry.distance)):
            got = type(entry.distance).__name__
            raise TypeError(f"`{where}` must be a metric or a function (x, y) -> distance, got {got}")
        if not (entry.init is None or isinstance(entry.init, AbstractStart)):
            got = type(entry.init).__name__
            raise TypeError(f"`init` of `{where}` must be a starting rule such as StraightLine(), got {got}")
        own = entry.xs is not None
        if (own or entry.ys is not None) and (not own or (entry.ys is None) != (ys is None)):
            raise ValueError(f"`{where}` must have `xs` and `ys` if `compare` has both, and `xs` alone otherwise")
        points = (entry.xs, entry.ys) if own else (xs, ys)
        for side, label in zip(points, ("xs", "ys"), strict=True):
            if side is not None and _length(side, label) != _length(xs, "xs"):
                expected, got = _length(xs, "xs"), _length(side, label)
                raise ValueError(f"`{label}` of `{where}` must have {expected} points, as `xs` of `compare`, got {got}")
        entries[name] = Entry(entry.distance, *points, solver if entry.solver is None else entry.solver, entry.init)
    return entries


def _length(points: Any, name: str) -> int:
    """The number of points: the common length of the leading axes."""
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(points)}
    if () in lengths:
        raise ValueError(
            f"`{name}` must be an array, or a pytree of arrays, with points along the leading axis; got "
            f"{type(points).__name__} of single numbers: make it an array"
        )
    if len(lengths) != 1:
        raise ValueError(f"`{name}` must be arrays with one leading axis in common, got lengths {sorted(lengths)}")
    return lengths.pop()[0]


def _solved(name, entry, rows, columns, batch_size, progress) -> tuple[np.ndarray, np.ndarray]:
    """Geodesic distances, NaN where a solve failed, and how each solve ended."""
    xs = as_points(entry.xs, f"xs` of `{name}")
    if entry.ys is None:
        settings = {"solver": entry.solver, "init": entry.init, "batch_size": batch_size, "progress": progress}
        lengths, results = pairwise_dist(entry.distance, xs, **settings)
        lengths, results = lengths[rows, columns], jax.tree.map(lambda code: code[rows, columns], results)
    else:
        ys = as_points(entry.ys, f"ys` of `{name}", dim=xs.shape[1])
        check_metric(entry.distance, xs[0])
        size = min(len(xs), _BATCH if batch_size is None else batch_size)
        # The last batch is filled up with pairs, so that every batch is the same program.
        index = np.resize(np.arange(len(xs)), (-(-len(xs) // size), size))
        parts = [_solve_batch(entry.distance, entry.solver, entry.init, xs[i], ys[i]) for i in index]
        lengths, results = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(xs)], *parts)
    status = np.array(["ok" if not text else text.split(". ")[0] for text in _texts(results)])
    lengths = np.where(status == "ok", np.asarray(lengths, np.float64), np.nan)
    return lengths, status


@eqx.filter_jit
def _solve_batch(metric: AbstractMetric, solver: Any, init: AbstractStart | None, xs: Points, ys: Points):
    settings = {"solver": solver, "init": init, "ts": (0.0, 1.0), "throw": False}
    paths = jax.vmap(lambda x, y: geodesic(metric, x, y, **settings))(xs, ys)
    return paths.length, paths.result


def _texts(results: RESULTS) -> list[str]:
    """The advice of each of a batch of result codes; empty for success."""
    codes = [jax.tree.map(operator.itemgetter(i), results) for i in range(len(results != RESULTS.successful))]
    return [RESULTS[code] for code in codes]


def _computed(name, entry, rows, columns) -> tuple[np.ndarray, np.ndarray]:
    """Values of a function, NaN where they are not finite or it raised, and which of these it was."""
    points = (entry.xs, rows), (entry.xs if entry.ys is None else entry.ys, columns)
    xs, ys = (_take(as_arrays(side, f"points of {name}"), index) for side, index in points)
    function, raised = eqx.filter_jit(eqx.filter_vmap(entry.distance)), {}
    try:
        values = np.asarray(function(xs, ys), np.float64)
    except RuntimeError:
        # One pair that raises takes the whole batch with it.
        parts = []
        for i in range(len(rows)):
            try:
                parts.append(np.asarray(function(*(_take(side, slice(i, i + 1)) for side in (xs, ys))), np.float64))
            except RuntimeError as error:
                raised[i] = f"raised {type(error).__name__}"
                parts.append(np.full(1, np.nan))
        values = np.concatenate(parts)
    if values.shape != rows.shape:
        raise ValueError(f"`metrics[{name!r}]` must return a scalar, got shape {values.shape[1:]}")
    values = np.where(np.isfinite(values), values, np.nan)
    return values, np.array([raised.get(i, "not finite" if np.isnan(v) else "ok") for i, v in enumerate(values)])


def _take(points: PyTree[Array | np.ndarray], index: np.ndarray | slice) -> PyTree[Array | np.ndarray]:
    return jax.tree.map(lambda leaf: leaf[index], points)


def _summary(distances, statuses, rows, columns, all_pairs, resamples, level, seed) -> Comparison:
    dtype = [("first", np.int64), ("second", np.int64)]
    for name, status in statuses.items():
        dtype += [(name, np.float64), (f"{name} status", status.dtype)]
    table = np.empty(len(rows), dtype)
    table["first"], table["second"] = rows, columns
    for name in distances:
        table[name], table[f"{name} status"] = distances[name], statuses[name]
    values = np.stack(list(distances.values()), -1)
    known = np.isfinite(values).all(-1)
    values, rows, columns = values[known], rows[known], columns[known]
    spearman, pearson = _intervals(values, rows, columns, all_pairs, resamples, level, seed)
    nearest = _nearest(values, rows, columns) if all_pairs else None
    return Comparison(tuple(distances), table, spearman, pearson, nearest, level)


def _intervals(values, rows, columns, all_pairs, resamples, level, seed) -> list[Correlations]:
    """Spearman's and Pearson's correlations of the columns of ``values``, with bootstrap intervals."""
    found = np.stack([_correlation(stats.rankdata(values, axis=0)), _correlation(values)])
    random = np.random.default_rng(seed)
    pairs, points = np.arange(len(values)), np.unique([rows, columns])
    drawn = np.full((resamples, *found.shape), np.nan)
    enough = len(points) >= _FEWEST_POINTS if all_pairs else len(pairs) >= _FEWEST_PAIRS
    for i in range(resamples if enough else 0):
        if all_pairs:
            # A pair is drawn as often as both of its points together; a point with its own copy is no pair.
            counts = np.bincount(random.choice(points, len(points)), minlength=points[-1] + 1)
            index = np.repeat(pairs, counts[rows] * counts[columns])
        else:
            index = random.choice(pairs, len(pairs))
        sample = values[index]
        drawn[i] = _correlation(stats.rankdata(sample, axis=0)), _correlation(sample)
    low, high = (_quantile(drawn, q) for q in ((1 - level) / 2, (1 + level) / 2))
    return [Correlations(*parts) for parts in zip(found, low, high, strict=True)]


def _correlation(values: np.ndarray) -> np.ndarray:
    """Pearson's correlations of the columns, NaN where one is constant (or fewer than two rows are there)."""
    if len(values) < 2:
        return np.full((values.shape[1],) * 2, np.nan)
    centred = values - values.mean(0)
    spread = np.sqrt(np.sum(centred**2, 0))
    varies = spread > 1e-12 * np.abs(values).max(0)
    units = np.where(varies, centred / np.where(varies, spread, 1), np.nan)
    return np.clip(units.T @ units, -1, 1)


def _quantile(drawn: np.ndarray, q: float) -> np.ndarray:
    """Quantiles over resamples, of those in which the correlation is defined; NaN where it never is."""
    defined = np.isfinite(drawn)
    result = np.full(drawn.shape[1:], np.nan)
    for index in np.ndindex(result.shape):
        column = drawn[:, *index][defined[:, *index]]
        if column.size:
            result[index] = np.quantile(column, q)
    return result


def _nearest(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The fraction of points whose nearest neighbour is the same one, for each two columns of ``values``."""
    points, k = np.unique([rows, columns]), values.shape[1]
    if not points.size:
        return np.full((k, k), np.nan)
    matrices = np.full((k, points[-1] + 1, points[-1] + 1), np.inf)
    matrices[:, rows, columns] = matrices[:, columns, rows] = values.T
    neighbours = matrices.argmin(-1)[:, points]
    return np.mean(neighbours[:, None] == neighbours[None], -1)
