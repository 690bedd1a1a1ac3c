"""Start tokens, as ids: BOS, the chat template up to the user's turn, or the tokens that earlier stages declare."""

from typing import Any

from continual.errors import ConfigurationError


def bos_start(tokenizer: Any) -> tuple[list[int], str]:
    """[BOS], or [end-of-text] where there is no BOS (the document separator of such tokenizers), and its text.

    Raises ConfigurationError when the tokenizer has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return [int(token)], str(tokenizer.convert_ids_to_tokens(int(token)))
    raise ConfigurationError(
        "start", "the tokenizer has neither BOS nor end-of-text", "use `start: template` or `tasks`"
    )


def template_start(tokenizer: Any) -> tuple[list[int], str]:
    """The chat template up to where the user's words would stand (the pre-query prefix of Magpie, 2406.08464).

    The template is rendered around a marker and cut there, so no user content can be in it.
    Raises ConfigurationError without a chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigurationError("start", "`template` needs a chat template, and the tokenizer has none", "use `bos`")
    marker = "\u241fuser words\u241f"
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": marker}], tokenize=False)
    prefix = rendered[: rendered.index(marker)]
    return list(tokenizer(prefix, add_special_tokens=False)["input_ids"]), prefix


def task_starts(tokenizer: Any, tokens: list[str]) -> list[list[int]]:
    """One prompt per declared start token. Raises ConfigurationError for text that is no token of the vocabulary."""
    found = []
    for token in tokens:
        number = tokenizer.convert_tokens_to_ids(token)
        if number is None or (number == tokenizer.unk_token_id and token != tokenizer.unk_token):
            raise ConfigurationError("start_token", f"`{token}` is no token of the vocabulary", "name a special token")
        found.append([int(number)])
    return found


def end_tokens(tokenizer: Any, generation: dict[str, Any], chat: bool) -> tuple[int, ...]:
    """Token ids that end a sample: the tokenizer's end-of-text, the generation config's, and the chat end of turn."""
    listed = generation.get("eos_token_id") or []
    found = set(listed if isinstance(listed, list) else [listed])
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    if chat and tokenizer.chat_template and "<|im_end|>" in tokenizer.get_vocab():
        found.add(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    return tuple(sorted(int(token) for token in found))
