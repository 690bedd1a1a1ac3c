"""What replay draws from, which rows it holds out, how often it reads the others."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from baselines.contextual import Contextual, task_prompts
from baselines.pretraining_subset import PretrainingSubset
from continual.api import RowReader
from continual.run.stage import passes, passes_in_words
from continual.show.terminal import Terminal
from continual.training.ingest import ReadSteps
from continual.training.job import TrainJob
from continual.training.order import held_out_rows
from tests.kits import baselines as kit

TEXT = {"type": "jsonl", "path": "qa.jsonl", "text": "answer"}


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.without_ray(monkeypatch)


def test_prompts_are_drawn_from_the_whole_task_and_anew_in_every_stage(tmp_path: Path) -> None:
    """Answers are asked for until the rows suffice, to all prompts in turn, in an order of their own in each stage."""
    ctx = kit.context(tmp_path, [])
    Contextual(type="contextual", loss="kl", held_out=3, ratio=0.5).prepare(ctx)
    known = task_prompts(ctx.task_rows)
    [first] = ctx.requests
    assert (first.count, first.rows, first.held_out) == (None, ctx.view.replay_rows(0.5), 3)
    assert sorted(map(list, first.prompts)) == sorted(known)
    places = [known.index(list(prompt)) for prompt in first.prompts]
    assert stats.spearmanr(np.arange(len(places)), places).pvalue > 0.01
    ctx.view = replace(ctx.view, number=3)
    Contextual(type="contextual").prepare(ctx)
    other = ctx.requests[-1]
    assert sorted(map(list, other.prompts)) == sorted(known)
    assert other.prompts[:10] != first.prompts[:10]
    Contextual(type="contextual", seed=5).prepare(ctx)
    assert ctx.requests[-1].prompts not in (first.prompts, other.prompts)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "context_free", "samples": 8}, "`samples` 8 leaves nothing beside 8 held-out rows"),
        ({"type": "context_free", "samples": 3, "held_out": 4}, "`samples` 3 leaves nothing beside 4 held-out rows"),
        ({"type": "contextual", "loss": "kl", "answers": 5}, "`answers` 5 leaves nothing beside 8 held-out rows"),
        ({"type": "context_free", "samples": 8, "loss": "nll"}, None),
        ({"type": "context_free", "samples": 9}, None),
        ({"type": "context_free", "sample_tokens": 2}, None),
    ],
)
def test_too_few_samples_for_what_is_held_out_are_refused(
    tmp_path: Path, entry: dict[str, Any], words: str | None
) -> None:
    ctx = kit.context(tmp_path, [entry])
    [mitigation] = ctx.sequence.mitigation
    reason = mitigation.check(ctx.view, [])
    assert reason is None if words is None else words in str(reason)


# Text -------------------------------------------------------------------------------------------------------------


def text_stream(tmp_path: Path, **options: Any) -> tuple[TrainJob, int]:
    """Two stages' jobs that replay a text of 35 rows or so, and its rows."""
    entry = {"type": "pretraining_subset", "data": TEXT, "loss": "kl", "ratio": 0.25, **options}
    job = kit.job_of(kit.context(tmp_path, [entry]))
    return job, job.streams[1].rows.manifest()["counts"]["rows"]


def read_of(job: TrainJob, steps: range) -> list[int]:
    reader = ReadSteps(job.streams, job.seed, 0, 1)
    return [int(n) for step in steps for n in reader.read(step)["pretraining_subset/row"]]


def test_a_text_is_read_whole_in_another_order_in_every_stage(tmp_path: Path) -> None:
    job, total = text_stream(tmp_path, held_out=5)
    stream = job.streams[1]
    held = set(held_out_rows(stream, total).tolist())
    assert len(held) == stream.held_out == 5
    assert held != set(range(5)), "the first rows of a text are not like the others"
    epoch = range((total - 5) // stream.rows_per_step)
    first = read_of(job, epoch)
    assert len(set(first)) == len(first)
    assert not held & set(first)
    later = read_of(replace(job, seed=job.seed + 1), epoch)
    assert set(later) == set(first) == set(range(total)) - held
    assert later != first
    assert held_out_rows(stream, total).tolist() == sorted(held), "every stage measures on the same rows"


def drawn(tmp_path: Path, number: int = 1, of_sequence: int = 0, **options: Any) -> list[tuple[int, ...]]:
    """The rows of a subset of the text, in their order, as token ids."""
    entry = {"type": "pretraining_subset", "data": TEXT, **options}
    ctx = kit.context(tmp_path, [entry])
    ctx.view = replace(ctx.view, number=number, seed=of_sequence)
    [subset] = ctx.sequence.mitigation
    assert isinstance(subset, PretrainingSubset)
    rows = subset.rows(ctx)
    assert rows.complete
    ids = RowReader(rows).take(np.arange(rows.manifest()["counts"]["rows"]))["ids"]
    return [tuple(row) for row in ids.tolist()]


def test_a_subset_is_drawn_from_the_whole_text_in_every_stage(tmp_path: Path) -> None:
    whole = drawn(tmp_path)
    places = {row: place for place, row in enumerate(whole)}
    assert len(places) == len(whole)
    draws = [drawn(tmp_path, number, seed, buffer_rows=8) for number in (1, 2) for seed in (0, 1)]
    assert [len(set(draw)) for draw in draws] == [8] * 4
    assert len({frozenset(draw) for draw in draws}) == 4, "stages and seeds draw others"
    assert drawn(tmp_path, 2, 1, buffer_rows=8) == draws[3]
    assert drawn(tmp_path, 2, 5, buffer_rows=8, seed=1) == draws[3]
    # The mean place of 480 rows is the middle of the text, give or take half a row.
    many = [places[row] for seed in range(60) for row in drawn(tmp_path, 1, seed, buffer_rows=8)]
    assert abs(np.mean(many) - (len(whole) - 1) / 2) < 2
    assert set(many) == set(places.values())
    assert drawn(tmp_path, buffer_rows=len(whole)) == whole


@pytest.mark.parametrize("wanted", [1000, 35])
def test_no_more_than_half_of_a_text_is_held_out_and_that_is_said(tmp_path: Path, wanted: int) -> None:
    ctx = kit.context(tmp_path, [{"type": "pretraining_subset", "data": TEXT, "loss": "kl", "held_out": wanted}])
    output = io.StringIO()
    ctx.terminal = Terminal(tmp_path / "log.txt", output)
    stream = kit.job_of(ctx).streams[1]
    total = stream.rows.manifest()["counts"]["rows"]
    assert stream.held_out == total // 2
    said = output.getvalue()
    assert f"{total // 2} instead of {wanted}: no more than half of {total} rows are kept from training" in said


def test_passes_are_rows_read_per_row_there(tmp_path: Path) -> None:
    job, total = text_stream(tmp_path, held_out=5, ratio=1.0)
    found = passes(job)
    assert found["pretraining_subset"] == {
        "rows_read": 4 * 20, "rows": total - 5, "held_out": 5, "passes": 80 / (total - 5),
    }  # fmt: skip
    task = job.streams[0].rows.manifest()["counts"]["rows"]
    assert found["task"]["passes"] == 80 / task
    assert passes_in_words("x", found["pretraining_subset"]).endswith("passes; rows are repeated")
    assert "repeated" not in passes_in_words("x", {"rows_read": 8, "rows": 9, "held_out": 0, "passes": 8 / 9})
