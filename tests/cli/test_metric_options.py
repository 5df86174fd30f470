"""The options --metric, --sigma, --ratio and --strength: what they choose, what is kept, and one line for mistakes."""

import json
import shutil
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import ConformalMetric, SteinMetric, cli, geodesic
from scoregeo.cli._families import FAMILIES, score_of
from scoregeo.cli._geometry import Geometry, double_precision, solver_for
from scoregeo.cli._metric import Kind, MetricOptions
from scoregeo.cli._report import Report
from scoregeo.diffusion import DiffusionModel
from scoregeo.metrics import contrast


@pytest.fixture(scope="module")
def model(tiny):
    return DiffusionModel.load(tiny / "model")


@pytest.fixture
def copy(tiny, tmp_path):
    """The folder of the model, to change."""
    return shutil.copytree(tiny / "model", tmp_path / "model")


def test_all_families_have_names():
    assert set(typing.get_args(Kind)) == set(FAMILIES)


def test_nothing_given_is_what_is_kept(tiny, model):
    kept = Geometry.load(tiny / "model")
    assert MetricOptions().of(tiny / "model", model, Report()) == kept
    assert isinstance(kept.metric(model), SteinMetric)
    assert str(kept) == f"sigma {kept.sigma:g}, strength {kept.strength:g}"


def costs(metric, points):
    """The least cost of a direction at the median of the points, and the largest at the 90th percentile between."""
    matrices = jax.jit(jax.vmap(lambda x: metric.at(x).matrix(2)))
    places = contrast(jnp.asarray(points))
    on, off = (np.linalg.eigvalsh(matrices(xs)) for xs in places)
    return np.median(on[:, 0]), np.percentile(off[:, -1], 90)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stein", "inverse-stein", "power", "score-norm"])
def test_the_ratio_is_what_leaving_the_data_costs(tiny, model, kind):
    """By the eigenvalues of the metric, whatever its formula."""
    found = MetricOptions(kind=kind, ratio=1.5).of(tiny / "model", model, Report())
    with double_precision():
        on, off = costs(found.metric(model), found.points)
    np.testing.assert_allclose(off / on, 1.5, rtol=0.02)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_strength_is_taken_as_it_is(tiny, model, kind):
    found = MetricOptions(kind=kind, strength=0.25, sigma=0.5).of(tiny / "model", model, Report())
    with double_precision():
        metric = found.metric(model)
        holder = metric.log_factor if isinstance(metric, ConformalMetric) else metric
        parts = [getattr(holder, name) for name in ("strength", "exponent", "weight") if hasattr(holder, name)]
        assert [float(part) for part in parts] == [0.25]
        expected = model.score_at(0.5)(jnp.ones(2))
        np.testing.assert_allclose(score_of(metric)(jnp.ones(2)), expected, rtol=1e-6)


def test_another_metric_is_calibrated_to_a_hundred(tiny, model):
    default, given = (MetricOptions(kind="power", ratio=r).of(tiny / "model", model, Report()) for r in (None, 100.0))
    assert default.strength == given.strength > 0


def test_what_is_kept_may_name_the_metric(copy, model):
    Geometry(0.4, 0.5, float("nan"), kind="power").save(copy)
    kept = json.loads((copy / "geometry.json").read_text())
    assert (kept["metric"], kept["contrast"]) == ("power", None)
    found = MetricOptions().of(copy, model, Report())
    assert (found.kind, found.sigma, found.strength) == ("power", 0.4, 0.5)
    assert str(found) == "power, sigma 0.4, strength 0.5"
    # The strength of one metric is none of another.
    assert MetricOptions(kind="stein").of(copy, model, Report()).strength != 0.5


def test_files_of_before_still_load(copy, model):
    """They did not name the metric."""
    old = {"sigma": 0.3, "strength": 2.0, "contrast": 10.0, "image_shape": None}
    (copy / "geometry.json").write_text(json.dumps(old))
    assert MetricOptions().of(copy, model, Report()) == Geometry(0.3, 2.0, 10.0)


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"metric": "new"}, [], "has the metric 'new', but must have one of stein, "),
        ({"sigma": -1.0}, [], "is damaged: geometry.json is not what scoregeo wrote"),
        ({"strength": None}, [], "is damaged: geometry.json is not what scoregeo wrote"),
        ({}, ["--metric", "euclid"], "invalid choice 'euclid' for argument '--metric'"),
        ({}, ["--ratio", "0.5"], "`--ratio` must be a number of at least 1, got 0.5"),
        ({}, ["--ratio", "nan"], "`--ratio` must be a number of at least 1, got nan"),
        ({}, ["--ratio", "3", "--strength", "1"], "`--strength` and `--ratio` both say how strong the metric is"),
        ({}, ["--strength", "-1"], "`--strength` must be a non-negative number, got -1.0"),
        ({}, ["--sigma", "-1"], "`--sigma` must be a positive number, got -1.0"),
        ({}, ["--sigma", "1e9"], "`--sigma` must be a noise level that the model knows, 0.002 to 80, got 1000"),
    ],
)
def test_mistakes(copy, capsys, change, words, message):
    path = copy / "geometry.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SystemExit) as stop:
        cli.main(["distance", "--model", str(copy), "--from", "0", "--to", "1", *words])
    assert stop.value.code == cli.MISTAKE
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_points_that_are_gone(copy, capsys):
    (copy / "points.npy").unlink()
    for words, advice in ((["--ratio", "3"], "give --strength"), (["--metric", "power"], "train it again")):
        with pytest.raises(SystemExit):
            cli.main(["distance", "--model", str(copy), "--from", "0", "--to", "1", *words])
        assert capsys.readouterr().err.endswith(f"has no points.npy; {advice}\n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["power"])
def test_distances_in_other_metrics(tiny, capsys, kind):
    """The distance of the library, in the metric that the options name; a Stein metric would have another one."""
    points = np.load(tiny / "train.npy")
    words = ["--model", str(tiny / "model"), "--from", "0", "--to", "2", "--metric", kind, "--ratio", "1.5", "--json"]
    cli.main(["distance", *words])
    found = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["code"], found["sigma"]) == (kind, "converged", 0.3)
    model = DiffusionModel.load(tiny / "model")
    with double_precision():
        geometry = MetricOptions(kind=kind, strength=found["strength"]).of(tiny / "model", model, Report())
        xs = jnp.asarray(model.standardization.apply(points[[0, 2]]), jnp.float64)
        metric = geometry.metric(model)
        expected = float(geodesic(metric, *xs, solver=solver_for(metric)).length)
    np.testing.assert_allclose(found["length"], expected, rtol=1e-3)
    assert expected < 0.99 * np.linalg.norm(xs[1] - xs[0])  # a Stein metric adds to Euclid's
