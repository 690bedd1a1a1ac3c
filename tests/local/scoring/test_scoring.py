"""Scoring and averaging through Ray: resume of a missing shard, a failure that is named, models in the store."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from baselines.weight_average import WeightAverage
from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.data.rows import RowReader
from continual.errors import Interrupted
from continual.scoring import score_growing, score_inputs, score_rows
from continual.scoring.columns import nll_columns
from continual.store import Artefact, Store
from continual.store.artefact import Writer
from tests.kits import baselines as kit

pytestmark = pytest.mark.slow


def test_only_a_missing_shard_is_scored_again(local_ray: None, tmp_path: Path) -> None:
    ref, store = kit.model_ref(tmp_path / "model", 0), Store(tmp_path / "store", "tests")
    rows = kit.stored(store, "rows", kit.packed(0, 200), shard_rows=16)
    seen: list[tuple[int, int]] = []

    def score() -> Any:
        return score_rows(store, ref, rows, "nll", "float32", Generate(), progress=lambda *now: seen.append(now))

    columns = score()
    shards = len(rows.shards())
    assert shards > 3
    assert seen == [(done, shards) for done in range(1, shards + 1)]
    assert [facts["rows"] for facts in columns.shards()] == [facts["rows"] for facts in rows.shards()]
    everything = np.arange(len(RowReader(rows)))
    expected = nll_columns(AutoModelForCausalLM.from_pretrained(ref.path), RowReader(rows).take(everything))["nll"]
    np.testing.assert_allclose(RowReader(columns).take(everything, ("nll",))["nll"], expected, atol=1e-5)

    kept = {index: columns.shard(index).stat().st_mtime_ns for index in range(shards) if index != 2}
    (columns.path / "manifest.json").unlink()
    columns.shard(2).unlink()
    seen.clear()
    assert score().complete
    assert seen == [(shards, shards)]
    assert {index: columns.shard(index).stat().st_mtime_ns for index in kept} == kept
    assert not columns.damage()


def test_growing_rows_are_scored_as_they_come_although_the_scorer_is_killed(local_ray: None, tmp_path: Path) -> None:
    """The columns are those of complete rows, byte for byte; a shard that is there is not scored again."""
    ref, store = kit.model_ref(tmp_path / "model", 0), Store(tmp_path / "store", "tests")
    complete = kit.stored(Store(tmp_path / "aside", "tests"), "rows", kit.packed(0, 200), shard_rows=16)
    rows = Artefact("rows", complete.hash, str(store.root))
    rows.path.mkdir(parents=True)
    made, stop, shards = Writer(rows, {}, "tests"), threading.Event(), len(complete.shards())
    made.put(0, complete.table(0))
    columns: list[Artefact] = []
    wanted = (ref, rows, "topk", "float32", Generate(cpus_per_replica=0.5), 3)
    thread = threading.Thread(target=lambda: columns.append(score_growing(store, *wanted, stop)), daemon=True)
    thread.start()
    first = store.artefact("columns", score_inputs(*wanted[:4], 3))
    wait_for(lambda: first.shard_facts(0) is not None)
    known = first.shard(0).stat().st_mtime_ns
    [scorer] = scorers()
    scorer.kill()
    for shard in range(1, shards):
        made.put(shard, complete.table(shard))
    wait_for(lambda: len(first.published()) == shards)
    assert not first.complete, "more rows may come"
    made.finish()
    thread.join(60)
    assert columns == [first]
    assert first.shard(0).stat().st_mtime_ns == known
    expected = score_rows(Store(tmp_path / "aside", "tests"), ref, complete, *wanted[2:])
    assert expected.hash == first.hash
    assert expected.manifest()["content"] == first.manifest()["content"]


def test_a_scoring_is_ended_from_another_thread(local_ray: None, tmp_path: Path) -> None:
    """So that the end of a stage leaves no process that waits for rows."""
    ref, store = kit.model_ref(tmp_path / "model", 0), Store(tmp_path / "store", "tests")
    rows, stop = store.artefact("rows", {"never": 1}), threading.Event()

    def end() -> None:
        wait_for(lambda: bool(scorers()))
        stop.set()

    threading.Thread(target=end, daemon=True).start()
    with pytest.raises(Interrupted):
        score_growing(store, ref, rows, "nll", "float32", Generate(cpus_per_replica=0.5), 3, stop)
    wait_for(lambda: not scorers())


def scorers() -> list[psutil.Process]:
    """Return the processes of this test's cluster that score rows as they come."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [process] * ("ray::follow_rows" in " ".join(process.cmdline()))
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_failed_scoring_says_why_and_can_be_done_again(local_ray: None, tmp_path: Path) -> None:
    ref, store = kit.model_ref(tmp_path / "model", 0), Store(tmp_path / "store", "tests")
    rows = kit.stored(store, "rows", kit.packed(0, 20))
    config = tmp_path / "model" / "config.json"
    text = config.read_text()
    config.write_text("{")
    with pytest.raises(Exception, match=r"config\.json"):
        score_rows(store, ref, rows, "nll", "float32", Generate())
    config.write_text(text)
    columns = score_rows(store, ref, rows, "nll", "float32", Generate())
    assert columns.complete
    assert columns.failure() is None


def test_an_average_is_made_once_as_a_model_of_the_store(local_ray: None, tmp_path: Path) -> None:
    ctx = kit.context(tmp_path, [])
    trained = kit.model_ref(tmp_path / "trained", 7)
    found = WeightAverage(type="weight_average", alpha=1.0, further=(0.5,)).after_training(ctx, trained)
    assert [Path(candidate.model.path).parent.name for candidate in found] == ["models", "models"]
    first, second = (AutoModelForCausalLM.from_pretrained(c.model.path).state_dict() for c in found)
    after = AutoModelForCausalLM.from_pretrained(trained.path).state_dict()
    before = AutoModelForCausalLM.from_pretrained(ctx.stage_start.path).state_dict()
    for name, tensor in after.items():
        assert torch.equal(first[name], tensor), "alpha 1 is the trained model"
        torch.testing.assert_close(second[name], (before[name] + tensor) / 2)
    again = WeightAverage(type="weight_average", alpha=0.5).after_training(ctx, ModelRef("/nowhere", trained.hash))
    assert again[0].model == found[1].model, "what the store has needs no model"
