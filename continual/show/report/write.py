"""Write a report: gather runs, draw figures, score samples, render the page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from continual.errors import describe
from continual.ledger.folder import RunFolder
from continual.show.report.answers import Evaluations
from continual.show.report.figures import Figures
from continual.show.report.found import gather_associations, holds_associations
from continual.show.report.gather import RunData, SampleSet, gather
from continual.show.report.page import render
from continual.show.report.repaired import tried_rows, walk_plots
from continual.show.report.samples import Make, make_shown, read_shown
from continual.show.report.series import names
from continual.show.report.trade_off import trade_offs
from continual.show.report.watched import watched, watched_as_json
from continual.store import write_atomic

DRIFTS = "drift-against-loss.json"
"""The file with the points and correlations of drift against loss, next to the figures."""


def write_report(folders: Sequence[Path], output: Path | None = None, make: Make = make_shown) -> Path:
    """Write the page, and its figures as PNG into a folder of its name next to it; return the page's path.

    A folder is a run's or that of associations; one that is neither but holds such, a storage, stands for all of them,
    in the order of their names. Default `output`: report.html in the folder, or in the current folder for several.
    `make` scores samples that no report has shown yet. Raises ConfigurationError for any other folder.
    """
    known, stands_for = Evaluations(), [each for folder in folders for each in _stands_for(Path(folder))]
    associations = [gather_associations(each) for each in stands_for if _is_of_associations(each)]
    runs = [gather(each, known) for each in stands_for if not _is_of_associations(each)]
    output = output or RunFolder(stands_for[0] if len(stands_for) == 1 else Path()).report
    pictures = output.with_suffix("") if output.suffix else output.with_name(f"{output.name}-figures")
    (pictures if runs else output.parent).mkdir(parents=True, exist_ok=True)
    labels = names(runs)
    figures, points = Figures(runs, labels, pictures), trade_offs(runs) if len(runs) > 1 else {}
    if drifts := watched(runs):
        write_atomic(pictures / DRIFTS, json.dumps(watched_as_json(drifts, runs, labels), indent=1))
    page = render(
        runs,
        labels,
        associations,
        matrices=[plot for number in range(len(runs)) if (plot := figures.matrix(number))],
        over_stages=figures.over_stages(),
        over_steps=figures.over_steps(),
        points=points,
        trade_offs=figures.trade_offs(points),
        losses=figures.streams("loss", "nats per token"),
        drift=figures.streams("drift", "nats per token"),
        drifts=drifts,
        watched=figures.watched(drifts),
        walks=walk_plots(figures),
        tried=tried_rows(labels, runs),
        weights=figures.streams("weight", "weight", lambda name: name != "task"),
        seconds=figures.seconds(),
        samples=[
            (label, sample_set, *_shown(run, sample_set, make))
            for label, run in zip(labels, runs, strict=True)
            for sample_set in run.sample_sets
        ],
    )
    write_atomic(output, page)
    return output


def _stands_for(folder: Path) -> list[Path]:
    """Return the folders of runs and associations that a folder stands for: those in a storage, else itself."""
    runs = (path.parent for path in folder.glob("*/ledger.jsonl") if RunFolder(path.parent).config.is_file())
    inner = sorted({*runs, *filter(holds_associations, folder.glob("*/"))})
    itself = RunFolder(folder).ledger.is_file() or holds_associations(folder)
    return [folder] if itself or not inner else inner


def _is_of_associations(folder: Path) -> bool:
    return holds_associations(folder) and not RunFolder(folder).ledger.is_file()


def _shown(run: RunData, sample_set: SampleSet, make: Make) -> tuple[list[dict[str, Any]], str]:
    """Return the first samples of a set, scored now if needed, and the reason why there are none."""
    samples, model = sample_set.samples, sample_set.model
    missing = ""
    if not read_shown(samples):
        if model is None or not Path(model).is_dir():
            missing = "The model that made these samples is gone, so they cannot be decoded and scored."
        else:
            try:
                make(samples, model, run.config["model"]["dtype"])
            except Exception as error:  # a model that fails must not cost the rest of the page
                missing = f"These samples could not be scored: {describe(error)}"
    return read_shown(samples), missing
