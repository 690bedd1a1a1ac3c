"""Checks that the models can do what the sequence asks: tokenizer, context length, engine; class and weights."""

from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.model_facts import KEY, cannot_sample, read_model
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
    return tokenizer, notes


def check_loading(sequence: Sequence) -> list[str]:
    """Return notes about the start model. Raise ConfigurationError if its weights do not fit or it cannot be trained.

    Imports torch and transformers. A model that is built or downloaded by the run is checked when it exists.
    """
    facts, _ = read_model(sequence.model)
    if facts.folder is None:
        return []
    from continual.models.check import check_files

    try:
        return check_files(str(facts.folder))
    except ConfigurationError as error:
        raise error.within(KEY) from error
