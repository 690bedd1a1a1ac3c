"""The report of a real run, and its pages in a real browser: no error, no network, a phone's width, right numbers."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continual.show.report import write_report
from tests.conftest import ROOT
from tests.e2e import command
from tests.e2e.browser import DESKTOP, PHONE, chromium, errors, needs_browser, resize, screenshot
from tests.kits.runs import HOSTILE, KEPT, LOST, make_run
from tests.unit.show.test_report import Read, at

SCREENSHOTS = Path(os.environ.get("CONTINUAL_SCREENSHOTS", ROOT / "build" / "screenshots"))
FONT_SIZES = """
const sizes = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const parent = walk.currentNode.parentElement;
  if (walk.currentNode.data.trim() && !["SCRIPT", "STYLE"].includes(parent.tagName))
    sizes.push(parseFloat(getComputedStyle(parent).fontSize));
}
return Math.min(...sizes);
"""
NUMBERS = """
return [...document.querySelectorAll("data")].map(
  (e) => [e.dataset.run, e.dataset.key, e.dataset.value, e.textContent]);
"""


def test_a_run_leaves_its_report_in_its_folder_and_in_mlflow(tiny: Path) -> None:
    from mlflow import MlflowClient

    summary = command.summary(tiny)
    page = Read(tiny / "tiny" / "report.html")
    found = {key: value for (_, key), (value, _) in page.numbers.items() if key.startswith("/")}
    assert len(found) > 20
    assert all(value == at(summary, key) for key, value in found.items())
    log_probabilities = [cell for cell in page.all("td") if "data-log-probability" in cell]
    assert len(log_probabilities) == 50
    assert "<reversal>" in page.text
    client = MlflowClient(f"sqlite:///{tiny / 'mlflow.db'}")
    kept = {artifact.path for artifact in client.list_artifacts(summary["mlflow_run_id"])}
    assert {"report.html", "report"} <= kept
    figures = {Path(artifact.path).name for artifact in client.list_artifacts(summary["mlflow_run_id"], "report")}
    assert {"matrix.png", "score-over-steps-accuracy.png", "loss.png", "drift.png"} <= figures
    assert "report: " in (tiny / "stdout.txt").read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of a finished run, of three side by side, and of one that goes on."""
    storage = tmp_path_factory.mktemp("pages")
    for name, scores, overrides in (
        ("kept", KEPT, ()), ("lost", LOST, ("mitigation=[]",)), ("warm", LOST, ("mitigation.0.temperature=1.3",)),
    ):  # fmt: skip
        make_run(storage, name, scores, *overrides)
    make_run(storage, "going", KEPT, stages=1)
    return {
        "one": write_report([storage / "kept"]),
        "three": write_report([storage / name for name in ("kept", "lost", "warm")], storage / "three.html"),
        "unfinished": write_report([storage / "going"]),
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", "three", "unfinished"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_a_page_is_readable_and_right(pages: dict[str, Path], browser: Any, name: str, size: tuple[int, int]) -> None:
    resize(browser, size)
    browser.get(pages[name].as_uri())
    screenshot(browser, SCREENSHOTS / f"report-{name}-{size[0]}.png", whole=True)
    assert errors(browser) == []
    width = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1] == size[0]
    assert browser.execute_script(FONT_SIZES) >= 14
    images = browser.execute_script("return [...document.images].map((i) => [i.naturalWidth, i.clientWidth])")
    # An image that is never shrunk keeps its text at the 14 pixels it was drawn with.
    assert images
    assert all(0 < natural <= shown for natural, shown in images)
    assert browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)") == []
    storage = pages["one"].parents[1]
    numbers = [line for line in browser.execute_script(NUMBERS) if line[1].startswith("/")]
    assert len(numbers) > (20 if name != "unfinished" else 8)
    for run, key, exact, text in numbers:
        if (storage / run / "summary.json").is_file():
            value = at(json.loads((storage / run / "summary.json").read_text()), key)
            assert json.loads(exact) == value
            assert float(text.replace(",", "")) == pytest.approx(value, abs=6e-3)


@needs_browser
@pytest.mark.slow
def test_samples_are_browsed_ten_by_ten(pages: dict[str, Path], browser: Any) -> None:
    resize(browser, PHONE)
    browser.get(pages["one"].as_uri())

    def seen() -> list[str]:
        rows = "return [...document.querySelectorAll('.samples tbody tr')].filter((r) => r.checkVisibility())"
        return list(browser.execute_script(rows + ".map((r) => r.cells[1].textContent)"))

    assert seen() == []
    browser.find_element("css selector", "details:has(.samples) > summary").click()
    previous, following = browser.find_elements("css selector", ".pager button")
    assert seen()[0] == f"<reversal>{HOSTILE}"
    assert seen()[1:] == [f"<reversal>text {n}" for n in range(1, 10)]
    assert not previous.is_enabled()
    assert following.is_enabled()
    for first in (10, 20, 30, 40):
        following.click()
        assert seen() == [f"<reversal>text {n}" for n in range(first, first + 10)]
    assert not following.is_enabled()
    assert "41 to 50 of 50" in browser.page_source
    previous.click()
    assert seen()[0] == "<reversal>text 30"
    assert following.is_enabled()
    assert errors(browser) == []  # what a sample says is never run
