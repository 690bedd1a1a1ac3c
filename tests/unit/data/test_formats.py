"""Documents become ids and loss weights by length and by character span; nothing depends on pad ids."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.contract.source import Source
from continual.data import formats
from continual.data.formats import CUT, DROPPED, EMPTY, WHOLE, Piece, special_prefix
from continual.data.sources.jsonl import JsonlSource
from continual.errors import ConfigurationError


class Letters:
    """A tokenizer of single characters with BOS 1 and end-of-text 0, which is the padding id too."""

    bos_token_id: int | None = 1
    eos_token_id: int | None = 0
    chat_template = "yes"

    def __call__(self, text: str, add_special_tokens: bool = True, **_: Any) -> dict[str, Any]:
        ids = [ord(letter) for letter in text]
        prefix = [self.bos_token_id] if add_special_tokens and self.bos_token_id is not None else []
        return {"input_ids": prefix + ids, "offset_mapping": [(at, at + 1) for at in range(len(text))]}

    def apply_chat_template(
        self, turns: list[dict[str, str]], tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str:
        text = "".join(f"<{turn['role'][0]}>{turn['content']}$\n" for turn in turns)
        return text + ("<a>" if add_generation_prompt else "")


def source(**keys: Any) -> Source:
    formats = {} if {"prompt", "messages"} & set(keys) else {"text": "text"}
    return JsonlSource(path="x.jsonl", **formats, **keys)


def encode(document: dict[str, Any], source: Source, tokenizer: Any, row_tokens: int) -> list[Piece]:
    return formats.encode(source.example(document), source, tokenizer, row_tokens)


def trained(piece: Piece) -> str:
    return "".join(chr(token) for token, weight in zip(piece.ids, piece.weights, strict=True) if weight > 0)


def test_running_text_has_loss_on_all_but_its_first_token() -> None:
    [piece] = encode({"text": "abc"}, source(), Letters(), 10)
    np.testing.assert_array_equal(piece.ids, [1, 97, 98, 99, 0])
    np.testing.assert_array_equal(piece.weights, [0, 1, 1, 1, 1])
    assert piece.outcome == WHOLE


def test_the_end_token_keeps_its_loss_though_it_is_the_padding_id() -> None:
    [piece] = encode({"p": "q", "c": "ab"}, source(prompt="p", completion="c"), Letters(), 10)
    np.testing.assert_array_equal(piece.ids, [1, ord("q"), 97, 98, 0])
    np.testing.assert_array_equal(piece.weights, [0, 0, 1, 1, 1])


def test_only_assistant_turns_up_to_their_end_of_turn_have_loss() -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "no"},
    ]
    [piece] = encode({"m": turns}, source(messages="m"), Letters(), 100)
    assert trained(piece) == "yo$no$"


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    class Rewriting(Letters):
        def apply_chat_template(self, turns: Any, tokenize: bool = False, add_generation_prompt: bool = False) -> str:
            return f"{len(turns)}" + super().apply_chat_template(turns, tokenize, add_generation_prompt)

    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(ConfigurationError, match="rewrites earlier turns"):
        encode({"m": turns}, source(messages="m"), Rewriting(), 100)


@given(st.text(alphabet="abcdef", min_size=1, max_size=60), st.integers(3, 12))
def test_cut_text_is_whole_again_in_pieces_with_one_end_token(text: str, row_tokens: int) -> None:
    pieces = encode({"text": text}, source(overlong="cut"), Letters(), row_tokens)
    assert all(len(piece.ids) <= row_tokens and piece.ids[0] == 1 for piece in pieces)
    body = [token for piece in pieces for token in piece.ids[1:]]
    assert body == [ord(letter) for letter in text] + [0]
    assert len(pieces) == 1 or all(piece.outcome == CUT for piece in pieces)


def test_a_cut_completion_gets_no_invented_end() -> None:
    [piece] = encode({"p": "q", "c": "abcdef"}, source(prompt="p", completion="c", overlong="cut"), Letters(), 5)
    assert piece.outcome == CUT
    assert 0 not in piece.ids
    assert len(piece.ids) == 5


def test_too_long_and_empty_documents_are_reported() -> None:
    assert encode({"text": "abcdef"}, source(), Letters(), 4)[0].outcome == DROPPED
    no_end = source(end_token=False)
    assert encode({"text": ""}, no_end, Letters(), 4)[0].outcome == EMPTY


def test_a_missing_field_is_named_with_those_that_are_there() -> None:
    with pytest.raises(ConfigurationError, match="no field `text`; it has body, title"):
        encode({"title": "a", "body": "b"}, source(), Letters(), 10)


def test_the_prefix_is_what_the_tokenizer_adds() -> None:
    plain = Letters()
    plain.bos_token_id = None
    assert special_prefix(Letters()) == [1]
    assert special_prefix(plain) == []


def test_a_real_chat_template(shared: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "tokenizers" / "qwen2.5-coder")
    turns = [{"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "It is 4."}]
    [piece] = encode({"m": turns}, source(messages="m"), tokenizer, 200)
    assert tokenizer.decode(piece.ids[piece.weights > 0]) == "It is 4.<|im_end|>"
    assert str(tokenizer.decode(piece.ids)).endswith("It is 4.<|im_end|>\n")
