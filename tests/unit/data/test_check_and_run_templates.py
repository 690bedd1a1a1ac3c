"""What the check accepts of a conversation under a chat template, the run learns: its answers and their ends, no more.

Conversations are written to a real file. The check reads it as before a start, and the run as its tasks do.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.data.formats import CUT
from continual.data.sources.jsonl import JsonlSource
from continual.data.tally import Tally
from continual.errors import ConfigurationError
from continual.preflight.check_data import FIRST
from continual.preflight.check_tokenizer import _check_documents
from tests.kits.conversations import KINDS, chat_tokenizer, learned
from tests.kits.sources import tokenized

ROW_TOKENS = 4096
ROLES = st.lists(st.sampled_from(["user", "assistant"]), max_size=5).map(lambda roles: ["user", *roles])
ORDERLY = st.integers(1, 3).map(lambda rounds: ["user", "assistant"] * rounds)
WEIGHTS = st.sampled_from([None, None, 0, 1])


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Turns with words that occur nowhere else, so that what is learned can be told apart."""
    roles = draw(ORDERLY | ORDERLY | ROLES)
    if draw(st.booleans()):
        roles = ["system", *roles]
    turns = []
    for number, role in enumerate(roles):
        turn: dict[str, Any] = {"role": role, "content": f"word{number}x{draw(st.integers(0, 99))} of {role}"}
        weight = draw(WEIGHTS) if role == "assistant" else None
        turns.append(turn if weight is None else {**turn, "weight": weight})
    return turns


def ran(source: JsonlSource, tokenizer: Any) -> tuple[str, list[str]]:
    """The refusal of the run or "", and the texts that it learns."""
    tally, texts = Tally(source), []
    try:
        for pieces in tally.pieces(tokenized(source, "folder", ROW_TOKENS)):
            kept = [number for number, outcome in enumerate(pieces.outcome) if outcome <= CUT]
            for number in kept:
                piece = type("Piece", (), {"ids": pieces.ids[number], "weights": pieces.weights[number]})
                texts += learned(piece, tokenizer)  # type: ignore[arg-type]
        tally.check(ROW_TOKENS)
    except ConfigurationError as error:
        return str(error), texts
    return "", texts


@settings(max_examples=150)
@given(st.sampled_from(sorted(KINDS)), st.lists(conversations(), min_size=1, max_size=3), st.booleans())
def test_the_check_and_the_run_agree_on_every_template(
    name: str, documents: list[list[dict[str, Any]]], skip: bool
) -> None:
    tokenizer = chat_tokenizer(name)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("continual.data.tokenize.load_tokenizer", lambda _: tokenizer)
        path = Path(folder) / "chats.jsonl"
        path.write_text("\n".join(json.dumps({"m": turns}) for turns in documents))
        source = JsonlSource(path=str(path), messages="m", on_bad="skip" if skip else "refuse")
        refused, texts = ran(source, tokenizer)
        try:
            _check_documents("data", source, source.first("data", FIRST), tokenizer, ROW_TOKENS)
            checked = ""
        except ConfigurationError as error:
            checked = str(error)
    assert bool(checked) == bool(refused), (checked, refused)
    if refused:
        return
    left = _bare("".join(texts))
    for turns in documents:
        answers = [turn["content"] for turn in turns if turn["role"] == "assistant" and turn.get("weight") != 0]
        wanted = _bare("".join(f"{answer}{KINDS[name].end}" for answer in answers))
        # With `skip`, a conversation that the template refuses is left out whole.
        assert skip or left.startswith(wanted)
        left = left.removeprefix(wanted)
    assert left == ""


def _bare(text: str) -> str:
    """Return a text without spaces: those around an answer are the template's, and learned where it generates them."""
    return "".join(text.split())
