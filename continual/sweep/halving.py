"""Successive halving of points: which go on after a stage, decided by the mean over all their seeds. Torch-free."""

import math
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from continual.config.measured import Measured
from continual.config.schema import Sequence
from continual.store.files import digest
from continual.sweep.state import State, Stopped
from continual.sweep.trials import Trial

Verdict = Literal["continue", "wait", "stop"]
LEARNS = ("average_score", "learning_accuracy")
"""The figures by which points may be halved: the others are best for a model that learned nothing."""
MEAN_SCORE = "mean score"
"""The mean over the tasks learned so far and `old_tasks`; decides where no metric of the sweep can."""


def judge(sequence: Sequence, metrics: Iterable[str], stage: int) -> str | None:
    """Return what points are halved by after `stage`: the first of `metrics` that may decide there, else MEAN_SCORE.

    A metric may decide where it exists and rewards learning: `average_score`, `learning_accuracy`, and the score of a
    task that was learned by then. None before anything is learned: then no point is stopped.
    """
    learned = {name for names in Measured.of(sequence).stage_tasks[:stage] for name in names}
    if not learned:
        return None
    return next((metric for metric in metrics if metric in LEARNS or metric in learned), MEAN_SCORE)


class Halving:
    """ASHA (Li et al. 2018, 1810.05934) over points, with every stage as a rung.

    A point's value at a rung is the mean over all its seeds, so it is judged once the last of them has done the stage;
    the others wait. It is stopped, with all its seeds, if its value is below the (1 - 1/factor) quantile of the values
    of the points that were judged there before. No point is stopped after its last stage. Verdicts are kept in the
    sweep's state in their order, so that a resume repeats them.

    `values(trial)` are the values of the stages that a trial has done, by stage, and `judged_by(trial, stage)` names
    them (`judge`).
    """

    def __init__(
        self,
        factor: float,
        state: State,
        seeds: Callable[[Trial], list[Trial]],
        values: Callable[[Trial], dict[int, float]],
        judged_by: Callable[[Trial, int], str | None],
    ):
        self.factor, self.state = factor, state
        self._seeds, self._values, self._judged_by = seeds, values, judged_by
        self.waiting: dict[str, Trial] = {}

    def decide(self, trial: Trial, stage: int) -> Verdict:
        """Return what becomes of a trial that has done `stage`, and judge its point if it was the last one."""
        name = self._judged_by(trial, stage)
        if name is None:
            return "continue"
        rung = self.state.rungs.setdefault(f"{name} after stage {stage}", {})
        point = digest(trial.point)
        if point not in rung:
            values = [self._values(each).get(stage) for each in self._seeds(trial)]
            known = [value for value in values if value is not None]
            if len(known) < len(values):
                return self._wait(trial) if stage < trial.stages else "continue"
            self._judge(trial, Stopped(stage, math.fsum(known) / len(known), -math.inf, name, len(known)), rung)
        return "stop" if trial.name in self.state.stopped else "continue"

    def _wait(self, trial: Trial) -> Verdict:
        self.waiting[trial.name] = trial
        return "wait"

    def _judge(self, trial: Trial, verdict: Stopped, rung: dict[str, float]) -> None:
        """Put a point's value into the rung, and stop its trials if it is too low; NaN is below everything."""
        others = [value for value in rung.values() if math.isfinite(value)]
        threshold = float(np.percentile(others, (1 - 1 / self.factor) * 100)) if others else -math.inf
        rung[digest(trial.point)] = verdict.value
        if verdict.stage < trial.stages and others and not verdict.value >= threshold:
            for each in self._seeds(trial):
                self.waiting.pop(each.name, None)
                self.state.stopped[each.name] = verdict.below(threshold)
        self.state.save()

    def resume(self, trials: Iterable[Trial]) -> None:
        """Judge what a killed start left open, and let the trials wait that had done a rung before their other seeds.

        `trials` are those that are neither done nor stopped.
        """
        for trial in trials:
            for stage in sorted(self._values(trial)):
                if trial.name not in self.state.stopped and self.decide(trial, stage) == "wait":
                    break

    def released(self) -> list[Trial]:
        """Take and return the waiting trials whose point has been judged since, and continues."""
        ready = [trial for trial in self.waiting.values() if self._judged(trial)]
        for trial in ready:
            del self.waiting[trial.name]
        return ready

    def _judged(self, trial: Trial) -> bool:
        stage = max(self._values(trial))
        return digest(trial.point) in self.state.rungs.get(f"{self._judged_by(trial, stage)} after stage {stage}", {})
