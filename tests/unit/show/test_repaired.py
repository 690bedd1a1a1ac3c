"""Walks back in the report and in MLflow: every number is the summary's, and what became of each model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continual.api import ScoreLoss, Tried, Walk
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Ledger
from continual.run.summary import summarise
from continual.show.report import write_report
from continual.show.tracking.names import walk_end, walk_metrics
from tests.kits.page import Read
from tests.kits.runs import KEPT, LOST, make_run
from tests.kits.tracking import Written, history, runs_of

LOSSES = {"forgetting": ScoreLoss(0.25, (0.125, 0.375)), "sort": ScoreLoss(0.0625)}
WALKS = (
    Walk("stage_start", (Tried(1.0, 0.3, 0.01), Tried(0.5, 0.1, 0.02)), 0.5, 0.2),
    Walk("ties", (Tried(1.0, 0.31, 0.01), Tried(0.0, 0.125, 0.01, LOSSES)), None, 0.2, {"forgetting": 0.05, "sort": 1}),
)


def walked(folder: Path, *walks: Walk) -> None:
    """Add walks to a run, by stage."""
    with Ledger(folder) as ledger:
        for stage, walk in enumerate(walks, 1):
            ledger.add("walked", stage=stage, name=f"s{stage}", candidate="repair", walk=walk.as_json())


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    storage = tmp_path_factory.mktemp("storage")
    run, folder = make_run(storage, "kept", KEPT)
    walked(folder, *WALKS)
    with Ledger(folder) as ledger:
        summarise(RunFolder(folder), run.sequence, ledger, storage / "store", None)
    make_run(storage, "plain", LOST)
    _, going = make_run(storage, "going", KEPT, stages=1)
    walked(going, Walk("stage_start", (Tried(1.0, None, losses={}),), 1.0, None, {"forgetting": 0.1}))
    yield storage


def test_the_table_has_what_was_measured_and_what_became_of_it(storage: Path) -> None:
    page = Read(write_report([storage / "kept"]))
    summary = json.loads((storage / "kept" / "summary.json").read_text())
    assert [walk["alpha"] for walk in summary["walks"]] == [0.5, None]
    found = {key: value for (run, key), (value, _) in page.numbers.items() if key.startswith("/walks/")}
    assert found == {
        "/walks/0/tried/0/alpha": 1.0, "/walks/0/tried/0/drift": 0.3, "/walks/0/tried/0/stderr": 0.01,
        "/walks/0/tried/1/alpha": 0.5, "/walks/0/tried/1/drift": 0.1, "/walks/0/tried/1/stderr": 0.02,
        "/walks/1/tried/0/alpha": 1.0, "/walks/1/tried/0/drift": 0.31, "/walks/1/tried/0/stderr": 0.01,
        "/walks/1/tried/1/alpha": 0.0, "/walks/1/tried/1/drift": 0.125, "/walks/1/tried/1/stderr": 0.01,
        "/walks/1/tried/1/losses/forgetting/value": 0.25,
        "/walks/1/tried/1/losses/forgetting/interval/0": 0.125,
        "/walks/1/tried/1/losses/forgetting/interval/1": 0.375, "/walks/1/tried/1/losses/sort/value": 0.0625,
        "/walks/0/drift_budget": 0.2, "/walks/1/drift_budget": 0.2,
        "/walks/1/limits/forgetting": 0.05, "/walks/1/limits/sort": 1,
    }  # fmt: skip
    text = " ".join(page.text.split())
    assert text.count("continues") == 1
    assert text.count("stage undone") == 1
    assert "0.250 [ 0.125 to 0.375 ], up to 0.05 ; sort 0.062 , up to 1" in text
    [image] = [image for image in page.all("img") if "by the share of the weights after it" in image["alt"]]
    assert image["alt"].endswith("1 s1: alpha 0.5 continues; 2 s2: the stage was undone.")
    assert (storage / "kept" / "report" / "drift-by-alpha.png").is_file()


def test_several_runs_are_told_apart_and_a_run_without_walks_has_no_section(storage: Path, tmp_path: Path) -> None:
    page = Read(write_report([storage / "kept", storage / "plain", storage / "going"], tmp_path / "all.html"))
    assert {run for run, key in page.numbers if key.startswith("/walks/")} == {"kept", "going"}
    assert (tmp_path / "all" / "drift-by-alpha-kept.png").is_file()
    assert [heading["id"] for heading in page.all("h2")].count("repair") == 1
    plain = Read(write_report([storage / "plain"], tmp_path / "plain.html"))
    assert "repair" not in [heading["id"] for heading in plain.all("h2")]


def test_metrics_of_a_walk() -> None:
    walk: dict[str, Any] = WALKS[1].as_json()
    assert walk_metrics(walk) == [
        (100, {"walk/drift": 0.31, "stderr/walk/drift": 0.01}),
        (
            0,
            {"walk/drift": 0.125, "stderr/walk/drift": 0.01, "walk/loss/forgetting": 0.25, "walk/loss/sort": 0.0625},
        ),
    ]
    assert walk_end(walk) == {"walk/undone": 1.0, "walk/drift_budget": 0.2}
    assert walk_end(WALKS[0].as_json()) == {"walk/alpha": 0.5, "walk/undone": 0.0, "walk/drift_budget": 0.2}
    assert walk_metrics(Walk("x", (Tried(1.0, 0.1),), 1.0).as_json()) == [(100, {"walk/drift": 0.1})]


def test_a_walk_arrives_in_mlflow(uri: str, tmp_path: Path) -> None:
    run = Written(tmp_path / "run")
    tracker = run.track(uri, "walks")
    run.start("walks")
    run.prepare("walks")
    run.events.add("walked", stage=1, name="one", candidate="repair 0.5", walk=WALKS[0].as_json())
    run.done()
    run.end()
    assert tracker.close(30) == 0
    runs = runs_of(uri, "walks")
    assert sorted(history(uri, runs["walks/1-one"], "walk/drift")) == [(50, 0.1), (100, 0.3)]
    assert history(uri, runs["walks"], "walk/alpha") == [(1, 0.5)]
