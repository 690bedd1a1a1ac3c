"""Successive halving over stages: a sequence's stages are its rungs."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from continual.sweep.local import Local

STAGE, VALUE = "stage", "mean_score"
"""Keys of a report: the stage that is done, and the mean score over the tasks learned so far and `old_tasks`."""


class StageHalving(Local, FIFOScheduler):
    """ASHA (Li et al. 2018, 1810.05934) as Ray Tune's `ASHAScheduler` decides it, with every stage as a rung.

    A trial that reports after stage k is stopped if its value is below the (1 - 1/factor) quantile of what trials have
    reported after stage k before it. Ray's own scheduler has rungs at powers of the factor and keeps its thresholds to
    itself; here `stopped(trial name, stage, value, threshold)` is told, and the values of trials that ran before this
    start (`earlier`: stage, value) count as well. After its last stage there is nothing to stop.
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
        before = self.rungs.setdefault(stage, [])
        threshold = float(np.percentile(before, (1 - 1 / self.factor) * 100)) if before else None
        before.append(value)
        asked = trial.config["trial"]
        if threshold is None or value >= threshold or stage >= asked["stages"]:
            return str(TrialScheduler.CONTINUE)
        self.stopped(asked["name"], stage, value, threshold)
        return str(TrialScheduler.STOP)
