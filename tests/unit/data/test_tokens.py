"""Prompt and completion are encoded together, and no text gets a second BOS or end token."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from continual.contract.example import Example
from continual.data.formats import DROPPED, WHOLE, Piece, special_prefix
from continual.data.sources.jsonl import JsonlSource
from tests.kits.tokens import encode, encode_spans

LETTERS = "abcdefgQ:0123456789+= .<>[]/INSThiyo"


def letters(**parts: Any) -> PreTrainedTokenizerFast:
    """Return a tokenizer with BOS and end token, of single characters as SentencePiece writes them."""
    words = ["<unk>", "<s>", "</s>", "\u2581", *dict.fromkeys(LETTERS), "ab", "\u2581a", "\u2581ab"]
    merges = [("a", "b"), ("\u2581", "a"), ("\u2581", "ab")]
    backend = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges, unk_token="<unk>"))
    for name, part in parts.items():
        setattr(backend, name, part)
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


PREPEND = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
KINDS = {
    "prepend": letters(normalizer=PREPEND),
    "metaspace": letters(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="always")),
    "metaspace first": letters(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first")),
    "nfkc": letters(normalizer=normalizers.Sequence([normalizers.NFKC(), PREPEND])),
}


def pair(tokenizer: Any, prompt: str, completion: str, row_tokens: int = 500, **options: Any) -> Piece:
    source = JsonlSource(path="x", prompt="p", completion="c", **options)
    [piece] = encode(Example("prompt", prompt=prompt, completion=completion), source, tokenizer, row_tokens)
    return piece


def text(tokenizer: Any, words: str, row_tokens: int = 500, **options: Any) -> list[Piece]:
    source = JsonlSource(path="x", text="t", **options)
    return encode(Example("text", text=words), source, tokenizer, row_tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_no_space_comes_between_prompt_and_completion(kind: str) -> None:
    tokenizer = KINDS[kind]
    piece = pair(tokenizer, "Q: 1+1=", "2")
    assert piece.ids.tolist() == [*tokenizer("Q: 1+1=2")["input_ids"], 2]
    assert tokenizer.convert_ids_to_tokens(piece.ids[piece.weights > 0].tolist()) == ["2", "</s>"]


def test_real_sentencepiece_with_bytes(stories: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    for prompt, completion in [("Q: 1+1=", "2"), ("Say ", "é日\n!"), ("日", "日本"), ("", "a b")]:
        piece = pair(tokenizer, prompt, completion)
        assert tokenizer.decode(piece.ids, skip_special_tokens=True) == prompt + completion
        trained = str(tokenizer.decode(piece.ids[piece.weights > 0], skip_special_tokens=True))
        assert trained.strip() == completion.strip()


def test_a_token_with_a_character_of_the_completion_is_learned() -> None:
    tokenizer = KINDS["prepend"]
    piece = pair(tokenizer, "c a", "b")
    learned = tokenizer.convert_ids_to_tokens(piece.ids[piece.weights > 0].tolist())
    assert learned == ["\u2581ab", "</s>"]


def test_a_normalizer_that_changes_lengths_moves_no_mask() -> None:
    tokenizer = KINDS["nfkc"]
    # The ligature and the fraction become several characters each.
    piece = pair(tokenizer, "\ufb01 \u00bd", "ab")
    assert tokenizer.convert_ids_to_tokens(piece.ids[piece.weights > 0].tolist()) == ["ab", "</s>"]


def test_a_tokenizer_without_offsets_gives_the_same(stories: Path) -> None:
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(stories)

    class Slow:
        is_fast = False

        def __call__(self, words: str, add_special_tokens: bool = True) -> Any:
            return fast(words, add_special_tokens=add_special_tokens)

    for prompt, completion in [("Q: 1+1=", "2"), ("Once upon ", "a time"), ("", "a b"), ("the c", "at sat")]:
        words, span = prompt + completion, (len(prompt), len(prompt + completion))
        assert encode_spans(Slow(), words, [span]) == encode_spans(fast, words, [span])


@pytest.mark.parametrize("kind", KINDS)
def test_own_bos_and_end_are_not_doubled(kind: str) -> None:
    tokenizer = KINDS[kind]
    for words in ("<s>[INST] hi [/INST] yo</s>", "[INST] hi</s>", "<s>[INST] hi", "hi"):
        [piece] = text(tokenizer, words)
        ids = piece.ids.tolist()
        assert (ids[0], ids.count(1), ids[-1], ids.count(2)) == (1, 1, 2, 1)
        assert piece.weights.tolist() == [0.0] + [1.0] * (len(ids) - 1)
    piece = pair(tokenizer, "<s>hi", "yo</s>")
    assert (piece.ids.tolist().count(1), piece.ids.tolist().count(2)) == (1, 1)
    cut = text(tokenizer, "<s>" + "a" * 20, row_tokens=6, overlong="cut")
    assert all(piece.ids[0] == 1 and list(piece.ids).count(1) == 1 for piece in cut)


def test_the_whole_prefix_is_used() -> None:
    tokenizer = letters(normalizer=PREPEND)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> <unk> $A </s>", special_tokens=[("<s>", 1), ("<unk>", 0), ("</s>", 2)]
    )
    assert special_prefix(tokenizer) == [1, 0]
    [piece] = text(tokenizer, "ab")
    assert piece.ids.tolist() == tokenizer("ab")["input_ids"]
    assert piece.weights.tolist() == [0, 0, 1, 1]
    assert [piece.outcome for piece in text(tokenizer, "ab", row_tokens=2, overlong="cut")] == [DROPPED]


@given(
    st.text("ab c12", min_size=1, max_size=9), st.text("ab c12", min_size=1, max_size=9), st.sampled_from(list(KINDS))
)
def test_the_ids_are_those_of_the_whole_text(prompt: str, completion: str, kind: str) -> None:
    tokenizer = KINDS[kind]
    piece = pair(tokenizer, prompt, completion)
    assert piece.outcome == WHOLE
    assert piece.ids.tolist() == [*tokenizer(prompt + completion)["input_ids"], 2]
    first = int(np.flatnonzero(piece.weights)[0])
    assert (piece.weights[first:] == 1).all()
    # What is not learned is the beginning of the prompt, and not a character of the completion.
    before = "".join(tokenizer.convert_ids_to_tokens(piece.ids[1:first].tolist())).replace("\u2581", "").strip()
    assert prompt.replace(" ", "").startswith(before)
