"""Pages are whole, small, and say what they were given; mistakes are named."""

import json
import re
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from page_support import ASSETS, Turned, about, floats, mixture, node, points, solve_in_node

from scoregeo import ConformalMetric, GaussianScore, KernelDensityScore, SteinMetric, explore, recommend_strength
from scoregeo.datasets import two_moons
from scoregeo.explore.grid import Grid, encode
from scoregeo.explore.levels import make_level
from scoregeo.explore.page import _assemble
from scoregeo.explore.plane import Plane
from scoregeo.explore.references import grid_paths
from scoregeo.fisher_rao import Normal
from scoregeo.scores import at_noise_level

SIGMAS = (0.2, 0.3, 0.45)


@pytest.fixture(scope="module")
def page():
    return explore.score_page(mixture(), points(), noise_levels=SIGMAS, resolution=80, references=0, title="a < b & c")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["score", "normals"])
def test_a_page_needs_nothing_else(page, kind):
    text = page if kind == "score" else explore.normals_page()
    assert len(text.encode()) < 2e6
    assert "{{" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    outside = r"""(src|href)\s*=\s*(?!["']data:)|https?://|@import|url\(|fetch\(|XMLHttpRequest|import\s*\("""
    assert not re.search(outside, text)
    assert "default-src 'none'" in text
    assert 'lang="en"' in text
    assert 'name="viewport"' in text


@pytest.mark.slow
def test_the_title_is_text(page):
    assert "<title>a &lt; b &amp; c</title>" in page
    assert "a < b" not in page


@pytest.mark.parametrize("title", ["{{script}}", "{{data}} {{title}}", "</title><script>"])
def test_nothing_that_is_given_is_taken_for_a_part_or_for_code(title):
    """Neither the title nor the data of a page pastes a part of it, opens or ends a script."""
    given = {"unit": "<!--<script>", "plane": "</script> {{style}} {{script}}"}
    text = _assemble("score", title, given)
    assert about(text) == given
    shown = title.replace("<", "&lt;").replace(">", "&gt;")
    assert text.count(f"<title>{shown}</title>") == 1
    assert text.count(f"<h1>{shown}</h1>") == 1
    plain = _assemble("score", "", {})
    assert text.count("<script") == plain.count("<script") == 2
    assert text.count("</script") == 2
    assert text.count("<!--") == plain.count("<!--")
    assert text.count("class LiveGeodesic") == 1


@pytest.mark.parametrize("kind", ["score", "normals"])
def test_scripts_parse(page, kind, tmp_path):
    text = page if kind == "score" else explore.normals_page()
    script = text.rsplit("<script>", 1)[1].split("</script>")[0]
    (tmp_path / "page.js").write_text(script)
    ran = subprocess.run([node(), "--check", str(tmp_path / "page.js")], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_files_of_pages_are_short():
    for path in ASSETS.iterdir():
        assert len(path.read_text().splitlines()) <= 400, path.name


def test_what_a_page_knows(page):
    """Splines have the values of log p and the score, the metrics the strengths of the library."""
    data = about(page)
    grid = data["grid"]
    assert [level["noise"] for level in data["levels"]] == list(SIGMAS)
    assert data["level"] == 1
    assert data["metrics"] == ["stein", "power", "score-jacobian"]
    xlow, xhigh, ylow, yhigh = data["view"]
    xs = np.asarray(points())
    assert (xs.min(0) > [xlow, ylow]).all()
    assert (xs.max(0) < [xhigh, yhigh]).all()
    score = at_noise_level(mixture(), SIGMAS[2])
    level = data["levels"][2]
    coefficients = floats(level["logDensity"]).reshape(grid["ny"], grid["nx"])
    assert coefficients.shape == (grid["ny"], grid["nx"])
    some = xs[:20]
    own = Grid(grid["x"], grid["y"], grid["step"], grid["nx"], grid["ny"], tuple(data["view"]))
    np.testing.assert_allclose(own.evaluate(coefficients, some), jax.vmap(score.log_prob)(some), atol=1e-3)
    np.testing.assert_allclose(own.slope(coefficients, some), jax.vmap(score)(some), atol=0.03)
    for k, text in enumerate(level["score"]):
        spline = floats(text).reshape(grid["ny"], grid["nx"])
        np.testing.assert_allclose(own.evaluate(spline, some), np.asarray(jax.vmap(score)(some))[:, k], atol=0.01)
    assert level["stein"] * 99 == pytest.approx(
        float(recommend_strength(SteinMetric, score, xs, ratio=100.0)), rel=1e-6
    )
    np.testing.assert_allclose(floats(data["points"]).reshape(-1, 2), xs, atol=1e-6)
    for end in data["start"]:
        assert np.abs(xs - np.array(end)).sum(1).min() < 1e-9


def test_encode_is_little_endian_float32():
    array = np.array([[1.5, -2.25], [1e-3, 3e5]])
    np.testing.assert_array_equal(floats(encode(array)), array.astype(np.float32).ravel())


def test_splines_of_a_polynomial_are_exact():
    """A cubic spline has every quadratic function, away from the edges."""
    grid = Grid.around(np.array([[-1.0, 0.0], [1.0, 0.5]]), 60)
    fn = lambda p: 1 + 2 * p[:, 0] - p[:, 1] + p[:, 0] * p[:, 1] + 0.5 * p[:, 0] ** 2  # noqa: E731
    spline = grid.spline(fn(grid.points()))
    some = np.random.default_rng(0).uniform([-0.8, -0.1], [0.8, 0.6], (50, 2))
    np.testing.assert_allclose(grid.evaluate(spline, some), fn(some), atol=1e-4)


class TestPlane:
    def test_through_three_points(self):
        three = np.random.default_rng(0).normal(size=(3, 5))
        plane = Plane.through(three)
        np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
        back = plane.origin + plane.coordinates(three) @ plane.axes
        np.testing.assert_allclose(back, three, atol=1e-12)
        np.testing.assert_allclose(plane.marked, plane.coordinates(three), atol=1e-12)

    def test_points_on_a_line_have_no_plane(self):
        with pytest.raises(ValueError, match="must not lie on one line"):
            Plane.through(np.array([[0.0, 0, 0], [1, 1, 1], [3, 3, 3]]))

    @pytest.mark.parametrize("d", [2, 4])
    @pytest.mark.parametrize("make", [Plane.through, Plane.principal])
    def test_restricted_metric(self, make, d):
        """axes G axes^T, and the score of the plane is the gradient of log p on it; of a turned R^2, too."""
        random = np.random.default_rng(1)
        plane = make(random.normal(size=(3, d)))
        score = GaussianScore(jnp.zeros(d), jnp.diag(jnp.array([1.0, 2.0, 0.5, 0.3])[:d]))
        metric, u = SteinMetric(score, 3.0), jnp.array([0.3, -0.7])
        expected = plane.axes @ np.asarray(metric.at(plane.point(u)).matrix(d)) @ plane.axes.T
        assert not plane.is_whole
        np.testing.assert_allclose(plane.restrict(metric).at(u).matrix(2), expected, rtol=1e-12)
        slope = jax.grad(lambda u: score.log_prob(plane.point(u)))(u)
        np.testing.assert_allclose(plane.pull(score(plane.point(u))), slope, rtol=1e-12)

    def test_the_whole_of_two_dimensions_keeps_its_metric(self):
        metric = SteinMetric(GaussianScore(jnp.zeros(2), jnp.eye(2)), 3.0)
        assert Plane.whole().is_whole
        assert Plane.whole().restrict(metric) is metric
        assert not Plane(np.array([0.0, 1.0]), np.eye(2), "moved").is_whole
        assert not Plane(np.zeros(2), np.eye(2)[::-1], "mirrored").is_whole


def test_a_turned_plane_of_two_dimensions_says_so(page):
    turned = Plane.principal(points())
    known = about(explore.score_page(mixture(), points(), plane=turned, resolution=64, references=0))
    assert known["axes"] == ["u₁", "u₂"]
    assert known["plane"] == turned.description
    whole = about(page)
    assert whole["axes"] == ["x₁", "x₂"]
    assert whole["plane"] is None


def test_no_way_leads_through_where_a_metric_overflows():
    """A metric that is infinite in float32 on a disc about 0: paths go round it, and to its middle there is none."""
    with jax.enable_x64(False):
        metric = ConformalMetric(lambda x: jnp.where(jnp.sum(x**2) < 0.25, 100.0, 0.0))
        assert not jnp.isfinite(metric.at(jnp.zeros(2)).matrix(2)).all()
        grid = Grid.around(np.array([[-1.0, -1.0], [1.0, 1.0]]), 32)
        across, into = grid_paths(metric, grid, np.array([[[-0.9, 0.1], [0.9, 0.1]], [[-0.9, 0.1], [0.0, 0.1]]]))
    assert np.linalg.norm(across, axis=1).min() > 0.45  # between the nodes of the grid an edge cuts a corner
    np.testing.assert_allclose(into[:, 1], 0.1)  # straight


@pytest.mark.slow
def test_a_page_in_the_default_precision_of_jax():
    """Pages are computed in float64: in float32 the power of the density overflows in the corners of this one."""
    with jax.enable_x64(False):
        moons = two_moons(jax.random.key(0), 200)
        assert moons.points.dtype == jnp.float32
        page = explore.score_page(at_noise_level(moons.score, 0.2), moons.points, references=1, resolution=64)
        assert jnp.zeros(1).dtype == jnp.float32
    known = about(page)
    assert [(r["metric"], r["status"]) for r in known["references"]] == [
        ("stein", "successful"),
        ("power", "successful"),
    ]
    assert all(r["length"] > 0 for r in known["references"])


def test_a_metric_that_is_absent_says_why():
    """Between points on a circle about its mean, a Gaussian is larger than at them: nothing to tell them by."""
    known = about(explore.score_page(mixture(), points(), resolution=64, references=0))
    assert known["metrics"] == ["stein", "power"]
    assert known["absent"] == {"score-jacobian": "it needs a score that knows its noise level"}
    circle = jnp.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    gaussian = GaussianScore(jnp.zeros(2), 0.1 * jnp.eye(2))
    known = about(explore.score_page(gaussian, circle, resolution=32, references=0))
    assert known["metrics"] == ["stein"]
    assert "must be larger off the data than on the data" in known["absent"]["power"]


def test_slices_have_no_jacobian_and_say_what_they_are():
    data = jnp.concatenate([points(60), jnp.zeros((60, 1)), 0.3 * jax.random.normal(jax.random.key(1), (60, 2))], 1)
    page = explore.score_page(KernelDensityScore(data, 0.4), data, noise_levels=[0.4], references=0, resolution=64)
    known = about(page)
    assert known["metrics"] == ["stein", "power"]
    assert known["dimension"] == 5
    assert "principal components" in known["plane"]
    assert "score" not in known["levels"][0]


def test_a_score_with_curl_has_splines_of_its_own():
    grid = Grid.around(np.asarray(points()), 64)
    level = make_level(None, Turned(at_noise_level(mixture(), 0.3)), points(), Plane.whole(), grid)
    assert level.slopes is not None
    some = np.asarray(points())[:5]
    expected = jax.vmap(level.score)(some)
    got = np.stack([grid.evaluate(part, some) for part in level.slopes], -1)
    np.testing.assert_allclose(got, expected, atol=0.02)
    assert not level.to_dict()["conservative"]


class TestMistakes:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"noise_levels": []}, "`noise_levels` must hold at least one number, got none"),
            ({"noise_levels": [-1.0]}, "`noise_levels` must be"),
            ({"noise_levels": -1.0}, "`noise_levels` must be positive, got -1.0"),
            (
                {"noise_levels": [[0.2, 0.3]]},
                r"`noise_levels` must be a number or a list of numbers, got shape \(1, 2\)",
            ),
            ({"noise_levels": [0.2, np.nan]}, "`noise_levels` must be finite"),
            ({"ratio": 1.0}, "`ratio` must be above 1 and at most 10000, got 1.0"),
            ({"resolution": 4}, "`resolution` must be an integer of at least 16, got 4|`resolution` must be .*16"),
            ({"resolution": 16}, "`resolution` is too coarse at noise level 0.05"),
            ({"plane": Plane.through(np.eye(3))}, "`plane` must be one of 2 dimensions"),
        ],
    )
    def test_arguments(self, settings, message):
        settings = {"noise_levels": [0.05], "references": 0, **settings}
        with pytest.raises(ValueError, match=message):
            explore.score_page(KernelDensityScore(points(30), 0.1), points(30), **settings)

    @pytest.mark.parametrize("levels", ["0.2", [None], {0.2: 1}, [[0.2], [0.3, 0.4]], 1j, True, object()])
    def test_noise_levels_that_are_no_numbers(self, levels):
        with pytest.raises(TypeError, match="`noise_levels` must be an array of"):
            explore.score_page(mixture(), points(), noise_levels=levels)

    @pytest.mark.parametrize("ratio", ["100", None, np.nan])
    def test_a_ratio_that_is_no_number(self, ratio):
        with pytest.raises(ValueError, match="`ratio` must be above 1 and at most 10000, got"):
            explore.score_page(mixture(), points(), ratio=ratio)

    def test_one_point(self):
        with pytest.raises(ValueError, match=r"`data` must have shape \(n, d\) with n, d >= 2, got \(1, 2\)"):
            explore.score_page(mixture(), jnp.zeros((1, 2)))

    def test_a_score_that_is_not_finite(self):
        with pytest.raises(ValueError, match="log p must be finite, but is not at"):
            explore.score_page(lambda x: x / jnp.where(x[0] > 0, 1.0, 0.0), points(), references=0, resolution=16)

    def test_a_page_that_is_too_large(self):
        levels = np.linspace(0.3, 0.5, 6)
        with pytest.raises(ValueError, match=r"the page has .* MB, but must have 2 at most"):
            explore.score_page(mixture(), points(), noise_levels=levels, resolution=160, references=0)

    def test_another_ending(self, tmp_path):
        with pytest.raises(ValueError, match=r"`path` must end in \.html"):
            explore.write_page(tmp_path / "page.txt", "")


@pytest.mark.parametrize("b", [[0.0, 0.0], "other corner"])
def test_the_solver_gives_up_where_a_metric_overflows(b):
    """Under Node.js: a power of the kernel density of points with heavy tails is infinite in the corners. No step can
    be taken there, and the page must not ask for frames forever."""
    data = jnp.asarray(np.random.default_rng(0).standard_t(2.5, size=(200, 2)))
    grid = Grid.around(np.asarray(data), 128)
    level = make_level(0.25, KernelDensityScore(data, 0.25), data, Plane.whole(), grid)
    page = _assemble("score", "", {"grid": grid.to_dict(), "view": grid.view, "levels": [level.to_dict()]})
    xlow, xhigh, ylow, yhigh = grid.view
    far = [xhigh, yhigh] if b == "other corner" else b
    found = solve_in_node(page, [{"metric": "power", "level": 0, "ratio": 1e4, "a": [xlow, ylow], "b": far}])[0]
    assert found["tensor"][0] is None  # infinite
    assert not found["converged"]
    assert found["done"]


def test_the_solver_of_the_page(page):
    """Under Node.js: derivatives of its energy are right, strength 0 is Euclid, and paths are symmetric."""
    pair = {"a": [-1.4, 0.2], "b": [1.3, -0.1], "level": 1}
    cases = [{**pair, "metric": kind, "ratio": 50.0} for kind in ("stein", "power", "score-jacobian")]
    cases += [{**pair, "metric": kind, "ratio": 1.0} for kind in ("stein", "power", "score-jacobian")]
    cases += [{"a": pair["b"], "b": pair["a"], "level": 1, "metric": "stein", "ratio": 50.0}]
    cases += [{"a": pair["a"], "b": pair["a"], "level": 1, "metric": "stein", "ratio": 50.0}]
    found = solve_in_node(page, cases)
    for result in found[:7]:
        assert result["converged"]
        first, second = result["derivatives"]
        assert first < 1e-6
        assert second < 1e-6
    straight = float(np.hypot(2.7, 0.3))
    for result in found[3:6]:
        assert result["length"] == pytest.approx(straight, rel=1e-6)
    assert found[6]["length"] == pytest.approx(found[0]["length"], rel=1e-4)
    assert found[7]["length"] == 0
    score = at_noise_level(mixture(), SIGMAS[1])
    G = SteinMetric(score, found[0]["strength"]).at(jnp.array(pair["a"])).matrix(2)
    np.testing.assert_allclose(found[0]["tensor"], [G[0, 0], G[0, 1], G[1, 1]], rtol=1e-3)


def test_normals_in_node():
    """The closed forms of the other page, under Node.js, against the library's."""
    text = (ASSETS / "normals.js").read_text()
    functions = "\n".join(re.findall(r"^function (?:distance|straightLength|geodesicAt)\(.*?^}", text, re.M | re.S))
    pairs = np.random.default_rng(0).uniform([-3, 0.1], [3, 3], (6, 2, 2))
    pairs[0, 1] = pairs[0, 0] + [1e-6, 0]
    pairs[1, 1, 0] = pairs[1, 0, 0]
    program = f"""{functions}
    const pairs = {pairs.tolist()};
    console.log(JSON.stringify(pairs.map(([a, b]) => {{
      const path = Array.from({{ length: 2001 }}, (_, i) => [0, 1].map((c) => a[c] + (b[c] - a[c]) * i / 2000));
      const sum = path.slice(1).reduce((total, p, i) => total + distance(path[i], p), 0);
      const at = [0, 0.3, 1].map((t) => geodesicAt(a, b, t));
      return {{ d: distance(a, b), straight: straightLength(a, b), sum, at }};
    }})));"""
    ran = subprocess.run([node(), "-e", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for (a, b), found in zip(pairs, json.loads(ran.stdout), strict=True):
        whole = float(Normal().dist(a, b))
        assert found["d"] == pytest.approx(whole, rel=1e-6)
        assert found["straight"] == pytest.approx(found["sum"], rel=1e-4)
        np.testing.assert_allclose(found["at"][0], a, atol=1e-9)
        np.testing.assert_allclose(found["at"][2], b, atol=1e-9)
        # At constant speed on a shortest path: both parts of the way.
        middle = np.array(found["at"][1])
        np.testing.assert_allclose(float(Normal().dist(a, middle)), 0.3 * whole, rtol=1e-5)
        np.testing.assert_allclose(float(Normal().dist(middle, b)), 0.7 * whole, rtol=1e-5)
