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
from continual.ledger.folder import AssociationsFolder, RunFolder
from continual.show.associations import SCORES
from continual.show.progress import duration
from continual.show.report.answers import SHOWN
from continual.show.report.correlation import LEAST
from continual.show.report.draw import Plot
from continual.show.report.found import LIKENESS, AssociationsData, Completion
from continual.show.report.gather import RunData
from continual.show.report.series import differing, shown
from continual.show.report.watched import SINCE
from continual.show.tables import TOKENS


def render(
    runs: Sequence[RunData], labels: Sequence[str], associations: Sequence[AssociationsData] = (), **content: Any
) -> str:
    """Return the whole HTML file. `content`: what else the template shows of the runs, lists in their order."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)  # fmt: skip
    environment.globals |= {"number": number, "found": found, "derived": derived, "inline": inline}
    return environment.get_template("page.html").render(
        duration=duration,
        runs=runs,
        labels=labels,
        associations=associations,
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
        forecasts=[(label, run) for label, run in zip(labels, runs, strict=True) if run.forecast],
        completions=[
            (label, run, completion) for label, run in zip(labels, runs, strict=True) for completion in run.completions
        ],
        score_names=SCORES,
        likeness=LIKENESS,
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
    return _at(run.folder, "", run.summary, path, form)


def found(
    of: RunData | AssociationsData, *path: str | int, form: str = ".4f", completion: Completion | None = None
) -> Markup:
    """Return a number of a run's forecast.json, of a `completion` of it, or of associations.json, as `number` does.

    Its place is `<file>#<JSON pointer>`.
    """
    if completion:
        content = {"completion": completion.numbers}
        return _at(of.folder, f"{completion.file}#", content, ("completion", *path), form)
    if isinstance(of, RunData):
        return _at(of.folder, f"{RunFolder(of.folder).forecast.name}#", of.forecast, path, form)
    return _at(of.folder, f"{AssociationsFolder(of.folder).numbers.name}#", of.numbers, path, form)


def derived(run: RunData, key: str, value: float | None, text: str) -> Markup:
    """Return a number that the report computed itself, named `key`; `–` for None."""
    return Markup("–") if value is None else _data(run.folder, key, value, text)


def _at(folder: Path, file: str, content: Any, path: Sequence[str | int], form: str) -> Markup:
    value = content
    for part in path:
        value = value[int(part)] if isinstance(value, list) else (value or {}).get(part)
    if value is None:
        return Markup("–")
    key = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    return _data(folder, file + key, value, format(value, form))


def _data(folder: Path, key: str, value: float, text: str) -> Markup:
    exact = json.dumps(value)
    return Markup(
        '<data value="{}" data-run="{}" data-key="{}" data-value="{}">{}</data>'
    ).format(exact, folder.name, key, exact, text)  # fmt: skip


def inline(plot: Plot) -> Markup:
    """Return a figure as an image within the page; figures wider than a phone scroll in their own box."""
    source, width = base64.b64encode(plot.image).decode(), "width" if plot.kind == "png" else "min-width"
    return Markup(
        '<figure><figcaption>{}</figcaption><div class="scroll" tabindex="0">'
        '<img src="data:image/{};base64,{}" alt="{}" style="{}: {}px"></div></figure>'
    ).format(plot.title, plot.kind, source, plot.alt, width, plot.width)
