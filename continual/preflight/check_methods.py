"""Checks of the mitigations of every stage: labels, start tokens, shares, their own objections, their sources."""

import math
import re
from collections.abc import Iterator

from continual.config.schema import NAME, Sequence
from continual.contract.mitigation import Mitigation
from continual.errors import ConfigurationError
from continual.preflight.check_data import check_source
from continual.preflight.tokenizer_facts import TokenizerFacts

TASK = "task"
"""The name of the task's own stream."""
WHOLE = 1e-6
"""How far from a whole number of rows a share may be: room for 0.333333333."""


def entries(sequence: Sequence, stage: int) -> list[tuple[str, Mitigation]]:
    """The mitigations of a stage (1-based), each with its key in the YAML."""
    own = sequence.stages[stage - 1].mitigation is not None
    prefix = f"stages.{stage - 1}.mitigation" if own else "mitigation"
    return [(f"{prefix}.{number}", one) for number, one in enumerate(sequence.mitigations(stage))]


def active(sequence: Sequence) -> Iterator[tuple[int, str, Mitigation]]:
    """(stage, key, mitigation) of all that will do something."""
    for stage in range(1, len(sequence.stages) + 1):
        for key, one in entries(sequence, stage):
            if one.active(sequence, stage):
                yield stage, key, one


def check_methods(sequence: Sequence, tokenizer: TokenizerFacts | None) -> list[str]:
    """Notes about the mitigations. Raises ConfigurationError for one that cannot work."""
    notes: list[str] = []
    seen_sources = set()
    for stage in range(1, len(sequence.stages) + 1):
        _check_labels(entries(sequence, stage))
    for stage, key, one in active(sequence):
        others = [other for _, other in entries(sequence, stage) if other is not one]
        if reason := one.refuse(sequence, stage, others):
            problem, _, fix = " ".join(reason.split()).partition("; ")
            raise ConfigurationError(key, f"{one.label} in stage {stage}: {problem}", fix or "change its options")
        _check_share(key, one, sequence.train.batch_rows)
        notes += [note for note in _check_start(key, one, tokenizer) if note not in notes]
        for name, source in one.sources().items():
            if (key, name) not in seen_sources:
                seen_sources.add((key, name))
                notes += check_source(f"{key}.{name}", source, tokenizer.chat_template if tokenizer else None)
    return notes + _silent(sequence)


def _check_labels(listed: list[tuple[str, Mitigation]]) -> None:
    taken: dict[str, str] = {}
    for key, one in listed:
        if one.label in taken:
            problem = f"`{one.label}` stands in the list twice (also at {taken[one.label]})"
            raise ConfigurationError(key, problem, "give one of them another `name:`")
        if one.label == TASK or not re.match(NAME, one.label):
            why = "is the task's own stream" if one.label == TASK else "is no name"
            raise ConfigurationError(f"{key}.name", f"`{one.label}` {why}", "write another `name:`")
        taken[one.label] = key


def nearest_shares(share: float, batch_rows: int) -> list[float]:
    """The shares closest to `share` that make whole rows, at least one per step; [] if `share` itself does.

    They have as few digits as make their rows whole up to WHOLE.
    """
    wanted = share * batch_rows
    if round(wanted) >= 1 and abs(wanted - round(wanted)) <= WHOLE:
        return []
    found = []
    for rows in sorted({max(1, math.floor(wanted)), max(1, math.ceil(wanted))}):
        written = (float(f"{rows / batch_rows:.{digits}g}") for digits in range(1, 18))
        found.append(next(value for value in written if abs(value * batch_rows - rows) <= WHOLE))
    return found


def _check_share(key: str, one: Mitigation, batch_rows: int) -> None:
    share = getattr(one, "share", None)
    if not isinstance(share, int | float):
        return
    if near := nearest_shares(share, batch_rows):
        problem = f"a share of {share:g} is {share * batch_rows:g} rows beside the task's {batch_rows} in every step"
        fix = f"for whole rows write {' or '.join(str(value) for value in near)}"
        raise ConfigurationError(f"{key}.share", problem, fix)


def _check_start(key: str, one: Mitigation, tokenizer: TokenizerFacts | None) -> list[str]:
    start = getattr(one, "start", None)
    if tokenizer is None:
        return []
    if start == "template" and not tokenizer.chat_template:
        problem = "`template` needs a chat template, and the model's tokenizer has none"
        raise ConfigurationError(f"{key}.start", problem, "write `start: bos`")
    if start != "bos" or tokenizer.bos is not None or not tokenizer.certain:
        return []
    if tokenizer.eos is None:
        problem = "the model's tokenizer has neither a BOS nor an end-of-text token to start a sample with"
        fix = "add `bos_token` to tokenizer_config.json, or write `start: tasks` or `start: template`"
        raise ConfigurationError(f"{key}.start", problem, fix)
    return [f"the tokenizer has no BOS: samples start with its end-of-text token `{tokenizer.eos}`"]


def _silent(sequence: Sequence) -> list[str]:
    """Stages in which `start: tasks` has nothing to start with."""
    notes = []
    for stage in range(2, len(sequence.stages) + 1):
        declared = any(earlier.start_token for earlier in sequence.stages[: stage - 1])
        for key, one in entries(sequence, stage):
            if getattr(one, "start", None) == "tasks" and not declared:
                name = sequence.stages[stage - 1].name
                notes.append(f"{key} replays nothing in stage `{name}`: no earlier stage has a `start_token`")
    return notes


def check_start_tokens(sequence: Sequence, tokenizer: TokenizerFacts | None) -> None:
    """Every declared start token is one token. Raises ConfigurationError."""
    if tokenizer is None or tokenizer.vocabulary is None:
        return
    for number, stage in enumerate(sequence.stages):
        if stage.start_token is not None and stage.start_token not in tokenizer.vocabulary:
            problem = f"`{stage.start_token}` is no single token of the model's vocabulary"
            fix = "name a token that is, or add it to the tokenizer"
            raise ConfigurationError(f"stages.{number}.start_token", problem, fix)
