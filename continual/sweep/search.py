"""Choose trials for Ray Tune and stop them early: Optuna over points, and successive halving over stages.

`SeededOptuna` needs the package `optuna`, which is imported only there.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from continual.errors import ConfigurationError
from continual.sweep.points import rounded
from continual.sweep.spec import Dimension
from continual.sweep.state import Stopped
from continual.sweep.sweep import Sweep
from continual.sweep.trials import Trial, higher_is_better

if TYPE_CHECKING:
    import optuna

STAGE, VALUE = "stage", "mean_score"
"""Keys of a report: the stage that is done, and the mean score over the tasks learned so far and `old_tasks`."""


class NotPickled:
    """A scheduler, searcher, stopper or callback that stays in the sweep's driver.

    Tune pickles them to be able to resume; that is a no-op here, because a sweep resumes from its own state.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class StageHalving(NotPickled, FIFOScheduler):
    """ASHA (Li et al. 2018, 1810.05934) with the decisions of Ray Tune's `ASHAScheduler` and every stage as a rung.

    A trial is stopped after stage k if its value is below the (1 - 1/factor) quantile of the values that other trials
    reported after stage k before it. `earlier` are (stage, value) of trials that ran before this start, and
    `stopped(trial name, why)` is called for every stop. No trial is stopped after its last stage.
    """

    def __init__(self, factor: float, earlier: Iterable[tuple[int, float]], stopped: Callable[[str, Stopped], None]):
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
        threshold = float(np.percentile(rung, (1 - 1 / self.factor) * 100)) if rung else -np.inf
        rung.append(value)
        config = trial.config["trial"]
        if value >= threshold or stage >= config["stages"]:
            return str(TrialScheduler.CONTINUE)
        self.stopped(config["name"], Stopped(stage, value, threshold))
        return str(TrialScheduler.STOP)


class SeededOptuna(NotPickled, Searcher):
    """Suggests every point that Optuna asks for once under each seed, and tells Optuna the mean over the seeds.

    Optuna learns the results of earlier starts, and their missing points are suggested first. `config`
    returns a trial's configuration for Ray Tune; `say` prints a line.
    """

    def __init__(self, sweep: Sweep, config: Callable[[Trial], dict[str, Any]], say: Callable[[str], None]):
        import optuna

        super().__init__(metric=None, mode=None)
        self.sweep, self.ablation, self.config, self.say = sweep, sweep.source.ablation, config, say
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if higher_is_better(metric) else "minimize" for metric in self.ablation.metric
        ]
        # Another seed for every start: with the same one Optuna would suggest the points of the last start again.
        self.points = len(sweep.state.points)
        sampler = optuna.samplers.TPESampler(seed=self.ablation.search_seed * 1000 + self.points)
        self.study = optuna.create_study(directions=directions, sampler=sampler)
        self.space = {key: _distribution(dimension) for key, dimension in self.ablation.space.items()}
        self.waiting: list[Trial] = []
        self.suggested: dict[str, Trial] = {}
        self.open: dict[int, tuple[optuna.trial.Trial, list[Trial]]] = {}
        for point in sweep.state.points:
            self.study.enqueue_trial({key: self._param(key, value) for key, value in point.items()})
            self._open(self.study.ask(self.space), sweep.trials.make(point))

    def _ask(self) -> None:
        """Ask Optuna for a new point and queue its trials."""
        asked = self.study.ask(self.space)
        point = {key: self._value(key, asked.params[key]) for key in self.space}
        trials = []
        try:
            trials = self.sweep.trials.make(point)
            self.sweep.state.add(point)
        except ConfigurationError as error:
            self.say(f"the search suggested a point that cannot run: {error}")
        self._open(asked, trials)

    def _open(self, asked: "optuna.trial.Trial", trials: list[Trial]) -> None:
        """Queue those of a point's trials that have not run; a point that Optuna asks for twice runs once."""
        self.open[asked.number] = (asked, trials)
        new = [trial for trial in trials if trial not in self._queued()]
        self.waiting += [trial for trial in new if self.sweep.outcome(trial).state == "waiting"]
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
        done = [outcome for trial in trials if (outcome := self.sweep.outcome(trial)).state == "done"]
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
