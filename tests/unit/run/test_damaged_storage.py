"""Whatever happens to one file of a storage, whoever reads it goes on or gets one sentence, and never a traceback."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.config.load import Loaded, load_sequence
from continual.data.prepare import rows_inputs
from continual.errors import ContinualError
from continual.ledger.changes import refuse_changes
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Ledger, read_ledger
from continual.models import model_hash
from continual.models.start import cached_hash
from continual.preflight.plan import make_plan
from continual.run.found import foreseen
from continual.run.read import file_state, sources
from continual.run.resume import finished
from continual.run.summary import summarise
from continual.show.report.gather import gather, over_steps
from continual.show.tracking.sender import State as Sent
from continual.store import Store, publish_folder, write_atomic
from continual.sweep.results import outcome
from continual.sweep.state import State, Stopped
from continual.sweep.trials import Trial
from tests.kits.project import sequence, write_model, write_project, write_yaml
from tests.kits.runs import record
from tests.kits.sweep import ablation

BROKEN = [b"", b"\0" * 64, b"\xff\xfe{\x00", b"[]", b"{}", b"null", b"3", b'"x"', b'{"event": "scored"}', b"[" * 5_000,
          b"1" * 6_000, b'{"a": NaN}', b"{\n", b"}", b"\n\n"]  # fmt: skip
SWEEP = ablation(name="sweep", space={"train.learning_rate": {"choice": [0.1, 0.2]}}, scheduler="asha")
VALUES: list[Any] = [None, 3, -1.5, True, "x", "", [], {}, [3], {"a": 3}, [None], {"a": None}, -1, 1 << 70]
HOSTILE = ["../../victim", "/etc", "a\0b", "\ud800", "x" * 5000, "a/" * 3000, ".", ".."]
"""Texts that lead out of a storage, or that no file system takes for a name."""


def nats(value: float) -> dict[str, Any]:
    return {"score": value, "stderr": 0.5, "n": 8, "unit": "nats", "metric": "nll", "tokens": 64}


class Stored(NamedTuple):
    """A storage with a run, and its configuration."""

    loaded: Loaded
    folder: Path
    files: list[Path]


@pytest.fixture(scope="module", params=["done", "begun"])
def stored(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Stored:
    """A storage as a run of two stages leaves it, finished or begun, with a state of a sweep and of the tracker."""
    place = tmp_path_factory.mktemp(request.param)
    write_project(place)
    data = {"type": "jsonl", "path": str(place / "qa.jsonl"), "prompt": "question", "completion": "answer"}
    changes = {
        "storage": str(place / "runs"),
        "model": {"type": "pretrained", "source": str(place / "model")},
        "stages": [{"name": name, "data": data, "steps": 3} for name in ("one", "two")],
        "evaluate": {"texts": [{"name": "old", "data": data}]},
    }
    loaded = load_sequence(write_yaml(place, sequence(**changes)), [])
    store, files = Store(place / "runs" / "store"), RunFolder(loaded.run_folder)
    with Ledger(files.path) as ledger:
        ledger.run_id()
        write_run(loaded, store, files, ledger, stages=2 if request.param == "done" else 1)
    state = State.load(place / "runs" / "sweep", SWEEP)
    state.stopped, state.points, state.rungs = {"t": Stopped(1, 0.5, 0.75)}, [{"a": 1}], {"1": {"d": 0.5}}
    state.save()
    found = [path for path in (place / "runs").rglob("*") if path.is_file() and path.suffix not in (".arrow", "")]
    assert len({path.name for path in found}) >= 12
    return Stored(loaded, files.path, [*sorted(found), files.lock])


def write_run(loaded: Loaded, store: Store, files: RunFolder, ledger: Ledger, stages: int) -> None:
    model = Path(str(loaded.sequence.model.source))
    files.identity.write_text(json.dumps(loaded.identity))
    files.config.write_text(yaml.safe_dump(loaded.resolved))
    files.versions.write_text(json.dumps({"versions": {"torch": "2"}, "git": {"commit": "a" * 40}}))
    ledger.add("start_model", path=str(model), hash=cached_hash(store, model))
    for named in sources(loaded.sequence):
        rows = rows_inputs(named.source, str(model), loaded.sequence.train.row_tokens)
        artefact = put(store, "rows", rows, tokens=9)
        state = file_state(named.source)
        ledger.add("read", key=named.key, stage=named.stage, rows=artefact, state=state, source="qa")
    samples = put(store, "samples", {"a": 1}, first=0, samples=3, failed=0, tokens=9)
    for stage, name in enumerate(("start", "one", "two")[: stages + 1]):
        if stage:
            of_stage = files.stage(stage, name)
            of_stage.path.mkdir(parents=True)
            lines = "".join(json.dumps(record(step, replay=True)) + "\n" for step in range(1, 4))
            of_stage.metrics.write_text(lines)
            write_atomic(of_stage.score_file(2), json.dumps({"scores": {"old": nats(-2.0)}}))
            write_model(of_stage.path / "new")
            publish_folder(of_stage.path / "new", of_stage.model, {})
            passes = {"context_free": {"rows": 3, "rows_read": 6, "held_out": 0, "passes": 2.0}}
            ledger.add("prepared", stage=stage, name=name, samples=[samples], sampled={samples: 3}, steps=3,
                       passes=passes, inputs={"task": ["0"]}, data={}, tags={})  # fmt: skip
        ledger.add("phase", phase="train", stage=stage, seconds=1.0)
        scores = {"old": nats(-1.0 - stage)}
        ledger.add("scored", stage=stage, name=name, model=f"m{stage}", scores=scores, metrics={"a": 1.0})
        evaluation(store, f"m{stage}", {"old": nats(-1.0 - stage)})
        if stage:
            place = f"{files.path.name}/stages/{stage}-{name}/model"
            ledger.add("stage_done", stage=stage, name=name, model=place, rows=artefact, steps=3,
                       hash=model_hash(of_stage.model))  # fmt: skip
    if stages == 2:
        summarise(files, loaded.sequence, ledger, store.root, "0")
        ledger.add("closed")
    sent = {"uri": "u", "experiment": "e", "ledger_id": "l", "runs": {"sequence": "1"}, "events": 3, "steps": {"a": 1}}
    write_atomic(files.tracker_state, json.dumps({**sent, "pending": []}))


def put(store: Store, kind: str, inputs: dict[str, Any], **facts: int) -> str:
    artefact = store.artefact(kind, inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            starts = {"number": [0, 1, 2], "start": [[1]] * 3, "tokens": [[2, 3]] * 3}
            writer.put(0, pa.table(starts), **facts)
            writer.finish(model="m0")
    return artefact.hash


def evaluation(store: Store, model: str, scores: dict[str, Any]) -> None:
    inputs = {"model": model}
    with store.write(artefact := store.artefact("scores", inputs), inputs) as writer:
        assert writer is not None
        with writer.files() as folder:
            (folder / "scores.json").write_text(json.dumps({"scores": scores}))
            line = {"task": "old", "document": 1, "nats_per_token": 2.5, "tokens": 3}
            (folder / "scores.samples.jsonl").write_text(json.dumps(line) + "\n")
        writer.finish()
    assert artefact.complete


def read_report(stored: Stored) -> None:
    run = gather(stored.folder)
    assert run.matrix is not None
    over_steps(run, "old")
    run.waited()


READERS: dict[str, Callable[[Stored], Any]] = {
    "plan": lambda stored: make_plan(stored.loaded),
    "resume": lambda stored: refuse_changes(stored.folder, stored.loaded),
    "foreseen": lambda stored: foreseen(stored.loaded),
    "finished": lambda stored: finished(stored.folder, stored.loaded),
    "report": read_report,
    "trial": lambda stored: outcome(Trial("t", {}, 0, stored.loaded, []), {}, {}),
    "sweep": lambda stored: State.load(stored.folder.parent / "sweep", SWEEP),
    "tracker": lambda stored: Sent.load(RunFolder(stored.folder).tracker_state, "u", "e", "l"),
}


def damaged(content: bytes, lines: bool, draw: random.Random) -> bytes:
    """Return what a power cut, or another program, may leave of a file."""
    if lines and content and draw.random() < 0.8:
        parts = content.splitlines(keepends=True)
        place = draw.randrange(len(parts))
        parts[place] = damaged(parts[place].rstrip(b"\n"), False, draw).replace(b"\n", b" ") + b"\n"
        return b"".join(parts)
    how = draw.randrange(4)
    if how == 0:
        return content[: draw.randrange(len(content) + 1)]
    if how == 1:
        return draw.choice(BROKEN)
    if how == 2:
        first = draw.randrange(len(content) + 1)
        return content[:first] + draw.choice([b"\0" * 8, b"\xff\xfe", b"\xc3("]) + content[first + 8 :]
    try:
        value = json.loads(content)
    except ValueError:
        return content[:1]
    return json.dumps(mutated(value, draw)).encode()


def mutated(value: Any, draw: random.Random) -> Any:
    """Return a value of JSON with one value in it of another type, or missing."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(HOSTILE if isinstance(value, str) and draw.random() < 0.5 else VALUES)
    key = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if isinstance(value, dict) and draw.random() < 0.1:
        value[draw.choice([*HOSTILE, "more"])] = value[key]
        if draw.random() < 0.5:
            del value[key]
        return value
    if draw.random() < 0.25:
        del value[key]
    else:
        value[key] = mutated(value[key], draw)
    return value


@contextmanager
def holding(path: Path, content: bytes) -> Iterator[None]:
    """Let a file hold something else while the block runs."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


def sentence_of(read: Callable[[], Any], where: str) -> None:
    try:
        read()
    except ContinualError as error:
        assert "\n" not in str(error), where
        assert "; " in str(error), where
    except Exception as error:
        raise AssertionError(where) from error


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_one_damaged_file_is_a_sentence_at_most(stored: Stored, name: str, seed: int) -> None:
    draw = random.Random(seed)
    path = draw.choice(stored.files)
    wrong = damaged(path.read_bytes(), path.suffix == ".jsonl", draw)
    with holding(path, wrong):
        sentence_of(partial(READERS[name], stored), f"{name}: {path.name} is {wrong[:300]!r}")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [*BROKEN[:6], BROKEN[9]])
def test_every_file_that_holds_something_else_is_a_sentence_at_most(stored: Stored, name: str, content: bytes) -> None:
    for path in stored.files:
        with holding(path, content):
            sentence_of(partial(READERS[name], stored), f"{name}: {path.name} is {content[:30]!r}")


@pytest.mark.parametrize("wrong", [{}, {"other": "nats"}, {"old": ["nats"]}, {"old": None}])
@pytest.mark.parametrize("name", ["trial", "report", "finished"])
def test_a_summary_whose_parts_do_not_fit_is_a_damaged_one(stored: Stored, name: str, wrong: Any) -> None:
    path = RunFolder(stored.folder).summary
    if not path.is_file():
        pytest.skip("the run has no summary yet")
    summary = json.loads(path.read_text())
    damages: list[dict[str, Any]] = [
        {"unit": wrong},
        {"matrix": []},
        {"matrix": [*summary["matrix"][:-1], {**summary["matrix"][-1], "scores": {}}]},
    ]
    for damage in damages:
        with holding(path, json.dumps(summary | damage).encode()):
            sentence_of(partial(READERS[name], stored), f"{name}: {damage}")


@pytest.mark.parametrize("name", READERS)
def test_the_storage_is_read_as_it_is(stored: Stored, name: str) -> None:
    READERS[name](stored)
    assert read_ledger(stored.folder).damaged == 0
