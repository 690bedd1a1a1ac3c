"""Start tokens, as ids: BOS, the chat template up to the user's turn, or the tokens that earlier stages declare."""

from typing import Any

from continual.errors import ConfigurationError
from continual.models.ends import stop_ids
from continual.models.template import ASKED, chat_template


def bos_start(tokenizer: Any, config: dict[str, Any] | None = None) -> tuple[list[int], str]:
    """Return the token that stands before a text without context, as [id], and its text.

    That is the tokenizer's BOS; without one, the `bos_token_id` of the model's configuration, by which chat models
    name the separator of documents; without both, the end-of-text token unless it ends a turn of a conversation.

    Args:
        tokenizer: The model's tokenizer.
        config: What the model's config.json holds.

    Raises:
        ConfigurationError: There is no such token.
    """
    if tokenizer.bos_token_id is not None:
        return _start(tokenizer, tokenizer.bos_token_id)
    config = config or {}
    for named in (config.get("bos_token_id"), (config.get("text_config") or {}).get("bos_token_id")):
        # A configuration without the key has its class's default, which may be the id of any word.
        if isinstance(named, int) and named in tokenizer.added_tokens_decoder:
            return _start(tokenizer, named)
    if tokenizer.eos_token_id is None:
        problem = "the tokenizer has neither BOS nor end-of-text"
        fix = "add `bos_token` to tokenizer_config.json, or write `start: tasks` or `start: template`"
        raise ConfigurationError("start", problem, fix)
    if getattr(tokenizer, "chat_template", None) and tokenizer.eos_token in chat_template(tokenizer).end_tokens:
        problem = f"the tokenizer has no BOS, and its end-of-text token `{tokenizer.eos_token}` ends a turn"
        raise ConfigurationError("start", problem, "use `start: template`, or write `bos_token_id` into config.json")
    return _start(tokenizer, tokenizer.eos_token_id)


def _start(tokenizer: Any, token: int) -> tuple[list[int], str]:
    return [int(token)], str(tokenizer.convert_ids_to_tokens(int(token)))


def bos_note(tokenizer: Any, start: str) -> list[str]:
    """Return a sentence if samples begin with another token than the tokenizer's BOS."""
    if tokenizer.bos_token_id is not None:
        return []
    what = "its end-of-text token" if start == tokenizer.eos_token else "the token that config.json names as BOS,"
    return [f"the tokenizer has no BOS: samples start with {what} `{start}`"]


def template_start(tokenizer: Any) -> tuple[list[int], str]:
    """Return the chat template up to the user's words (the pre-query prefix of Magpie, 2406.08464), as ids and text.

    The template is rendered around a marker and cut there, so no user content can be in it.
    Raises ConfigurationError without a chat template, or for one that leaves out what the user says.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigurationError("start", "`template` needs a chat template, and the tokenizer has none", "use `bos`")
    prefix = _around_user(tokenizer)[0]
    return list(tokenizer(prefix, add_special_tokens=False)["input_ids"]), prefix


def _around_user(tokenizer: Any) -> tuple[str, str]:
    template = chat_template(tokenizer)
    before, found, after = template.render(template.turns([{"role": "user", "content": ASKED}])).partition(ASKED)
    if not found:
        raise ConfigurationError("start", "the chat template leaves out what the user says", "use another template")
    return before, after


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
    """Return the ids that end a sample: those at which the model stops (`stop_ids`), and the end of a user's turn.

    That is the special token that the chat template puts after the user's words (`<|im_end|>`, `<|eot_id|>`,
    `[/INST]`): a sample may begin with the user's turn.
    """
    ends = set(stop_ids(tokenizer, generation, chat))
    if chat and getattr(tokenizer, "chat_template", None):
        first = tokenizer(_around_user(tokenizer)[1].lstrip(), add_special_tokens=False)["input_ids"][:1]
        ends.update(int(token) for token in first if token in tokenizer.added_tokens_decoder)
    return tuple(sorted(ends))
