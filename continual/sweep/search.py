"""Choose trials for Ray Tune and stop them early: Optuna over points, and successive halving over stages.

`SeededOptuna` needs the package `optuna`, which is imported only there.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from continual.sweep.points import Point, rounded
from continual.sweep.results import Outcome
from continual.sweep.runner import NotPickled
from continual.sweep.spec import Ablation, Dimension
from continual.sweep.trials import Trial, higher_is_better

if TYPE_CHECKING:
    import optuna

STAGE, VALUE = "stage", "mean_score"
"""Keys of a report: the stage that is done, and the mean score over the tasks learned so far and `old_tasks`."""


class StageHalving(NotPickled, FIFOScheduler):
    """ASHA (Li et al. 2018, 1810.05934) with the decisions of Ray Tune's `ASHAScheduler` and every stage as a rung.

    A trial is stopped after stage k if its value is below the (1 - 1/factor) quantile of the values that other trials
    reported after stage k before it. `earlier` are (stage, value) of trials that ran before this start, and
    `stopped(trial name, stage, value, threshold)` is called for every stop. No trial is stopped after its last stage.
    """

    def __init__(
        self,
        factor: float,
        earlier: Iterable[tuple[int, float]],
        stopped: Callable[[str, int, float, float], None],
    ):
        super().__init__()
        self.factor, self.stopped = factor, stopped
        self.rungs: dict[int, list[float]] = {}
        for stage, value in earlier:
            self.rungs.setdefault(stage, []).append(value)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stage, value = result.get(STAGE), result.get(VALUE)
        if stage is None or value is None:
            return str(TrialScheduler.CONTINUE)
        rung = self.rungs.setdefault(stage, [])
        threshold = float(np.percentile(rung, (1 - 1 / self.factor) * 100)) if rung else None
        rung.append(value)
        config = trial.config["trial"]
        if threshold is None or value >= threshold or stage >= config["stages"]:
            return str(TrialScheduler.CONTINUE)
        self.stopped(config["name"], stage, value, threshold)
        return str(TrialScheduler.STOP)


class SeededOptuna(NotPickled, Searcher):
    """Suggests every point that Optuna asks for once under each seed, and tells Optuna the mean over the seeds.

    `known` are the points of earlier starts with their trials: Optuna is told what is done of them, and what is missing
    is suggested first. `make` turns a point into its trials (none if the point cannot run), `record` saves a point that
    has trials, `outcome` returns the outcome of a trial, `config` its configuration for Ray Tune.
    """

    def __init__(
        self,
        ablation: Ablation,
        known: list[tuple[Point, list[Trial]]],
        make: Callable[[Point], list[Trial]],
        record: Callable[[Point], None],
        outcome: Callable[[Trial], Outcome],
        config: Callable[[Trial], dict[str, Any]],
    ):
        import optuna

        super().__init__(metric=None, mode=None)
        self.ablation, self.make, self.record, self.outcome, self.config = ablation, make, record, outcome, config
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if higher_is_better(metric) else "minimize" for metric in ablation.metric
        ]
        # Another seed for every start: with the same one Optuna would suggest the points of the last start again.
        sampler = optuna.samplers.TPESampler(seed=ablation.search_seed * 1000 + len(known))
        self.study = optuna.create_study(directions=directions, sampler=sampler)
        self.space = {key: _distribution(dimension) for key, dimension in ablation.space.items()}
        self.waiting: list[Trial] = []
        self.suggested: dict[str, Trial] = {}
        self.open: dict[int, tuple[optuna.trial.Trial, list[Trial]]] = {}
        for point, trials in known:
            self.study.enqueue_trial({key: self._param(key, value) for key, value in point.items()})
            self._open(self.study.ask(self.space), trials)
        self.points = len(known)

    def _ask(self) -> None:
        """Ask Optuna for a new point and queue its trials."""
        asked = self.study.ask(self.space)
        point = {key: self._value(key, asked.params[key]) for key in self.space}
        if trials := self.make(point):
            self.record(point)
        self._open(asked, trials)

    def _open(self, asked: "optuna.trial.Trial", trials: list[Trial]) -> None:
        """Queue those of a point's trials that have not run; a point that Optuna asks for twice runs once."""
        self.open[asked.number] = (asked, trials)
        queued = self._queued()
        self.waiting += [trial for trial in trials if self.outcome(trial).state == "waiting" and trial not in queued]
        self._tell(asked.number)

    def _queued(self) -> list[Trial]:
        return [*self.suggested.values(), *self.waiting]

    def _value(self, key: str, param: Any) -> Any:
        dimension = self.ablation.space[key]
        return rounded(param, *dimension.bounds) if dimension.bounds else dimension.values[param]

    def _param(self, key: str, value: Any) -> Any:
        dimension = self.ablation.space[key]
        return value if dimension.bounds else dimension.values.index(value)

    # Ray declares dict | None and documents FINISHED, a str.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the next trial's configuration, or FINISHED when all points have been suggested."""
        while not self.waiting and self.points < (self.ablation.trials or 0):
            self.points += 1
            self._ask()
        if not self.waiting:
            return str(Searcher.FINISHED)
        self.suggested[trial_id] = self.waiting.pop(0)
        return self.config(self.suggested[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.suggested.pop(trial_id)
        for number in [number for number, (_, trials) in self.open.items() if trial in trials]:
            self._tell(number)

    def _tell(self, number: int) -> None:
        """Tell Optuna the means of a point whose trials have all ended, or that it failed if none of them is done."""
        asked, trials = self.open[number]
        queued = self._queued()
        if any(trial in queued for trial in trials):
            return
        del self.open[number]
        done = [outcome for trial in trials if (outcome := self.outcome(trial)).state == "done"]
        if done:
            metrics = self.ablation.metric
            self.study.tell(asked, [sum(each.values[metric] for each in done) / len(done) for metric in metrics])
        else:
            from optuna.trial import TrialState

            self.study.tell(asked, state=TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: points are saved in the sweep's folder, and results in the runs."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""


def _distribution(dimension: Dimension) -> Any:
    """Return the dimension for Optuna, which takes plain values only: of a finite one the positions of its values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dimension.bounds:
        return FloatDistribution(*dimension.bounds, log=dimension.loguniform is not None)
    return CategoricalDistribution(range(len(dimension.values)))
