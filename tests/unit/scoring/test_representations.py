"""Representations of texts: means of hidden states against each text alone in float64, cuts, and what is stored."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from continual.contract.models import ModelRef
from continual.errors import ContinualError
from continual.models import load_tokenizer, model_hash
from continual.scoring import representations as room
from continual.scoring.hidden import mean_hidden_states
from continual.scoring.representations import (
    cut_texts,
    read_representations,
    represent,
    representations,
    tokens_of,
)
from continual.store import Store
from tests.kits.families import TRAINED, family, with_vision
from tests.kits.models import tiny
from tests.kits.project import write_model

ROW, WORDS = 24, 60


def documents(seed: int, count: int, first: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random ids of documents of 1 to 20 tokens, and weights without their first `first` tokens."""
    random = np.random.default_rng(seed)
    ids = [random.integers(3, 50, length).astype(np.int32) for length in random.integers(1, 21, count)]
    return ids, [(np.arange(len(each)) >= first).astype(np.float32) for each in ids]


def alone(model: Any, ids: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
    """The definition: each document by itself through a copy of the model in float64, and the mean over its tokens."""
    exact = copy.deepcopy(model).double()
    means = []
    with torch.no_grad():
        for document, weight in zip(ids, weights, strict=True):
            inputs = torch.from_numpy(document.astype(np.int64))[None]
            states = exact(input_ids=inputs, output_hidden_states=True, use_cache=False).hidden_states[-1][0].numpy()
            counted = [state for state, each in zip(states, weight, strict=True) if each > 0]
            means.append(sum(counted) / len(counted) if counted else np.zeros(states.shape[1]))
    return np.array(means)


@pytest.mark.parametrize("first", [0, 2])
def test_a_document_is_the_mean_of_its_last_hidden_states(first: int) -> None:
    model = tiny()
    ids, weights = documents(0, 40, first)
    found = mean_hidden_states(model, ids, weights, ROW)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, alone(model, ids, weights), atol=2e-6)


@pytest.mark.parametrize("name", ["GPT2", "Gemma3Text", "Phi"])
def test_other_families_have_the_same_meaning(name: str) -> None:
    model = family(name, **TRAINED[name])
    ids, weights = documents(1, 12)
    np.testing.assert_allclose(mean_hidden_states(model, ids, weights, ROW), alone(model, ids, weights), atol=5e-6)


def test_a_model_that_sees_images_represents_texts() -> None:
    model = with_vision()
    ids, weights = documents(2, 12)
    np.testing.assert_allclose(mean_hidden_states(model, ids, weights, ROW), alone(model, ids, weights), atol=5e-6)


@settings(max_examples=25)
@given(st.permutations(range(12)), st.integers(20, 64), st.integers(1, 80))
def test_neither_order_nor_rows_nor_padding_nor_blocks_change_a_document(
    order: list[int], row_tokens: int, block: int
) -> None:
    model = tiny(1)
    ids, weights = documents(3, 12)
    expected = alone(model, ids, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("continual.scoring.hidden.BLOCK_TOKENS", block)
        found = mean_hidden_states(model, [ids[n] for n in order], [weights[n] for n in order], row_tokens)
    np.testing.assert_allclose(found, expected[order], atol=2e-6)


def test_a_document_without_tokens_of_its_own_is_zero() -> None:
    ids = [np.array([1, 7], np.int32), np.array([1], np.int32), np.zeros(0, np.int32)]
    weights = [np.array([0, 1], np.float32), np.zeros(1, np.float32), np.zeros(0, np.float32)]
    found = mean_hidden_states(tiny(), ids, weights, ROW)
    assert np.linalg.norm(found[0]) > 0
    assert not found[1:].any()


# Texts --------------------------------------------------------------------------------------------------------------


def with_start(tokenizer: Any) -> Any:
    """Let a tokenizer put its start token before every text."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def test_a_long_text_is_cut_and_counted(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(write_model(tmp_path)))
    ids, weights, cut = tokens_of(tokenizer, ["w0 w1", "w5 w4 w3 w2 w1", "w1 w2 w3", ""], 3)
    assert [each.tolist() for each in ids] == [[4, 5], [9, 8, 7], [5, 6, 7], []]
    assert all((weight == 1).all() and len(weight) == len(each) for each, weight in zip(ids, weights, strict=True))
    assert cut == 1


def test_the_start_token_stands_before_a_text_and_is_not_in_its_mean(tmp_path: Path) -> None:
    tokenizer = with_start(load_tokenizer(str(write_model(tmp_path))))
    ids, weights, cut = tokens_of(tokenizer, ["w0 w1", "<s> w2 w3 w4", ""], 3)
    assert [each.tolist() for each in ids] == [[1, 4, 5], [1, 6, 7], [1]]
    assert [weight.tolist() for weight in weights] == [[0, 1, 1], [0, 1, 1], [0]]
    assert cut == 1


def test_a_text_that_the_tokenizer_fails_on_is_told() -> None:
    class Fails:
        is_fast = True

        def __call__(self, texts: Any, **_: Any) -> Any:
            if texts == ["bad"] or (isinstance(texts, list) and "bad" in texts):
                raise RuntimeError("no such sign")
            return {"input_ids": [[3]] * len(texts) if isinstance(texts, list) else [3]}

    with pytest.raises(ContinualError, match=r"fails on a text \(no such sign\)"):
        tokens_of(Fails(), ["good", "bad"], 8)


# The store ----------------------------------------------------------------------------------------------------------


def texts(seed: int, count: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(f"w{n}" for n in random.integers(0, WORDS, length)) for length in random.integers(1, 30, count)]


@pytest.fixture
def ref(tmp_path: Path) -> ModelRef:
    folder = write_model(tmp_path / "model")
    return ModelRef(str(folder), model_hash(folder))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Represent in this process; the list has the CPUs and GPUs that were asked for."""
    asked: list[tuple[float, float]] = []

    def run(cpus: float, gpus: float, stop: Any, work: Any, *arguments: Any) -> Any:
        asked.append((cpus, gpus))
        return work(*arguments)

    monkeypatch.setattr(room, "in_cluster_with", run)
    monkeypatch.setattr(room, "SHARD_TEXTS", 4)
    return asked


def test_stored_representations_are_those_of_each_text_alone(
    tmp_path: Path, ref: ModelRef, calls: list[tuple[float, float]]
) -> None:
    from transformers import AutoModelForCausalLM

    store, lists = Store(tmp_path / "store"), [texts(0, 10), texts(1, 3)]
    seen: list[tuple[int, int]] = []
    represent(store, ref, lists, ROW, "float32", progress=lambda *now: seen.append(now))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(ref.path), load_tokenizer(ref.path)
    for each in lists:
        found = representations(store, ref.hash, each, ROW, "float32")
        ids = [np.array(tokenizer(text)["input_ids"][:ROW], np.int32) for text in each]
        expected = alone(model, ids, [np.ones(len(document), np.float32) for document in ids])
        np.testing.assert_allclose(read_representations(found), expected, atol=2e-6)
        assert cut_texts(found) == sum(len(text.split()) > ROW for text in each)
    assert sum(len(text.split()) > ROW for text in lists[0]) > 0
    assert seen == [(done, 4) for done in range(1, 5)]
    assert calls == [(0.0, 0.0)]


def test_what_is_stored_needs_neither_cluster_nor_model(
    tmp_path: Path, ref: ModelRef, calls: list[tuple[float, float]]
) -> None:
    store, lists = Store(tmp_path / "store"), [texts(0, 5), texts(1, 3)]
    represent(store, ref, lists, ROW, "float32")
    represent(store, ModelRef("gone", ref.hash), lists, ROW, "float32")
    assert len(calls) == 1
    # Another task asks for its own texts alone.
    shards: list[int] = []
    represent(store, ref, [*lists, texts(2, 9)], ROW, "float32", progress=lambda done, of: shards.append(of))
    assert shards == [3, 3, 3]


def test_equal_lists_are_stored_once(tmp_path: Path, ref: ModelRef, calls: list[tuple[float, float]]) -> None:
    store = Store(tmp_path / "store")
    represent(store, ref, [texts(0, 5), texts(0, 5)], ROW, "float32")
    assert len(list((store.root / "representations").iterdir())) == 1


def test_a_start_that_was_killed_goes_on_at_the_missing_shard(
    tmp_path: Path, ref: ModelRef, calls: list[tuple[float, float]]
) -> None:
    store, lists = Store(tmp_path / "store"), [texts(0, 12)]

    def killed(done: int, shards: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        represent(store, ref, lists, ROW, "float32", progress=killed)
    found = representations(store, ref.hash, lists[0], ROW, "float32")
    assert not found.complete
    kept = {number: found.shard(number).stat().st_mtime_ns for number in found.published()}
    assert len(kept) == 2
    represent(store, ref, lists, ROW, "float32")
    assert found.complete
    assert {number: found.shard(number).stat().st_mtime_ns for number in kept} == kept
    assert len(read_representations(found)) == 12


@pytest.mark.parametrize("change", [{"model": "other"}, {"texts": ["w1"]}, {"row_tokens": 8}, {"dtype": "bfloat16"}])
def test_whatever_decides_them_is_in_their_address(tmp_path: Path, change: dict[str, Any]) -> None:
    settled: dict[str, Any] = {"model": "m", "texts": ["w0", "w1"], "row_tokens": 16, "dtype": "float32"}
    store = Store(tmp_path)
    assert representations(store, **settled).hash == representations(store, **settled).hash
    assert representations(store, **settled).hash != representations(store, **{**settled, **change}).hash
