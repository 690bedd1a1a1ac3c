"""Chat templates written after the commonest ones, a tokenizer that has their tokens, and conversations.

`python -m tests.kits.conversations` renews the table of what becomes of them in docs/conversations.md.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from continual.contract.source import Source
from continual.data import formats
from continual.data.formats import Piece
from continual.data.sources.jsonl import JsonlSource
from continual.errors import ConfigurationError

FOLDER = Path(__file__).parent / "templates"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "conversations.md"
BEGIN, END = "<!-- table: templates -->\n", "<!-- end -->"
SPECIAL = re.compile(
    r"<[|｜][^|｜<>' ]+[|｜]>|\[\|endofturn\|\]|<(?:start|end)_of_turn>|<sop>|\[gMASK\]|<extra_id_[01]>"
)

CALL = {"type": "function", "id": "call00001", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
WEATHER = [
    {"role": "user", "content": "Is it cold?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "minus three"},
    {"role": "assistant", "content": "Take a coat."},
]
TALK = [
    {"role": "user", "content": "Name a tree."},
    {"role": "assistant", "content": "An old oak."},
    {"role": "user", "content": "Another one?"},
    {"role": "assistant", "content": "A birch, then."},
]
SYSTEM = {"role": "system", "content": "Be brief."}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "single": {"messages": TALK[:2]},
    "multi-turn": {"messages": TALK},
    "system": {"messages": [SYSTEM, *TALK[:2]]},
    "tools": {"messages": WEATHER, "tools": [TOOL]},
}


@dataclass(frozen=True)
class Kind:
    """A kind of template.

    Attributes:
        end: What ends an answer.
        eos: The tokenizer's end-of-text token.
        outcomes: What becomes of a conversation, where it is not one text: `apart` (one per answer), or why it is
            refused.
    """

    end: str
    eos: str = "<|endoftext|>"
    outcomes: dict[str, str] = field(default_factory=dict)


NO_TOOLS = "leaves out the called tool"
NO_SYSTEM = "System role not supported"
APART = {"multi-turn": "apart"}


def plain(end: str, eos: str = "<|endoftext|>", tools: str = NO_TOOLS, **outcomes: str) -> Kind:
    named = {key.replace("_", "-"): value for key, value in outcomes.items()}
    return Kind(end, eos, {"tools": tools, **named} if tools else named)


KINDS: dict[str, Kind] = {
    "chatml": plain("<|im_end|>"),
}


@cache
def chat_tokenizer(name: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with a BOS and the tokens of a template, named or given."""
    text = template if template is not None else (FOLDER / f"{name}.jinja").read_text()
    kind = KINDS.get(name, Kind(""))
    special = sorted({"<s>", kind.eos, *re.findall(SPECIAL, text)} | ({kind.end} if kind.end else set()))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    said = [turn["content"] for document in CONVERSATIONS.values() for turn in document["messages"]]
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*said * 3, " assistant\n", "### Response:\n"], trainer)
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=kind.eos, chat_template=text)


def encode(document: dict[str, Any], tokenizer: Any, row_tokens: int = 4096, **options: Any) -> list[Piece]:
    source: Source = JsonlSource(path="x.jsonl", messages="messages", **options)
    example = formats.Example("messages", messages=document["messages"], tools=document.get("tools"))
    return formats.encode(example, source, tokenizer, row_tokens)


def learned(piece: Piece, tokenizer: Any) -> list[str]:
    """Return the texts of the runs of trained positions."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], piece.weights > 0, [0]])))
    return [str(tokenizer.decode(piece.ids[first:last])) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def outcome(name: str, conversation: str) -> str:
    """Return what becomes of a conversation: `one`, `apart`, or the sentence with which it is refused."""
    try:
        pieces = encode(CONVERSATIONS[conversation], chat_tokenizer(name))
    except ConfigurationError as error:
        return str(error)
    return "one" if len(pieces) == 1 else "apart"
