"""Debian's Chromium without a screen, driven by selenium; tests skip where either is not installed."""

import base64
import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PHONE, DESKTOP = (375, 812), (1280, 900)
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--lang=en",
)  # fmt: skip


def missing() -> str:
    """Why no browser can be driven here; "" if one can."""
    programs = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if programs:
        return f"no {' and '.join(programs)}: make browser installs Debian's packages"
    return "" if importlib.util.find_spec("selenium") else "no selenium in .venv: make browser installs it"


needs_browser = pytest.mark.skipif(bool(missing()), reason=missing())


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A browser with an empty profile and its console's messages kept."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        yield browser
    finally:
        browser.quit()


def resize(browser: Any, size: tuple[int, int]) -> None:
    """A viewport of this size in CSS pixels; windows cannot be as narrow as a phone, an emulated device can."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def screenshot(browser: Any, path: Path, whole: bool = False) -> None:
    """What is seen, or with `whole` the page in its full height, as PNG."""
    found = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(found["data"]))


def errors(browser: Any) -> list[str]:
    """What the console calls an error since the last call."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
