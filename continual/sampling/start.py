"""Start tokens, as ids: BOS, the chat template up to the user's turn, or the tokens that earlier stages declare."""

from typing import Any

from continual.errors import ConfigurationError

MARKER = "\u241fwords\u241f"
"""Placeholder for what somebody says: a template is rendered around it and cut there."""


def bos_start(tokenizer: Any) -> tuple[list[int], str]:
    """Return [BOS], or [end-of-text] if there is no BOS (the document separator of such tokenizers), and its text.

    Raises ConfigurationError when the tokenizer has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return [int(token)], str(tokenizer.convert_ids_to_tokens(int(token)))
    raise ConfigurationError(
        "start", "the tokenizer has neither BOS nor end-of-text", "use `start: template` or `tasks`"
    )


def template_start(tokenizer: Any) -> tuple[list[int], str]:
    """Return the chat template up to the user's words (the pre-query prefix of Magpie, 2406.08464), as ids and text.

    The template is rendered around a marker and cut there, so no user content can be in it.
    Raises ConfigurationError without a chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigurationError("start", "`template` needs a chat template, and the tokenizer has none", "use `bos`")
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": MARKER}], tokenize=False)
    prefix = rendered[: rendered.index(MARKER)]
    return list(tokenizer(prefix, add_special_tokens=False)["input_ids"]), prefix


def task_starts(tokenizer: Any, tokens: list[str]) -> list[list[int]]:
    """Return one prompt per declared start token. Raises ConfigurationError for text that is not a token."""
    prompts = []
    for token in tokens:
        number = tokenizer.convert_tokens_to_ids(token)
        if number is None or (number == tokenizer.unk_token_id and token != tokenizer.unk_token):
            raise ConfigurationError(
                "start_token", f"`{token}` is not a token of the vocabulary", "name a special token"
            )
        prompts.append([int(number)])
    return prompts


def end_tokens(tokenizer: Any, generation: dict[str, Any], chat: bool) -> tuple[int, ...]:
    """Return the ids that end a sample: the tokenizer's end-of-text, the generation config's, and the end of turn.

    The end of turn is the special token that the chat template puts after the user's words (`<|im_end|>`, `<|eot_id|>`,
    `[/INST]`) or the assistant's.
    """
    listed = generation.get("eos_token_id") or []
    ends = set(listed if isinstance(listed, list) else [listed])
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)
    if chat and tokenizer.chat_template:
        turns: list[dict[str, str]] = []
        for role in ("user", "assistant"):
            turns = [*turns, {"role": role, "content": MARKER}]
            rest = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(MARKER)[2].lstrip()
            first = tokenizer(rest, add_special_tokens=False)["input_ids"][:1]
            ends.update(token for token in first if token in tokenizer.added_tokens_decoder)
    return tuple(sorted(int(token) for token in ends))
