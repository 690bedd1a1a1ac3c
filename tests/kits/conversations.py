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

from continual.contract.example import Example
from continual.contract.source import Source
from continual.data.formats import Piece
from continual.data.sources.jsonl import JsonlSource
from continual.errors import ConfigurationError
from tests.kits import tokens

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
WEATHER: list[dict[str, Any]] = [
    {"role": "user", "content": "Is it cold?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "minus three"},
    {"role": "assistant", "content": "Take a coat."},
]
TALK: list[dict[str, Any]] = [
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
    """A kind of template: what ends an answer, and what becomes of the conversations that are not one text.

    `outcomes` are `apart` (a text per answer), or words of the sentence with which a conversation is refused.
    """

    end: str = "<|endoftext|>"
    outcomes: dict[str, str] = field(default_factory=dict)


NO_CALL = "leaves out the called tool"
NO_ROLE = "refuses the conversation"


def kind(end: str = "<|endoftext|>", multi: str = "one", system: str = "one", tools: str = NO_CALL) -> Kind:
    return Kind(end, {"single": "one", "multi-turn": multi, "system": system, "tools": tools})


KINDS: dict[str, Kind] = {
    "alpaca": kind(multi="apart"),
    "chatml": kind("<|im_end|>"),
    "chatml-default-system": kind("<|im_end|>"),
    "command-r": kind("<|END_OF_TURN_TOKEN|>", tools=NO_ROLE),
    "deepseek-r1": kind("<｜end▁of▁sentence｜>", multi="apart", tools="apart"),
    "deepseek-v3": kind("<｜end▁of▁sentence｜>"),
    "exaone": kind("[|endofturn|]"),
    "falcon": kind(multi="apart", tools=NO_ROLE),
    "gemma2": kind("<end_of_turn>", system=NO_ROLE, tools=NO_ROLE),
    "gemma3": kind("<end_of_turn>"),
    "glm4": kind(multi="apart"),
    "gpt-oss": kind("<|return|>", multi="apart"),
    "granite": kind("<|end_of_text|>", tools="one"),
    "hermes-tools": kind("<|im_end|>", tools="one"),
    "internlm2": kind("<|im_end|>"),
    "llama2": kind(tools=NO_ROLE),
    "llama3": kind("<|eot_id|>"),
    "llama3.1-tools": kind("<|eot_id|>", tools="one"),
    "llama3.2-vision": kind("<|eot_id|>"),
    "mistral-tekken": kind(tools=NO_ROLE),
    "mistral-v1": kind(system=NO_ROLE, tools=NO_ROLE),
    "mistral-v3": kind(tools="one"),
    "mpt": kind("<|im_end|>"),
    "nemotron": kind(multi="apart"),
    "olmo": kind(),
    "openchat": kind("<|end_of_turn|>"),
    "phi3": kind("<|end|>"),
    "phi4": kind("<|im_end|>"),
    "qwen2.5-tools": kind("<|im_end|>", tools="one"),
    "qwen3-thinking": kind("<|im_end|>", multi="apart", tools="apart"),
    "smollm3": kind("<|im_end|>"),
    "starchat": kind("<|end|>"),
    "tulu": kind(),
    "vicuna": kind(),
    "vicuna-endless": kind(multi="apart", tools=NO_ROLE),
    "yi": kind("<|im_end|>"),
    "zephyr": kind(),
}


@cache
def chat_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with BOS, end-of-text and the tokens of a template."""
    text = (FOLDER / f"{name}.jinja").read_text()
    special = sorted({"<s>", "<|endoftext|>", KINDS[name].end, *SPECIAL.findall(text)})
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    said = [turn["content"] for document in CONVERSATIONS.values() for turn in document["messages"]]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*said * 3, " assistant\n", "### Response:\n"], trainer)
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|endoftext|>", chat_template=text
    )


def encode(document: dict[str, Any], tokenizer: Any, row_tokens: int = 4096, **options: Any) -> list[Piece]:
    source: Source = JsonlSource(path="x.jsonl", messages="messages", **options)
    example = Example("messages", messages=document["messages"], tools=document.get("tools"))
    return tokens.encode(example, source, tokenizer, row_tokens)


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


def table() -> str:
    """Return the manual's table of kinds and outcomes."""
    said = {"one": "one text", "apart": "one per answer"}
    rows = ["| kind | answers end with | " + " | ".join(CONVERSATIONS) + " |", "|---" * (len(CONVERSATIONS) + 2) + "|"]
    for name, known in KINDS.items():
        found = [outcome(name, conversation) for conversation in CONVERSATIONS]
        cells = [said.get(one) or f"refused: {one.partition('; ')[0]}" for one in found]
        end = known.end.replace("|", "\\|")
        rows.append(f"| {name} | `{end}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def renewed(page: str) -> str:
    """Return the page with its table written anew."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
