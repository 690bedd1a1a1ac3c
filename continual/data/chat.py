"""A conversation to token ids and loss weights: which tokens of a chat are trained on."""

from typing import Any

from continual.errors import ConfigurationError


def encode_chat(messages: Any, tokenizer: Any) -> tuple[list[int], list[float]]:
    """Return a conversation through the chat template; weight 1 on assistant turns up to their end-of-turn token.

    A turn's characters are what the template adds to the conversation before it, so any template whose rendering grows
    by appending works, with or without generation markers.
    """
    turns = [dict(turn) for turn in messages]
    full = tokenizer.apply_chat_template(turns, tokenize=False)
    spans = []
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(turns[:number], tokenize=False, add_generation_prompt=True)
        until = tokenizer.apply_chat_template(turns[: number + 1], tokenize=False).rstrip()
        if not (full.startswith(before) and full.startswith(until)):
            raise ConfigurationError(
                "messages", "the chat template rewrites earlier turns", "use `prompt`/`completion`"
            )
        spans.append((len(before), len(until)))
    encoded = tokenizer(full, add_special_tokens=False, return_offsets_mapping=True)
    weights = [
        float(any(start < end and first <= start and end <= last for first, last in spans))
        for start, end in encoded["offset_mapping"]
    ]
    return list(encoded["input_ids"]), weights
