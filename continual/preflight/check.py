"""All checks that can be made before anything starts. What is wrong in the file is answered in a second or two."""

from collections.abc import Callable
from functools import partial

from continual.config.load import Loaded, load_rest, load_sequence
from continual.config.problems import Misconfigured
from continual.errors import ConfigurationError, naming_file, together
from continual.errors.budget import ALL, limited
from continual.ledger.progress import read_progress
from continual.preflight.check_data import check_source
from continual.preflight.check_evaluation import check_evaluation, check_metrics
from continual.preflight.check_memory import check_memory
from continual.preflight.check_methods import check_methods, check_start_tokens
from continual.preflight.check_model import check_loading, check_model
from continual.preflight.check_places import check_places
from continual.preflight.check_tokenizer import check_tokenizer
from continual.preflight.check_training import check_training
from continual.preflight.delivery import check_placement
from continual.preflight.resources import detect_machine
from continual.preflight.tokenizer_facts import TokenizerFacts
from continual.preflight.user_code import notes_of_code


@limited(ALL)
def check(loaded: Loaded, fresh: bool = False) -> list[str]:
    """Check that a sequence can run, and return notes for the user, each one sentence.

    Writes and downloads nothing. Imports torch, transformers and lm-eval only if nothing is wrong without them
    (`check_quickly`), and not for a finished run.

    Args:
        loaded: The sequence.
        fresh: Whether a finished run is to begin again.

    Raises:
        ConfigurationError: The first reason why the sequence cannot run, with the sequence's file.
    """
    sequence = loaded.sequence
    notes = check_quickly(loaded, fresh)
    if read_progress(loaded.run_folder).finished and not fresh:
        return notes  # its result is printed at once
    with naming_file(loaded.file):
        return notes + check_metrics(sequence) + check_loading(sequence) + check_tokenizer(sequence)


def load_checked(path: str, overrides: list[str], fresh: bool = False) -> tuple[Loaded, list[str]]:
    """Load and check a sequence, see `load_sequence` and `check`; a wrong key hides no mistake of the others."""
    try:
        loaded = load_sequence(path, overrides)
    except Misconfigured as error:
        found: list[ConfigurationError] = []
        if rest := load_rest(path, error):
            found = _mistakes(rest, fresh)[1]
        raise together([*error.errors, *found], error.more) from error
    return loaded, check(loaded, fresh)


def check_quickly(loaded: Loaded, fresh: bool = False) -> list[str]:
    """Check what can be checked without torch and transformers, and return notes.

    Raises ConfigurationError for the first mistake, which names the others: what one step finds hides no other's.

    Opens files and calls the user's functions for rows and tokenizers.
    """
    notes, errors = _mistakes(loaded, fresh)
    if errors:
        raise together(errors).in_file(loaded.file)
    return notes


@limited(ALL)
def _mistakes(loaded: Loaded, fresh: bool) -> tuple[list[str], list[ConfigurationError]]:
    """Return notes and all mistakes that `check_quickly` finds, one per step."""
    sequence = loaded.sequence
    notes = list(loaded.notes)
    errors: list[ConfigurationError] = []

    def attempt(step: Callable[[], list[str] | None]) -> None:
        try:
            notes.extend(note for note in step() or [] if note not in notes)
        except ConfigurationError as error:
            errors.append(error)

    tokenizer: TokenizerFacts | None = None

    def model() -> list[str]:
        nonlocal tokenizer
        tokenizer, found = check_model(sequence)
        check_start_tokens(sequence, tokenizer)
        return found

    machine = detect_machine()
    attempt(lambda: check_places(loaded, fresh))
    attempt(lambda: check_training(sequence))
    attempt(lambda: check_placement(sequence, machine.cpus, machine.gpus))
    attempt(model)
    chat = tokenizer.chat_template if tokenizer else None
    for number, stage in enumerate(sequence.stages):
        attempt(partial(check_source, f"stages.{number}.data", stage.data, chat))
    attempt(lambda: check_methods(sequence, tokenizer))
    attempt(lambda: check_evaluation(sequence, tokenizer))
    if not errors:
        attempt(lambda: check_memory(sequence))
        attempt(lambda: notes_of_code(sequence))
    return notes, errors
