"""Which tokens end an answer: the same ones are learned, end samples and evaluations, and are exported."""

from typing import Any

from continual.models.template import chat_template


def answer_ends(tokenizer: Any, chat: bool) -> tuple[int, ...]:
    """Return the ids that training puts at the end of an answer; () if the tokenizer has none.

    Of a conversation that is what the chat template writes behind the assistant's turn, else the end-of-text token.
    """
    if chat:
        template = chat_template(tokenizer)
        ends = [tokenizer.convert_tokens_to_ids(token) for token in template.end_tokens]
        if ends or template.end_text:
            return tuple(int(end) for end in ends)
    return () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)


def stop_ids(tokenizer: Any, generation: dict[str, Any], chat: bool) -> tuple[int, ...]:
    """Return the ids at which a model stops: those of its generation config, its end-of-text, and an answer's.

    Args:
        tokenizer: The model's tokenizer.
        generation: The model's generation config.
        chat: Whether the model is asked through its chat template.
    """
    listed = generation.get("eos_token_id")
    ends = set(listed if isinstance(listed, list | tuple) else [] if listed is None else [listed])
    ends.update(answer_ends(tokenizer, chat=False))
    if chat and getattr(tokenizer, "chat_template", None):
        ends.update(answer_ends(tokenizer, chat=True))
    return tuple(sorted(int(end) for end in ends))
