"""Three of the random lists of methods through Ray Train: what two workers do is what the loop does in process."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from continual.contract.models import ModelRef
from continual.ledger.lines import read_lines
from continual.models import model_hash
from continual.testing.loop import run
from continual.training.launch import Workers
from tests.kits import compositions as lists

pytestmark = pytest.mark.slow
CHOSEN = {
    12: ["easy_samples", "l2_start", "ewc"],
    23: ["weight_average", "context_free", "lora"],
    25: ["pretraining_subset", "task_replay", "context_free"],
}
"""Together they weigh, pull, adapt, control, average, and read replay with live and cached teachers and without."""


@pytest.mark.parametrize("number", CHOSEN, ids=lambda number: "+".join(CHOSEN[number]))
def test_ray_train_equals_the_loop_in_process(local_ray: None, tmp_path: Path, number: int) -> None:
    entries = lists.draw(number)
    assert [entry["type"] for entry in entries] == CHOSEN[number]
    # A large epsilon: where a gradient is nothing, Adam makes a step of full size of what two workers round otherwise.
    first = lists.first_stage(tmp_path, entries, workers=2, epsilon=1e-4)
    job, _ = lists.build(first, tmp_path / "one")
    _, worker = run(job)
    worker.export(job.export)
    second = lists.next_stage(first, ModelRef(str(job.export), model_hash(job.export)))
    job, mitigations = lists.build(second, tmp_path / "two")
    with Workers(job.folder / "ray", 0.5) as workers:
        workers.train(job, lambda records: None)
    found = read_lines(job.folder / "metrics.jsonl")
    expected, _ = run(dataclasses.replace(job, folder=tmp_path / "in-process"))

    assert len(found) == lists.STEPS[2]
    for one, other in zip(found, expected, strict=True):
        assert {key: one[key] for key in ("step", "rows", "tokens")} == {
            key: other[key] for key in ("step", "rows", "tokens")
        }
        for key in ("loss", "weight", "drift"):
            assert list(one.get(key, {})) == list(other.get(key, {}))
            values = [list(record.get(key, {}).values()) for record in (one, other)]
            # A controlled weight is a power of the drift, so it keeps the relative error of that small number.
            relative = 1e-4 if key == "weight" else 0
            what = f"{key} of step {one['step']}"
            np.testing.assert_allclose(values[0], values[1], rtol=relative, atol=1e-6, err_msg=what)
    assert set(lists.streams(entries, 2)) | {"task"} == set(found[0]["weight"])
    trained = ModelRef(str(job.export), model_hash(job.export))
    candidates = [candidate for one in mitigations for candidate in one.after_training(second, trained)]
    assert len(candidates) == sum(1 + len(e["further"]) for e in entries if e["type"] == "weight_average")
