"""Make the trials of a sweep, each a run of the base sequence, and check all of them before a start. Torch-free."""

import json
import math
import os
from collections.abc import Iterable
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from pathlib import Path

from continual.config.load import Loaded, load_sequence
from continual.config.measured import Measured, figures_of
from continual.config.schema import Sequence
from continual.errors import ConfigurationError, nearest
from continual.forgetting import FIGURES, Score, StageScores
from continual.ledger.changes import refuse_changes
from continual.ledger.folder import RunFolder
from continual.preflight.check import check
from continual.preflight.nodes import Node, largest_share
from continual.preflight.resources import demands
from continual.sweep.points import Point, described, label, overrides, points, trial_name
from continual.sweep.spec import LoadedAblation
from continual.training.resources import FREE_CPUS, LEAST_CPUS

LOWER = ("forgetting", "forgetting_old")
"""Figures of which less is better; of all others, and of every task's score, more is."""
OLD, NEW = "old", "new"
"""Names under which a sweep compares its points by the mean score of old and of new tasks."""


def higher_is_better(metric: str) -> bool:
    """Return whether the higher of two values of `metric` is the better one."""
    return metric not in LOWER


@dataclass(frozen=True)
class Trial:
    """One run of a sweep; `set` are the sweep's overrides of the base sequence."""

    name: str
    point: Point
    seed: int
    loaded: Loaded
    set: list[str]

    @property
    def title(self) -> str:
        """The point and the seed in words."""
        return described(self.point, self.seed)

    @property
    def stages(self) -> int:
        """The number of stages."""
        return len(self.loaded.sequence.stages)


@dataclass
class Trials:
    """Makes the trials of points; `made` keeps them by name, in the order in which they were made."""

    source: LoadedAblation
    notes: list[str] = field(default_factory=list)
    made: dict[str, Trial] = field(default_factory=dict)

    def make(self, point: Point) -> list[Trial]:
        """Make the point's trials, one for every seed. Raises ConfigurationError if the point cannot run.

        An error at a swept key names this key and the sweep's file; any other names the sequence's file and the point.
        """
        ablation = self.source.ablation
        trials = []
        try:
            base = self._load(overrides(ablation, point))
            for seed in ablation.seeds or [base.sequence.seed]:
                name = trial_name(ablation.name, point, seed)
                changes = [*overrides(ablation, point), *_own(ablation.name, name, point, seed, base.sequence)]
                loaded = self._load(changes)
                self.notes += [note for note in check(loaded) if note not in self.notes]
                trials.append(Trial(name, point, seed, loaded, changes))
        except ConfigurationError as error:
            raise self._placed(error, point) from error
        self.made |= {trial.name: trial for trial in trials}
        return trials

    def _load(self, changes: list[str]) -> Loaded:
        return load_sequence(self.source.base, self.source.overrides, changes, self.source.folder)

    def _placed(self, error: ConfigurationError, point: Point) -> ConfigurationError:
        for key in sorted(point, key=len, reverse=True):
            if error.key == key or error.key.startswith(f"{key}.") or key.startswith(f"{error.key}."):
                place = f"space.{error.key if error.key.startswith(key) else key}"
                problem = f"{error.problem} (`{label(point[key])}`)"
                return ConfigurationError(place, problem, error.fix, self.source.file)
        file = (error.file or self.source.base) + (f" at {described(point)}" if point else "")
        return ConfigurationError(error.key, error.problem, error.fix, file)


def _own(sweep: str, name: str, point: Point, seed: int, base: Sequence) -> list[str]:
    """Return the overrides that a sweep adds to the point: name, seed, and the tags that MLflow lists the trial by."""
    swept = {key: label(value) for key, value in point.items()} | {"seed": str(seed)}
    track = {
        "tags": {**base.track.tags, "sweep": sweep, **swept},
        "params": {**base.track.params, **swept},
    }
    return [f"seed={seed}", f"name={name}", *(f"track.{key}={json.dumps(value)}" for key, value in track.items())]


def make_trials(source: LoadedAblation) -> Trials:
    """Make and check all trials of a sweep; if a search chooses its points as it runs, those at the space's corners.

    Raises ConfigurationError for the first trial that could not run, and for a metric that the sequences do not have.
    """
    trials = Trials(source)
    for point in points(source.ablation):
        trials.make(point)
    storage = Path(next(iter(trials.made.values())).loaded.sequence.storage)
    if RunFolder(storage / source.ablation.name).ledger.is_file():
        problem = f"`{source.ablation.name}` is the name of a run in {storage}"
        raise ConfigurationError("name", problem, "choose another name for the sweep")
    for trial in trials.made.values():
        _check_metrics(trial.loaded.sequence, source)
    return trials


def refuse_changed(trials: Iterable[Trial]) -> None:
    """Raise ConfigurationError if a trial's run was begun with other values of keys that are not swept."""
    for trial in trials:
        refuse_changes(trial.loaded.run_folder, trial.loaded)


def _check_metrics(sequence: Sequence, source: LoadedAblation) -> None:
    """Raise ConfigurationError for a metric or a score that is missing, or for two numbers of one name."""
    measured = Measured.of(sequence)
    names = measured.names
    for name in names:
        if name in (OLD, NEW, *FIGURES):
            problem = f"the base sequence measures a task or text named `{name}`, and a sweep has a number of that name"
            raise ConfigurationError("sequence", problem, "give the text, or your own task, another name")
    # The figures if every score were 0: None where there is nothing to average.
    scores = {name: Score(0.0, unit="any") for name in names}
    values = figures_of(sequence, [StageScores(stage, "", scores) for stage in range(len(sequence.stages) + 1)])
    for metric in source.ablation.metric:
        if metric in names:
            continue
        if metric not in FIGURES:
            near = nearest(metric, [*FIGURES, *names])
            fix = f"did you mean `{near}`?" if near else f"write one of {', '.join([*FIGURES, *names])}"
            raise ConfigurationError("metric", f"`{metric}` is neither a figure nor a task of the sequence", fix)
        if values[metric] is None:
            problem = f"`{metric}` has nothing to average in this sequence"
            fix = "give stages `tasks`, or the sequence `evaluate.old_tasks`, or choose another metric"
            raise ConfigurationError("metric", problem, fix)
    if source.ablation.scheduler == "asha" and len(sequence.stages) > 1 and not any(measured.stage_tasks[:-1]):
        problem = "no stage before the last one has `tasks`, by which points could be judged"
        raise ConfigurationError("scheduler", problem, "give it `tasks`, or write `scheduler: none`")


def needed(sequence: Sequence) -> tuple[float, float]:
    """Return the most CPUs and GPUs that a trial holds at one time.

    Workers without `cpus_per_worker` count as LEAST_CPUS each.
    """
    train, needs = sequence.train, demands(sequence)
    least = {} if train.cpus_per_worker else {"training": train.workers * LEAST_CPUS}
    return max(least.get(need.phase, need.cpus) for need in needs), max(need.gpus for need in needs)


def check_concurrency(sequences: Iterable[Sequence], concurrency: int, cpus: float | None, gpus: float | None) -> None:
    """Raise ConfigurationError if `concurrency` trials could hold all CPUs or GPUs and so wait for each other forever.

    None: the cluster's number is not known yet. Reading data needs one more CPU, for all trials together.
    """
    for sequence in sequences:
        each, cards = needed(sequence)
        taken = f"{concurrency} trials at the same time take"
        if cpus is not None and concurrency * each + FREE_CPUS > cpus:
            problem = f"{taken} {concurrency * each:g} CPUs and reading 1 more, but there are {cpus:g}"
            fits = int((cpus - FREE_CPUS) / each)
            fix = f"write `concurrency: {fits}`" if fits else "use fewer"
            raise ConfigurationError("concurrency", problem, f"{fix}, or lower what a worker and an engine take")
        if gpus is not None and concurrency * cards > gpus:
            problem = f"{taken} {concurrency * cards:g} GPUs, but there are {gpus:g}"
            raise ConfigurationError("concurrency", problem, f"write `concurrency: {max(1, int(gpus / cards))}`")


def cpu_overrides(sequence: Sequence, concurrency: int, cpus: float, nodes: Several[Node] = ()) -> list[str]:
    """Return overrides that limit a trial to its part of the CPUs if it would take all; results stay the same.

    On several nodes a worker gets no more than all workers have room for.
    """
    train = sequence.train
    if concurrency == 1 or train.cpus_per_worker:
        return []
    count = concurrency * train.workers
    each = max(math.floor(100 * (cpus - FREE_CPUS) / count) / 100, LEAST_CPUS)
    fits = largest_share(each, count, train.gpus_per_worker, nodes) if len(nodes) > 1 else each
    return [f"train.cpus_per_worker={fits or each}"]


def threads(concurrency: int) -> dict[str, str]:
    """Return the environment that divides the cores among the trials' drivers, unless OMP_NUM_THREADS is set."""
    if concurrency == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // concurrency))}
