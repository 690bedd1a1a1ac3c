"""Documents become ids and loss weights by length and by character span; nothing depends on pad ids."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from continual.contract.source import Source
from continual.data.formats import CUT, DROPPED, EMPTY, LOST, UNLEARNABLE, WHOLE, Piece, special_prefix
from continual.data.sources.jsonl import JsonlSource
from continual.errors import ConfigurationError
from tests.kits import tokens


class Letters:
    """A tokenizer of single characters with BOS 1 and end-of-text 0, which is the padding id too."""

    bos_token_id: int | None = 1
    eos_token_id: int | None = 0
    chat_template = "yes"

    def __call__(self, text: str | list[str], add_special_tokens: bool = True, **_: Any) -> dict[str, Any]:
        if not isinstance(text, str):
            each = [self(one, add_special_tokens) for one in text]
            return {key: [one[key] for one in each] for key in ("input_ids", "offset_mapping")}
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
    return tokens.encode(source.example(document), source, tokenizer, row_tokens)


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


def test_a_template_that_rewrites_earlier_turns_gives_a_piece_per_answer() -> None:
    class Rewriting(Letters):
        def apply_chat_template(self, turns: Any, tokenize: bool = False, add_generation_prompt: bool = False) -> str:
            return f"{len(turns)}" + super().apply_chat_template(turns, tokenize, add_generation_prompt)

    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2
    pieces = encode({"m": turns}, source(messages="m"), Rewriting(), 100)
    assert [trained(piece) for piece in pieces] == ["b$", "b$"]
    assert "".join(map(chr, pieces[0].ids)) == "2<u>a$\n<a>b$\n"


@given(st.text(alphabet="abcdef", min_size=1, max_size=60), st.integers(3, 12))
def test_cut_text_is_whole_again_in_pieces_with_one_end_token(text: str, row_tokens: int) -> None:
    pieces = encode({"text": text}, source(overlong="cut"), Letters(), row_tokens)
    assert all(len(piece.ids) <= row_tokens and piece.ids[0] == 1 for piece in pieces)
    body = [token for piece in pieces for token in piece.ids[1:]]
    assert body == [ord(letter) for letter in text] + [0]
    assert len(pieces) == 1 or all(piece.outcome == CUT for piece in pieces)


def test_a_long_prompt_is_cut_on_the_left_and_its_answer_is_whole() -> None:
    [piece] = encode({"p": "abcdef", "c": "xy"}, source(prompt="p", completion="c", overlong="cut"), Letters(), 6)
    assert piece.outcome == CUT
    np.testing.assert_array_equal(piece.ids, [1, *map(ord, "efxy"), 0])
    np.testing.assert_array_equal(piece.weights, [0, 0, 0, 1, 1, 1])


def test_an_answer_that_fits_no_row_is_lost_not_cut() -> None:
    answer = source(prompt="p", completion="c", overlong="cut")
    fits, lost = ({"p": "abc", "c": "x" * count} for count in (3, 4))
    [piece] = encode(fits, answer, Letters(), 5)
    np.testing.assert_array_equal(piece.ids, [1, *map(ord, "xxx"), 0])
    assert [piece.outcome for piece in encode(lost, answer, Letters(), 5)] == [LOST]
    bare = Letters()
    bare.bos_token_id = None
    # Without a BOS an answer needs a token of the prompt before it: nothing predicts a document's first token.
    [piece] = encode(fits, answer, bare, 5)
    np.testing.assert_array_equal(piece.ids, [*map(ord, "cxxx"), 0])
    assert [piece.outcome for piece in encode(lost, answer, bare, 5)] == [LOST]


def test_the_answers_of_a_long_conversation_are_cut_out_one_by_one() -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "much"},
        {"role": "assistant", "content": "x" * 30},
        {"role": "user", "content": "end"},
        {"role": "assistant", "content": "so"},
    ]
    pieces = encode({"m": turns}, source(messages="m", overlong="cut"), Letters(), 18)
    assert [trained(piece) for piece in pieces] == ["yo$", "no$", "", "so$"]
    assert [piece.outcome for piece in pieces] == [CUT, CUT, LOST, CUT]
    texts = ["".join(map(chr, piece.ids)) for piece in pieces]
    full = Letters().apply_chat_template(turns)
    assert texts[:2] == ["<u>hi$\n<a>yo$", full[: full.index("no$") + 3][-18:]]
    assert texts[3] == full[: full.index("so$") + 3][-18:]


def test_documents_without_a_position_to_learn_are_no_rows() -> None:
    user = {"role": "user", "content": "hi"}
    answer = {"role": "assistant", "content": "yo", "weight": 0}
    for turns in ([user], [user, answer], [user, answer, user]):
        [piece] = encode({"m": turns}, source(messages="m"), Letters(), 100)
        assert (piece.outcome, len(piece.ids)) == (UNLEARNABLE, 0)
    nothing = source(prompt="p", completion="c", end_token=False)
    assert [piece.outcome for piece in encode({"p": "ab", "c": ""}, nothing, Letters(), 10)] == [UNLEARNABLE]


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


def test_a_tokenizer_of_few_tokens_has_a_prefix_too() -> None:
    """It raises for every letter that it has no token for."""
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "7": 1, "<big>": 2}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    few = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    assert special_prefix(few) == []
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    assert special_prefix(PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")) == [0]
