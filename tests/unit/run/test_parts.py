"""A stage in parts: nothing changes by the cut itself, a stream begins at its part, a resume sees the same rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from continual.contract.models import ModelRef
from continual.contract.stream import Stream
from continual.errors import ConfigurationError
from continual.ledger.ledger import Ledger
from continual.run import sequence as state_machine
from continual.run.stage import next_part, part_steps, passes
from continual.store import publish_folder
from continual.testing import loop
from continual.training.ingest import ReadSteps
from continual.training.losses.kinds import Nll
from tests.kits import baselines as kit

CUT = 8
AUTO = {
    "type": "context_free", "loss": "kl", "held_out": 2, "weight": "auto", "drift_budget": 0.01, "adjust_every": 3
}  # fmt: skip


def test_a_cut_changes_nothing(tmp_path: Path) -> None:
    """Losses, the state of a controller and the weights are those of a stage in one go, bit by bit."""
    whole, of_whole = loop.run(loop.job_of(kit.context(tmp_path, [AUTO]), tmp_path / "whole"))
    job = loop.job_of(kit.context(tmp_path, [AUTO]), tmp_path / "cut")
    part = replace(job, until=CUT)
    first, worker = loop.run(part)
    assert [record["step"] for record in first] == list(range(1, CUT + 1))
    worker.export(part.export)
    assert part.export == job.files.part_model(CUT)
    assert part.export.is_dir()
    assert not job.export.exists()
    records, of_cut = loop.run(job)
    for name in ("step", "rows", "loss", "weight", "drift", "gradient_norm", "learning_rate"):
        assert [record.get(name) for record in records] == [record.get(name) for record in whole], name
    assert of_cut.control == of_whole.control
    expected, found = dict(of_whole.strategy.whole_tensors()), dict(of_cut.strategy.whole_tensors())
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class Begins:
    """What stands for a mitigation with a part: its stream begins after CUT steps."""

    label = "late"

    def __init__(self, rows: Any, **options: Any):
        self.rows, self.options, self.called = rows, options, list[tuple[int, str]]()

    def parts(self, view: Any) -> tuple[int, ...]:
        return (CUT,)

    def part(self, ctx: Any, step: int, trained: ModelRef) -> list[Stream]:
        self.called.append((step, trained.hash))
        return [Stream("late", self.rows, Nll(), ratio=0.5, **self.options)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_stream_begins_with_its_first_rows_where_its_part_begins(tmp_path: Path, shuffle: bool) -> None:
    ctx = kit.context(tmp_path, [])
    rows = ctx.store.artefact("rows", {"test": "replay"})
    mitigation: Any = Begins(rows, shuffle=shuffle)
    job = replace(loop.job_of(ctx), mitigations=(mitigation,))
    after = next_part(ctx, job, CUT, ModelRef("x", "hash"))
    assert mitigation.called == [(CUT, "hash")]
    assert [stream.name for stream in after.streams] == ["task", "late"]
    late = after.streams[1]
    assert (late.since, late.rows_per_step) == (CUT, kit.ROWS // 2)
    assert after.streams[0] == job.streams[0]
    read = ReadSteps(after.streams, after.seed, 0, 1)
    count = rows.manifest()["counts"]["rows"]
    once = np.concatenate([read.row_numbers(late, step) for step in range(CUT, CUT + count // late.rows_per_step)])
    assert len(set(once.tolist())) == len(once), "no row twice before all were read"
    fresh = ReadSteps([replace(late, since=0)], after.seed, 0, 1)
    assert read.row_numbers(late, CUT).tolist() == fresh.row_numbers(replace(late, since=0), 0).tolist()
    assert passes(after)["late"]["rows_read"] == late.rows_per_step * (kit.STEPS - CUT)


def test_a_stream_takes_the_place_of_the_one_of_its_name(tmp_path: Path) -> None:
    """As in rounds, where each has samples of its own; what control has set for the name stays."""
    ctx = kit.context(tmp_path, [AUTO])
    job = loop.job_of(ctx, tmp_path / "stage")
    loop.run(replace(job, until=CUT))
    other = ctx.store.artefact("rows", {"test": "first"})
    again = replace(job.streams[1], rows=other, coefficient=123.0)
    after = replace(job, streams=(job.streams[0], replace(again, since=CUT)))
    worker = loop.worker_of(after)
    assert worker.step == CUT
    assert worker.stepper.coefficients["context_free"] == worker.control["0"]["weight"] != 123.0
    new = replace(again, name="new", since=CUT)
    worker = loop.worker_of(replace(job, streams=(job.streams[0], new)))
    assert worker.stepper.coefficients == {"task": 1.0, "new": 123.0}


def test_steps_outside_of_a_stage_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = kit.context(tmp_path, [AUTO])
    [mitigation] = ctx.sequence.mitigation
    for steps, sentence in (((0,), "after step 0"), ((3, kit.STEPS), f"after step {kit.STEPS} of a stage of")):
        monkeypatch.setattr(type(mitigation), "parts", lambda self, view, steps=steps: steps)
        with pytest.raises(ConfigurationError, match=sentence):
            part_steps(ctx.sequence, ctx.view)
    monkeypatch.setattr(type(mitigation), "parts", lambda self, view: (9, 3, 9))
    assert part_steps(ctx.sequence, ctx.view) == [3, 9]


@contextmanager
def ledger_of(folder: Path) -> Iterator[Ledger]:
    folder.mkdir(exist_ok=True)
    with Ledger(folder) as ledger:
        yield ledger


def test_a_resume_has_the_rows_of_the_ledger_or_is_refused(tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [])
    rows, others = (ctx.store.artefact("rows", {"test": name}) for name in ("replay", "first"))
    job = loop.job_of(ctx, tmp_path / "stage")
    part = replace(job, until=CUT)
    export = kit.models()[0]
    temporary = tmp_path / "export"
    temporary.mkdir()
    for path in Path(export.path).iterdir():
        (temporary / path.name).write_bytes(path.read_bytes())
    part.export.parent.mkdir(parents=True)
    publish_folder(temporary, part.export, {})

    def go_on(ledger: Ledger, artefact: Any) -> Any:
        run: Any = SimpleNamespace(ledger=ledger, phase=lambda name, stage: contextmanager(lambda: iter([None]))())
        with_part = replace(job, mitigations=(Begins(artefact),))  # type: ignore[arg-type]
        nothing: Any = None
        return state_machine._part(run, ctx, with_part, CUT, nothing, nothing)

    with ledger_of(tmp_path / "run") as ledger:
        after = go_on(ledger, rows)
        [event] = ledger.all("part")
        assert (event["stage"], event["step"], event["inputs"]) == (2, CUT, {"late": [rows.hash]})
        assert go_on(ledger, rows).streams == after.streams
        assert len(ledger.all("part")) == 1
        (tmp_path / "stage" / "checkpoints").mkdir()
        with pytest.raises(ConfigurationError, match="different contents of late"):
            go_on(ledger, others)
        for path in part.export.iterdir():
            path.unlink()
        part.export.rmdir()
        (tmp_path / "stage" / "checkpoints" / "step-00000012").mkdir()
        with pytest.raises(ConfigurationError, match=r"after step 8 .* is gone, and its training is past"):
            go_on(ledger, rows)
