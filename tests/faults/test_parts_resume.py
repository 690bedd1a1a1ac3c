"""kill -9 around the pause of a stage in parts, then the same command: the same rows, losses and weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e import command

pytestmark = pytest.mark.slow

STEPS, AT, DOCUMENTS = 24, 8, 120
SHORT = (
    f"stages.0.steps={AT + 2}",
    f"stages.1.steps={STEPS}",
    "train.checkpoint_every=5",
    "stages.0.tasks=[]",
    "stages.1.tasks=[]",
    "evaluate.every=null",
    "track.enabled=false",
)


def options(folder: Path) -> tuple[str, ...]:
    """A matrix of three tasks, and replay by it of what 8 probes say in the middle of both stages."""
    random = np.random.default_rng(0)
    change = random.normal(size=(3, 1)) * random.normal(size=DOCUMENTS) + random.normal(size=(3, DOCUMENTS)) / 10
    columns: dict[str, Any] = {"document": [str(number) for number in range(DOCUMENTS)]}
    columns |= {f"change/t{task}": row for task, row in enumerate(change)}
    file = folder / "associations.parquet"
    pq.write_table(pa.table(columns), file)
    task = {"task": "add", "count": DOCUMENTS}
    replay = {
        "type": "predicted_replay", "matrix": str(file), "at": AT, "probes": 8, "documents": 16, "ratio": 0.25,
        "data": {"type": "python", "function": "benchmarks.arithmetic.tasks:rows", "arguments": task},
    }  # fmt: skip
    return f"mitigation={json.dumps([replay])}", *SHORT


def second(storage: Path) -> Path:
    return storage / "tiny" / "stages" / "2-sort"


def parts(storage: Path) -> dict[int, Any]:
    return {event["stage"]: [event["model"], event["inputs"]] for event in command.events(storage, "part")}


def test_a_killed_stage_in_parts_goes_on_as_if_undisturbed(tmp_path: Path) -> None:
    given = options(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished = command.run(whole, *given)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert sorted(parts(whole)) == [1, 2]
    losses = [set(record["loss"]) for record in command.records(whole, "2-sort")]
    assert losses == [{"task"}] * AT + [{"task", "predicted_replay"}] * (STEPS - AT)

    driver = command.start(killed, *given)
    driver.wait_for((second(killed) / "parts" / f"step-{AT:08d}").is_dir)
    driver.kill()  # while the probes are measured
    assert command.steps_done(killed, "2-sort") == AT
    driver = command.start(killed, *given)
    driver.wait_for(lambda: command.steps_done(killed, "2-sort") >= AT + 4)
    driver.kill()  # past the checkpoint of the part and past the next one
    assert len(command.events(killed, "stage_done")) == 1
    again = command.run(killed, *given)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]

    assert command.essence(killed) == command.essence(whole)
    assert parts(killed) == parts(whole)
    assert command.events(killed, "reused") == []
    assert not (second(killed) / "parts").exists()
