"""Chromium for the tests that look at pages; they skip where it and its driver are not installed (Debian's packages
chromium and chromium-driver)."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

_OPTIONS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-dev-shm-usage"),
)


def skip_without_chromium() -> None:
    """Skip the whole file where there is no browser."""
    pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("Chromium and chromedriver are not installed", allow_module_level=True)


@contextlib.contextmanager
def chromium(profile: pathlib.Path, width: int = 1200, height: int = 900, **logs: str) -> Iterator[Any]:
    """Selenium's driver of a browser that keeps its files in ``profile``; ``logs`` are those it keeps beside that of
    its console, with their levels."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for option in (*_OPTIONS, f"window-size={width},{height}", f"user-data-dir={profile}"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"} | logs)
    # With the driver named, Selenium looks for none on the network.
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()
