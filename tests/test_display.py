"""What notebooks show: well-formed HTML with the figures in it, and a picture of what was found."""

import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import EuclideanMetric, SpectralNewton, _display, geodesic
from scoregeo.comparison import compare
from scoregeo.diffusion import FitConfig, HeldOutReport, MemorizationReport, ScoreReport, evaluate_score, fit
from scoregeo.scores import GaussianScore

SOLVER = SpectralNewton(degree=4, max_elements=1)


def parsed(found: str) -> ET.Element:
    """The tree of ``found``; raises where it is not well formed."""
    return ET.fromstring(f"<div>{found}</div>")


def texts(found: str) -> str:
    return " ".join(parsed(found).itertext())


def polylines(found: str) -> list[np.ndarray]:
    """The points of each line of the picture."""
    lines = parsed(found).iter("{http://www.w3.org/2000/svg}polyline")
    return [np.array([p.split(",") for p in line.get("points").split()], float) for line in lines]


@pytest.mark.slow
def test_a_geodesic_shows_its_length_and_its_path():
    path = geodesic(EuclideanMetric(), jnp.zeros(2), jnp.array([3.0, 4.0]), solver=SOLVER)
    shown = path._repr_html_()
    for word in ("length", "5 ±", "converged", "d = 2", "element"):
        assert word in texts(shown)
    straight, curve = polylines(shown)
    # Three to the right, four up: on a page y points down.
    across, down = straight[1] - straight[0]
    assert down / across == pytest.approx(-4 / 3, rel=1e-2)
    np.testing.assert_allclose(curve[[0, -1]], straight, atol=0.2)


@pytest.mark.slow
def test_a_batch_dashes_what_failed_and_names_how_it_ended():
    ys = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [jnp.nan, 0.0, 0.0]])
    paths = jax.vmap(lambda y: geodesic(EuclideanMetric(), jnp.zeros(3), y, solver=SOLVER, throw=False))(ys)
    shown = paths._repr_html_()
    assert "2 converged" in texts(shown)
    assert len(polylines(shown)) == 4
    dashes = _display.curves_svg(np.random.default_rng(0).normal(size=(2, 5, 2)), np.array([True, False]))
    assert dashes.count('stroke-dasharray="4 3"') == 1


@pytest.mark.slow
def test_under_jit_there_is_no_picture():
    shown = []

    @jax.jit
    def solve(y):
        path = geodesic(EuclideanMetric(), jnp.zeros(2), y, solver=SOLVER)
        shown.append(path._repr_html_())
        return path.length

    solve(jnp.ones(2))
    assert "traced" in texts(shown[0])
    assert not polylines(shown[0])


@pytest.mark.parametrize("d", [1, 2, 3, 50])
def test_curves_of_any_dimension(d):
    curves = np.random.default_rng(d).normal(size=(60, 200, d))
    found = _display.curves_svg(curves)
    if d == 1:
        assert found == ""
    else:
        lines = polylines(found)
        assert len(lines) == 100
        assert max(map(len, lines)) <= 65
        assert all((line >= 0).all() and (line <= 150).all() for line in lines)


def test_points_that_are_not_finite_are_left_out():
    assert _display.curves_svg(np.full((1, 3, 2), np.nan)) == ""
    assert _display.points_svg(np.array([[0.0, 1.0], [np.nan, 1.0]]), "some") == ""
    found = _display.points_svg(np.array([[0.0, 1.0], [np.inf, 1.0], [2.0, 3.0]]), "a < b")
    assert len(list(parsed(found).iter("{http://www.w3.org/2000/svg}circle"))) == 2


def test_names_are_text_not_markup():
    shown = _display.grid("<b>", ["", "x & y"], [["<i>", "1"]], caption="a > b")
    assert texts(shown).split() == ["<b>", "x", "&", "y", "<i>", "1", "a", ">", "b"]


def test_a_comparison_shows_both_tables_and_a_picture():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
    metrics = {"Euclid": lambda x, y: jnp.linalg.norm(x - y), "<twice>": lambda x, y: 2 * jnp.linalg.norm(x - y)}
    shown = compare(x, metrics=metrics, resamples=0)._repr_html_()
    assert "<twice>" in texts(shown)
    assert "1.000" in texts(shown)
    assert "<twice> over Euclid" in texts(shown)
    assert len(list(parsed(shown).iter("{http://www.w3.org/2000/svg}circle"))) == 15


@pytest.mark.slow
def test_a_model_and_a_report():
    config = FitConfig(steps=20, batch_size=16, width=8, depth=1, chunk_steps=10, reference_size=32)
    data = GaussianScore(jnp.zeros(2), jnp.eye(2))
    model = fit(data.sample(jax.random.key(0), 64), config)
    shown = model._repr_html_()
    for word in ("dimension", "Potential", "noise levels", "steps"):
        assert word in texts(shown)
    low, high = model.schedule.noise_range()
    assert f"{float(low):.3g} to {float(high):.3g}" in texts(shown)
    assert len(polylines(shown)) == 1
    report = evaluate_score(model, data, [0.5, 1.0], key=jax.random.key(1), n=16)
    shown = report._repr_html_()
    assert len(list(parsed(shown).iter("tr"))) == 3
    assert "score error over noise level" in texts(shown)
    assert len(polylines(shown)) == 1


def test_reports_draw_their_first_figures_where_there_is_something_to_draw():
    """The loss over the noise level, on a logarithmic scale: what a report says that is no figure is not drawn."""
    sigmas, loss, nothing = np.array([0.1, 1.0, 10.0]), np.array([0.2, 0.2, 0.9]), np.zeros(3)
    shown = HeldOutReport(sigmas, loss, nothing, nothing, nothing, nothing, 0.1, 5, 0.1)._repr_html_()
    assert "loss over noise level" in texts(shown)
    (line,) = polylines(shown)
    steps = np.diff(line, axis=0)
    assert steps[0, 0] == pytest.approx(steps[1, 0], abs=0.2)
    assert steps[0, 1] == 0 > steps[1, 1]  # on a page y points down
    assert polylines(MemorizationReport(1.0, 2.0, 0.5, 0.0, 0.0)._repr_html_()) == []
    one = [np.ones(1)] * 4
    assert polylines(ScoreReport(*one, 5)._repr_html_()) == []
