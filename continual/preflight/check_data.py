"""Checks of data sources: they exist, they can be read, and their first documents hold what is asked for."""

from continual.contract.reading import Beginning
from continual.contract.source import Source
from continual.data.sources.files import SPLITS
from continual.data.tally import MOST_REASONS
from continual.errors import ConfigurationError

FIRST = 200
"""Documents that are checked, and that estimates are made from."""


def check_source(key: str, source: Source, chat_template: bool | None) -> list[str]:
    """Return notes about the source at `key`; `chat_template` says whether the tokenizer has one, None if unknown.

    Raises ConfigurationError for a source that cannot be used.
    """
    first = source.first(key, FIRST)
    notes = source.notes()
    chats = [found for found in first.found if found.example and found.example.kind == "messages"]
    if (source.messages or chats) and chat_template is False:
        problem = "`messages` need a chat template, and the model's tokenizer has none"
        raise ConfigurationError(key, problem, "add one to tokenizer_config.json, or use `prompt` and `completion`")
    if chats and not any(found.example and found.example.has_answer for found in first.found):
        problem = f"none of the first {len(chats)} conversations has an assistant's turn to learn from"
        if first.whole or first.full:
            raise ConfigurationError(key, problem, "use the roles `user` and `assistant`")
        notes.append(f"{key}: {problem}")
    if not first.found and not first.whole:
        notes.append(_not_seen(source, first))
    notes += notes_of_skipped(key, [problem.problem for problem in first.skipped])
    return notes + _unused(key, source, first)


def notes_of_skipped(key: str, problems: list[str]) -> list[str]:
    """Return a note for each of the first documents that `on_bad: skip` leaves out, and how many there are beside."""
    notes = [f"{key}: a document is skipped: {problem}" for problem in problems[:MOST_REASONS]]
    more = len(problems) - MOST_REASONS
    return [*notes, f"{key}: {more} more of its first documents are skipped"] if more > 0 else notes


def _not_seen(source: Source, first: Beginning) -> str:
    if first.selection.left_out:
        return (
            f"`{source.title}`: none of the first {first.selection.left_out} documents is asked for; the run reads all"
        )
    return f"`{source.title}` is not read before the run: the fields of its documents are checked then"


def _unused(key: str, source: Source, first: Beginning) -> list[str]:
    """Return notes about columns that usually mean something, and that nothing asks for."""
    used = set(source.columns())
    filled = {name for found in first.found for name, value in found.document.items() if value and name not in used}
    notes = []
    if "instruction" in used and "input" in filled:
        template = 'prompt: "{instruction}\\n\\n{input}"'
        notes.append(f"{key}: the column `input` is filled and not used; `{template}` would use it")
    if "system" in filled and (source.messages or "instruction" in used):
        notes.append(f"{key}: the column `system` is filled and not used; put it into the conversation or a template")
    chosen = source.selection().wanted
    splits = {str(found.document.get("split")).lower() for found in first.found} & {
        name for of in SPLITS for name in of
    }
    if "split" in filled and splits and "split" not in chosen:
        there = ", ".join(sorted(splits))
        notes.append(f"{key}: there is a column `split` ({there}), and all rows are used; `where` would choose")
    return notes
