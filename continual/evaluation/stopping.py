"""lm-eval's model class with answers that end where the model ends them. Imports lm-eval and torch."""

from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM

from continual.models.ends import stop_ids
from continual.models.template import chat_template


class StoppingLM(HFLM):
    """A model that stops at the tokens which training puts at the end of an answer, and whose answers stop before them.

    lm-eval itself stops at the tokenizer's end-of-text, and drops from an answer only tokens that count as special.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: Any, chat: bool):
        """`chat`: whether the model is asked through its chat template."""
        self.ends: frozenset[int] = frozenset()
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        generation = {"eos_token_id": model.generation_config.eos_token_id}
        ends = stop_ids(tokenizer, generation, chat)
        if ends:
            model.generation_config.eos_token_id = list(ends)
        self.ends = frozenset(ends)
        self.end_text = chat_template(tokenizer).end_text if chat else ""

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> Any:
        if skip_special_tokens and isinstance(tokens, Sequence):
            tokens = tokens[: next((n for n, token in enumerate(tokens) if token in self.ends), len(tokens))]
        return super().tok_decode(tokens, skip_special_tokens=skip_special_tokens)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **generation_kwargs: Any) -> Any:
        if self.end_text and self.end_text not in stop:
            # The list is lm-eval's own: with it, answers are cut at its texts.
            stop.append(self.end_text)
        return super()._model_generate(context, max_length, stop, **generation_kwargs)
