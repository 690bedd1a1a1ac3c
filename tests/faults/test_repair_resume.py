"""kill -9 in the middle of a walk back, then the same command: it goes on, and chooses the same."""

import json
from pathlib import Path

import pytest

from tests.e2e import command

pytestmark = pytest.mark.slow

# No loss is as low as that, so that all models are evaluated, and the stage is undone.
REPAIR = {
    "type": "repair", "drift_budget": 100.0, "max_forgetting": {"reversal": -1.0}, "toward": "ties", "samples": 32,
    "alphas": [1.0, 0.5],
}  # fmt: skip
SHORT = (
    f"mitigation={json.dumps([REPAIR])}",
    "stages.0.steps=8",
    "stages.1.steps=8",
    "generate.engine=transformers",
    "evaluate.every=null",
    "evaluate.limit=8",
    "track.enabled=false",
)


def evaluations(storage: Path) -> set[str]:
    return {path.parent.name for path in (storage / "store" / "scores").glob("*/manifest.json")}


def test_a_killed_walk_goes_on_and_chooses_the_same(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished = command.run(whole, *SHORT)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    # Two tasks of the start, of the model after stage 1, and of three models on the walk: 1, 0.5, and the merge.
    assert len(evaluations(whole)) == 10

    driver = command.start(killed, *SHORT)
    driver.wait_for(lambda: len(evaluations(killed)) >= 6)
    driver.kill()
    assert len(command.events(killed, "stage_done")) == 1
    again = command.run(killed, *SHORT)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]

    assert command.essence(killed) == command.essence(whole)
    assert evaluations(killed) == evaluations(whole)
    walks = command.summary(killed)["walks"]
    assert walks == command.summary(whole)["walks"]
    [walk] = walks
    assert (walk["stage"], walk["alpha"], walk["candidate"]) == (2, None, "repair undone")
    assert [one["alpha"] for one in walk["tried"]] == [1.0, 0.5, 0.0]
    assert all(one["drift"] is not None and "reversal" in one["losses"] for one in walk["tried"])
    candidates = {each["name"]: each["scores"] for each in command.summary(killed)["candidates"]}
    assert candidates.keys() == {"repair 1", "repair 0.5", "repair 0"}
    before, after = (row["scores"]["reversal"]["score"] for row in command.summary(killed)["matrix"][1:])
    assert before == after, "the stage is undone"
    for one, scores in zip(walk["tried"], candidates.values(), strict=True):
        assert one["losses"]["reversal"]["value"] == pytest.approx(before - scores["reversal"]["score"])
    page = (killed / "tiny" / "report.html").read_text()
    assert '<h2 id="repair">Repair</h2>' in page
