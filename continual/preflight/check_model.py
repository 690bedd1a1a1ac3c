"""Checks that the model can do what the sequence asks: its tokenizer, context length, engine."""

import importlib.util

from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.model_facts import VLLM_CPU_HEADS, ModelFacts, read_model
from continual.preflight.stages import uses_sampling
from continual.preflight.tokenizer_facts import TokenizerFacts, read_tokenizer


def check_model(sequence: Sequence) -> tuple[TokenizerFacts | None, list[str]]:
    """Return the tokenizer's facts (None: unknown until the model is downloaded) and notes.

    Raise ConfigurationError for a model that cannot be loaded, trained as configured, or sampled.
    """
    facts, notes = read_model(sequence.model)
    tokenizer = read_tokenizer(sequence.model, facts.folder)
    key = f"model.{'source' if sequence.model.type == 'pretrained' else 'arguments'}"
    if tokenizer is not None:
        largest, size = tokenizer.largest_id, facts.vocabulary
        if largest is not None and size is not None and largest >= size:
            problem = f"the tokenizer's largest id is {largest}, but the model's vocabulary has {size} entries"
            raise ConfigurationError(key, problem, "use the model's own tokenizer, or enlarge `vocab_size`")
        if tokenizer.eos is None and tokenizer.certain:
            notes.append(
                "the tokenizer has no end-of-text token: documents get none, and samples end at their length limit"
            )
    row_tokens = sequence.train.row_tokens
    if facts.positions is not None and row_tokens > facts.positions:
        problem = f"rows of {row_tokens} tokens are longer than the model's {facts.positions} positions"
        raise ConfigurationError("train.row_tokens", problem, f"write at most {facts.positions}")
    if sequence.evaluate.apply_chat_template and tokenizer is not None and not tokenizer.chat_template:
        problem = "the model's tokenizer has no chat template"
        raise ConfigurationError("evaluate.apply_chat_template", problem, "write false")
    if sequence.generate.engine == "vllm" and uses_sampling(sequence):
        _check_vllm(sequence, facts)
    return tokenizer, notes


def _check_vllm(sequence: Sequence, facts: ModelFacts) -> None:
    if importlib.util.find_spec("vllm") is None:
        fix = "install continual[cpu] or continual[gpu], or write `generate.engine: transformers`"
        raise ConfigurationError("generate.engine", "vllm is not installed", fix)
    head = facts.head_size
    if head is not None and not sequence.generate.gpus_per_replica and head not in VLLM_CPU_HEADS:
        problem = f"vLLM on CPUs cannot serve the model's head size {head} (it supports 32, 64, 80, 96, 112, 128, ...)"
        raise ConfigurationError("generate.engine", problem, "write `generate.engine: transformers`")
