"""Ends of answers and ways to choose tokens: what transformers does, in vLLM's words, or a refusal."""

import pytest

from continual.evaluation.decoding import Ends, vllm_cannot, vllm_options


@pytest.fixture(autouse=True)
def with_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


def test_an_answer_is_cut_before_its_first_end() -> None:
    ends = Ends((2, 7))
    assert ends.cut([5, 6, 7, 2, 8]) == [5, 6]
    assert ends.cut([7]) == []
    assert ends.cut([5, 6]) == [5, 6]
    assert Ends().cut([2]) == [2]


def test_a_word_that_ends_answers_is_added_once_to_lm_evals_list() -> None:
    stop = ["\n"]
    for _ in range(2):
        Ends((), "USER:").add_text(stop)
    assert stop == ["\n", "USER:"]
    Ends().add_text(stop)
    assert stop == ["\n", "USER:"]


def test_tokens_are_chosen_as_transformers_would() -> None:
    assert vllm_options({}, sampled=False) == {"repetition_penalty": 1.0}
    assert vllm_options({"repetition_penalty": 1.1, "top_k": 5}, sampled=False) == {"repetition_penalty": 1.1}
    assert vllm_options({"top_p": 0.9}, sampled=True) == {
        "repetition_penalty": 1.0, "top_k": 50, "top_p": 0.9, "min_p": 0.0,
    }  # fmt: skip
    assert vllm_options({"top_k": 0}, sampled=True)["top_k"] == 0


@pytest.mark.parametrize(
    ("generation", "word"),
    [
        ({}, None),
        ({"num_beams": 1, "min_length": 0, "bad_words_ids": [], "temperature": 0.6, "repetition_penalty": 1.1}, None),
        ({"num_beams": 4}, "`num_beams`"),
        ({"suppress_tokens": [1]}, "`suppress_tokens`"),
        ({"forced_eos_token_id": 0}, "`forced_eos_token_id`"),
    ],
)
def test_settings_that_vllm_does_not_have_are_named(generation: dict[str, object], word: str | None) -> None:
    problem = vllm_cannot(64, generation, cpu=True)
    assert problem is None if word is None else word in str(problem)


def test_head_sizes_and_a_missing_vllm_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "head size 48" in str(vllm_cannot(48, {}, cpu=True))
    assert vllm_cannot(48, {}, cpu=False) is None
    assert vllm_cannot(None, {}, cpu=True) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    problem = str(vllm_cannot(64, {}, cpu=True))
    assert "install continual[cpu]" in problem
    assert problem.endswith("`evaluate.backend: hf`")
