"""Pages are whole, small, and say what they were given; mistakes are named."""

import base64
import json
import re
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from page_support import ASSETS, Turned, about, mixture, node, points, solve_in_node

from scoregeo import GaussianScore, KernelDensityScore, SteinMetric, cli, explore, recommend_strength
from scoregeo.explore.grid import Grid, encode
from scoregeo.explore.levels import make_level
from scoregeo.explore.plane import Plane
from scoregeo.fisher_rao import Normal
from scoregeo.scores import at_noise_level

SIGMAS = (0.2, 0.3, 0.45)


@pytest.fixture(scope="module")
def page():
    return explore.score_page(mixture(), points(), noise_levels=SIGMAS, resolution=80, references=0, title="a < b & c")


def floats(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


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


def test_the_title_is_text(page):
    assert "<title>a &lt; b &amp; c</title>" in page
    assert "a < b" not in page


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
    assert data["metrics"] == ["stein", "power", "jacobian"]
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

    def test_restricted_metric(self):
        """axes G axes^T, and the score of the plane is the gradient of log p on it."""
        random = np.random.default_rng(1)
        plane = Plane.through(random.normal(size=(3, 4)))
        score = GaussianScore(jnp.zeros(4), jnp.diag(jnp.array([1.0, 2.0, 0.5, 0.3])))
        metric, u = SteinMetric(score, 3.0), jnp.array([0.3, -0.7])
        expected = plane.axes @ np.asarray(metric.at(plane.point(u)).matrix(4)) @ plane.axes.T
        np.testing.assert_allclose(plane.restrict(metric).at(u).matrix(2), expected, rtol=1e-12)
        slope = jax.grad(lambda u: score.log_prob(plane.point(u)))(u)
        np.testing.assert_allclose(plane.pull(score(plane.point(u))), slope, rtol=1e-12)


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


class TestCommand:
    def run(self, *words):
        cli.main(["explore", *map(str, words)])

    def test_normals(self, tmp_path, capsys):
        self.run("--normals", "--out", tmp_path / "new" / "page.html")
        assert (tmp_path / "new" / "page.html").read_text() == explore.normals_page()
        assert "wrote" in capsys.readouterr().out

    def test_a_file_of_points(self, tmp_path, capsys):
        np.save(tmp_path / "points.npy", 3 + 2 * np.asarray(points(50)))
        words = ("--resolution", 64, "--references", 0, "--sigmas", "0.3", "0.5")
        self.run("--data", tmp_path / "points.npy", "--out", tmp_path / "page.html", *words)
        known = about((tmp_path / "page.html").read_text())
        assert [level["noise"] for level in known["levels"]] == [0.3, 0.5]
        assert known["unit"] == "standardised units"
        np.testing.assert_allclose(floats(known["points"]).reshape(-1, 2).std(0), 1, rtol=1e-5)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--out", "p.html"), "`--model`, `--data` or `--normals` must say what to explore, got none"),
            (("--out", "p.html", "--normals", "--data", "moons"), "got --data, --normals"),
            (("--out", "p.txt", "--normals"), "`--out` must end in .html, got p.txt"),
            (("--out", "p.html", "--data", "moons", "--key", "x"), "`--key` is for a file, but `--data` is moons"),
            (("--out", "p.html", "--data", "moons", "--through", "0", "1", "2"), "`--through` is for points in more"),
            (
                ("--out", "p.html", "--data", "moons", "--through", "0", "0", "2"),
                "`--through` must be three",
            ),
            (("--out", "p.html", "--model", "nowhere"), "`--model` nowhere cannot be used"),
        ],
    )
    def test_mistakes_take_one_line(self, words, message, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stop:
            self.run(*words)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not list(tmp_path.iterdir())


def test_the_solver_of_the_page(page):
    """Under Node.js: derivatives of its energy are right, strength 0 is Euclid, and paths are symmetric."""
    pair = {"a": [-1.4, 0.2], "b": [1.3, -0.1], "level": 1}
    cases = [{**pair, "metric": kind, "ratio": 50.0} for kind in ("stein", "power", "jacobian")]
    cases += [{**pair, "metric": kind, "ratio": 1.0} for kind in ("stein", "power", "jacobian")]
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
