"""lm-eval's model class with answers that end where the model ends them. Imports lm-eval and torch."""

from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM

from continual.evaluation.decoding import Ends


class StoppingLM(HFLM):
    """A model that stops at the tokens which training puts at the end of an answer, and whose answers stop before them.

    lm-eval itself stops at the tokenizer's end-of-text, and drops from an answer only tokens that count as special.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: Any, chat: bool):
        """`chat`: whether the model is asked through its chat template."""
        self.ends = Ends()
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self.ends = Ends.of(tokenizer, {"eos_token_id": model.generation_config.eos_token_id}, chat)
        if self.ends.ids:
            model.generation_config.eos_token_id = list(self.ends.ids)

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> Any:
        if skip_special_tokens and isinstance(tokens, Sequence):
            tokens = self.ends.cut(tokens)
        return super().tok_decode(tokens, skip_special_tokens=skip_special_tokens)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **generation_kwargs: Any) -> Any:
        self.ends.add_text(stop)
        return super()._model_generate(context, max_length, stop, **generation_kwargs)
