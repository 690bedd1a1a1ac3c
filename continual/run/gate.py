"""How much a run may forget: `--max-forgetting` and `evaluate.max_forgetting`."""

from collections.abc import Collection, Mapping
from typing import Any

from continual.config.measured import Measured
from continual.config.schema import Sequence
from continual.errors import ForgotTooMuch
from continual.forgetting import MEAN_LOSSES, limits_by_name, loss_of

NOT_CERTAIN = " (not significant among all tasks)"
SHOWN = 3
"""Tasks that are named as those that lost most."""


def limits_of(sequence: Sequence, default: float | None) -> dict[str, float]:
    """Return the largest loss that is allowed, by figure, task or text; `default` replaces the YAML's for the means."""
    return limits_by_name(sequence.evaluate.max_forgetting, default)


def gate(summary: Mapping[str, Any], limits: Mapping[str, float], sequence: Sequence) -> list[str]:
    """Return a line for every loss that is above its limit by chance, perhaps.

    `ScoreLoss.exceeds` says which loss is too large. Raises ForgotTooMuch, which names the tasks that are in it.
    """
    exceeded, notes, names = [], _two_units(summary, limits), set[str]()
    for name, limit in limits.items():
        if (loss := loss_of(summary, name)) is None:
            continue
        shown = f"{_title(name)} {loss.value:.4f}"
        if loss.exceeds(limit):
            names |= _members(name, sequence)
            ends = "" if loss.interval is None else f"95 % interval {loss.interval[0]:.4f} to {loss.interval[1]:.4f}"
            beyond = ends or "its error is unknown"
            exceeded.append(f"{shown} is more than {limit:g} ({beyond})")
        elif loss.is_above(limit):
            notes.append(f"{shown} is above {limit:g} by less than its error, and passes")
    if exceeded:
        raise ForgotTooMuch(f"forgot more than is allowed: {'; '.join(exceeded)}{_worst(summary, names)}")
    return notes


def _worst(summary: Mapping[str, Any], names: Collection[str]) -> str:
    """Return the tasks among `names` that lost most, those of one unit together.

    What is not certain after Holm's correction is marked.
    """
    by_task, units = summary.get("forgetting_by_task") or {}, summary.get("unit") or {}
    lost = {task: loss for task, loss in by_task.items() if task in names and loss and loss > 0}
    certain, p_values = set((summary.get("fell") or [[]])[-1]), summary.get("p_value") or {}
    unsure = {task for task in lost if task not in certain and p_values.get(task) is not None}
    worst = sorted(lost, key=lambda task: (units.get(task, ""), -lost[task]))[:SHOWN]
    shown = (f"`{task}` {lost[task]:.4f}{NOT_CERTAIN * (task in unsure)}" for task in worst)
    return f"; lost most: {', '.join(shown)}" if worst else ""


def _two_units(summary: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """Return a note if one limit stands for means of two units, which only the scores can tell."""
    units = summary.get("figure_unit") or {}
    known = [name for name in MEAN_LOSSES if name in units and name in limits]
    if len({units[name] for name in known}) < 2 or len({limits[name] for name in known}) > 1:
        return []
    both = " and ".join(f"`{name}` ({units[name]})" for name in known)
    return [f"{both} have the limit {limits[known[0]]:g}; `evaluate.max_forgetting` can give each its own"]


def _members(name: str, sequence: Sequence) -> set[str]:
    """Return the tasks whose losses a figure is the mean of; a task's or text's own name stands for itself."""
    measured = Measured.of(sequence)
    return set({"forgetting": measured.earlier, "forgetting_old": measured.old}.get(name, [name]))


def _title(name: str) -> str:
    return name if name in MEAN_LOSSES else f"loss of `{name}`"
