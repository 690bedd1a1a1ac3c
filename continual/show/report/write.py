"""Write a report: gather runs, draw figures, score samples, render the page."""

from collections.abc import Sequence
from pathlib import Path

from continual.errors import describe
from continual.ledger.folder import RunFolder
from continual.show.report.figures import Figures
from continual.show.report.gather import RunData, SampleSet, gather
from continual.show.report.page import Page, SamplesView, render
from continual.show.report.samples import Make, make_shown, model_there, read_shown
from continual.show.report.series import names
from continual.show.report.trade_off import trade_offs
from continual.store import Store, write_atomic


def write_report(folders: Sequence[Path], output: Path | None = None, make: Make = make_shown) -> Path:
    """Write the page, and its figures as PNG into a folder of its name next to it; return the page's path.

    Default `output`: report.html in the run's folder, or in the current folder for several runs. `make` scores samples
    that no report has shown yet. Raises ConfigurationError if a folder is not a run's.
    """
    runs = [gather(Path(folder)) for folder in folders]
    output = output or RunFolder(runs[0].folder if len(runs) == 1 else Path()).report
    pictures = output.with_suffix("") if output.suffix else output.with_name(f"{output.name}-figures")
    pictures.mkdir(parents=True, exist_ok=True)
    labels = names(runs)
    figures, points = Figures(runs, labels, pictures), trade_offs(runs)
    page = Page(
        runs=runs,
        labels=labels,
        matrices=[figures.matrix(number) for number in range(len(runs))],
        over_stages=figures.over_stages(),
        over_steps=figures.over_steps(),
        trade_off_points=points if len(runs) > 1 else {},
        trade_offs=figures.trade_offs(points) if len(runs) > 1 else [],
        losses=figures.streams("loss", "nats per token"),
        drift=figures.streams("drift", "nats per token"),
        weights=figures.streams("weight", "weight", lambda name: name != "task"),
        seconds=figures.seconds(),
        samples=[[_view(run, sample_set, make) for sample_set in run.sample_sets] for run in runs],
    )
    write_atomic(output, render(page))
    return output


def _view(run: RunData, sample_set: SampleSet, make: Make) -> SamplesView:
    """Return the samples of a set for reading, scored now if needed, or the reason why there are none."""
    samples, model = sample_set.samples, sample_set.model
    missing = ""
    if not read_shown(samples):
        if model is None or not model_there(model):
            missing = "The model that made these samples is gone, so they cannot be decoded and scored."
        else:
            try:
                make(Store(samples.root), samples, model, run.config["model"]["dtype"])
            except Exception as error:  # a model that fails must not cost the rest of the page
                missing = f"These samples could not be scored: {describe(error)}"
    manifest = samples.manifest()
    return SamplesView(sample_set.stage, sample_set.stage_name, manifest, read_shown(samples), missing)
