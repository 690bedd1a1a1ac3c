"""Which number of an lm-eval result is the score, and in which unit. Imports no torch.

lm-eval reports `metric,filter` keys (`acc,none`, `exact_match,strict-match`) next to `metric_stderr,filter`. The score
is, in this order: what the task's entry in the YAML asks for; the only metric; the first of `PREFERRED` it reports.
Of several filters: the one asked for, else `none`, else the first that lm-eval lists (gsm8k: strict-match).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from continual.config.task_files import some
from continual.errors import ConfigurationError, ContinualError
from continual.forgetting import Score, Scores
from continual.store import Artefact

PREFERRED = ("acc", "exact_match", "em", "acc_norm", "pass@1", "prompt_level_strict_acc", "f1", "mcc", "bleu", "rougeL")
"""Metrics that score a task which reports several, if the configuration asks for none; the first is preferred."""
ACCURACY = frozenset(
    {"acc", "acc_norm", "acc_bytes", "acc_all", "acc_mutual_info", "exact_match", "em", "exact", "f1", "pass@1"}
)
"""Metrics from 0 to 1 whose means may be averaged with one another; so may all that end in `_acc`."""
TEXT_UNIT = "nats/token"
"""Unit of the score of a text."""


@dataclass(frozen=True)
class MeasuredText:
    """The rows of a text, and the folder of the model from which the drift is measured there, else None.

    `of`: the name of the text that this is once more, with the drift from the stage's start; "" for a text itself.
    """

    rows: Artefact
    start: str | None = None
    of: str = ""


Texts = Mapping[str, MeasuredText]
"""What is measured on texts, by their names; those that are there once more come behind all others."""


def since_stage(texts: Texts, folder: str) -> dict[str, MeasuredText]:
    """Return the texts whose drift is measured once more, from the model in `folder`, with which a stage began."""
    again = {name: text for name, text in texts.items() if text.start}
    return {f"{name} from the stage's start": replace(text, start=folder, of=name) for name, text in again.items()}


def joined(scores: Mapping[str, Score], texts: Texts) -> Scores:
    """Return the scores of tasks and texts, each text with its drift from the stage's start.

    What was measured once more without the text itself is a score of that text like any other.
    """
    found: Scores = {}
    for key, score in scores.items():
        of = texts[key].of if key in texts else ""
        if of in found:
            score = replace(found[of], drift_stage=score.drift, drift_stage_stderr=score.drift_stderr)
        found[of or key] = score
    return found


@dataclass(frozen=True)
class Choice:
    """The metric and filter that score a task, `sign` (-1 where lower is better) and the unit of the score."""

    metric: str
    filter: str
    sign: int
    unit: str

    @property
    def key(self) -> str:
        return f"{self.metric},{self.filter}"

    @property
    def stderr_key(self) -> str:
        return f"{self.metric}_stderr,{self.filter}"


def plan_tasks(tasks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every evaluation task once, as {"name", "metric", "filter"}, in the order of first mention.

    Raises ConfigurationError if a task is asked for with two metrics or filters: its name is one column of the matrix.
    """
    planned: dict[str, dict[str, Any]] = {}
    for task in tasks:
        entry = {"name": task["name"], "metric": task.get("metric"), "filter": task.get("filter")}
        if planned.setdefault(task["name"], entry) != entry:
            problem = f"`{task['name']}` is listed with different metrics or filters"
            raise ConfigurationError("tasks", problem, "write it the same everywhere")
    return list(planned.values())


def unit(metric: str) -> str:
    """Return the unit of a metric's score: `accuracy` for those that share a scale, else the metric itself."""
    return "accuracy" if metric in ACCURACY or metric.endswith("_acc") else metric


def metrics(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the (metric, filter) pairs of one task's result, in lm-eval's order."""
    pairs = [tuple(key.split(",", 1)) for key in result if "," in key]
    return [(metric, name) for metric, name in pairs if not metric.endswith("_stderr")]


def directions(
    name: str, higher_is_better: Mapping[str, Mapping[str, bool | None]], members: Mapping[str, Sequence[str]]
) -> dict[str, bool | None]:
    """Return by metric whether more is better in a task or group, None where its members do not agree.

    lm-eval says it for tasks, and for groups of tasks; for groups of groups (mmlu) it says nothing (0.4.13).
    """
    if name not in members:
        return dict(higher_is_better.get(name, {}))
    merged: dict[str, bool | None] = {}
    for member in members[name]:
        for metric, higher in directions(member, higher_is_better, members).items():
            merged[metric] = higher if merged.get(metric, higher) == higher else None
    return merged


def choose(
    task: str,
    result: Mapping[str, Any],
    higher_is_better: Mapping[str, bool | None],
    metric: str | None = None,
    filter: str | None = None,
    members: Sequence[str] = (),
) -> Choice:
    """Choose how to score `task` from its entries in lm-eval's `results` and `higher_is_better`.

    `metric`, `filter`: what the configuration asks for. `members`: of a group, for the message.

    Raises ConfigurationError, listing what lm-eval reports, if
    that is not reported, if nothing decides between several metrics, or if lm-eval does not say which direction is
    better.
    """
    pairs = metrics(result)
    if not pairs:
        what = "the group" if members else "the task"
        fix = f"list its members instead: {some(list(members))}" if members else "correct its `metric_list`"
        raise ConfigurationError("tasks", f"lm-eval reports no metric for {what} `{task}`", fix)
    listed = "lm-eval reports " + ", ".join(f"{name} (filter {kind})" for name, kind in pairs)
    names = list(dict.fromkeys(name for name, kind in pairs if filter in (None, kind)))
    if not names:
        raise ConfigurationError("tasks", f"`{task}` has no filter `{filter}`", listed)
    if metric is None:
        metric = names[0] if len(names) == 1 else next((name for name in PREFERRED if name in names), None)
    if metric is None:
        raise ConfigurationError("tasks", f"`{task}` needs a `metric`, as it has several", listed)
    if metric not in names:
        raise ConfigurationError("tasks", f"`{task}` has no metric `{metric}` (filter {filter or 'any'})", listed)
    filters = [kind for name, kind in pairs if name == metric]
    chosen = filter or ("none" if "none" in filters else filters[0])
    higher = higher_is_better.get(metric)
    if higher is None:
        problem = f"lm-eval does not say whether more `{metric}` is better in `{task}`"
        raise ConfigurationError("tasks", problem, "set `higher_is_better` in its YAML")
    return Choice(metric, chosen, 1 if higher else -1, unit(metric))


def finite(value: Any) -> float | None:
    """Return `value` as a float, or None if it is not a finite number (lm-eval writes "N/A" and nan)."""
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None


def score(task: str, result: Mapping[str, Any], choice: Choice, n: int) -> Score:
    """Return the score of a task with `n` documents. Raises ContinualError if it is not a finite number."""
    value, error = finite(result[choice.key]), finite(result.get(choice.stderr_key))
    if value is None:
        reported = result[choice.key]
        raise ContinualError(f"lm-eval scored `{task}` {reported!r} ({choice.key}), which is not a finite number")
    return Score(choice.sign * value, error, n, choice.unit, choice.metric, choice.filter)
