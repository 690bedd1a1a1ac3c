"""Plan a sweep, run it and write its table. The sweep's driver holds no model and runs no sequence itself."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError, ContinualError, as_one_sentence
from continual.preflight.resources import check_resources, detect_machine
from continual.run.cluster import connected
from continual.run.events import Status
from continual.run.resume import catch_up, claim, tracking_uri
from continual.show.terminal import Terminal
from continual.sweep.outputs import write_results
from continual.sweep.parent_run import Parent, close_stopped
from continual.sweep.points import Point, misfit
from continual.sweep.preview import make_preview, render_preview
from continual.sweep.results import Outcome, best_of, history, outcome
from continual.sweep.spec import LoadedAblation
from continual.sweep.state import State, Stopped, lock_sweep
from continual.sweep.trials import (
    Trial,
    Trials,
    check_concurrency,
    cpu_overrides,
    make_trials,
    refuse_changed,
    threads,
)


@dataclass
class Sweep:
    """A sweep at work; `failed` has the reasons of the trials that failed in this start, by name."""

    source: LoadedAblation
    trials: Trials
    folder: Path
    state: State
    failed: dict[str, str] = field(default_factory=dict)

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
    state = State.load(folder, ablation)
    if ablation.search == "optuna":
        outside = [key for point in state.points if (key := misfit(ablation.space, point))]
        if outside and not fresh:
            problem = "the search has run points that are not in this space"
            fix = "restore the space, choose another `name`, or begin again with --fresh"
            raise ConfigurationError(f"space.{outside[0]}", problem, fix)
        state.points = [point for point in state.points if not misfit(ablation.space, point)]
    return Sweep(source, trials, folder, state)


def plan_text(sweep: Sweep) -> str:
    """Return the preview as text, with the state of the trials that have begun, and the notes of the checks."""
    outcomes = [] if sweep.searches else sweep.outcomes()
    states = {
        each.trial.name: f"{each.state}: {each.why}" if each.why else each.state
        for each in outcomes
        if each.state != "waiting" or each.why
    }
    preview = make_preview(sweep.trials.made.values())
    notes = "".join(f"\nnote: {note}" for note in sweep.trials.notes)
    return render_preview(sweep.source, sweep.trials.made, preview, states) + notes


def run_sweep(sweep: Sweep, fresh: bool) -> None:
    """Run what is missing and write the results, even if the sweep is interrupted.

    Raises ContinualError if a trial failed, KeyboardInterrupt after an orderly stop.
    """
    with lock_sweep(sweep.folder):
        if fresh:
            _forget(sweep)
        refuse_changed(sweep.listed())
        if sweep.finished() and sweep.state.closed:
            for each in sweep.outcomes():
                if each.state == "done":
                    catch_up(each.trial.loaded, each.summary)
            print(write_results(sweep.folder, sweep.source, sweep.outcomes())[0])
            return
        with Terminal(sweep.folder / "log.txt") as terminal:
            terminal.line(plan_text(sweep))
            terminal.line(f"log: {sweep.folder / 'log.txt'}; every trial has its own in its run folder\n")
            with as_one_sentence(sweep.source.file):
                _run(sweep, terminal)
    if count := len(sweep.failed):
        failed = f"{count} trial{'s' * (count > 1)} of {len(sweep.listed())} failed"
        raise ContinualError(f"{failed} (see the table); run the same command again to retry what failed")


def _forget(sweep: Sweep) -> None:
    """Delete the trials' runs and the sweep's state; the store stays."""
    for trial in sweep.listed():
        if trial.loaded.run_folder.is_dir():
            with claim(trial.loaded.run_folder, trial.loaded, fresh=True):
                pass
    for path in sweep.folder.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    sweep.state = State.load(sweep.folder, sweep.source.ablation)


def _run(sweep: Sweep, terminal: Terminal) -> None:
    """Run the remaining trials inside the sweep's own run in the tracker; write the results whatever happens."""
    example = next(iter(sweep.trials.made.values())).loaded
    parent = Parent(sweep.folder, sweep.source, example)
    sweep.state.close(False)
    status: Status = "FAILED"
    try:
        run_id = parent.begin()
        try:
            if not sweep.finished():
                _run_trials(sweep, terminal, run_id)
        finally:
            _close_stopped(sweep)
        status = "FAILED" if sweep.failed else "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        outcomes = sweep.outcomes()
        text, points = write_results(sweep.folder, sweep.source, outcomes)
        done = sum(each.state == "done" for each in outcomes)
        unsent = parent.end(status, best_of(points), done)
        sweep.state.close(status == "FINISHED" and not unsent)
        if unsent:
            terminal.line(f"  {unsent} records wait for {tracking_uri(example)}; the next start sends them")
        if done:
            terminal.line(f"\n{text}\n\n  all files: {sweep.folder}")


def _run_trials(sweep: Sweep, terminal: Terminal, run_id: str | None) -> None:
    """Run the remaining trials with Ray Tune; their runs in the tracker are below `run_id`."""
    ablation = sweep.source.ablation
    with connected() as resources:
        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        sequences = [trial.loaded.sequence for trial in sweep.trials.made.values()]
        for sequence in sequences:
            check_resources(sequence, cpus, gpus)
        check_concurrency(sequences, ablation.concurrency, cpus, gpus)
        from continual.sweep.runner import Runner, Watch, trial_config

        def config(trial: Trial) -> dict[str, Any]:
            changes = cpu_overrides(trial.loaded.sequence, ablation.concurrency, cpus)
            tags = {**trial.loaded.sequence.track.tags, "mlflow.parentRunId": run_id}
            changes += [f"track.tags={json.dumps(tags)}"] if run_id else []
            return trial_config(trial, changes, halve=ablation.scheduler == "asha")

        progress = _Progress(sweep, terminal)
        waiting = [] if sweep.searches else [each.trial for each in sweep.outcomes() if each.state == "waiting"]
        Runner(
            folder=sweep.folder,
            watch=Watch(progress.reported, progress.ended, failed=sweep.failed),
            scheduler=_scheduler(sweep, progress.stopped),
            searcher=_searcher(sweep, terminal, config) if sweep.searches else None,
            trials=[config(trial) for trial in waiting],
            concurrency=ablation.concurrency,
            environment=threads(ablation.concurrency),
        ).run(ablation.fail_fast)


def _close_stopped(sweep: Sweep) -> None:
    """Close the tracker's runs of stopped trials, including those that a killed start left open."""
    for each in sweep.outcomes():
        why = sweep.state.stopped.get(each.trial.name)
        if each.state == "stopped" and why and not why.closed:
            close_stopped(each.trial, why)
            sweep.state.stop(each.trial.name, replace(why, closed=True))


def _scheduler(sweep: Sweep, stopped: Callable[[str, int, float, float], None]) -> Any:
    from ray.tune.schedulers import FIFOScheduler

    from continual.sweep.search import StageHalving

    ablation = sweep.source.ablation
    if ablation.scheduler == "none":
        return FIFOScheduler()
    ended = [each.trial for each in sweep.outcomes() if each.state in ("done", "stopped")]
    earlier = [mean for trial in ended for mean in history(trial)]
    return StageHalving(ablation.reduction_factor, earlier, stopped)


def _searcher(sweep: Sweep, terminal: Terminal, config: Callable[[Trial], dict[str, Any]]) -> Any:
    from continual.sweep.search import SeededOptuna

    def make(point: Point) -> list[Trial]:
        try:
            return sweep.trials.make(point)
        except ConfigurationError as error:
            terminal.line(f"the search suggested a point that cannot run: {error}")
            return []

    known = [(point, sweep.trials.make(point)) for point in sweep.state.points]
    return SeededOptuna(sweep.source.ablation, known, make, sweep.state.add, sweep.outcome, config)


@dataclass
class _Progress:
    """Prints a line for every stage and every end of a trial; saves a stop at once."""

    sweep: Sweep
    terminal: Terminal
    ends: int = 0

    def reported(self, name: str, report: dict[str, Any]) -> None:
        trial = self.sweep.trials.made[name]
        stage = trial.loaded.sequence.stages[report["stage"] - 1].name
        shown = dict.fromkeys([*self.sweep.source.ablation.metric, "average_score"])
        numbers = ", ".join(f"{key} {report[key]:.3f}" for key in shown if isinstance(report.get(key), float))
        self.terminal.line(f"{trial.title}: stage {report['stage']} {stage}{f': {numbers}' if numbers else ''}")

    def stopped(self, name: str, stage: int, value: float, threshold: float) -> None:
        self.sweep.state.stop(name, Stopped(stage, value, threshold))

    def ended(self, name: str, why: str | None) -> None:
        self.ends += 1
        stopped = self.sweep.state.stopped.get(name)
        end = f"failed: {why}" if why else str(stopped) if stopped else "done"
        self.terminal.line(f"{self.sweep.trials.made[name].title}: {end} (trial {self.ends} of this start)")
