"""Prepare a sweep and preview it. Imports neither torch nor ray."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from continual.errors import ConfigurationError
from continual.preflight.check_places import check_kinds
from continual.preflight.resources import detect_machine
from continual.sweep.parent_run import EVENTS
from continual.sweep.points import misfit
from continual.sweep.preview import preview_text
from continual.sweep.results import Outcome, outcome
from continual.sweep.spec import LoadedAblation
from continual.sweep.state import STOP, State
from continual.sweep.trials import Trial, Trials, check_concurrency, make_trials

FILES = ("state.json", "lock", STOP, "log.txt", EVENTS, "sweep.json", "table.md", "pareto.png", "best.yaml")
FOLDERS = ("tune",)
"""What a sweep keeps in its folder beside the runs of its trials, which are elsewhere."""


@dataclass
class Sweep:
    """A sweep at work; by name, `failed` has the reasons of the trials that failed in this start.

    `held` are the trials that wait until all seeds of their point are as far.
    """

    source: LoadedAblation
    trials: Trials
    folder: Path
    state: State
    failed: dict[str, str] = field(default_factory=dict)
    held: dict[str, Trial] = field(default_factory=dict)

    @property
    def searches(self) -> bool:
        """Whether points are chosen as the sweep runs; then those of `state` count, the corners are only checked."""
        return self.source.ablation.search == "optuna"

    def listed(self) -> list[Trial]:
        """Return all trials that are known, in their order."""
        if not self.searches:
            return list(self.trials.made.values())
        trials = {trial.name: trial for point in self.state.points for trial in self.trials.make(point)}
        return list(trials.values())

    def outcome(self, trial: Trial) -> Outcome:
        """Return the outcome of a trial."""
        return outcome(trial, self.state.stopped, self.failed)

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of all trials that are known."""
        return [self.outcome(trial) for trial in self.listed()]

    def finished(self) -> bool:
        """Return whether nothing is left to do."""
        complete = not self.searches or len(self.state.points) >= (self.source.ablation.trials or 0)
        return complete and all(each.state in ("done", "stopped") for each in self.outcomes())


def prepare(source: LoadedAblation, fresh: bool = False) -> Sweep:
    """Check everything that can be checked before a start. Raises ConfigurationError.

    A search resumes with the points of earlier starts, so these must lie in its space, unless it begins `fresh`.
    """
    try:
        return _prepare(source, fresh)
    except ConfigurationError as error:
        raise error.in_file(source.file) from error


def _prepare(source: LoadedAblation, fresh: bool) -> Sweep:
    ablation = source.ablation
    if ablation.search == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigurationError("search", "`optuna` is not installed", "pip install optuna, or write `search: random`")
    trials = make_trials(source)
    sequences = [trial.loaded.sequence for trial in trials.made.values()]
    here = detect_machine()
    check_concurrency(sequences, ablation.concurrency, here.cpus, here.gpus)
    folder = Path(sequences[0].storage) / ablation.name
    check_kinds(
        "name",
        [(folder, True), *((folder / name, False) for name in FILES), *((folder / name, True) for name in FOLDERS)],
    )
    sweep = Sweep(source, trials, folder, State.load(folder, ablation))
    if sweep.searches:
        outside = [key for point in sweep.state.points if (key := misfit(ablation.space, point))]
        if outside and not fresh:
            problem = "the search has run points that are not in this space"
            fix = "restore the space, choose another `name`, or begin again with --fresh"
            raise ConfigurationError(f"space.{outside[0]}", problem, fix)
        sweep.state.points = [point for point in sweep.state.points if not misfit(ablation.space, point)]
    return sweep


def plan_text(sweep: Sweep) -> str:
    """Return the preview as text, with the state of the trials that have begun, and the notes of the checks."""
    outcomes = [] if sweep.searches else sweep.outcomes()
    states = {
        each.trial.name: f"{each.state}: {each.why}" if each.why else each.state
        for each in outcomes
        if each.state != "waiting" or each.why
    }
    notes = "".join(f"\nnote: {note}" for note in sweep.trials.notes)
    return preview_text(sweep.source, sweep.trials.made, states) + notes
