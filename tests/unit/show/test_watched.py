"""Drift against loss: which stages are points, their correlation beside scipy's, and what the report and MLflow get."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from continual.contract.models import ModelRef
from continual.ledger.folder import RunFolder
from continual.run.events import drift_numbers
from continual.show.report import write_report
from continual.show.report.correlation import correlation
from continual.show.report.figures import _stream_line
from continual.show.report.gather import by_stream, gather
from continual.show.report.trade_off import EARLIER
from continual.show.report.watched import watched
from tests.kits.page import Read
from tests.kits.runs import KEPT, make_run

DRIFTS = (0.01, 0.4, 0.05, 0.02, 0.1, 0.9)
KEPT_OF_SORT = (1.0, 0.25, 0.625, 0.75, 0.5, 0.375)
"""What six runs keep of the first task in their second stage: the more they drift the less, but for the last."""


def drifted(storage: Path, name: str, kept: float, drift: float, *overrides: str) -> Path:
    """A finished run whose second stage drifts by so much and keeps so much of the first one's task."""
    _, folder = make_run(storage, name, [(0.0, 0.0), (1.0, 0.0), (kept, 0.75)], *overrides)
    file = RunFolder(folder).stage(2, "sort").metrics
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[-1]["drift"] = {"context_free": drift}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("six")
    for number, (drift, kept) in enumerate(zip(DRIFTS, KEPT_OF_SORT, strict=True)):
        drifted(storage, f"r{number}", kept, drift, f"seed={number}")
    return storage


def test_a_point_is_the_drift_of_a_stage_and_what_it_cost(six: Path) -> None:
    [group] = watched([gather(six / f"r{number}") for number in range(6)])
    assert (group.stream, group.since, group.kind, group.unit) == ("context_free", "stage_start", EARLIER, "accuracy")
    assert [(point.run, point.stage, point.name) for point in group.points] == [(n, 2, "sort") for n in range(6)]
    assert [point.drift for point in group.points] == list(DRIFTS)
    assert [point.lost for point in group.points] == [1 - kept for kept in KEPT_OF_SORT]
    assert group.points[1].stderr == pytest.approx((0.25 * 0.75 / 63) ** 0.5)  # a score of 1 has no error
    assert group.found.spearman == pytest.approx(stats.spearmanr(DRIFTS, [-kept for kept in KEPT_OF_SORT])[0])


def test_from_the_start_model_only_old_abilities_count(tmp_path: Path) -> None:
    for number, drift in enumerate(DRIFTS):
        drifted(tmp_path, f"r{number}", 0.5, drift, "mitigation.0.model=start", f"seed={number}")
    runs = [gather(tmp_path / f"r{number}") for number in range(6)]
    assert watched(runs) == []
    for number, run in enumerate(runs):
        run.config["evaluate"]["old_tasks"] = [{"name": "x"}]
        for stage, score in enumerate((0.875, 0.75, 0.5 - number / 16)):
            run.summary["matrix"][stage]["scores"]["x"] = {"score": score, "stderr": 0.03, "n": 64, "unit": "accuracy"}
        run.summary["unit"]["x"] = "accuracy"
        run.__dict__.pop("matrix", None)
    [group] = watched(runs)
    assert (group.since, group.kind) == ("start", "old abilities")
    assert [point.lost for point in group.points] == [0.375 + number / 16 for number in range(6)]
    for number, run in enumerate(runs):
        drifts = [(stage, stage + number / 8) for stage in range(3)]
        measured = [{"stage": stage, "name": "", "drift": drift, "stderr": 0.1} for stage, drift in drifts]
        run.summary["drift"] = {"c4": measured}
        run.summary["drift_stage"] = {"c4": [{"stage": s, "drift": 3 * drift} for s, drift in drifts[1:]]}
    [text, since_stage, held_out] = watched(runs)
    assert held_out == group
    assert (text.stream, text.since, text.kind) == ("c4", "start", "old abilities")
    assert [(point.run, point.stage, point.drift, point.lost) for point in text.points] == [
        (number, stage, stage + number / 8, lost)
        for number in range(6)
        for stage, lost in ((1, 0.125), (2, 0.375 + number / 16))
    ]
    assert (since_stage.stream, since_stage.since, since_stage.kind) == ("c4", "stage_start", "old abilities")
    assert [(point.run, point.stage, point.drift, point.lost) for point in since_stage.points] == [
        (number, stage, 3 * (stage + number / 8), lost)
        for number in range(6)
        for stage, lost in ((1, 0.125), (2, 0.25 + number / 16))
    ]


def test_stages_whose_drift_is_another_models_or_unknown_are_no_points(six: Path) -> None:
    runs = [gather(six / f"r{number}") for number in range(6)]
    assert len(watched(runs)[0].points) == 6
    ledger = RunFolder(runs[0].folder).ledger
    text = ledger.read_text()
    own = str(RunFolder(runs[0].folder).stage(2, "sort").model)
    try:
        ledger.write_text(text.replace(own, "store/averages/" + "0" * 20))
        replaced = gather(runs[0].folder)
    finally:
        ledger.write_text(text)
    assert [point.run for point in watched([replaced, *runs[1:]])[0].points] == [1, 2, 3, 4, 5]
    runs[1].stages[1].records.pop()
    assert [point.run for point in watched(runs)[0].points] == [0, 2, 3, 4, 5]
    for other in runs:
        other.config["mitigation"][0]["model"] = "some/teacher"
    assert watched(runs) == []


def test_a_handful_of_points_is_needed_and_of_runs_for_an_interval(six: Path) -> None:
    assert watched([gather(six / f"r{number}") for number in range(4)]) == []
    x, y = np.arange(8.0), np.arange(8.0) ** 2
    few = correlation(x, y, [0, 0, 1, 1, 2, 2, 3, 3])
    assert few is not None
    assert (few.spearman, few.interval, few.points, few.runs) == (pytest.approx(1.0), None, 8, 4)
    assert correlation(x[:4], y[:4], range(4)) is None
    assert correlation(x, np.ones(8), range(8)) is None  # nothing was lost anywhere


@pytest.mark.parametrize("seed", range(5))
def test_the_correlation_is_scipys_and_its_interval_that_of_scipys_bootstrap(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.round(random.lognormal(size=60), 1)  # with ties
    y = np.round(np.log(x + 0.1) + random.normal(size=60), 1)
    found = correlation(x, y, range(60))
    assert found is not None
    assert found.spearman == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)

    def spearman(a: Any, b: Any) -> float:
        return float(stats.spearmanr(a, b)[0])

    other = stats.bootstrap((x, y), spearman, paired=True, vectorized=False, method="percentile", n_resamples=2000,
                            random_state=1)  # fmt: skip
    assert found.interval == pytest.approx(tuple(other.confidence_interval), abs=0.03)
    assert correlation(x, y, range(60)) == found  # seeded


def test_stages_of_a_run_count_together() -> None:
    """Ten copies of each run's point tell nothing new: the interval is that of the runs alone."""
    random = np.random.default_rng(3)
    x, runs = random.normal(size=12), np.arange(12)
    y = x + random.normal(size=12)
    once, often = correlation(x, y, runs), correlation(np.tile(x, 10), np.tile(y, 10), np.tile(runs, 10))
    assert once is not None
    assert often is not None
    assert often.points == 120
    assert often.interval == pytest.approx(once.interval, abs=1e-12)


def test_a_storage_stands_for_its_runs_and_the_page_for_the_file(six: Path, tmp_path: Path) -> None:
    page = Read(write_report([six], tmp_path / "all.html"))
    [stored] = json.loads((tmp_path / "all" / "drift-against-loss.json").read_text())
    assert [(p["run"], p["drift"]) for p in stored["points"]] == [(f"r{n}", d) for n, d in enumerate(DRIFTS)]
    assert [p["label"] for p in stored["points"]] == [f"seed: {number}" for number in range(6)]
    low, high = stored["interval"]
    assert low <= stored["spearman"] <= high
    row = f"earlier stages' tasks, accuracy {stored['spearman']:.2f} {low:.2f} to {high:.2f} 6 6"
    assert f"context_free the stage's start {row}" in page.text
    assert any(f"correlation is {stored['spearman']:.2f}" in image["alt"] for image in page.all("img"))
    name = "drift-against-loss-context-free-stage-start-earlier-stages-tasks.png"
    assert (tmp_path / "all" / name).is_file()
    alone = Read(write_report([six / "r0"], tmp_path / "one.html"))
    assert "drift-against-loss" not in [values["id"] for values in alone.all("h2")]
    assert not (tmp_path / "one" / "drift-against-loss.json").exists()


def test_mlflow_gets_the_drift_beside_the_scores_of_the_same_model(tmp_path: Path) -> None:
    _, folder = make_run(tmp_path, "kept", KEPT)
    files = RunFolder(folder).stage(2, "sort")
    assert drift_numbers(files, ModelRef(str(files.model), "m2")) == {"drift/context_free": 0.048}
    lines = [json.loads(line) for line in files.metrics.read_text().splitlines()]
    lines[-1]["drift_stderr"] = {"context_free": 0.003}
    files.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert drift_numbers(files, ModelRef(str(files.model), "m2")) == {
        "drift/context_free": 0.048, "stderr/drift/context_free": 0.003,
    }  # fmt: skip
    assert drift_numbers(files, ModelRef(str(tmp_path / "average"), "a")) == {}
    assert drift_numbers(RunFolder(folder).stage(1, "reversal"), ModelRef(str(files.model), "m1")) == {}


def test_the_errors_of_a_drift_are_drawn_where_all_are_known(tmp_path: Path) -> None:
    _, folder = make_run(tmp_path, "kept", KEPT)
    files = RunFolder(folder).stage(2, "sort")
    lines = [json.loads(line) for line in files.metrics.read_text().splitlines()]
    measured = [line for line in lines if "drift" in line]

    def written(stage: int) -> tuple[list[float] | None, int]:
        files.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = gather(folder)
        found = dict(by_stream(run, "drift"))["context_free"][stage][2]
        bands: list[Any] = []

        class Axes:
            def plot(self, *_: Any, **__: Any) -> None: ...

            def fill_between(self, *places: Any, **_: Any) -> None:
                bands.append(places)

        _stream_line(Axes(), 0, "context_free", dict(by_stream(run, "drift"))["context_free"])
        if found is not None:
            [(_, below, above)] = bands
            middles = [line["drift"]["context_free"] for line in measured]
            assert below == pytest.approx([m - e for m, e in zip(middles, found, strict=True)])
            assert above == pytest.approx([m + e for m, e in zip(middles, found, strict=True)])
        return found, len(bands)

    assert written(-1) == (None, 0)
    errors = [0.001 * number for number in range(1, len(measured) + 1)]
    for line, error in zip(measured, errors, strict=True):
        line["drift_stderr"] = {"context_free": error}
    assert written(-1) == (errors, 1)
    del measured[-1]["drift_stderr"]
    assert written(-1) == (None, 0)
