"""Of every kind of chat template, exactly the answers and what ends them are trained, as inference will see them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.data.formats import CUT, WHOLE
from continual.errors import ConfigurationError
from continual.models.ends import answer_ends, stop_ids
from continual.models.template import chat_template
from tests.kits.conversations import (
    CONVERSATIONS,
    FOLDER,
    KINDS,
    PAGE,
    SYSTEM,
    TALK,
    TOOL,
    WEATHER,
    chat_tokenizer,
    encode,
    learned,
    renewed,
)  # fmt: skip

USED = [(name, conversation) for name in KINDS for conversation in CONVERSATIONS]


def trained(pieces: list[Any], tokenizer: Any) -> list[str]:
    return [text for piece in pieces for text in learned(piece, tokenizer)]


def test_every_template_is_tried() -> None:
    assert {path.stem for path in FOLDER.glob("*.jinja")} == set(KINDS)
    assert len(KINDS) >= 30


@pytest.mark.parametrize(("name", "conversation"), USED)
def test_answers_and_their_ends_are_trained(name: str, conversation: str) -> None:
    tokenizer, kind, document = chat_tokenizer(name), KINDS[name], CONVERSATIONS[conversation]
    expected = kind.outcomes[conversation]
    if expected not in ("one", "apart"):
        with pytest.raises(ConfigurationError, match=expected):
            encode(document, tokenizer)
        return
    pieces = encode(document, tokenizer)
    answers = [turn for turn in document["messages"] if turn["role"] == "assistant"]
    assert len(pieces) == (1 if expected == "one" else len(answers))
    texts = trained(pieces, tokenizer)
    assert len(texts) == len(answers)
    for text, answer in zip(texts, answers, strict=True):
        if answer["content"]:
            # A template may write a space or a newline between its own words and the answer.
            assert text.lstrip().startswith(answer["content"])
            assert text.lstrip()[len(answer["content"]) :].lstrip() == kind.end
        else:
            assert '"city": "Oslo"' in text
            assert text.index("weather") < text.index("Oslo")
            assert tokenizer.convert_tokens_to_ids(text[text.rindex("<") :] or "") in answer_ends(tokenizer, chat=True)
        for turn in document["messages"]:
            assert turn["role"] == "assistant" or turn["content"] not in text


@pytest.mark.parametrize(("name", "conversation"), [used for used in USED if used[1] != "tools"])
def test_a_text_begins_as_inference_renders_it(name: str, conversation: str) -> None:
    tokenizer, document = chat_tokenizer(name), CONVERSATIONS[conversation]
    if KINDS[name].outcomes[conversation] not in ("one", "apart"):
        return
    pieces, template = encode(document, tokenizer), chat_template(tokenizer)
    turns = template.turns(document["messages"])
    numbers = [number for number, turn in enumerate(turns) if turn["role"] == "assistant"]
    for place, number in enumerate(numbers):
        text = str(tokenizer.decode(pieces[min(place, len(pieces) - 1)].ids))
        prompt = str(tokenizer.apply_chat_template(turns[:number], tokenize=False, add_generation_prompt=True))
        # DeepSeek-R1 opens a thought for inference that it takes out of every answer.
        assert text.startswith(prompt.removesuffix("<think>\n"))


@pytest.mark.parametrize("name", KINDS)
def test_the_end_that_is_learned_ends_generation(name: str) -> None:
    tokenizer = chat_tokenizer(name)
    end = tokenizer.convert_tokens_to_ids(KINDS[name].end)
    assert end in answer_ends(tokenizer, chat=True)
    assert {end, tokenizer.eos_token_id} <= set(stop_ids(tokenizer, {"eos_token_id": 5}, chat=True))
    assert stop_ids(tokenizer, {"eos_token_id": 5}, chat=False) == tuple(sorted((5, tokenizer.eos_token_id)))


def test_the_table_of_the_manual_is_up_to_date() -> None:
    assert PAGE.read_text() == renewed(PAGE.read_text()), "run python -m tests.kits.conversations"


def test_reasoning_is_trained_with_its_answer_and_dropped_before_the_next() -> None:
    tokenizer = chat_tokenizer("qwen3-thinking")
    thinking = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>\none more\n</think>\n\ntwo"},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "four", "reasoning_content": "twice two"},
    ]
    pieces = encode({"messages": thinking}, tokenizer)
    assert trained(pieces, tokenizer) == [
        "<think>\none more\n</think>\n\ntwo<|im_end|>",
        "<think>\ntwice two\n</think>\n\nfour<|im_end|>",
    ]
    assert "one more" not in str(tokenizer.decode(pieces[1].ids))


def test_an_empty_thought_of_the_template_is_context() -> None:
    tokenizer = chat_tokenizer("qwen3-thinking")
    [piece] = encode(CONVERSATIONS["single"], tokenizer)
    assert "<think>\n\n</think>\n\nAn old oak." in str(tokenizer.decode(piece.ids))
    assert learned(piece, tokenizer) == ["An old oak.<|im_end|>"]


@pytest.mark.parametrize(
    ("name", "turns", "words"),
    [
        ("deepseek-r1", [TALK[0], {"role": "assistant", "content": "why</think>yes"}], "leaves out the words"),
        ("chatml", [TALK[0], {"role": "assistant", "content": "yes", "reasoning": "why"}], "the reasoning 'why'"),
        ("gemma2", [SYSTEM, *TALK], "System role not supported"),
        ("yi", [TALK[0], {"role": "tool", "content": "lost"}, TALK[1]], r"'lost' of turn 2 \(tool\)"),
        ("chatml", [TALK[0], {**TALK[1], "weight": 0.5}], "has the weight 0.5"),
        ("chatml", [{**TALK[0], "weight": 1}, TALK[1]], "has the weight 1"),
    ],
)  # fmt: skip
def test_what_a_template_would_lose_is_refused(name: str, turns: list[Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        encode({"messages": turns}, chat_tokenizer(name))


def test_arguments_are_no_json_text_inside_json() -> None:
    call = WEATHER[1]["tool_calls"][0]["function"]
    for arguments in (call["arguments"], json.loads(call["arguments"])):
        turn = {**WEATHER[1], "tool_calls": [{"type": "function", "function": {**call, "arguments": arguments}}]}
        for name in ("qwen2.5-tools", "qwen3-thinking", "deepseek-r1"):
            tokenizer = chat_tokenizer(name)
            [text] = trained(encode({"messages": [WEATHER[0], turn], "tools": None}, tokenizer), tokenizer)
            assert '{"city": "Oslo"}' in text


def test_tools_reach_the_template_or_are_refused() -> None:
    qwen, bare = chat_tokenizer("qwen2.5-tools"), chat_tokenizer("chatml")
    assert "Tell the weather." in str(qwen.decode(encode({"messages": TALK, "tools": [TOOL]}, qwen)[0].ids))
    with pytest.raises(ConfigurationError, match="leaves out the tool `weather`"):
        encode({"messages": TALK, "tools": [TOOL]}, bare)


def test_a_list_of_parts_is_joined_and_a_text_is_made_one() -> None:
    parts = [
        TALK[0],
        {"role": "assistant", "content": [{"type": "text", "text": "An "}, {"type": "text", "text": "oak"}]},
    ]
    for name in ("chatml", "gemma3", "llama3.2-vision"):
        tokenizer = chat_tokenizer(name)
        assert trained(encode({"messages": parts}, tokenizer), tokenizer) == ["An oak" + KINDS[name].end]


def test_a_turn_of_weight_0_is_context() -> None:
    for name in ("chatml", "smollm3", "alpaca", "qwen3-thinking"):
        tokenizer = chat_tokenizer(name)
        pieces = encode({"messages": [TALK[0], {**TALK[1], "weight": 0}, TALK[2], TALK[3]]}, tokenizer)
        assert trained(pieces, tokenizer) == ["A birch, then." + KINDS[name].end]


WORDS = st.text("abc é日\n", min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(max_examples=60)
@given(
    st.sampled_from(["chatml", "phi3", "qwen3-thinking", "alpaca", "smollm3", "llama3", "gpt-oss"]),
    st.lists(st.tuples(WORDS, WORDS, st.sampled_from([None, 0, 1])), min_size=1, max_size=4),
    st.integers(12, 80),
)
def test_answers_are_trained_whole_and_alone(name: str, exchanges: list[Any], row_tokens: int) -> None:
    tokenizer, end = chat_tokenizer(name), KINDS[name].end
    turns: list[dict[str, Any]] = []
    for asked, answered, weight in exchanges:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered, "weight": weight}]
    expected = [answered + end for _, answered, weight in exchanges if weight != 0]
    pieces = encode({"messages": turns}, tokenizer, row_tokens=10_000)
    kept = [piece for piece in pieces if piece.outcome == WHOLE]
    assert trained(kept, tokenizer) == expected
    rendered = str(tokenizer.apply_chat_template([{**turn} for turn in turns], tokenize=False))
    if len(kept) == 1 and len(expected) > 1:
        assert str(tokenizer.decode(kept[0].ids)) == rendered
    cut = encode({"messages": turns}, tokenizer, row_tokens=row_tokens, overlong="cut")
    assert all(len(piece.ids) <= row_tokens for piece in cut)
    found = trained([piece for piece in cut if piece.outcome in (WHOLE, CUT)], tokenizer)
    fits = [text for text in expected if len(tokenizer(text, add_special_tokens=False)["input_ids"]) < row_tokens]
    assert found == fits
