"""kill -9 in the second stage of the methods that carry something along, then the same command: as if undisturbed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import command

pytestmark = pytest.mark.slow

STEPS = 24
AUTO = {
    "type": "context_free",
    "loss": "kl",
    "weight": "auto",
    "drift_budget": 0.01,
    "adjust_every": 2,
    "ratio": 0.25,
    "start": "tasks",
    "samples": 64,
    "held_out": 8,
}
LISTS: dict[str, list[dict[str, Any]]] = {
    # Rows of earlier stages, a Fisher information and a centre, the state of a controller.
    "task_replay+ewc+auto": [{"type": "task_replay", "ratio": 0.25}, {"type": "ewc", "documents": 32}, AUTO],
    # Other parameters than the model's, in the optimizer and in the checkpoint, beside such a state.
    "lora+auto": [{"type": "lora", "rank": 4, "from_stage": 2}, AUTO],
}
SHORT = (
    "stages.0.steps=8",
    f"stages.1.steps={STEPS}",
    "train.checkpoint_every=5",
    "generate.engine=transformers",
    # Equal weights have equal scores: these need not be made.
    "stages.0.tasks=[]",
    "stages.1.tasks=[]",
    "evaluate.every=null",
    "track.enabled=false",
)


def checkpoints(storage: Path) -> list[int]:
    folder = storage / "tiny" / "stages" / "2-sort" / "checkpoints"
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def weights(storage: Path) -> list[dict[str, float]]:
    return [record["weight"] for record in command.records(storage, "2-sort")]


@pytest.mark.parametrize("name", LISTS)
def test_a_killed_run_goes_on_as_if_undisturbed(tmp_path: Path, name: str) -> None:
    """Each in a storage of its own: in a common one the second would take over what the first has trained."""
    options = (f"mitigation={json.dumps(LISTS[name])}", *SHORT)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished = command.run(whole, *options)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    driver = command.start(killed, *options)
    # Past a checkpoint, so that steps behind it are done again, and past measurements before and after it.
    driver.wait_for(lambda: command.steps_done(killed, "2-sort") >= 8)
    driver.kill()
    assert len(command.events(killed, "stage_done")) == 1
    assert 5 <= max(checkpoints(killed)) < STEPS
    again = command.run(killed, *options)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]

    assert command.essence(killed) == command.essence(whole)
    assert weights(killed) == weights(whole)
    auto = [record["context_free"] for record in weights(whole)]
    assert all(auto[step] != auto[step - 1] for step in range(2, STEPS, 2)), "the weight follows every measurement"
    assert command.events(killed, "reused") == command.events(whole, "reused") == []
    expected = {"task", "context_free"} | ({"task_replay", "anchor/ewc"} if "ewc" in name else set())
    assert all(set(record["loss"]) == expected for record in command.records(killed, "2-sort"))
