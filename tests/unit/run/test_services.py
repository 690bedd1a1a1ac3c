"""What a stage's services do with rows that still come: score them beside the training, or wait for all of them."""

import threading
from pathlib import Path
from typing import Any

import pytest

from continual.ledger.folder import StageFolder
from continual.run.feed import SampleFeed
from continual.show.progress import Step
from continual.store import Artefact
from tests.kits import baselines as kit

CACHED = {"type": "context_free", "teacher": "cached", "teacher_top_k": 3}
LIVE = {"type": "context_free"}


@pytest.mark.parametrize(
    ("mitigation", "streamed", "while_training", "beside"),
    [
        (CACHED, True, True, True),
        (CACHED, True, False, False),  # a method of one's own reads the columns itself
        (CACHED, False, True, False),
        (LIVE, True, True, False),  # nobody has counted the resources of a scorer
    ],
)
def test_columns_come_while_the_stage_trains_where_that_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mitigation: dict[str, Any], streamed: bool, while_training: bool,
    beside: bool,
) -> None:  # fmt: skip
    ctx = kit.context(tmp_path, [mitigation])
    ctx.streamed = StageFolder(tmp_path / "stage") if streamed else None
    rows, more, work = growing(ctx)
    scored: list[str] = []

    def score(kind: str) -> Any:
        def called(store: Any, model: Any, of: Artefact, *others: Any) -> Artefact:
            scored.append(f"{kind} {'complete' if of.complete else 'growing'} rows")
            return rows

        return called

    monkeypatch.setattr("continual.run.services.score_growing", score("follow"))
    monkeypatch.setattr("continual.run.services.score_rows", score("pass over"))
    with ctx.feeds:
        ctx.feeds.start(SampleFeed(rows, rows, work), Step("", lambda text, last: None, rewrites=False))
        if not beside:
            threading.Timer(0.5, more.set).start()
        columns = ctx.score(ctx.stage_start, rows, what="topk", top_k=3, while_training=while_training)
        assert rows.complete is not beside, "what is not streamed gets complete rows"
        if beside:
            assert columns.kind == "columns"
            ctx.feeds.all[-1].wait()
        assert scored == ["follow growing rows" if beside else "pass over complete rows"]
        more.set()


def test_fisher_information_is_estimated_on_complete_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = kit.context(tmp_path, [CACHED])
    ctx.streamed = StageFolder(tmp_path / "stage")
    rows, more, work = growing(ctx)

    def estimate(store: Any, model: Any, of: Artefact, *others: Any) -> Artefact:
        assert of.complete
        return of

    monkeypatch.setattr("continual.run.services.fisher_artefact", estimate)
    with ctx.feeds:
        step = Step("", lambda text, last: None, rewrites=False)
        ctx.feeds.start(SampleFeed(rows, rows, work), step)
        threading.Timer(0.5, more.set).start()
        assert ctx.score(ctx.stage_start, rows, what="fisher", while_training=True) == rows


def test_drift_is_measured_on_what_is_held_out_while_rows_still_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine may pause for steps of the training, which must not wait for all rows then."""
    kit.without_ray(monkeypatch)
    ctx = kit.context(tmp_path, [{**CACHED, "held_out": 2}])
    replay = ctx.store.artefact("rows", {"test": "replay"})
    # As rows of samples are: those held out come first, and are counted.
    side = replay.shard(0).with_suffix(".json")
    side.write_text(side.read_text().replace('"maker"', '"held_out": 2, "maker"'))
    (replay.path / "manifest.json").unlink()
    with ctx.store.write(replay, {}) as writer:
        assert writer is not None
        writer.finish()
    job = kit.job_of(ctx)
    expected = kit.worker_of(job).drift()
    monkeypatch.setattr("continual.data.rows.RowReader.__init__.__defaults__", (0.3,))
    for artefact in (job.streams[1].rows, job.streams[1].columns):
        assert artefact is not None
        (artefact.path / "manifest.json").unlink()
        artefact.shard(1).with_suffix(".json").unlink()
    assert kit.worker_of(job).drift() == expected


def growing(ctx: kit.Offline) -> tuple[Artefact, threading.Event, Any]:
    """Rows that become complete when the event is set, and the work that makes them so."""
    rows, more = ctx.store.artefact("rows", {"test": "replay"}), threading.Event()
    path = rows.path / "manifest.json"
    manifest = path.read_bytes()
    path.unlink()

    def work(progress: Any, stop: threading.Event) -> None:
        assert more.wait(10)
        path.write_bytes(manifest)

    return rows, more, work
