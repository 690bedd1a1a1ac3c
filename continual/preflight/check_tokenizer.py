"""Checks with the real tokenizer: it loads, its chat template works, and the first documents become tokens."""

from pathlib import Path
from typing import Any

from continual.config.references import call
from continual.config.schema import Sequence
from continual.contract.reading import Beginning
from continual.contract.source import Source
from continual.errors import ConfigurationError, one_line
from continual.preflight.check_data import FIRST, notes_of_skipped
from continual.preflight.model_facts import read_model
from continual.preflight.stages import acting
from continual.preflight.tokenizer_facts import read_json

MOST_CHARACTERS = 500_000
"""Running text of a source that is encoded before a run: a second's work."""


def check_tokenizer(sequence: Sequence) -> list[str]:
    """Return notes about tokens: what samples begin with, and documents that are left out.

    Reads documents and renders conversations by the functions that the run uses. Imports transformers; a tokenizer
    that the run downloads is checked when it exists.

    Raises:
        ConfigurationError: The tokenizer or its chat template is damaged, or a document cannot become tokens.
    """
    key, folder = _place(sequence)
    tokenizer = _load(sequence, key, folder)
    if tokenizer is None:
        return []
    notes = _check_starts(sequence, tokenizer, folder)
    sources = _sources(sequence)
    firsts = {place: source.first(place, FIRST) for place, source in sources.items()}
    chats = any(
        found.example and found.example.kind == "messages" for first in firsts.values() for found in first.found
    )
    templates = any(mitigation.sample_start() == "template" for _, mitigation in _mitigations(sequence))
    if chats or templates or sequence.evaluate.apply_chat_template:
        notes += check_template(key, tokenizer, folder)
    for place, source in sources.items():
        notes += _check_documents(place, source, firsts[place], tokenizer, sequence.train.row_tokens)
    return notes


def check_template(key: str, tokenizer: Any, folder: Path | None) -> list[str]:
    """Return a note if prompts of the chat template begin answers in words that finished answers lack.

    Raises:
        ConfigurationError: The chat template cannot render an exchange; the file is named.
    """
    from continual.models.template import chat_template

    try:
        opened = chat_template(tokenizer).opened
    except ConfigurationError as error:
        files = [*sorted(folder.glob("chat_template.*")), folder / "tokenizer_config.json"] if folder else []
        where = f"{files[0]}: " if files else ""
        raise ConfigurationError(key, f"{where}{error.problem}", error.fix) from error
    if not opened:
        return []
    return [
        f"{key}: the template's generation prompt ends with {opened!r}, which finished answers lack; "
        "only answers that begin with it are trained as they are asked for"
    ]


def _place(sequence: Sequence) -> tuple[str, Path | None]:
    """Return the key of the tokenizer, and its folder if it has one on this machine."""
    if sequence.model.type == "pretrained":
        return "model.source", read_model(sequence.model)[0].folder
    reference = str(sequence.model.tokenizer)
    return "model.tokenizer", Path(reference) if ":" not in reference and Path(reference).is_dir() else None


def _load(sequence: Sequence, key: str, folder: Path | None) -> Any:
    if folder is not None:
        return _loaded(key, str(folder))
    reference = str(sequence.model.tokenizer)
    if sequence.model.type == "pretrained" or ":" not in reference:
        return None
    from transformers import PreTrainedTokenizerFast

    built, special = call(key, reference, {})
    try:
        return PreTrainedTokenizerFast(tokenizer_object=built, **special)
    except Exception as error:
        raise ConfigurationError(key, f"`{reference}` gives no usable tokenizer ({one_line(error)})") from error


def _loaded(key: str, folder: str) -> Any:
    """Load a tokenizer; raise ConfigurationError, naming its folder, if that fails."""
    from continual.models import load_tokenizer

    try:
        tokenizer = load_tokenizer(folder)
        tokenizer("")
    except Exception as error:  # tokenizers raises bare Exception
        problem = f"the tokenizer in {folder} cannot be loaded ({type(error).__name__}: {one_line(error)})"
        raise ConfigurationError(key, problem, "copy its files again") from error
    return tokenizer


def _check_starts(sequence: Sequence, tokenizer: Any, folder: Path | None) -> list[str]:
    """Check the token that samples without context begin with, and return a note if it is not a BOS."""
    from continual.sampling.start import bos_note, bos_start

    config = read_json("model", folder / "config.json") if folder and sequence.model.type == "pretrained" else {}
    notes: list[str] = []
    for key, mitigation in _mitigations(sequence):
        if mitigation.sample_start() == "bos" and not notes:
            try:
                notes = bos_note(tokenizer, bos_start(tokenizer, config)[1])
            except ConfigurationError as error:
                raise error.within(key) from error
    return notes


def _check_documents(key: str, source: Source, first: Beginning, tokenizer: Any, row_tokens: int) -> list[str]:
    """Encode the first documents of a source as the run does; return a note for each that is skipped."""
    from continual.data.formats import CUT
    from continual.data.tokenize import document_pieces

    skipped: list[str] = []
    usable = characters = 0
    for found in first.found:
        assert found.example is not None
        if characters > MOST_CHARACTERS:
            return notes_of_skipped(key, skipped)  # the run encodes the others, as all that stand behind these
        characters += len(found.example.text)
        try:
            pieces = document_pieces(found.example, source, tokenizer, row_tokens)
        except ConfigurationError as error:
            refused = error.at(found.place).within(key)
            if source.on_bad == "refuse":
                raise refused from error
            skipped.append(refused.problem)
            continue
        usable += any(piece.outcome <= CUT for piece in pieces)
    if (first.whole or first.full) and first.found and not usable:
        problem = f"none of its {len(first.found)} documents leaves anything to learn in rows of {row_tokens} tokens"
        raise ConfigurationError(key, problem, "check the data, `overlong` and `train.row_tokens`")
    return notes_of_skipped(key, skipped)


def _sources(sequence: Sequence) -> dict[str, Source]:
    """Return every data source by its key: of stages, texts and mitigations."""
    sources = {f"stages.{number}.data": stage.data for number, stage in enumerate(sequence.stages)}
    sources |= {f"evaluate.texts.{number}.data": text.data for number, text in enumerate(sequence.evaluate.texts)}
    for key, mitigation in _mitigations(sequence):
        sources |= {f"{key}.{name}": source for name, source in mitigation.data_sources().items()}
    return sources


def _mitigations(sequence: Sequence) -> list[tuple[str, Any]]:
    numbers = range(1, len(sequence.stages) + 1)
    return list(dict(entry for number in numbers for entry in acting(sequence, number)).items())
