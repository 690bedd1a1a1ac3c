"""Prompts and seeds of samples, start tokens, and packing of samples into rows."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.contract.registry import ENGINES
from continual.errors import ConfigurationError, ContinualError
from continual.preflight.model_facts import ModelFacts
from continual.sampling import sample as front
from continual.sampling.engine import Engine, Sample
from continual.sampling.engine_vllm import VllmEngine
from continual.sampling.sample import Made, Wanted, sample_rows, sample_set
from continual.sampling.settings import SampleSettings
from continual.sampling.start import bos_start, end_tokens, task_starts, template_start
from continual.sampling.write import pack_samples
from continual.store import Artefact, Store
from tests.conftest import ROOT
from tests.kits.sources import sample_in_process


@given(st.integers(1, 4), st.integers(0, 5))
def test_starts_share_equally_and_every_sample_has_its_own_seed(starts: int, seed: int) -> None:
    settings = SampleSettings(tuple((n,) for n in range(starts)), tokens=8, seed=seed)
    prompts = [settings.prompt(number)[0] for number in range(400)]
    assert max(prompts.count(n) for n in range(starts)) - min(prompts.count(n) for n in range(starts)) <= 1
    seeds = [settings.seed_of(number) for number in range(400)]
    assert len(set(seeds)) == 400
    assert all(0 <= s < 1 << 31 for s in seeds)


def test_sets_of_other_seeds_do_not_overlap() -> None:
    sets = [{SampleSettings(((1,),), 8, seed=seed).seed_of(n) for n in range(5000)} for seed in range(20)]
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
    with pytest.raises(ConfigurationError, match="`<sort>` is not a token"):
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
    table = pa.table({"number": [40, 41], "start": [[1], [1]], "tokens": [[5, 6, 2], [7, 8, 9, 9]]})
    rows = pack_samples(table, [[0, 1]], 10)
    flat = rows["documents"] >= 0
    np.testing.assert_array_equal(rows["ids"][flat], [1, 5, 6, 2, 1, 7, 8, 9, 9])
    np.testing.assert_array_equal(rows["weights"][flat], [0, 1, 1, 1, 0, 1, 1, 1, 1])
    assert set(rows["documents"][flat]) == {40, 41}


MODEL = ModelRef("nowhere", "abc")


class Fake(Engine):
    """An engine for fault injection: answers out of order, and fails for the given numbers."""

    def __init__(self, fail: set[int] | None = None, answered: int | None = None):
        self.fail, self.answered = fail or set(), answered
        self.calls: list[list[int]] = []

    def generate(
        self, model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate
    ) -> Iterator[Sample]:
        self.calls.append(numbers)
        for number in list(reversed(numbers))[: self.answered]:
            yield number, None if number in self.fail else np.array([number % 7, 2], np.int32)


Install = Callable[[Fake], Fake]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Sample with an engine in this process."""
    sample_in_process(monkeypatch)

    def with_engine(engine: Fake) -> Fake:
        monkeypatch.setattr(ENGINES, "load", lambda name: lambda: engine)
        return engine

    return with_engine


def sampled(store: Store, config: Generate) -> tuple[Artefact, Artefact]:
    return sample_rows(store, MODEL, "float32", SampleSettings(((1,),), tokens=3), config, Wanted(6, count=10))


def test_samples_are_stored_in_order_and_counted(tmp_path: Path, install: Install) -> None:
    install(Fake())
    _, samples = sampled(Store(tmp_path), Generate(shard_samples=4))
    assert [n for table in samples.tables() for n in table["number"].to_pylist()] == list(range(10))
    assert samples.manifest()["distinct"] == 7
    assert samples.manifest()["counts"]["tokens"] == 20


def test_only_missing_shards_are_sampled_and_the_result_is_the_same(tmp_path: Path, install: Install) -> None:
    engine = install(Fake())
    store, config = Store(tmp_path, "me"), Generate(shard_samples=4)
    rows, samples = sampled(store, config)
    before = [artefact.manifest() for artefact in (samples, rows)]
    for artefact in (samples, rows):
        (artefact.path / "manifest.json").unlink()
    samples.shard(1).unlink()
    rows.shard(0).unlink()
    rows, samples = sampled(store, config)
    after = [artefact.manifest() for artefact in (samples, rows)]
    assert engine.calls[1:] == [[4, 5, 6, 7]]
    assert [manifest["content"] for manifest in after] == [manifest["content"] for manifest in before]
    assert after[0]["distinct"] == before[0]["distinct"]


def test_a_complete_set_is_not_sampled_again(tmp_path: Path, install: Install) -> None:
    engine = install(Fake())
    first = sampled(Store(tmp_path), Generate())
    assert sampled(Store(tmp_path), Generate()) == first
    assert len(engine.calls) == 1


def test_progress_counts_what_is_stored(tmp_path: Path, install: Install) -> None:
    install(Fake({3}))
    seen: list[Made] = []
    sample_set(
        Store(tmp_path), MODEL, "float32", SampleSettings(((1,),), tokens=3),
        Generate(shard_samples=5, max_failed=0.2), 10, seen.append,
    )  # fmt: skip
    assert seen == [Made(5, 10, 10), Made(10, 10, 18), Made(10, 10, 18)]


def test_failed_requests_are_dropped_and_counted(tmp_path: Path, install: Install) -> None:
    install(Fake({3}))
    _, samples = sampled(Store(tmp_path), Generate(shard_samples=5, max_failed=0.2))
    assert samples.manifest()["counts"]["failed"] == 1
    assert samples.manifest()["counts"]["samples"] == 9


def test_too_many_failed_requests_are_an_error(tmp_path: Path, install: Install) -> None:
    install(Fake({3}))
    with pytest.raises(ContinualError, match=r"1 of 10 samples failed, more than `generate.max_failed` \(0.05\)"):
        sampled(Store(tmp_path), Generate(shard_samples=5, max_failed=0.05))


def test_an_engine_that_ends_early_is_an_error(tmp_path: Path, install: Install) -> None:
    install(Fake(answered=1))
    with pytest.raises(ContinualError, match="ended with 9 samples missing"):
        sampled(Store(tmp_path), Generate())


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_naming_an_engine_does_not_import_torch(engine: str) -> None:
    script = f"import sys; from continual.contract.registry import ENGINES; ENGINES.load({engine!r})\n"
    script += "print(sorted({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(("head", "gpus", "words"), [(48, 0, "head size 48"), (48, 1, None), (64, 0, None)])
def test_vllm_says_which_models_it_cannot_sample(
    head: int, gpus: float, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    problem = VllmEngine().problem(ModelFacts(None, head_size=head), Generate(gpus_per_replica=gpus))
    assert problem is None if words is None else words in str(problem)


def test_a_missing_vllm_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "install continual[cpu]" in str(VllmEngine().problem(ModelFacts(None), Generate()))


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="there is no engine `vlm`; did you mean `vllm`"):
        Generate(engine="vlm")


@pytest.mark.parametrize(
    "change", [{"temperature": 0.9}, {"top_p": 0.9}, {"seed": 1}, {"tokens": 4}, {"stop": (2,)}, {"starts": ((2,),)}]
)
def test_every_setting_is_part_of_the_address(tmp_path: Path, change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"starts": ((1,),), "tokens": 3}
    inputs = [
        front.sample_inputs(MODEL, "float32", SampleSettings(**(base | extra)), Generate()) for extra in ({}, change)
    ]
    store = Store(tmp_path)
    assert store.artefact("samples", inputs[0]).hash != store.artefact("samples", inputs[1]).hash
