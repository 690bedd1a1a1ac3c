"""A sweep from its plan to its table. The driver of the sweep holds no model and runs no sequence itself."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError, ContinualError, as_one_sentence
from continual.preflight.resources import check_fit, machine
from continual.run.cluster import connected
from continual.run.resume import catch_up, claim, tracking_uri
from continual.show.terminal import Terminal
from continual.show.tracking.publisher import Status
from continual.sweep.plan import make_sweep_plan, render_sweep
from continual.sweep.publish import Parent, close_stopped
from continual.sweep.resources import check_concurrency, shares, threads
from continual.sweep.results import Outcome, history, outcome
from continual.sweep.schema import LoadedAblation
from continual.sweep.space import Point, misfit
from continual.sweep.state import State, Stopped, claimed
from continual.sweep.trials import Trial, Trials, make_trials, refuse_changed
from continual.sweep.write import write_results


@dataclass
class Sweep:
    """A sweep at work: what is asked for, what is known of it, where it says so."""

    source: LoadedAblation
    trials: Trials
    folder: Path
    state: State
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def searches(self) -> bool:
        """Whether points are found on the way; then only those of `state` count, and the corners were for checks."""
        return self.source.ablation.search == "optuna"

    def listed(self) -> list[Trial]:
        """All trials of the sweep as far as they are known, in their order."""
        if not self.searches:
            return list(self.trials.made.values())
        found = {trial.name: trial for point in self.state.points for trial in self.trials.make(point)}
        return list(found.values())

    def outcome(self, trial: Trial) -> Outcome:
        return outcome(trial, self.state.stopped, self.failed)

    def outcomes(self) -> list[Outcome]:
        return [self.outcome(trial) for trial in self.listed()]

    def finished(self) -> bool:
        """Whether nothing is left to do."""
        points = self.source.ablation.trials or 0
        enough = not self.searches or len(self.state.points) >= points
        return enough and all(one.state in ("done", "stopped") for one in self.outcomes())


def prepare(source: LoadedAblation, fresh: bool = False) -> Sweep:
    """Everything that can be checked before a start. Raises ConfigurationError.

    A search goes on with the points of earlier starts, so they have to be in its space, unless it begins `fresh`.
    """
    ablation = source.ablation
    if ablation.search == "optuna" and importlib.util.find_spec("optuna") is None:
        problem, fix = "`optuna` is not installed", "pip install optuna, or write `search: random`"
        raise ConfigurationError("search", problem, fix, source.file)
    trials = make_trials(source)
    here = machine()
    _check_concurrency(source, trials, here.cpus, here.gpus)
    first = next(iter(trials.made.values()))
    folder = Path(first.loaded.sequence.storage) / ablation.name
    state = State.load(folder, ablation)
    if ablation.search == "optuna":
        _check_points(source, state, fresh)
    return Sweep(source, trials, folder, state)


def _check_points(source: LoadedAblation, state: State, fresh: bool) -> None:
    outside = {at: key for at, point in enumerate(state.points) if (key := misfit(source.ablation.space, point))}
    if outside and not fresh:
        problem = "the search has run points that are not in this space"
        fix = "put back what it was, choose another `name`, or begin again with --fresh"
        raise ConfigurationError(f"space.{next(iter(outside.values()))}", problem, fix, source.file)
    state.points = [point for at, point in enumerate(state.points) if at not in outside]


def _check_concurrency(source: LoadedAblation, trials: Trials, cpus: float | None, gpus: float | None) -> None:
    sequences = [trial.loaded.sequence for trial in trials.made.values()]
    try:
        check_concurrency(sequences, source.ablation.concurrency, cpus, gpus)
    except ConfigurationError as error:
        raise error.in_file(source.file) from error


def plan_text(sweep: Sweep) -> str:
    """The plan, with the state of trials that have begun."""
    found = {one.trial.name: one for one in sweep.outcomes()} if not sweep.searches else {}
    states = {
        name: f"{one.state}{f': {one.why}' if one.why else ''}"
        for name, one in found.items()
        if one.state != "waiting" or one.why
    }
    plan = make_sweep_plan(sweep.trials.made.values())
    notes = "".join(f"\nnote: {note}" for note in sweep.trials.notes)
    return render_sweep(sweep.source, sweep.trials.made, plan, states) + notes


def run_sweep(sweep: Sweep, fresh: bool) -> None:
    """Run what is missing and write the results, also those of a sweep that is interrupted.

    Raises ContinualError if a trial failed, KeyboardInterrupt after an orderly stop.
    """
    with claimed(sweep.folder):
        if fresh:
            _forget(sweep)
        refuse_changed(sweep.listed())
        if sweep.finished() and sweep.state.closed:
            for one in sweep.outcomes():
                if one.state == "done":
                    catch_up(one.trial.loaded, one.summary)
            print(write_results(sweep.folder, sweep.source, sweep.outcomes())[0])
            return
        with Terminal(sweep.folder / "log.txt") as terminal:
            terminal.line(plan_text(sweep))
            terminal.line(f"log: {sweep.folder / 'log.txt'}; every trial has its own in its run\n")
            with as_one_sentence(sweep.source.file):
                _run(sweep, terminal)
    if sweep.failed:
        count = len(sweep.failed)
        what = f"{count} trial{'s' * (count > 1)} of {len(sweep.listed())} failed"
        raise ContinualError(f"{what} (see the table); the same command tries again what failed")


def _forget(sweep: Sweep) -> None:
    """Begin again: the trials' runs and the sweep's memory go, the store stays."""
    for trial in sweep.listed():
        if trial.loaded.run_folder.is_dir():
            with claim(trial.loaded.run_folder, trial.loaded, fresh=True):
                pass
    for path in sweep.folder.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    sweep.state = State.load(sweep.folder, sweep.source.ablation)


def _run(sweep: Sweep, terminal: Terminal) -> None:
    example = next(iter(sweep.trials.made.values())).loaded
    parent = Parent(sweep.folder, sweep.source, example)
    sweep.state.close(False)
    status: Status = "FAILED"
    try:
        run_id = parent.begin()
        try:
            if not sweep.finished():
                _tune(sweep, terminal, run_id)
        finally:
            _close_stopped(sweep)
        status = "FAILED" if sweep.failed else "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        outcomes = sweep.outcomes()
        text, points = write_results(sweep.folder, sweep.source, outcomes)
        best = next((point for point in points if point.best), None)
        done = sum(one.state == "done" for one in outcomes)
        waiting = parent.end(status, best, done)
        sweep.state.close(status == "FINISHED" and not waiting)
        if waiting:
            terminal.line(f"  {waiting} records wait for {tracking_uri(example)}; the next start sends them")
        if done:
            terminal.line(f"\n{text}\n\n  all of it: {sweep.folder}")


def _tune(sweep: Sweep, terminal: Terminal, run_id: str | None) -> None:
    """What is left of the trials, by Ray Tune."""
    ablation = sweep.source.ablation
    with connected() as resources:
        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        for trial in sweep.trials.made.values():
            check_fit(trial.loaded.sequence, cpus, gpus)
        _check_concurrency(sweep.source, sweep.trials, cpus, gpus)
        from continual.sweep.tuner import Watch, run_trials, trial_config

        def config(trial: Trial) -> dict[str, Any]:
            mine = shares(trial.loaded.sequence, ablation.concurrency, cpus)
            tags = {**trial.loaded.sequence.track.tags, "mlflow.parentRunId": run_id}
            mine += [f"track.tags={json.dumps(tags)}"] if run_id else []
            return trial_config(trial, mine, halve=ablation.scheduler == "asha")

        say = _Progress(sweep, terminal)
        watch = Watch(say.reported, say.ended, failed=sweep.failed)
        left = [one.trial for one in sweep.outcomes() if one.state == "waiting"]
        run_trials(
            sweep.folder,
            None if sweep.searches else [config(trial) for trial in left],
            ablation.concurrency,
            _scheduler(sweep, say.stopped),
            _searcher(sweep, terminal, config) if sweep.searches else None,
            watch,
            ablation.fail_fast,
            threads(ablation.concurrency),
        )


def _close_stopped(sweep: Sweep) -> None:
    """Close the trackers' runs of stopped trials, also of those that a killed start left open."""
    for one in sweep.outcomes():
        why = sweep.state.stopped.get(one.trial.name)
        if one.state == "stopped" and why and not why.closed:
            close_stopped(one.trial, why)
            sweep.state.stop(one.trial.name, replace(why, closed=True))


def _scheduler(sweep: Sweep, stopped: Callable[[str, int, float, float], None]) -> Any:
    from ray.tune.schedulers import FIFOScheduler

    from continual.sweep.scheduler import StageHalving

    ablation = sweep.source.ablation
    if ablation.scheduler == "none":
        return FIFOScheduler()
    settled = [one.trial for one in sweep.outcomes() if one.state in ("done", "stopped")]
    earlier = [value for trial in settled for value in history(trial)]
    return StageHalving(ablation.reduction_factor, earlier, stopped)


def _searcher(sweep: Sweep, terminal: Terminal, config: Callable[[Trial], dict[str, Any]]) -> Any:
    from continual.sweep.search import SeededOptuna

    def make(point: Point) -> list[Trial]:
        try:
            return sweep.trials.make(point)
        except ConfigurationError as error:
            terminal.line(f"the search is told that a point cannot run: {error}")
            return []

    known = [(point, sweep.trials.make(point)) for point in sweep.state.points]
    return SeededOptuna(sweep.source.ablation, known, make, sweep.state.add, sweep.outcome, config)


@dataclass
class _Progress:
    """One line for every stage and every end of a trial; stops are put on record at once."""

    sweep: Sweep
    terminal: Terminal
    ends: int = 0

    def reported(self, name: str, report: dict[str, Any]) -> None:
        trial = self.sweep.trials.made[name]
        stage = trial.loaded.sequence.stages[report["stage"] - 1].name
        wanted = dict.fromkeys([*self.sweep.source.ablation.metric, "average_score"])
        numbers = ", ".join(f"{key} {report[key]:.3f}" for key in wanted if isinstance(report.get(key), float))
        self.terminal.line(f"{trial.title}: stage {report['stage']} {stage}{f': {numbers}' if numbers else ''}")

    def stopped(self, name: str, stage: int, value: float, threshold: float) -> None:
        self.sweep.state.stop(name, Stopped(stage, value, threshold))

    def ended(self, name: str, why: str | None) -> None:
        self.ends += 1
        stopped = self.sweep.state.stopped.get(name)
        end = f"failed: {why}" if why else str(stopped) if stopped else "done"
        self.terminal.line(f"{self.sweep.trials.made[name].title}: {end} (trial {self.ends} of this start)")
