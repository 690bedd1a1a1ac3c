"""Optuna as a searcher of Ray Tune, with seeds as a dimension of their own. Needs the package `optuna`."""

from collections.abc import Callable
from typing import Any

import optuna
from ray.tune.search import Searcher

from continual.sweep.local import Local
from continual.sweep.results import Outcome
from continual.sweep.schema import Ablation, Dimension
from continual.sweep.space import Point, listed, rounded
from continual.sweep.trials import Trial, higher_is_better


class SeededOptuna(Local, Searcher):
    """Suggests trials: every point that Optuna asks for, once for each seed; Optuna is told their mean.

    Ray Tune's own `OptunaSearch` knows neither seeds nor, with two metrics, points of an earlier start. Here `known`
    are such points with their trials: what is done of them is told again, what is missing is suggested first. `make`
    turns a point into its trials (none, if it is no sequence that could run), `found` puts it on record, `outcome`
    tells what became of a trial.
    """

    def __init__(
        self,
        ablation: Ablation,
        known: list[tuple[Point, list[Trial]]],
        make: Callable[[Point], list[Trial]],
        found: Callable[[Point], None],
        outcome: Callable[[Trial], Outcome],
        config: Callable[[Trial], dict[str, Any]],
    ):
        super().__init__(metric=None, mode=None)
        self.ablation, self.make, self.found, self.outcome, self.config = ablation, make, found, outcome, config
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        high, low = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [high if higher_is_better(metric) else low for metric in ablation.metric]
        self.study = optuna.create_study(directions=directions, sampler=_sampler(ablation, len(known)))
        self.space = {key: _distribution(dimension) for key, dimension in ablation.space.items()}
        self.waiting: list[Trial] = []
        self.suggested: dict[str, Trial] = {}
        self.open: dict[str, tuple[optuna.trial.Trial, list[Trial]]] = {}
        for point, trials in known:
            self.study.enqueue_trial({key: self._param(key, value) for key, value in point.items()})
            self._open(self.study.ask(self.space), trials)
        self.points = len(known)

    def _ask(self) -> None:
        """A new point of Optuna's."""
        asked = self.study.ask(self.space)
        point = {key: self._value(key, asked.params[key]) for key in self.space}
        if trials := self.make(point):
            self.found(point)
        self._open(asked, trials)

    def _open(self, asked: optuna.trial.Trial, trials: list[Trial]) -> None:
        """Queue what is missing of a point's trials."""
        key = str(asked.number)
        self.open[key] = (asked, trials)
        # A point that Optuna asks for twice is run once.
        running = [*self.suggested.values(), *self.waiting]
        self.waiting += [one for one in trials if self.outcome(one).state == "waiting" and one not in running]
        self._tell(key)

    def _value(self, key: str, value: Any) -> Any:
        dimension = self.ablation.space[key]
        if bounds := dimension.uniform or dimension.loguniform:
            return rounded(value, *bounds)
        return listed(dimension)[value]

    def _param(self, key: str, value: Any) -> Any:
        dimension = self.ablation.space[key]
        return value if dimension.continuous else listed(dimension).index(value)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration; FINISHED when all points are out."""
        while not self.waiting and self.points < (self.ablation.trials or 0):
            self.points += 1
            self._ask()
        if not self.waiting:
            return str(Searcher.FINISHED)
        self.suggested[trial_id] = self.waiting.pop(0)
        return self.config(self.suggested[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.suggested.pop(trial_id)
        for key in [key for key, (_, trials) in self.open.items() if trial in trials]:
            self._tell(key)

    def _tell(self, key: str) -> None:
        """Tell Optuna a point whose trials have all ended: their mean, or that it failed where none was done."""
        asked, trials = self.open[key]
        if any(trial in (*self.suggested.values(), *self.waiting) for trial in trials):
            return
        del self.open[key]
        done = [one for trial in trials if (one := self.outcome(trial)).state == "done"]
        if done:
            metrics = self.ablation.metric
            self.study.tell(asked, [sum(one.values[metric] for one in done) / len(done) for metric in metrics])
        else:
            self.study.tell(asked, state=optuna.trial.TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: points and results lie in the sweep's folder and in the runs."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


def _sampler(ablation: Ablation, known: int) -> Any:
    """A new start draws on where the last one stood: with the same seed it would suggest the same points again."""
    seed = ablation.search_seed * 1000 + known
    return optuna.samplers.TPESampler(seed=seed)


def _distribution(dimension: Dimension) -> Any:
    """Choices are told to Optuna by their position: it takes plain values only."""
    if dimension.uniform:
        return optuna.distributions.FloatDistribution(*dimension.uniform)
    if dimension.loguniform:
        return optuna.distributions.FloatDistribution(*dimension.loguniform, log=True)
    return optuna.distributions.CategoricalDistribution(range(len(listed(dimension))))
