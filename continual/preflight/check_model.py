"""Checks that the models can do what the sequence asks: tokenizer, context length, engine; class and weights."""

from functools import lru_cache
from typing import Any

from continual.config.measured import evaluation_tasks
from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.evaluation.decoding import vllm_cannot
from continual.models.files import model_files
from continual.models.settings import GENERATION
from continual.preflight.attention import check_attention, checked_attention
from continual.preflight.model_facts import KEY, ModelFacts, cannot_sample, read_model
from continual.preflight.placement import placed
from continual.preflight.resources import detect_machine
from continual.preflight.stages import models_asked, pretrained, uses_sampling
from continual.preflight.tokenizer_facts import TokenizerFacts, read_json, read_tokenizer


def check_model(sequence: Sequence) -> tuple[TokenizerFacts | None, list[str]]:
    """Return the tokenizer's facts (None: unknown until the model is downloaded) and notes.

    Raise ConfigurationError for a model that cannot be loaded, trained as configured, or sampled.
    """
    facts, notes = read_model(sequence.model)
    tokenizer = read_tokenizer(sequence.model, facts.folder)
    key = f"model.{'source' if sequence.model.type == 'pretrained' else 'arguments'}"
    if tokenizer is not None:
        largest, size = max((tokenizer.vocabulary or {}).values(), default=None), facts.vocabulary
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
    if uses_sampling(sequence) and (reason := cannot_sample(sequence.generate, facts)):
        problem, _, fix = reason.partition("; ")
        raise ConfigurationError("generate.engine", problem, fix)
    check_backend(sequence, facts)
    return tokenizer, notes


def check_backend(sequence: Sequence, facts: ModelFacts) -> None:
    """Raise ConfigurationError if vLLM is to score the tasks and cannot do it as transformers does."""
    evaluate = sequence.evaluate
    if evaluate.backend != "vllm" or not evaluation_tasks(sequence):
        return
    generation = read_json(KEY, facts.folder / GENERATION) if facts.folder else {}
    machine = detect_machine()
    there = placed(sequence, machine.cpus, machine.gpus).sequence.evaluate
    unknown = evaluate.gpus is None and machine.gpus is None  # the evaluating processes check it again
    if reason := vllm_cannot(facts.head_size, generation, cpu=not (there.reserved_gpus or unknown)):
        problem, _, fix = reason.partition("; ")
        raise ConfigurationError("evaluate.backend", problem, fix)


def check_loading(sequence: Sequence) -> list[str]:
    """Return notes about the start model. Raise ConfigurationError for a model that cannot be loaded or trained.

    The models that mitigations name are loaded as well, to sample from. Imports torch and transformers. A model that is
    built or downloaded by the run is checked when it exists.
    """
    from continual.models.architecture import model_class, read_config
    from continual.models.recompute import check_recompute

    notes: list[str] = []
    named = {KEY: sequence.model} | {key: pretrained(source) for source, key in models_asked(sequence).items()}
    for key, model in named.items():
        facts, _ = read_model(model)
        if facts.folder is None:
            continue
        state = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in model_files(facts.folder))
        try:
            attention = checked_attention(sequence, facts.folder) if model is sequence.model else ""
            notes += _checked(str(facts.folder), model is sequence.model, state, attention)
        except ConfigurationError as error:
            raise error.within(key) from error
        if model is sequence.model and sequence.train.activation_checkpointing:
            check_recompute(model_class(str(facts.folder), read_config(str(facts.folder))))
    return notes + check_attention(sequence)


@lru_cache(maxsize=64)
def _checked(folder: str, trained: bool, state: tuple[Any, ...], attention: str) -> tuple[str, ...]:
    """Check a model once in a process as long as its files stay as they are: the trials of a sweep have the same."""
    if trained:
        from continual.models.check import check_files

        return tuple(check_files(folder, attention))
    from continual.models.load import load_model

    load_model(folder, "float32", "meta")
    return ()
