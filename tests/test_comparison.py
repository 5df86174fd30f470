"""Comparison of distances: the numbers are those of SciPy and of closed forms, failures are counted and left out."""

import csv
import io
import itertools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import three_modes
from rich.console import Console
from scipy import stats

from scoregeo import Bend, SpectralNewton, comparison, fisher_rao, models
from scoregeo.comparison import Entry, compare
from scoregeo.comparison.distances import _intervals
from scoregeo.fisher_rao import ClosedForm, FisherRaoMetric, Normal

SOLVER = SpectralNewton(rtol=1e-6, path_rtol=1.0)
HALF_SPACE = models.HyperbolicHalfSpace()


def euclidean(x, y):
    return jnp.linalg.norm(x - y)


def points(n, seed=0):
    random = np.random.default_rng(seed)
    return np.stack([random.normal(size=n), random.uniform(0.5, 2.0, n)], -1)


@pytest.fixture(scope="module")
def among_points():
    """Seven points in the half-plane, one of them outside of the domain of the metric."""
    xs = np.concatenate([points(6), [[0.3, -1.0]]])
    thetas = np.abs(xs)
    metrics = {
        "straight": euclidean,
        "half-plane": HALF_SPACE,
        "Fisher-Rao": Entry(Normal().dist, thetas),
    }
    return xs, compare(xs, metrics=metrics, solver=SOLVER, resamples=200)


@pytest.mark.slow
def test_all_pairs(among_points, tmp_path):
    xs, result = among_points
    table = result.table
    pairs = list(itertools.combinations(range(7), 2))
    assert list(zip(table["first"].tolist(), table["second"].tolist(), strict=True)) == pairs
    known = np.array([6 not in pair for pair in pairs])
    np.testing.assert_array_equal(result.complete, known)
    assert result.failed == {"straight": 0, "half-plane": 6, "Fisher-Rao": 0}
    np.testing.assert_array_equal(np.isnan(table["half-plane"]), ~known)
    assert set(table["half-plane status"][known]) == {"ok"}
    assert table["half-plane status"][5].startswith("An end point lies outside the domain")
    for row, (i, j) in zip(table, pairs, strict=True):
        np.testing.assert_allclose(row["straight"], np.linalg.norm(xs[i] - xs[j]))
        if 6 not in (i, j):
            np.testing.assert_allclose(row["half-plane"], HALF_SPACE.closed_dist(xs[i], xs[j]), rtol=1e-6)
        a, b = (Normal().pack(*np.abs(x)) for x in (xs[i], xs[j]))
        np.testing.assert_allclose(row["Fisher-Rao"], Normal().dist(a, b), rtol=1e-10)

    # Over the same pairs for all, whichever of them failed.
    values = np.stack([table[name][known] for name in result.names])
    np.testing.assert_allclose(result.pearson.values, np.corrcoef(values), rtol=1e-12)
    np.testing.assert_allclose(result.spearman.values, stats.spearmanr(values.T).statistic, rtol=1e-12)
    for correlations in (result.spearman, result.pearson):
        assert (correlations.low <= correlations.values + 1e-12).all()
        assert (correlations.values <= correlations.high + 1e-12).all()
        np.testing.assert_allclose(np.diagonal(correlations.low), 1)

    matrices = np.full((3, 6, 6), np.inf)
    for (i, j), column in zip(np.array(pairs)[known], values.T, strict=True):
        matrices[:, i, j] = matrices[:, j, i] = column
    nearest = matrices.argmin(-1)
    for i, j in itertools.product(range(3), range(3)):
        assert result.nearest[i, j] == np.mean(nearest[i] == nearest[j])

    with pytest.raises(FileNotFoundError, match=r"must be in a folder that exists, got .*/nowhere/table\.csv"):
        result.to_csv(tmp_path / "nowhere" / "table.csv")
    result.to_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["Fisher-Rao"]) for row in rows] == table["Fisher-Rao"].tolist()
    assert [row["half-plane status"] for row in rows] == table["half-plane status"].tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]

    text = str(result)
    assert re.search(r"^half-plane +21 +6 ", text, re.MULTILINE)
    assert re.search(rf"^straight, half-plane +{result.spearman.values[0, 1]:.3f} \[", text, re.MULTILINE)
    assert "over 15 of 21 pairs; in brackets 95% bootstrap intervals" in text
    console = Console(file=io.StringIO(), width=200)
    console.print(result)
    assert [line.split() for line in console.file.getvalue().splitlines()] == [
        line.split() for line in text.split("\n")
    ]


def test_names_are_printed_as_they_are():
    """Not as markup of rich; and a narrow page folds cells rather than cutting them."""
    metrics = {"[red]straight[/red]": euclidean, "taxi": lambda x, y: jnp.sum(jnp.abs(x - y))}
    result = compare(points(5), metrics=metrics, resamples=20)
    assert "[red]straight[/red], taxi" in str(result)
    console = Console(file=io.StringIO(), width=60)
    console.print(result)
    assert "\u2026" not in console.file.getvalue()


def test_old_place():
    """What stood in `scoregeo.fisher_rao` in 0.1.0 is still found there, with a warning that names the new place."""
    for name in ("Comparison", "Correlations", "Entry", "compare"):
        with pytest.warns(DeprecationWarning, match=f"{name} has moved: import it from scoregeo.comparison"):
            assert getattr(fisher_rao, name) is getattr(comparison, name)
    with pytest.warns(DeprecationWarning, match="scoregeo.comparison"):
        exec("from scoregeo.fisher_rao import compare", {})
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fisher_rao.nothing


def test_given_pairs():
    """More pairs than a batch holds, each with parameters of its own; a function of pytrees; a failed pair."""
    xs, ys = points(7), points(7, seed=1)
    ys[4, 1] = -1.0
    trees = [{"place": side[:, :1], "size": side[:, 1]} for side in (xs, ys)]

    def on_trees(x, y):
        return jnp.abs(x["place"][0] - y["place"][0]) + jnp.abs(jnp.log(x["size"] / jnp.abs(y["size"])))

    metrics = {"normal": Entry(FisherRaoMetric(Normal()), solver=ClosedForm()), "trees": Entry(on_trees, *trees)}
    result = compare(xs, ys, metrics=metrics, resamples=0, batch_size=4)
    good = np.arange(7) != 4
    scale = np.array([np.sqrt(2), 1.0])
    closed = np.sqrt(2) * jax.vmap(HALF_SPACE.closed_dist)(xs / scale, ys / scale)
    np.testing.assert_allclose(result.table["normal"][good], closed[good], rtol=1e-10)
    expected = np.abs(xs[:, 0] - ys[:, 0]) + np.abs(np.log(xs[:, 1] / np.abs(ys[:, 1])))
    np.testing.assert_allclose(result.table["trees"], expected, rtol=1e-12)
    assert result.failed == {"normal": 1, "trees": 0}
    assert result.table["normal status"][4].startswith("An end point lies outside the domain")
    np.testing.assert_array_equal(result.complete, good)
    assert result.nearest is None
    assert np.isnan(result.pearson.low).all()
    np.testing.assert_array_equal(result.table["first"], result.table["second"])


def test_intervals_cover_what_they_say():
    """Independent pairs of correlation 0.6: the interval holds it in about 19 of 20 samples."""
    random, covered = np.random.default_rng(0), []
    rho = 0.6
    exact = np.array([6 / np.pi * np.arcsin(rho / 2), rho])  # of ranks, of values
    n, index = 60, np.arange(60)
    for seed in range(100):
        values = random.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
        spans = _intervals(values, index, index, False, 100, 0.95, seed)
        covered.append([span.low[0, 1] <= truth <= span.high[0, 1] for span, truth in zip(spans, exact, strict=True)])
    assert (np.abs(np.mean(covered, 0) - 0.93) < 0.06).all(), np.mean(covered, 0)


def test_no_intervals_of_few_pairs():
    xs, ys = points(10), points(10, seed=1)
    metrics = {"straight": euclidean, "taxi": lambda x, y: jnp.sum(jnp.abs(x - y))}
    for sides, known in (((xs, ys), True), ((xs[:9], ys[:9]), False), ((xs[:5],), True), ((xs[:4],), False)):
        result = compare(*sides, metrics=metrics, resamples=20)
        for correlations in (result.pearson, result.spearman):
            assert np.isfinite(correlations.values).all()
            assert (np.isfinite([correlations.low, correlations.high]) == known).all()
        assert ("[   nan,   nan]" in str(result)) != known


def test_pairs_that_share_points_know_less():
    """All pairs among n points: the correlation of distances varies between samples as its interval says, which
    resampling pairs as if they were independent would not."""
    n, rows, columns = 12, *np.triu_indices(12, 1)
    found, wide, narrow = [], [], []
    for seed in range(60):
        xs = np.random.default_rng(seed).standard_t(4, size=(n, 2))
        differences = xs[rows] - xs[columns]
        values = np.stack([np.abs(differences[:, 0]), np.linalg.norm(differences, axis=1)], -1)
        for all_pairs, widths in ((True, wide), (False, narrow)):
            _, pearson = _intervals(values, rows, columns, all_pairs, 50, 0.9, seed)
            widths.append(pearson.high[0, 1] - pearson.low[0, 1])
        found.append(pearson.values[0, 1])
    low, high = np.quantile(found, [0.05, 0.95])
    assert np.mean(narrow) < 0.7 * (high - low)
    assert 0.7 * (high - low) < np.mean(wide) < 1.5 * (high - low)


def test_degenerate_values():
    """A distance that is the same for all pairs has no correlations, and spoils no others; nor do pairs without any
    value."""
    xs = points(5)
    metrics = {"straight": euclidean, "twice": lambda x, y: 2 * euclidean(x, y), "one": lambda x, y: jnp.ones(())}
    result = compare(xs, metrics=metrics, resamples=20)
    np.testing.assert_allclose(result.pearson.values[:2, :2], 1)
    np.testing.assert_allclose(result.nearest[0, 1], 1)
    assert np.isnan(result.spearman.values[2]).all()
    nothing = compare(xs, metrics={"straight": euclidean, "nan": lambda x, y: x[0] * jnp.nan}, resamples=20)
    assert nothing.failed["nan"] == 10
    assert set(nothing.table["nan status"]) == {"not finite"}
    assert np.isnan(nothing.spearman.values).all()
    assert np.isnan(nothing.nearest).all()
    assert "over 0 of 10 pairs" in str(nothing)


def test_functions_that_raise_as_they_run():
    """One pair that raises is one failure, and the other distances are as they would be."""
    xs = points(5)

    def picky(x, y):
        far = euclidean(x, y)
        return eqx.error_if(far, (x[0] == xs[1, 0]) & (y[0] == xs[3, 0]), "never")

    result = compare(xs, metrics={"straight": euclidean, "picky": picky}, resamples=20, level=0.995)
    bad = (result.table["first"] == 1) & (result.table["second"] == 3)
    np.testing.assert_array_equal(result.complete, ~bad)
    assert result.table["picky status"][bad].tolist() == ["raised EquinoxRuntimeError"]
    np.testing.assert_allclose(result.table["picky"][~bad], result.table["straight"][~bad])
    assert np.isfinite(result.table["straight"]).all()
    assert "in brackets 99.5% bootstrap intervals" in str(result)
    with pytest.raises(TypeError, match="mine"):
        compare(xs, metrics={"straight": euclidean, "broken": raise_type_error})


@pytest.mark.slow
def test_starts():
    """Bent up by 3, the three-mode problem has a longer geodesic, among given pairs and among all."""
    metric = three_modes()
    xs, ys = np.array([[-1.5, 0.2], [-1.5, 0.25], [-1.45, 0.2]]), np.array([[1.4, -0.3], [1.4, -0.3], [1.45, -0.3]])
    solver = SpectralNewton(rtol=1e-2, path_rtol=1.0, max_elements=4)
    metrics = {"straight": metric, "bent": Entry(metric, init=Bend([0.0, 3.0]))}
    result = compare(xs, ys, metrics=metrics, solver=solver, resamples=0)
    assert abs(result.table["straight"][0] - 5.055) < 0.03
    assert abs(result.table["bent"][0] - 7.70) < 0.03
    assert (result.table["bent"] > result.table["straight"] + 2).all()
    among = compare(np.array([xs[0], ys[0], xs[1]]), metrics=metrics, solver=solver, resamples=0)
    np.testing.assert_allclose(among.table["bent"][0], result.table["bent"][0], rtol=1e-9)
    with pytest.raises(TypeError, match=r"`init` of `metrics\['bent'\]` must be a starting rule .*, got ndarray"):
        compare(xs, ys, metrics={"straight": euclidean, "bent": Entry(metric, init=xs)})


def raise_type_error(x, y):
    raise TypeError("mine")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metrics": {"a": euclidean}}, ValueError, "`metrics` must be a dictionary from at least two names"),
        ({"metrics": {"a": 3}}, TypeError, r"`metrics\['a'\]` must be a metric or a function .*, got int"),
        ({"metrics": {"first": euclidean}}, ValueError, "free columns of a table, got 'first'"),
        ({"metrics": {"a": Entry(euclidean, np.ones((4, 2)))}}, ValueError, "must have 5 points, .* got 4"),
        ({"metrics": {"a": Entry(euclidean, ys=np.ones((5, 2)))}}, ValueError, "must have `xs` and `ys` if"),
        ({"ys": np.ones((4, 2))}, ValueError, "`ys` of .* must have 5 points, .* got 4"),
        ({"xs": np.ones((2, 2))}, ValueError, "`xs` must make at least 3 pairs, got 1 of 2 points"),
        ({"xs": 3.0}, ValueError, "`xs` must be an array, or a pytree of arrays, .*; got float of single numbers"),
        ({"xs": [[0.0, 1.0]] * 4}, ValueError, "got list of single numbers: make it an array"),
        ({"xs": [np.ones((4, 2)), np.ones((3, 2))]}, ValueError, "`xs` must be arrays with one leading axis in common"),
        ({"metrics": {"a": lambda x, y: x - y}}, ValueError, r"must return a scalar, got shape \(2,\)"),
        ({"resamples": -1}, ValueError, "`resamples` must be an integer of at least 0, got -1"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer of at least 1, got 0"),
        ({"level": 95}, ValueError, "`level` must be between 0 and 1, got 95"),
    ],
)
def test_bad_arguments(arguments, error, message):
    metrics = arguments.get("metrics", {"a": euclidean})
    metrics = metrics if "at least two" in message else {"straight": euclidean, **metrics}
    with pytest.raises(error, match=message):
        compare(**{"xs": points(5), **arguments, "metrics": metrics})
