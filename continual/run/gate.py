"""How much a run may forget: `--max-forgetting` and `evaluate.max_forgetting`."""

from collections.abc import Mapping
from typing import Any

from continual.config.measured import DEFAULT, MEAN_LOSSES
from continual.config.schema import Sequence
from continual.errors import ForgotTooMuch

SHOWN = 3
"""Tasks that are named as those that lost most."""


def limits_of(sequence: Sequence, default: float | None) -> dict[str, float]:
    """Return the largest loss that is allowed, by figure, task or text; `default` replaces the YAML's for the means."""
    written = dict(sequence.evaluate.max_forgetting or {})
    of_means = default if default is not None else written.get(DEFAULT)
    own = {name: limit for name, limit in written.items() if name != DEFAULT}
    return (dict.fromkeys(MEAN_LOSSES, of_means) if of_means is not None else {}) | own


def gate(summary: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """Return a line for every loss that is above its limit by chance, perhaps.

    A loss is too large if all of its 95 % interval is above the limit; where its error is unknown, if it is itself.
    Raises ForgotTooMuch, which names the tasks.
    """
    exceeded, notes = [], []
    for name, limit in limits.items():
        value, interval = _found(summary, name), _found(summary.get("interval") or {}, name)
        least = value if interval is None else interval[0]
        if value is None:
            continue
        shown = f"{_title(name)} {value:.4f}"
        if least > limit:
            ends = "" if interval is None else f"95 % interval {interval[0]:.4f} to {interval[1]:.4f}"
            beyond = ends or "its error is unknown"
            exceeded.append(f"{shown} is more than {limit:g} ({beyond})")
        elif value > limit:
            notes.append(f"{shown} is above {limit:g} by less than its error, and passes")
    if exceeded:
        lost = {task: loss for task, loss in (summary.get("forgetting_by_task") or {}).items() if loss and loss > 0}
        worst = sorted(lost, key=lambda task: -lost[task])[:SHOWN]
        named = f"; lost most: {', '.join(f'`{task}` {lost[task]:.4f}' for task in worst)}" if worst else ""
        raise ForgotTooMuch(f"more than --max-forgetting allows: {'; '.join(exceeded)}{named}")
    return notes


def _found(values: Mapping[str, Any], name: str) -> Any:
    return values.get(name) if name in MEAN_LOSSES else (values.get("forgetting_by_task") or {}).get(name)


def _title(name: str) -> str:
    return name if name in MEAN_LOSSES else f"loss of `{name}`"
