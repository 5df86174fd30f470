"""Pages in Chromium: dragged by mouse and finger, moved by keyboard, looked at, and judged by axe-core.

Skipped where Chromium and its driver are not installed (Debian's packages chromium and chromium-driver), and the last
where npm cannot fetch axe-core.
"""

import io
import pathlib
import shutil
import subprocess
import tarfile

import chromium as browsers
import numpy as np
import pytest
from page_support import about, mixture, points
from PIL import Image

from scoregeo import explore

pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = pytest.mark.slow
browsers.skip_without_chromium()

# This one, so that no rule is new when nothing here is.
AXE = "axe-core@4.14.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pages as files: that of a score, with one pair that the library has solved in each of three metrics; that of
    normal distributions; and that of a score that does not know its noise level, on a turned plane."""
    folder = tmp_path_factory.mktemp("pages")
    page = explore.score_page(mixture(), points(), noise_levels=(0.2, 0.3, 0.45), references=1, title="Three modes")
    explore.write_page(folder / "score.html", page)
    explore.write_page(folder / "normals.html", explore.normals_page())
    turned = explore.Plane.principal(points())
    page = explore.score_page(mixture(), points(), plane=turned, resolution=64, references=0)
    explore.write_page(folder / "turned.html", page)
    return folder


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browsers.chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def browser(chromium):
    """Chromium, as it starts; at the end nothing may have been reported on its console."""
    media(chromium, "light")
    size(chromium, 1200, 900)
    yield chromium
    assert [entry for entry in chromium.get_log("browser") if entry["level"] != "INFO"] == []


def media(browser, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def size(browser, width, height, mobile=False):
    settings = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", settings)


def visit(browser, folder, name="score"):
    browser.get((folder / f"{name}.html").as_uri())
    settled(browser)


def wait_until(browser, condition, message=""):
    """Wait until ``condition()`` holds, for as long as a busy machine may take."""
    WebDriverWait(browser, 60, poll_frequency=0.05).until(lambda _: condition(), message)


def settled(browser):
    """Wait until the page has solved for where its points are, and has drawn that."""
    wait_until(browser, lambda: browser.execute_script("return explore.idle()"), "the page does not come to rest")


def value(browser, name):
    return float(browser.find_element(By.ID, name).get_attribute("data-value"))


def ends(browser):
    return np.array(browser.execute_script("return [explore.points.a, explore.points.b]"))


def picture(browser):
    """The picture of the plane as it is seen, `(height, width, 3)`."""
    png = browser.find_element(By.ID, "picture").screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(image, colour, tolerance=12):
    return int((np.abs(image - np.array(colour)).max(-1) < tolerance).sum())


def test_the_first_picture(browser, folder):
    visit(browser, folder)
    painted = lambda: browser.execute_script("return performance.getEntriesByType('paint').map((e) => e.startTime)")  # noqa: E731
    # The page may be at rest before the browser has painted it.
    wait_until(browser, painted, "nothing is painted")
    print(f"first paint after {painted()[0]:.0f} ms")  # 200 to 300 on two busy cores
    known = about((folder / "score.html").read_text())
    np.testing.assert_allclose(ends(browser), known["start"])
    reference = known["references"][0]
    assert value(browser, "geodesic") == pytest.approx(reference["length"], rel=0.01)
    assert value(browser, "straight") > value(browser, "geodesic")
    assert value(browser, "euclid") == pytest.approx(np.linalg.norm(np.subtract(*known["start"])), rel=1e-6)
    said = browser.find_element(By.ID, "library").text
    assert said.startswith(f"By the library {reference['length']:.4g}"[:18])
    assert "here" in said
    assert "converged" in browser.find_element(By.ID, "status").text


def test_all_references_by_the_menu(browser, folder):
    visit(browser, folder)
    known = about((folder / "score.html").read_text())
    menu = Select(browser.find_element(By.ID, "reference"))
    for k, reference in enumerate(known["references"]):
        menu.select_by_value(str(k))
        settled(browser)
        assert browser.find_element(By.ID, "metric").get_attribute("value") == reference["metric"]
        assert value(browser, "geodesic") == pytest.approx(reference["length"], rel=0.01)
        assert browser.find_element(By.ID, "status").get_attribute("data-converged") == "true"


def test_dragging_by_mouse(browser, folder):
    """The point follows the mouse, and lengths follow while the button is down."""
    visit(browser, folder)
    before, length = ends(browser), value(browser, "geodesic")
    handle = browser.find_element(By.ID, "a")
    actions = ActionChains(browser, duration=20).click_and_hold(handle)
    for _ in range(6):
        actions.move_by_offset(15, -10)
    actions.perform()
    wait_until(browser, lambda: (ends(browser)[0] != before[0]).all())
    settled(browser)  # with the button still down
    during = value(browser, "geodesic")
    assert during != length
    scale = browser.execute_script("return explore.live.view[1] - explore.live.view[0]")
    scale /= browser.find_element(By.ID, "picture").rect["width"]
    moved = ends(browser)[0] - before[0]
    np.testing.assert_allclose(moved, [90 * scale, 60 * scale], atol=2.5 * scale)
    ActionChains(browser).release().perform()
    settled(browser)
    assert value(browser, "geodesic") <= during * 1.001  # at rest more starts are tried
    np.testing.assert_array_equal(ends(browser)[1], before[1])
    assert browser.find_element(By.ID, "library").text == ""


def test_a_click_moves_the_nearer_point(browser, folder):
    visit(browser, folder)
    before = ends(browser)
    box = browser.find_element(By.ID, "b").rect
    where = browser.find_element(By.ID, "picture")
    centre = where.rect["x"] + where.rect["width"] / 2, where.rect["y"] + where.rect["height"] / 2
    offset = box["x"] + 22 - centre[0], box["y"] + 22 - centre[1]
    ActionChains(browser).move_to_element_with_offset(where, int(offset[0]), int(offset[1] - 60)).click().perform()
    wait_until(browser, lambda: (ends(browser) != before).any())
    settled(browser)
    np.testing.assert_array_equal(ends(browser)[0], before[0])
    assert ends(browser)[1][1] > before[1][1]


def test_touch(browser, folder):
    size(browser, 390, 800, mobile=True)
    visit(browser, folder)
    before = ends(browser)
    box = browser.find_element(By.ID, "b").rect
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    touch = lambda kind, at: browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})  # noqa: E731
    touch("touchStart", [{"x": x, "y": y}])
    for step in range(1, 7):
        touch("touchMove", [{"x": x - 8 * step, "y": y - 4 * step}])
    touch("touchEnd", [])
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    wait_until(browser, lambda: (ends(browser) != before).any())
    settled(browser)
    after = ends(browser)
    assert after[1][0] < before[1][0]
    assert after[1][1] > before[1][1]
    np.testing.assert_array_equal(after[0], before[0])
    # Nothing is wider than the screen.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_keyboard_alone(browser, folder):
    """Tab reaches everything; arrow keys move points and sliders; what changes is read aloud."""
    visit(browser, folder)
    reached = []
    for _ in range(15):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.switch_to.active_element.get_attribute("id"))
        if reached[-1] == "reference":
            break
    assert reached == [
        *("theme", "a", "b", "metric", "ratio", "noise", "density", "ellipses", "field", "points", "reference"),
    ]
    before = ends(browser)
    low, high, bottom, top = browser.execute_script("return explore.live.view")
    step = 0.01 * max(high - low, top - bottom)
    handle = browser.find_element(By.ID, "a")
    handle.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_UP)
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_UP).key_up(Keys.SHIFT).perform()
    settled(browser)
    np.testing.assert_allclose(ends(browser)[0] - before[0], [step, 7 * step], rtol=1e-6)
    x, y = ends(browser)[0]
    assert handle.get_attribute("aria-label") == f"Point A at {x:.2f}, {y:.2f}. Arrow keys move it"
    length = value(browser, "geodesic")
    expected = f"Geodesic {length:.4g}, straight line {value(browser, 'straight'):.4g}. Converged."
    spoken = browser.find_element(By.ID, "spoken")
    wait_until(browser, lambda: spoken.get_attribute("textContent") == expected, expected)
    browser.find_element(By.ID, "ratio").send_keys(*[Keys.ARROW_RIGHT] * 4)
    settled(browser)
    assert browser.execute_script("return explore.state.ratio") == pytest.approx(10**2.2)
    assert value(browser, "geodesic") > length
    browser.find_element(By.ID, "noise").send_keys(Keys.ARROW_RIGHT)
    settled(browser)
    assert browser.find_element(By.ID, "noise").get_attribute("aria-valuetext") == "sigma 0.45"


def test_colours_and_layers(browser, folder):
    """The geodesic is seen in both colour schemes; each layer changes the picture."""
    visit(browser, folder)
    light = picture(browser)
    assert near(light, (0xC2, 0x4A, 0x00)) > 300
    assert light[5:25, 60:200].mean() > 200
    for layer in ("density", "ellipses", "field", "points"):
        before = picture(browser)
        browser.find_element(By.ID, layer).click()
        wait_until(browser, lambda old=before: (np.abs(picture(browser) - old).max(-1) > 20).mean() > 0.002, layer)
    media(browser, "dark")
    wait_until(browser, lambda: picture(browser).mean() < 100, "the picture does not get dark")
    wait_until(
        browser, lambda: near(picture(browser), (0xFF, 0xA9, 0x4D)) > 300, "the geodesic is not seen in the dark"
    )
    button = browser.find_element(By.ID, "theme")
    assert button.text == "Light colours"
    button.click()
    wait_until(browser, lambda: picture(browser).mean() > 150, "the picture does not get light")


FRAMES = """
const done = arguments[arguments.length - 1], handle = document.getElementById("a");
const box = document.getElementById("picture").getBoundingClientRect(), began = performance.now();
const place = (t) => ({ clientX: box.left + box.width * (0.5 + 0.35 * Math.cos(t)),
  clientY: box.top + box.height * (0.5 + 0.35 * Math.sin(t)), bubbles: true, pointerId: 1, button: 0 });
handle.setPointerCapture = () => {};
handle.hasPointerCapture = () => true;
handle.dispatchEvent(new PointerEvent("pointerdown", place(0)));
let frames = 0;
(function next(now) {
  if (now - began > 2500) {
    handle.dispatchEvent(new PointerEvent("pointerup", place(0)));
    done((1000 * frames) / (now - began));
    return;
  }
  frames++;
  handle.dispatchEvent(new PointerEvent("pointermove", place(((now - began) / 2500) * 2 * Math.PI)));
  requestAnimationFrame(next);
})(began);
"""


@pytest.mark.parametrize("metric", ["stein", "power", "score-jacobian"])
def test_frames_while_dragging(browser, folder, metric):
    """Once round the picture, a solve in each frame: 21 to 45 a second on two cores that ten processes share."""
    visit(browser, folder)
    browser.execute_script("explore.set({ metric: arguments[0] })", metric)
    settled(browser)
    rate = browser.execute_async_script(FRAMES)
    print(f"{metric}: {rate:.0f} frames a second")
    assert rate > 1


def test_failures_are_said(browser, folder):
    """A solve that may not take the steps it needs says so, in place of a length that is none."""
    visit(browser, folder)
    hard = "{ metric: 'stein', ratio: 1e4, level: 0, a: [-1.6, -0.6], b: [1.6, 0.9] }"
    browser.execute_script(f"STEPS.settled = 1; STEPS.most = 2; explore.set({hard})")
    settled(browser)
    assert "did not converge" in browser.find_element(By.ID, "status").text
    assert browser.find_element(By.ID, "status").get_attribute("data-converged") == "false"


def test_it_is_said_what_is_not_there(browser, folder):
    """Which metric is absent, and why; of a turned plane, what its axes are. Nothing of that on a page that has all."""
    visit(browser, folder, "turned")
    offered = [option.get_attribute("value") for option in Select(browser.find_element(By.ID, "metric")).options]
    assert offered == ["stein", "power"]
    expected = "Not here: Score Jacobian, because it needs a score that knows its noise level."
    assert browser.find_element(By.ID, "absent").text == expected
    assert "u₁ and u₂ are those of the plane of the first two" in browser.find_element(By.ID, "plane").text
    visit(browser, folder)
    assert not browser.find_element(By.ID, "absent").is_displayed()
    assert not browser.find_element(By.ID, "plane").is_displayed()


def test_the_page_comes_to_rest_where_a_metric_overflows(browser, folder):
    """No path has a finite length there: the page says so, and asks for no more frames. Back from there, it solves."""
    visit(browser, folder)
    start, length = ends(browser).tolist(), value(browser, "geodesic")
    xlow, _, ylow, _ = browser.execute_script("return explore.live.view")
    browser.execute_script("explore.set({ metric: 'power', ratio: 1e120, a: arguments[0] })", [xlow, ylow])
    settled(browser)
    assert "did not converge" in browser.find_element(By.ID, "status").text
    browser.execute_script("explore.set({ metric: 'stein', ratio: 100, a: arguments[0] })", start[0])
    settled(browser)
    assert value(browser, "geodesic") == pytest.approx(length, rel=1e-3)


def test_normals(browser, folder):
    visit(browser, folder, "normals")
    known = about((folder / "normals.html").read_text())
    assert value(browser, "geodesic") == pytest.approx(known["length"], rel=1e-6)
    assert browser.find_element(By.ID, "library").text == f"By the library {known['length']:.4g}"
    before = ends(browser)
    handle = browser.find_element(By.ID, "b")
    handle.send_keys(Keys.ARROW_LEFT)
    settled(browser)
    np.testing.assert_allclose(ends(browser)[1] - before[1], [-0.08, 0], atol=1e-9)
    ActionChains(browser, duration=20).click_and_hold(handle).move_by_offset(0, 400).release().perform()
    wait_until(browser, lambda: ends(browser)[1][1] == pytest.approx(0.08), "no deviation may be zero")
    settled(browser)
    label = browser.find_element(By.ID, "time-value").text
    browser.find_element(By.ID, "time").send_keys(Keys.ARROW_RIGHT)
    wait_until(browser, lambda: browser.find_element(By.ID, "time-value").text != label)


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The source of axe-core, fetched by npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    place = tmp_path_factory.mktemp("axe")
    command = [npm, "pack", AXE, "--silent", "--fetch-retries=0"]
    try:
        ran = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm cannot fetch {AXE} within a minute")
    if ran.returncode != 0:
        pytest.skip(f"npm cannot fetch {AXE}: {ran.stderr.strip()[-200:]}")
    with tarfile.open(place / ran.stdout.split()[-1]) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["score", "normals"])
def test_axe_finds_nothing(browser, folder, axe, name, scheme):
    media(browser, scheme)
    visit(browser, folder, name)
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    browser.execute_script(axe)
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    faults = [(v["id"], v["impact"], [node["html"] for node in v["nodes"]]) for v in found["violations"]]
    assert len(found["passes"]) > 15
    assert faults == []


def test_nothing_is_asked_of_the_network(browser, folder):
    visit(browser, folder)
    names = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in names if not name.startswith("data:")] == []
    assert pathlib.Path(folder / "score.html").stat().st_size < 2e6
