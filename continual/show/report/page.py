"""The page: one HTML file with all numbers and figures, which needs no network."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from continual.config.measured import LEAST_GAIN
from continual.data.tally import LOSSES
from continual.forgetting import FIGURES
from continual.show.progress import duration
from continual.show.report.answers import SHOWN
from continual.show.report.correlation import LEAST
from continual.show.report.draw import Plot
from continual.show.report.gather import RunData
from continual.show.report.series import differing, shown
from continual.show.report.watched import SINCE
from continual.show.tables import TOKENS


def render(runs: Sequence[RunData], labels: Sequence[str], **content: Any) -> str:
    """Return the whole HTML file. `content`: what else the template shows, lists in the order of `labels`."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)  # fmt: skip
    environment.globals |= {"number": number, "derived": derived, "inline": inline, "duration": duration}
    template = environment.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    return template.render(
        runs=runs,
        labels=labels,
        entries=list(zip(labels, runs, strict=True)),
        differences=differing([run.config for run in runs]),
        shown=shown,
        figures=FIGURES,
        since=SINCE,
        least=LEAST,
        token_keys=TOKENS | {"task_tokens": "of these, of the tasks'"},
        little=_learned_little(labels, runs),
        measured_losses=_measured_losses(labels, runs),
        figure_units={name: unit for run in runs for name, unit in run.figure_units.items()},
        answered=any(run.answers for run in runs),
        shown_answers=SHOWN,
        forgotten=dict.fromkeys(task for run in runs for task, lost in _lost(run).items() if lost is not None),
        documented=[run for run in runs if run.summary.get("documents")],
        document_keys={"read": "read", "documents": "pieces trained", **LOSSES},
        units={task: unit for run in runs for task, unit in run.summary.get("unit", {}).items()},
        phases=dict.fromkeys(phase for run in runs for phase in run.summary["seconds"]),
        **content,
    )


def _learned_little(labels: Sequence[str], runs: Sequence[RunData]) -> list[str]:
    """Return the runs whose stages' tasks gained less than LEAST_GAIN of what the run that learned most gained."""
    gains = {label: run.gain for label, run in zip(labels, runs, strict=True) if run.gain is not None}
    most = max(gains.values(), default=0.0)
    return [label for label, gain in gains.items() if gain < LEAST_GAIN * most]


def _measured_losses(labels: Sequence[str], runs: Sequence[RunData]) -> list[tuple[str, RunData, str]]:
    """Return (label, run, task) of every loss whose error is known."""
    return [
        (label, run, task)
        for label, run in zip(labels, runs, strict=True)
        for task, ends in run.summary.get("interval", {}).get("forgetting_by_task", {}).items()
        if ends
    ]


def _lost(run: RunData) -> dict[str, float | None]:
    return run.summary.get("forgetting_by_task") or {}


def number(run: RunData, *path: str | int, form: str = ".3f") -> Markup:
    """Return a number of summary.json for reading, with its JSON pointer there and its exact value as attributes.

    Return `–` if the summary has null or nothing at that place.
    """
    value: Any = run.summary
    for part in path:
        value = value[int(part)] if isinstance(value, list) else (value or {}).get(part)
    if value is None:
        return Markup("–")
    key = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    return _data(run, key, value, format(value, form))


def derived(run: RunData, key: str, value: float | None, text: str) -> Markup:
    """Return a number that the report computed itself, named `key`; `–` for None."""
    return Markup("–") if value is None else _data(run, key, value, text)


def _data(run: RunData, key: str, value: float, text: str) -> Markup:
    exact = json.dumps(value)
    return Markup(
        '<data value="{}" data-run="{}" data-key="{}" data-value="{}">{}</data>'
    ).format(exact, run.folder.name, key, exact, text)  # fmt: skip


def inline(plot: Plot) -> Markup:
    """Return a figure as an image within the page; figures wider than a phone scroll in their own box."""
    source = base64.b64encode(plot.svg).decode()
    return Markup(
        '<figure><figcaption>{}</figcaption><div class="scroll" tabindex="0">'
        '<img src="data:image/svg+xml;base64,{}" alt="{}" style="min-width: {}px"></div></figure>'
    ).format(plot.title, source, plot.alt, plot.width)
