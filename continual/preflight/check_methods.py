"""Check the mitigations of every stage: labels, start tokens, ratios, their own conditions, their sources."""

import math
import re
from typing import Any

from continual.config.schema import LONGEST_NAME, NAME, Sequence
from continual.contract.mitigation import Mitigation
from continual.contract.source import Source
from continual.contract.view import StageView
from continual.errors import ConfigurationError
from continual.preflight.check_data import check_source
from continual.preflight.check_evaluation import check_own_limits
from continual.preflight.stages import acting, entries, stage_view
from continual.preflight.tokenizer_facts import TokenizerFacts

TASK = "task"
"""The name of the task's own stream."""
WHOLE = 1e-6
"""How far from a whole number of rows a ratio may be: room for 0.333333333."""


def check_methods(sequence: Sequence, tokenizer: TokenizerFacts | None) -> list[str]:
    """Return notes about the mitigations. Raises ConfigurationError for one that cannot work."""
    notes: list[str] = []
    checked_sources = set()
    for stage in range(1, len(sequence.stages) + 1):
        _check_labels(entries(sequence, stage))
    for stage in range(1, len(sequence.stages) + 1):
        view = stage_view(sequence, stage)
        for key, mitigation in acting(sequence, stage):
            others = [other for _, other in entries(sequence, stage) if other is not mitigation]
            _check_own(key, mitigation, view, others)
            check_own_limits(key, mitigation.loss_limits(view), sequence)
            _check_ratio(key, mitigation.replay_ratio(), view.batch_rows)
            _check_start(key, mitigation, tokenizer)
            for name, source in mitigation.data_sources().items():
                if (key, name) not in checked_sources:
                    checked_sources.add((key, name))
                    notes += check_source(f"{key}.{name}", source, tokenizer.chat_template if tokenizer else None)
    return notes + _idle(sequence) + _learned_and_measured(sequence)


def _check_own(key: str, mitigation: Mitigation, view: StageView, others: list[Mitigation]) -> None:
    if reason := mitigation.check(view, others):
        problem, _, fix = " ".join(reason.split()).partition("; ")
        problem = f"{mitigation.label} in stage {view.number}: {problem}"
        raise ConfigurationError(key, problem, fix or "change its options")


def _check_labels(listed: list[tuple[str, Mitigation]]) -> None:
    taken: dict[str, str] = {}
    for key, mitigation in listed:
        label = mitigation.label
        if label in taken:
            problem = f"`{label}` occurs twice in the list (also at {taken[label]})"
            raise ConfigurationError(key, problem, "give one of them another `name:`")
        if label == TASK or not re.fullmatch(NAME, label) or len(label) > LONGEST_NAME:
            why = "is the task's own stream" if label == TASK else "is not a valid name"
            raise ConfigurationError(f"{key}.name", f"`{label}` {why}", "write another `name:`")
        taken[label] = key


def nearest_ratios(ratio: float, batch_rows: int) -> list[float]:
    """Return the ratios closest to `ratio` that make whole rows, at least one per step; [] if `ratio` itself does.

    They have as few digits as make their rows whole up to WHOLE.
    """
    wanted = ratio * batch_rows
    if round(wanted) >= 1 and abs(wanted - round(wanted)) <= WHOLE:
        return []
    ratios = []
    for rows in sorted({max(1, math.floor(wanted)), max(1, math.ceil(wanted))}):
        written = (float(f"{rows / batch_rows:.{digits}g}") for digits in range(1, 18))
        ratios.append(next(value for value in written if abs(value * batch_rows - rows) <= WHOLE))
    return ratios


def _check_ratio(key: str, ratio: float, batch_rows: int) -> None:
    if ratio and (near := nearest_ratios(ratio, batch_rows)):
        problem = f"a ratio of {ratio:g} is {ratio * batch_rows:g} rows for the task's {batch_rows} in every step"
        fix = f"for whole rows write {' or '.join(str(value) for value in near)}"
        raise ConfigurationError(f"{key}.ratio", problem, fix)


def _check_start(key: str, mitigation: Mitigation, tokenizer: TokenizerFacts | None) -> None:
    """Check that there is a template to start with; `check_tokenizer` looks at the token of `bos`."""
    if tokenizer is not None and mitigation.sample_start() == "template" and not tokenizer.chat_template:
        problem = "`template` needs a chat template, and the model's tokenizer has none"
        raise ConfigurationError(f"{key}.start", problem, "write `start: bos`")


def _idle(sequence: Sequence) -> list[str]:
    """Return a note for each stage in which `start: tasks` has nothing to start with."""
    notes = []
    for stage in range(2, len(sequence.stages) + 1):
        view = stage_view(sequence, stage)
        for key, mitigation in entries(sequence, stage):
            if mitigation.sample_start() == "tasks" and not view.start_tokens:
                notes.append(f"{key} replays nothing in stage `{view.name}`: no earlier stage has a `start_token`")
    return notes


def _learned_and_measured(sequence: Sequence) -> list[str]:
    """Return a note for every source of a stage or a mitigation that is a measured text, too."""
    read: dict[str, Source] = {f"stages.{number}.data": stage.data for number, stage in enumerate(sequence.stages)}
    for stage in range(1, len(sequence.stages) + 1):
        for key, mitigation in acting(sequence, stage):
            read |= {f"{key}.{name}": source for name, source in mitigation.data_sources().items()}
    measured = {text.name: _documents(text.data) for text in sequence.evaluate.texts}
    return [
        f"{key} is also measured as the text `{name}`, which may score documents that were learned; "
        "measure another part to see what is kept or learned in general"
        for key, source in read.items()
        for name, documents in measured.items()
        if _documents(source) == documents
    ]


def _documents(source: Source) -> dict[str, Any]:
    """Return what decides which documents there are, whatever is done with them: the first ones are in all."""
    return source.model_dump(mode="json", exclude={"limit", "overlong", "end_token", "on_bad"})


def check_start_tokens(sequence: Sequence, tokenizer: TokenizerFacts | None) -> None:
    """Check that every declared start token is one token. Raises ConfigurationError."""
    if tokenizer is None or tokenizer.vocabulary is None:
        return
    for number, stage in enumerate(sequence.stages):
        if stage.start_token is not None and stage.start_token not in tokenizer.vocabulary:
            problem = f"`{stage.start_token}` is not a single token of the model's vocabulary"
            fix = "name a token that is, or add it to the tokenizer"
            raise ConfigurationError(f"stages.{number}.start_token", problem, fix)
