"""The documentation as it is built: links and what they point at, code beside the sidebar, formulas without a network.

A build that is newer than everything it was made of, as `.ci/run` leaves one, is taken as it is.
"""

import html.parser
import json
import pathlib
import subprocess
import sys
import urllib.parse

import chromium as browsers
import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCS, BUILT = ROOT / "docs", ROOT / "docs" / "_build"
# What the builder makes itself.
_NOT_SOURCES = ("_build", "_pages", "__pycache__")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built documentation."""
    index = BUILT / "index.html"
    sources = [ROOT / "CONTRIBUTING.md", *DOCS.rglob("*"), *(ROOT / "scoregeo").rglob("*"), *ROOT.glob("examples/*")]
    sources = [path for path in sources if path.is_file() and not set(path.parts) & set(_NOT_SOURCES)]
    if index.exists() and index.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return BUILT
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(DOCS), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Page(html.parser.HTMLParser):
    """What can be pointed at in a page, and what it points at."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        # What the browser fetches to show the page.
        self.parts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        links = [found[name] for name in ("href", "src") if name in found]
        self.links += links
        self.parts += [] if tag == "a" else links


def broken(pages: dict[pathlib.Path, Page]) -> list[str]:
    """Links to files and anchors that do not exist; ``pages`` are by their files."""
    found = []
    for file, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else file
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.exists():
                found.append(f"{file.name}: there is no file {link}")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{file.name}: there is no place {link}")
    return found


@pytest.fixture(scope="module")
def pages(site):
    return {path.resolve(): Page(path.read_text()) for path in site.rglob("*.html")}


def test_links_that_lead_nowhere_are_found(tmp_path):
    text = (
        '<p id="here"></p><a href="#here">1</a><a href="#there">2</a><img src="none.png"><a href="https://e.org">3</a>'
    )
    (tmp_path / "a.html").write_text(text)
    found = broken({(tmp_path / "a.html").resolve(): Page(text)})
    assert found == ["a.html: there is no place #there", "a.html: there is no file none.png"]


def test_every_link_of_the_site_leads_somewhere(pages):
    assert sum(len(page.links) for page in pages.values()) > 10_000
    assert broken(pages) == []


def test_pages_are_shown_without_a_network(pages):
    """No script, style, font or picture of theirs is elsewhere."""
    elsewhere = {part for page in pages.values() for part in page.parts if urllib.parse.urlsplit(part).netloc}
    assert elsewhere == set()


# What scrolls to the side, and how many formulas there are that were not set.
_LOOK = """
const scrolls = [...document.querySelectorAll('.content, .content *')].filter(e => e.clientWidth > 0
    && e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX));
const formulas = [...document.querySelectorAll('.math')];
return {
    wide: document.documentElement.scrollWidth - window.innerWidth,
    scrolls: scrolls.map(e => e.className + ': ' + e.textContent.slice(0, 60)),
    code: document.querySelectorAll('pre').length,
    formulas: formulas.length,
    raw: formulas.filter(e => !e.querySelector('mjx-container svg')).length,
};
"""


def test_nothing_scrolls_to_the_side_and_formulas_are_set(site, tmp_path):
    """In a window of 1,300 pixels, as the browser has laid it out, from files alone."""
    browsers.skip_without_chromium()
    from selenium.webdriver.support.ui import WebDriverWait

    names = [path for path in sorted(site.rglob("*.html")) if "_modules" not in path.parts]
    code = formulas = 0
    with browsers.chromium(tmp_path / "profile", 1300, performance="ALL") as browser:
        for path in names:
            browser.get(path.as_uri())
            set_ = lambda _: browser.execute_script(_LOOK)["raw"] == 0  # noqa: E731
            WebDriverWait(browser, 60, poll_frequency=0.05).until(set_, f"formulas of {path.name} are not set")
            seen = browser.execute_script(_LOOK)
            assert seen["wide"] <= 0, path.name
            assert seen["scrolls"] == [], path.name
            code, formulas = code + seen["code"], formulas + seen["formulas"]
            assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == [], path.name
        sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert len(urls) > len(names)  # of the browser's own pages, too
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:", "chrome:"))] == []
    assert code > 300
    assert formulas > 100
