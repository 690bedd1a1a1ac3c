"""The trials of a sweep: each a run of the base sequence of its own, checked before anything starts. Torch-free."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual.config.load import Loaded, load_sequence
from continual.config.schema import Sequence
from continual.errors import ConfigurationError, nearest
from continual.forgetting import FIGURES, figures
from continual.preflight.check import check
from continual.run.resume import refuse_changes
from continual.run.summary import old_names
from continual.sweep.schema import LoadedAblation
from continual.sweep.space import Point, described, label, overrides, points, trial_name

LOWER = ("forgetting", "forgetting_old")
"""Figures of which less is better; of all others, and of every task's score, more is."""


def higher_is_better(metric: str) -> bool:
    return metric not in LOWER


@dataclass(frozen=True)
class Trial:
    """One run of a sweep. `given` are the command line's overrides, `set` those of the sweep, `folder` where the paths
    in them lie."""

    name: str
    point: Point
    seed: int
    loaded: Loaded
    given: list[str]
    set: list[str]
    folder: Path

    @property
    def title(self) -> str:
        return described(self.point, self.seed)

    @property
    def stages(self) -> int:
        return len(self.loaded.sequence.stages)


@dataclass
class Trials:
    """Makes the trials of points; what was made stays in `made`, in its order, by name."""

    source: LoadedAblation
    notes: list[str] = field(default_factory=list)
    made: dict[str, Trial] = field(default_factory=dict)

    def make(self, point: Point) -> list[Trial]:
        """The point's trials, one for every seed. Raises ConfigurationError if the point is no sequence that could run.

        Errors at a swept key name this key and the sweep's file; others the sequence's, and the point.
        """
        ablation, found = self.source.ablation, []
        try:
            base = self._load(overrides(ablation, point))
            for seed in ablation.seeds or [base.sequence.seed]:
                name = trial_name(ablation.name, point, seed)
                changes = [*overrides(ablation, point), *_own(ablation.name, name, point, seed, base.sequence)]
                loaded = self._load(changes)
                self.notes += [note for note in check(loaded) if note not in self.notes]
                found.append(Trial(name, point, seed, loaded, self.source.overrides, changes, self.source.folder))
        except ConfigurationError as error:
            raise self._placed(error, point) from error
        self.made |= {trial.name: trial for trial in found}
        return found

    def _load(self, changes: list[str]) -> Loaded:
        return load_sequence(self.source.base, self.source.overrides, changes, self.source.folder)

    def _placed(self, error: ConfigurationError, point: Point) -> ConfigurationError:
        for key in sorted(point, key=len, reverse=True):
            if error.key == key or error.key.startswith(f"{key}.") or key.startswith(f"{error.key}."):
                place = f"space.{error.key if error.key.startswith(key) else key}"
                problem = f"{error.problem} (`{label(point[key])}`)"
                return ConfigurationError(place, problem, error.fix, self.source.file)
        at = f"{error.file or self.source.base} at {described(point)}" if point else error.file
        return ConfigurationError(error.key, error.problem, error.fix, at)


def _own(sweep: str, name: str, point: Point, seed: int, base: Sequence) -> list[str]:
    """What the sweep sets in a trial's sequence besides the point: name, seed and how it is found in MLflow."""
    swept = {key: label(value) for key, value in point.items()} | {"seed": str(seed)}
    track = {
        "experiment": base.track.experiment or sweep,
        "tags": {**base.track.tags, "sweep": sweep, **swept},
        "params": {**base.track.params, **swept},
    }
    return [f"seed={seed}", f"name={name}", *(f"track.{key}={json.dumps(value)}" for key, value in track.items())]


def make_trials(source: LoadedAblation) -> Trials:
    """All trials of a sweep whose points are known; else the corners of its space, so that they were checked.

    Raises ConfigurationError for the first one that could not run, for a metric that the sequences do not have, and
    for a run that was begun with another configuration.
    """
    trials = Trials(source)
    try:
        wanted = points(source.ablation)
    except ConfigurationError as error:
        raise error.in_file(source.file) from error
    for point in wanted:
        trials.make(point)
    first = next(iter(trials.made.values()))
    storage = Path(first.loaded.sequence.storage)
    if (storage / source.ablation.name / "ledger.jsonl").is_file():
        problem = f"`{source.ablation.name}` is the name of a run in {storage}"
        raise ConfigurationError("name", problem, "choose another name for the sweep", source.file)
    for trial in trials.made.values():
        _check_metrics(trial.loaded.sequence, source)
    return trials


def refuse_changed(trials: Iterable[Trial]) -> None:
    """Raises ConfigurationError for a trial whose run was begun with other values of what its points do not name."""
    for trial in trials:
        refuse_changes(trial.loaded.run_folder, trial.loaded)


def _check_metrics(sequence: Sequence, source: LoadedAblation) -> None:
    ablation = source.ablation
    tasks = [[task.name for task in stage.tasks] for stage in sequence.stages]
    old = [task.name for task in sequence.evaluate.old_tasks]
    texts = [text.name for text in sequence.evaluate.texts]
    known = list(dict.fromkeys([*(name for names in tasks for name in names), *old, *texts]))
    for metric in ablation.metric:
        if metric in known:
            continue
        if metric not in FIGURES:
            near = nearest(metric, [*FIGURES, *known])
            fix = f"did you mean `{near}`?" if near else f"write one of {', '.join([*FIGURES, *known])}"
            raise ConfigurationError("metric", f"`{metric}` is no figure and no task of the sequence", fix, source.file)
        if _example(sequence, known, tasks)[metric] is None:
            problem = f"`{metric}` has nothing to average in this sequence"
            fix = "give stages `tasks`, or the sequence `evaluate.old_tasks`, or choose another metric"
            raise ConfigurationError("metric", problem, fix, source.file)
    if ablation.scheduler == "asha" and not tasks[0] and not old:
        problem = "there is no score to compare trials by after the first stage"
        raise ConfigurationError("scheduler", problem, "give it `tasks`, or write `scheduler: none`", source.file)


def _example(sequence: Sequence, known: list[str], tasks: list[list[str]]) -> dict[str, Any]:
    """The figures of the sequence if every score were 0: None where it has nothing to average."""
    score = {task: {"score": 0.0, "stderr": 0.0, "n": 1} for task in known}
    matrix = [{"stage": stage, "name": "", "scores": score} for stage in range(len(sequence.stages) + 1)]
    return figures(matrix, tasks, old_names(sequence), dict.fromkeys(known, ""))
