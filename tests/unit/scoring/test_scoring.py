"""Columns of a frozen model: what they hold, which places they leave out, and that they stand beside their rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from continual.config.schema import Generate
from continual.data.rows import RowReader
from continual.errors import ContinualError
from continual.scoring import score, score_growing, score_inputs, score_rows
from continual.scoring.columns import nll_columns, topk_columns
from continual.store import Artefact, Store
from continual.store.artefact import Writer
from continual.training.losses.sums import kl_sum, kl_topk_sum
from tests.kits.baselines import TOKENS, VOCABULARY, model_ref, packed, score_in_process, stored


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_ref(tmp_path_factory.mktemp("model"), 0).path).eval()


def alone(model: Any, ids: np.ndarray) -> torch.Tensor:
    """Log-probabilities [len - 1, V] of a document that stands in no row, in float64."""
    with torch.no_grad():
        logits = model(torch.from_numpy(ids.astype(np.int64))[None], use_cache=False).logits[0, :-1]
    return torch.log_softmax(logits.double(), -1)


def test_every_document_is_scored_as_if_it_stood_alone(model: Any) -> None:
    rows = packed(0, 30)
    assert len(rows["ids"]) < 30, "documents share rows"
    nll, top = nll_columns(model, rows)["nll"], topk_columns(model, rows, 5)
    for document in range(30):
        at = rows["documents"] == document
        ids = rows["ids"][at]
        expected = alone(model, ids)
        tokens = torch.from_numpy(ids[1:].astype(np.int64))
        np.testing.assert_allclose(nll[at][1:], -expected.gather(-1, tokens[:, None])[:, 0].numpy(), atol=1e-5)
        values, _ = expected.topk(5, -1)
        np.testing.assert_allclose(top["top_logprobs"][at][1:], values.numpy(), atol=1e-5)
        chosen = torch.from_numpy(top["top_ids"][at][1:].astype(np.int64))
        np.testing.assert_allclose(expected.gather(-1, chosen).numpy(), values.numpy(), atol=1e-5)


def test_first_tokens_and_padding_have_no_value(model: Any) -> None:
    rows = packed(0, 30)
    empty = (rows["documents"] < 0) | (rows["positions"] == 0)
    nll, top = nll_columns(model, rows)["nll"], topk_columns(model, rows, 5)
    assert (nll[empty] == 0).all()
    assert (nll[~empty] > 0).all()
    assert (top["top_ids"][empty] == 0).all()
    assert (top["top_logprobs"][empty] == 0).all()


def test_prompt_tokens_are_scored_too(model: Any) -> None:
    rows = packed(0, 30)
    masked = (rows["weights"] == 0) & (rows["positions"] > 0) & (rows["documents"] >= 0)
    assert masked.any()
    assert (nll_columns(model, rows)["nll"][masked] > 0).all()


def test_blocks_and_chunks_change_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = packed(1, 30)
    whole = topk_columns(model, rows, 4)
    monkeypatch.setattr("continual.models.forward.LOGIT_BYTES", 4 * TOKENS * VOCABULARY * 3)
    monkeypatch.setattr("continual.models.forward.CHUNK_TOKENS", 5)
    parts = topk_columns(model, rows, 4)
    np.testing.assert_array_equal(parts["top_ids"], whole["top_ids"])
    np.testing.assert_allclose(parts["top_logprobs"], whole["top_logprobs"], atol=1e-5)


def test_the_vocabulary_bounds_k_and_gives_the_whole_kl(model: Any) -> None:
    rows = packed(2, 10)
    top = topk_columns(model, rows, 10 * VOCABULARY)
    assert top["top_ids"].shape == (*rows["ids"].shape, VOCABULARY)
    at = rows["positions"] > 0
    at &= rows["documents"] >= 0
    ids = torch.from_numpy(top["top_ids"][at].astype(np.int64))
    logprobs = torch.from_numpy(top["top_logprobs"][at])
    teacher = torch.zeros_like(logprobs).scatter(-1, ids, logprobs)
    student, weights = torch.randn_like(teacher), torch.ones(len(teacher))
    exact = kl_sum(student, teacher, weights)
    torch.testing.assert_close(kl_topk_sum(student, ids, logprobs, weights), exact, rtol=1e-5, atol=1e-5)
    bounds = [float(kl_topk_sum(student, ids[:, :k], logprobs[:, :k], weights)) for k in (1, 4, 16, VOCABULARY - 1)]
    assert bounds == sorted(bounds)
    assert bounds[-1] <= float(exact) + 1e-4


def test_columns_stand_beside_their_rows_and_only_missing_shards_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, store = model_ref(tmp_path / "model", 0), Store(tmp_path / "store", "tests")
    rows = stored(store, "rows", packed(3, 60), shard_rows=5)
    made: list[list[int]] = []

    def run(missing: list[int], *others: Any) -> Any:
        made.append(missing)
        return score_in_process(missing, *others)

    monkeypatch.setattr(score, "_run", run)
    wanted = (store, ref, rows, "topk", "float32", Generate(), 3)
    columns = score_rows(*wanted)
    assert [facts["rows"] for facts in columns.shards()] == [facts["rows"] for facts in rows.shards()]
    numbers = np.array([0, 7, len(RowReader(rows)) - 1])
    found = RowReader(columns).take(numbers, ("top_ids",))["top_ids"].reshape(3, TOKENS, 3)
    loaded = AutoModelForCausalLM.from_pretrained(ref.path)
    np.testing.assert_array_equal(found, topk_columns(loaded, RowReader(rows).take(numbers), 3)["top_ids"])

    kept = columns.shard(0).stat().st_mtime_ns
    (columns.path / "manifest.json").unlink()
    columns.shard(1).unlink()
    assert score_rows(*wanted).complete
    assert not columns.damage()
    assert made == [[*range(len(rows.shards()))], [1]]
    assert columns.shard(0).stat().st_mtime_ns == kept
    assert score_rows(*wanted) == columns
    assert len(made) == 2
    assert score_rows(*wanted[:6], 4) != columns
    assert score_rows(*wanted[:3], "nll", *wanted[4:]) != columns


def test_another_column_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="`nll` or `topk`"):
        score_rows(store, model_ref(tmp_path / "m", 0), store.artefact("rows", {}), "loss", "float32", Generate())


# Rows that still come ----------------------------------------------------------------------------------------------


def grown(store: Store, documents: int, shards: int) -> tuple[Artefact, Writer]:
    """Complete rows in a store of their own, and the writer of the same rows of which only some shards are there."""
    complete = stored(Store(store.root / "aside", "tests"), "grown", packed(3, documents), shard_rows=5)
    writer = Writer(Artefact("rows", complete.hash, str(store.root)), {}, "tests")
    writer.artefact.path.mkdir(parents=True)
    for shard in range(shards):
        writer.put(shard, complete.table(shard))
    return complete, writer


def here(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Follow rows in this process; the returned list has the CPUs and GPUs that were asked for."""
    asked: list[tuple[float, float]] = []

    def run(cpus: float, gpus: float, stop: Any, work: Any, *arguments: Any) -> Any:
        asked.append((cpus, gpus))
        return work(*arguments)

    monkeypatch.setattr(score, "in_cluster_with", run)
    return asked


def test_each_shard_is_scored_when_its_rows_are_there_and_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte the columns of complete rows; what an ended start has left is not made again."""
    ref, store = model_ref(tmp_path / "model", 0), Store(tmp_path / "store", "tests")
    (complete, rows), asked = grown(store, 60, shards=2), here(monkeypatch)
    wanted = (store, ref, rows.artefact, "topk", "float32", Generate(cpus_per_replica=0.5), 3)
    columns = store.artefact("columns", score_inputs(ref, rows.artefact, "topk", "float32", 3))

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(score.time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        score_growing(*wanted)
    first = {facts["file"]: facts for facts in columns.published().values()}
    assert len(first) == 2
    times = {name: (columns.path / name).stat().st_mtime_ns for name in first}

    def grow(seconds: float) -> None:
        """Publish one more shard of rows at each look; the last time, say that they are complete."""
        shard = len(rows.artefact.published())
        if shard < len(complete.shards()):
            rows.put(shard, complete.table(shard))
        else:
            rows.finish()

    monkeypatch.setattr(score.time, "sleep", grow)
    assert score_growing(*wanted) == columns
    assert columns.complete
    assert {name: (columns.path / name).stat().st_mtime_ns for name in first} == times
    assert len(columns.shards()) == len(rows.artefact.shards()) == len(complete.shards()) > 3
    assert set(asked) == {(0.5, 0.0)}

    monkeypatch.setattr(score, "_run", score_in_process)
    expected = score_rows(Store(complete.root, "tests"), ref, complete, *wanted[3:])
    assert expected.hash == columns.hash
    assert expected.manifest()["content"] == columns.manifest()["content"]


def test_a_scorer_ends_with_the_reason_for_which_no_rows_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref, store = model_ref(tmp_path / "model", 0), Store(tmp_path / "store", "tests")
    rows = grown(store, 20, shards=1)[1].artefact
    here(monkeypatch)
    (rows.path / "failed.txt").write_text("ContinualError: the engine ended for the third time")
    with pytest.raises(ContinualError, match="its writer gave up: ContinualError: the engine ended for the third time"):
        score_growing(store, ref, rows, "nll", "float32", Generate())
    assert len(store.artefact("columns", score_inputs(ref, rows, "nll", "float32", 64)).published()) == 1
