"""Hand trials to Ray Tune and stop them early: in order or as Optuna suggests, with successive halving of points.

`SeededOptuna` needs the package `optuna`, which is imported only there.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from continual.errors import ConfigurationError
from continual.sweep.halving import Halving
from continual.sweep.points import rounded
from continual.sweep.spec import Dimension
from continual.sweep.state import STOP
from continual.sweep.sweep import Sweep
from continual.sweep.trials import Trial, higher_is_better

if TYPE_CHECKING:
    import optuna

STAGE = "stage"
"""Key of a report: the stage that is done."""


class NotPickled:
    """A scheduler, searcher, stopper or callback that stays in the sweep's driver.

    Tune pickles them to be able to resume; that is a no-op here, because a sweep resumes from its own state.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class PointHalving(NotPickled, FIFOScheduler):
    """Ends a trial for Tune that stops, or that waits for the other seeds of its point: `Queue` begins it again.

    `made` are the trials by name.
    """

    def __init__(self, halving: Halving, made: Mapping[str, Trial]):
        super().__init__()
        self.halving, self.made = halving, made

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stage = result.get(STAGE)
        goes_on = stage is None or self.halving.decide(self.made[trial.config["trial"]["name"]], stage) == "continue"
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


class Queue(NotPickled, Searcher):
    """Hands the trials of a sweep to Tune: first those that halving releases, then the next one in their order.

    `config` returns a trial's configuration for Ray Tune. `halving` is None where no trial ever waits.
    """

    def __init__(self, sweep: Sweep, config: Callable[[Trial], dict[str, Any]], halving: Halving | None = None):
        super().__init__(metric=None, mode=None)
        self.sweep, self.config, self.halving = sweep, config, halving
        self.waiting: list[Trial] = []
        self.suggested: dict[str, Trial] = {}
        self.begin()

    def begin(self) -> None:
        """Queue what has not ended."""
        self.add([each.trial for each in self.sweep.outcomes() if each.state == "waiting"])

    def add(self, trials: Iterable[Trial]) -> None:
        """Queue those of the trials that have not ended and are not queued."""
        new = [trial for trial in trials if trial not in self.queued()]
        open_trials = [trial for trial in new if self.sweep.outcome(trial).state == "waiting"]
        held: dict[str, Trial] = {}
        if self.halving:
            self.halving.resume(open_trials)
            held = self.halving.waiting
        self.waiting += [
            trial for trial in open_trials
            if trial.name not in held and self.sweep.outcome(trial).state == "waiting"
        ]  # fmt: skip

    def queued(self) -> list[Trial]:
        """Return the trials that run or will."""
        held = list(self.halving.waiting.values()) if self.halving else []
        return [*self.suggested.values(), *self.waiting, *held]

    # Ray declares dict | None and documents FINISHED, a str.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the next trial's configuration; FINISHED when there is none, None while a running one may give one."""
        if (self.sweep.folder / STOP).exists():
            return str(Searcher.FINISHED)
        if self.halving:
            self.waiting[:0] = self.halving.released()
        if not self.waiting:
            self.refill()
        if not self.waiting:
            return None if self.suggested and self.halving else str(Searcher.FINISHED)
        self.suggested[trial_id] = self.waiting.pop(0)
        return self.config(self.suggested[trial_id])

    def refill(self) -> None:
        """Queue more trials; the points of a sweep that does not search are all known."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.suggested.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: what is done stands in the runs, and the rest in the sweep's folder."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""


class SeededOptuna(Queue):
    """Suggests every point that Optuna asks for once under each seed, and tells Optuna the mean over all its seeds.

    A point of which a seed failed has no such mean: Optuna learns that it failed. One that halving stopped is pruned.
    Optuna learns the results of earlier starts, and their missing points are suggested first. `say` prints a line.
    """

    def __init__(
        self,
        sweep: Sweep,
        config: Callable[[Trial], dict[str, Any]],
        say: Callable[[str], None],
        halving: Halving | None = None,
    ):
        import optuna

        self.ablation, self.say = sweep.source.ablation, say
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if higher_is_better(metric) else "minimize" for metric in self.ablation.metric
        ]
        # Another seed for every start: with the same one Optuna would suggest the points of the last start again.
        self.points = len(sweep.state.points)
        sampler = optuna.samplers.TPESampler(seed=self.ablation.search_seed * 1000 + self.points)
        self.study = optuna.create_study(directions=directions, sampler=sampler)
        self.space = {key: _distribution(dimension) for key, dimension in self.ablation.space.items()}
        self.open: dict[int, tuple[optuna.trial.Trial, list[Trial]]] = {}
        super().__init__(sweep, config, halving)

    def begin(self) -> None:
        for point in self.sweep.state.points:
            self.study.enqueue_trial({key: self._param(key, value) for key, value in point.items()})
            self._open(self.study.ask(self.space), self.sweep.trials.make(point))

    def refill(self) -> None:
        while not self.waiting and self.points < (self.ablation.trials or 0):
            self.points += 1
            self._ask()

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
        self.add(trials)
        self._tell(asked.number)

    def _value(self, key: str, param: Any) -> Any:
        dimension = self.ablation.space[key]
        return rounded(param, *dimension.bounds) if dimension.bounds else dimension.values[param]

    def _param(self, key: str, value: Any) -> Any:
        dimension = self.ablation.space[key]
        return value if dimension.bounds else dimension.values.index(value)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        super().on_trial_complete(trial_id, result, error)
        for number in list(self.open):
            self._tell(number)

    def _tell(self, number: int) -> None:
        """Tell Optuna of a point whose trials have all ended: their means, or that it was stopped or failed."""
        asked, trials = self.open[number]
        queued = self.queued()
        if any(trial in queued for trial in trials):
            return
        from optuna.trial import TrialState

        del self.open[number]
        outcomes = [self.sweep.outcome(trial) for trial in trials]
        if outcomes and all(each.state == "done" for each in outcomes):
            means = [sum(each.values[m] for each in outcomes) / len(outcomes) for m in self.ablation.metric]
            self.study.tell(asked, means)
        else:
            stopped = any(each.state == "stopped" for each in outcomes)
            self.study.tell(asked, state=TrialState.PRUNED if stopped else TrialState.FAIL)


def _distribution(dimension: Dimension) -> Any:
    """Return the dimension for Optuna, which takes plain values only: of a finite one the positions of its values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dimension.bounds:
        return FloatDistribution(*dimension.bounds, log=dimension.loguniform is not None)
    return CategoricalDistribution(range(len(dimension.values)))
