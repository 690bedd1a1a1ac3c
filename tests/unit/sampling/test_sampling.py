"""Prompts and seeds of samples, start tokens, and packing of samples into rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError, ContinualError
from continual.sampling import SampleSettings, bos_start, sample_rows, task_starts, template_start
from continual.sampling import sample as front
from continual.sampling.sample import _pack
from continual.sampling.start import end_tokens
from continual.store import Store


@given(st.integers(1, 4), st.integers(0, 5))
def test_starts_share_equally_and_every_sample_has_its_own_seed(starts: int, seed: int) -> None:
    settings = SampleSettings(tuple((n,) for n in range(starts)), count=400, tokens=8, seed=seed)
    prompts = [settings.prompt(number)[0] for number in range(400)]
    assert max(prompts.count(n) for n in range(starts)) - min(prompts.count(n) for n in range(starts)) <= 1
    seeds = [settings.seed_of(number) for number in range(400)]
    assert len(set(seeds)) == 400
    assert all(0 <= s < 1 << 31 for s in seeds)


def test_sets_of_other_seeds_do_not_overlap() -> None:
    sets = [{SampleSettings(((1,),), 5000, 8, seed=seed).seed_of(n) for n in range(5000)} for seed in range(20)]
    assert len(set.union(*sets)) == 20 * 5000


class Bare:
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    unk_token_id: int | None = 0
    unk_token = "<unk>"
    chat_template: str | None = None

    def convert_ids_to_tokens(self, number: int) -> str:
        return {2: "</s>", 1: "<s>"}[number]

    def convert_tokens_to_ids(self, token: str) -> int:
        return {"<add>": 7}.get(token, 0)


def test_end_of_text_stands_in_for_a_missing_bos() -> None:
    tokenizer = Bare()
    with pytest.raises(ConfigurationError, match="neither BOS nor end-of-text"):
        bos_start(tokenizer)
    tokenizer.eos_token_id = 2
    assert bos_start(tokenizer) == ([2], "</s>")
    tokenizer.bos_token_id = 1
    assert bos_start(tokenizer) == ([1], "<s>")


def test_declared_start_tokens_must_be_tokens() -> None:
    assert task_starts(Bare(), ["<add>"]) == [[7]]
    with pytest.raises(ConfigurationError, match="`<sort>` is no token"):
        task_starts(Bare(), ["<sort>"])
    with pytest.raises(ConfigurationError, match="needs a chat template"):
        template_start(Bare())


def test_the_template_prefix_ends_where_the_user_would_speak(shared: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "tokenizers" / "qwen2.5-coder")
    ids, text = template_start(tokenizer)
    assert text.endswith("<|im_start|>user\n")
    assert tokenizer.decode(ids) == text
    assert [tokenizer.convert_ids_to_tokens(number) for number in ids].count("<|im_start|>") == 2
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in end_tokens(tokenizer, {}, chat=True)
    assert end_tokens(tokenizer, {"eos_token_id": [1, 5]}, chat=False) == (1, 5, tokenizer.eos_token_id)


def test_samples_have_loss_after_their_prompt_and_no_invented_end() -> None:
    table = pa.table({"start": [[1], [1]], "tokens": [[5, 6, 2], [7, 8, 9, 9]]})
    rows = _pack(table, SampleSettings(((1,),), 2, 5, stop=(2,)), 10, first=40)
    flat = rows["documents"] >= 0
    np.testing.assert_array_equal(rows["ids"][flat], [1, 5, 6, 2, 1, 7, 8, 9, 9])
    np.testing.assert_array_equal(rows["weights"][flat], [0, 1, 1, 1, 0, 1, 1, 1, 1])
    assert set(rows["documents"][flat]) == {40, 41}


MODEL = ModelRef("nowhere", "abc")


def fake_engine(fail: set[int], calls: list[list[int]]) -> Any:
    """An engine for fault injection: answers out of order, and fails for the given numbers."""

    def generate(model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate) -> Any:
        calls.append(numbers)
        for number in reversed(numbers):
            yield number, None if number in fail else np.array([number, 2], np.int32)

    return generate


def test_only_missing_shards_are_sampled_and_order_does_not_matter(tmp_path: Path, monkeypatch: Any) -> None:
    calls: list[list[int]] = []
    monkeypatch.setitem(front.ENGINES, "vllm", fake_engine(set(), calls))
    store, config = Store(tmp_path, "me"), Generate(shard_samples=4)
    settings = SampleSettings(((1,),), count=10, tokens=3)
    rows, samples = sample_rows(store, MODEL, "float32", settings, config, 6)
    assert samples.manifest()["distinct"] == 10
    assert samples.manifest()["counts"]["tokens"] == 20
    assert [n for table in samples.tables() for n in table["number"].to_pylist()] == list(range(10))
    content, packed = samples.manifest()["content"], rows.manifest()["content"]
    for artefact in (samples, rows):
        (artefact.path / "manifest.json").unlink()
    samples.shard(1).unlink()
    rows.shard(2).unlink()
    again, samples = sample_rows(store, MODEL, "float32", settings, config, 6)
    assert calls[1:] == [[4, 5, 6, 7]]
    assert (samples.manifest()["content"], again.manifest()["content"]) == (content, packed)
    sample_rows(store, MODEL, "float32", settings, config, 6)
    assert len(calls) == 2


def test_failed_requests_are_dropped_counted_and_fatal_when_many(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(front.ENGINES, "vllm", fake_engine({3}, []))
    settings = SampleSettings(((1,),), count=10, tokens=3)
    _, samples = sample_rows(
        Store(tmp_path / "a"), MODEL, "float32", settings, Generate(shard_samples=5, max_failed=0.2), 6
    )
    assert samples.manifest()["counts"]["failed"] == 1
    assert samples.manifest()["counts"]["samples"] == 9
    with pytest.raises(ContinualError, match=r"1 of 10 samples failed, more than `generate.max_failed` \(0.05\)"):
        sample_rows(Store(tmp_path / "b"), MODEL, "float32", settings, Generate(shard_samples=5, max_failed=0.05), 6)


def test_an_engine_that_ends_early_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    def short(model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate) -> Any:
        yield numbers[0], np.array([2], np.int32)

    monkeypatch.setitem(front.ENGINES, "vllm", short)
    with pytest.raises(ContinualError, match="ended with 3 samples missing"):
        sample_rows(Store(tmp_path), MODEL, "float32", SampleSettings(((1,),), 4, 3), Generate(), 6)


@pytest.mark.parametrize(
    "change", [{"temperature": 0.9}, {"top_p": 0.9}, {"seed": 1}, {"count": 5}, {"stop": (2,)}, {"starts": ((2,),)}]
)
def test_every_setting_is_part_of_the_address(tmp_path: Path, change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"starts": ((1,),), "count": 4, "tokens": 3}
    inputs = [
        front.sample_inputs(MODEL, "float32", SampleSettings(**(base | extra)), Generate()) for extra in ({}, change)
    ]
    store = Store(tmp_path)
    assert store.artefact("samples", inputs[0]).hash != store.artefact("samples", inputs[1]).hash
