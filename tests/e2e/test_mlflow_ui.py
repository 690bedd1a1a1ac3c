"""MLflow's own pages about our runs, in a real browser, and what a server does that a file does not."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from continual.show.report import write_report
from tests.e2e.browser import chromium, needs_browser, resize, screenshot
from tests.e2e.test_report import SCREENSHOTS
from tests.kits.runs import KEPT, LOST, make_run, publish

pytestmark = pytest.mark.slow
WINDOW = (1400, 1400)


@dataclass
class Server:
    """`mlflow ui` on a storage with three finished runs."""

    url: str
    storage: Path
    experiment: str
    runs: dict[str, str]

    def page(self, path: str, **query: Any) -> str:
        """The address of a page of the UI; values that are no text are JSON there."""
        pairs = {key: value if isinstance(value, str) else json.dumps(value) for key, value in query.items()}
        return f"{self.url}/#/{path}?{urllib.parse.urlencode(pairs, quote_via=urllib.parse.quote)}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    storage = tmp_path_factory.mktemp("runs")
    uri = f"sqlite:///{storage}/mlflow.db"
    runs = {}
    for name, scores, overrides in (
        ("kept", KEPT, ()), ("lost", LOST, ("mitigation=[]",)), ("warm", LOST, ("mitigation.0.temperature=1.3",)),
    ):  # fmt: skip
        _, folder = make_run(storage, name, scores, *overrides)
        write_report([folder])
        tracker = publish(folder, uri, None)
        assert tracker.close(60) == 0
        runs[name] = str(tracker.run_id("sequence"))
    from mlflow import MlflowClient

    experiment = MlflowClient(uri).get_experiment_by_name("continual")
    assert experiment is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # What docs/report-and-mlflow.md says to type, on a port of our own.
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (storage / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=storage, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/health", process, storage / "server.log")
        yield Server(url, storage, experiment.experiment_id, runs)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        resize(found, WINDOW)
        yield found


def text_with(browser: Any, url: str, *wanted: str, seconds: float = 60) -> str:
    """The text of a page once all that is wanted stands in it."""
    browser.get("about:blank")  # the UI's pages differ behind the #, which alone loads nothing
    browser.get(url)
    deadline = time.monotonic() + seconds
    while True:
        text = str(browser.execute_script("return document.body.innerText"))
        if all(word in text for word in wanted):
            return text
        missing = [word for word in wanted if word not in text]
        assert time.monotonic() < deadline, f"{url} does not show {missing}:\n{text[:3000]}"
        time.sleep(0.5)


@needs_browser
def test_three_runs_are_compared_side_by_side(server: Server, browser: Any) -> None:
    """The page behind the button Compare: parameters and metrics of all three, each value in its run's column."""
    url = server.page("compare-runs", runs=list(server.runs.values()), experiments=[server.experiment])
    text = text_with(browser, url, "forgetting", "score/reversal", "score/sort", "average_score", *server.runs)
    screenshot(browser, SCREENSHOTS / "mlflow-compare.png")
    browser.execute_script(
        "[...document.querySelectorAll('*')].filter((e) => e.textContent.trim() === 'Metrics').pop().scrollIntoView()"
    )
    screenshot(browser, SCREENSHOTS / "mlflow-compare-metrics.png")
    rows = compared_metrics(text, len(server.runs))
    wanted = ("forgetting", "score/reversal", "score/sort", "backward_transfer")
    assert {name: rows[name] for name in wanted} == {
        "forgetting": ["0.125", "0.875", "0.875"],  # 1 - 0.875, 1 - 0.125, 1 - 0.125
        "score/reversal": ["0.875", "0.125", "0.125"],
        "score/sort": ["0.75", "0.938", "0.938"],
        "backward_transfer": ["-0.125", "-0.875", "-0.875"],
    }
    # Parameters that differ stand beside each other as well.
    assert re.search(r"mitigation\s+context_free\s+none\s+context_free", text)


def compared_metrics(text: str, runs: int) -> dict[str, list[str]]:
    """Metric to its values in the order of the runs, from the page's text: first all names, then row by row."""
    lines = text.split("\nMetrics\nShow diff only\n")[1].splitlines()
    names = list(itertools.takewhile(lambda line: not re.fullmatch(r"-?[\d.e-]+", line), lines))
    values = lines[len(names) :]
    return {name: values[runs * at : runs * (at + 1)] for at, name in enumerate(names)}


@needs_browser
def test_forgetting_and_scores_are_charts_over_the_stages(server: Server, browser: Any) -> None:
    path, query = f"experiments/{server.experiment}/runs", "tags.kind = 'sequence'"
    url = server.page(path, compareRunsMode="CHART", searchFilter=query)
    runs = [f"{run} (score/reversal)" for run in server.runs]
    # The charts draw themselves one by one: the axes come after the legends.
    text_with(browser, url, "3 matching runs", "forgetting/reversal", "Step", *runs)
    screenshot(browser, SCREENSHOTS / "mlflow-charts.png")


@needs_browser
def test_a_filter_in_the_search_box_finds_its_runs(server: Server, browser: Any) -> None:
    query = "tags.kind = 'sequence' AND metrics.forgetting < 0.2"
    url = server.page(f"experiments/{server.experiment}/runs", searchFilter=query)
    text = text_with(browser, url, "kept")
    screenshot(browser, SCREENSHOTS / "mlflow-filter.png")
    lines = text.splitlines()
    assert "kept" in lines
    assert "lost" not in lines
    assert "warm" not in lines


@needs_browser
def test_the_report_opens_inside_mlflow(server: Server, browser: Any) -> None:
    url = server.page(f"experiments/{server.experiment}/runs/{server.runs['kept']}/artifacts/report.html")
    text_with(browser, url, "report.html", "summary.json", "config.yaml", "matrix.png")
    deadline = time.monotonic() + 30
    while not (frames := browser.find_elements("css selector", "iframe")):
        assert time.monotonic() < deadline, "no frame shows the report"
        time.sleep(0.5)
    screenshot(browser, SCREENSHOTS / "mlflow-report.png")
    browser.switch_to.frame(frames[0])
    try:
        [forgetting] = browser.find_elements("css selector", 'data[data-key="/forgetting"]')
        assert forgetting.get_attribute("data-value") == "0.125"
    finally:
        browser.switch_to.default_content()


def test_a_server_gets_the_registered_models_themselves(server: Server, tmp_path: Path) -> None:
    """It may not read this machine's files, so the folder is uploaded; `models:/` gives it back from anywhere."""
    import mlflow

    _, folder = make_run(tmp_path, "served", KEPT, "track.register=served-models")
    assert publish(folder, server.url, "served").close(120) == 0
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server.url)
    try:
        latest = mlflow.artifacts.download_artifacts("models:/served-models@latest", dst_path=str(tmp_path / "down"))
        versions = mlflow.MlflowClient().search_model_versions("name = 'served-models'")
    finally:
        mlflow.set_tracking_uri(before)
    assert json.loads((Path(latest) / "config.json").read_text()) == {"stage": 2, "run": "served"}
    assert sorted(int(version.version) for version in versions) == [1, 2]
    assert all(str(version.source).startswith("mlflow-artifacts:") for version in versions)
