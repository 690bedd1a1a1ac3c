"""Where answers end and how their tokens are chosen: one rule for all backends. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual.models.ends import stop_ids
from continual.models.settings import GENERATION
from continual.models.template import chat_template
from continual.sampling.vllm_start import vllm_problem

NEUTRAL: dict[str, Any] = {
    "bad_words_ids": None, "begin_suppress_tokens": None, "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1, "exponential_decay_length_penalty": None, "forced_bos_token_id": None,
    "forced_eos_token_id": None, "guidance_scale": 1, "min_length": 0, "min_new_tokens": 0, "no_repeat_ngram_size": 0,
    "num_beams": 1, "penalty_alpha": 0, "sequence_bias": None, "suppress_tokens": None, "typical_p": 1,
    "watermarking_config": None,
}  # fmt: skip
"""Generation settings that transformers has and vLLM does not, with the value that changes nothing."""
TOP_K = 50
"""What transformers (5.x) samples among where neither the task nor the model says it."""


@dataclass(frozen=True)
class Ends:
    """Where answers end: at `ids`, which stop the model and are cut off, and at `text`, "" for none."""

    ids: tuple[int, ...] = ()
    text: str = ""

    @classmethod
    def of(cls, tokenizer: Any, generation: dict[str, Any], chat: bool) -> "Ends":
        """Return where a model's answers end: at what training puts there, and at its generation settings' ends.

        `chat`: whether the model is asked through its chat template.
        """
        return cls(stop_ids(tokenizer, generation, chat), chat_template(tokenizer).end_text if chat else "")

    def cut(self, tokens: Sequence[int]) -> Sequence[int]:
        """Return the tokens before the first end."""
        return tokens[: next((n for n, token in enumerate(tokens) if token in self.ids), len(tokens))]

    def add_text(self, stop: list[str]) -> None:
        """Add the text to lm-eval's own list of texts, at which it cuts answers."""
        if self.text and self.text not in stop:
            stop.append(self.text)


def vllm_cannot(head_size: int | None, generation: Mapping[str, Any], cpu: bool) -> str | None:
    """Return why vLLM cannot score a model as transformers does, as "problem; fix", or None.

    Args:
        head_size: Width of the model's attention heads, None if unknown.
        generation: The model's generation settings.
        cpu: Whether it is to run on CPUs.
    """
    instead = "evaluate.backend: hf"
    if problem := vllm_problem(head_size, cpu, instead):
        return problem
    given = {name: generation.get(name) for name in NEUTRAL}
    names = [name for name, value in given.items() if value not in (None, [], {}, NEUTRAL[name])]
    if names:
        listed = ", ".join(f"`{name}`" for name in names)
        return f"the model's generation_config.json sets {listed}, which vLLM does not have; write `{instead}`"
    return None


def vllm_options(generation: Mapping[str, Any], sampled: bool) -> dict[str, Any]:
    """Return by vLLM's names how transformers would choose tokens; what a task says itself goes before."""

    def given(name: str, usual: float) -> float:
        value: float | None = generation.get(name)
        return usual if value is None else value

    options = {"repetition_penalty": given("repetition_penalty", 1.0)}
    if sampled:
        options |= {"top_k": given("top_k", TOP_K), "top_p": given("top_p", 1.0), "min_p": given("min_p", 0.0)}
    return options


def generation_settings(folder: str, config: Any) -> dict[str, Any]:
    """Return the generation settings that transformers gives a model of the folder."""
    from transformers import GenerationConfig

    if (path := Path(folder) / GENERATION).is_file():
        return GenerationConfig.from_dict(json.loads(path.read_text(encoding="utf-8"))).to_dict()
    return GenerationConfig.from_model_config(config).to_dict()


def head_size(config: Any) -> int | None:
    """Return the width of a model's attention heads, None if its configuration does not say it."""
    text = config.get_text_config()
    width, heads = getattr(text, "hidden_size", None), getattr(text, "num_attention_heads", None)
    return getattr(text, "head_dim", None) or (width // heads if width and heads else None)
