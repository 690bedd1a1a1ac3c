"""The figures after any stage of one matrix, with what is known of their errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from continual.forgetting.combination import Cell, Combination, difference, mean, mean_error, mean_of
from continual.forgetting.score import Score
from continual.forgetting.significance import Z95, fallen, holm, one_sided

FIGURES = (
    "average_score",
    "forgetting",
    "forgetting_old",
    "backward_transfer",
    "forward_transfer",
    "learning_accuracy",
)
"""Names of the figures that are a single number."""


@dataclass(frozen=True)
class Lost:
    """What a task lost.

    `corrected`: without the bias of the maximum; None where the documents' outcomes are unknown, or too few.
    `since`: the stage from which on its best score counts.
    """

    since: int
    value: float
    stderr: float | None
    corrected: float | None
    corrected_stderr: float | None

    @property
    def best_guess(self) -> tuple[float, float | None]:
        """The corrected loss and its error; without one, the loss as it is."""
        if self.corrected is None:
            return self.value, self.stderr
        return self.corrected, self.corrected_stderr


class Reader:
    """The figures of one matrix after any of its stages."""

    def __init__(
        self,
        scores: Mapping[Cell, Score],
        tasks: list[str],
        learned: Mapping[str, int],
        old: list[str],
        paired: Mapping[str, Any],
    ):
        """`learned`: the first stage (1-based) that learns a task; `old`: tasks that the start model knows.

        `paired`: a `Paired` for each task whose documents are known in all stages.
        """
        self.scores, self.tasks, self.learned, self.old, self.paired = scores, tasks, learned, old, paired
        self._lost: dict[tuple[str, int, int], Lost] = {}

    def lost(self, task: str, stage: int, since: int) -> Lost | None:
        """Return the best of R[since..stage-1, task] (the first, if equal) minus R[stage, task]."""
        if stage <= since:
            return None
        # Several figures ask for it, and the bootstrap takes milliseconds.
        if (task, stage, since) not in self._lost:
            self._lost[task, stage, since] = self._measured_loss(task, stage, since)
        return self._lost[task, stage, since]

    def _measured_loss(self, task: str, stage: int, since: int) -> Lost:
        if task in self.paired:
            loss = self.paired[task].loss(since, stage)
            return Lost(since, loss.value, loss.stderr, loss.corrected, loss.corrected_stderr)
        best = max(range(since, stage), key=lambda k: (self.scores[k, task].score, -k))
        combination = difference((best, task), (stage, task))
        return Lost(since, combination.value(self.scores), combination.stderr(self.scores, {}), None, None)

    def combinations(self, stage: int) -> dict[str, Combination | None]:
        """Return the single-number figures after `stage` in which no maximum is."""
        learned = {task: first for task, first in self.learned.items() if first <= stage}
        earlier = {task: first for task, first in learned.items() if first < stage}
        return {
            "average_score": mean(Combination({(stage, task): 1.0}) for task in learned),
            "backward_transfer": mean(difference((stage, task), (first, task)) for task, first in earlier.items()),
            # Nothing is learned before the first stage that could transfer, so its tasks do not count.
            "forward_transfer": mean(difference((k - 1, task), (0, task)) for task, k in learned.items() if k > 1),
            "learning_accuracy": mean(Combination({(first, task): 1.0}) for task, first in learned.items()),
        }

    def losses(self, stage: int) -> dict[str, list[Lost]]:
        """Return what `forgetting` and `forgetting_old` are the means of."""
        earlier = {task: first for task, first in self.learned.items() if first < stage}
        return {
            "forgetting": [lost for task, first in earlier.items() if (lost := self.lost(task, stage, first))],
            "forgetting_old": [lost for task in self.old if (lost := self.lost(task, stage, 0))],
        }

    def by_task(self, stage: int) -> dict[str, Lost | None]:
        """Return what is lost of every task: since it was learned, or since stage 0 if no stage learns it.

        A task that is learned by a stage and is an old task as well counts as old here.
        """
        since = {task: 0 if task in self.old else self.learned.get(task, 0) for task in self.tasks}
        return {task: self.lost(task, stage, since[task]) for task in self.tasks}

    def p_values(self, stage: int) -> dict[str, float | None]:
        """Return for every task how probable its loss is if nothing is lost, after Holm's correction for all tasks.

        The loss is that since the task was learned; before that, and of other tasks, since stage 0.
        """
        learned = {task: first for task, first in self.learned.items() if first < stage and task not in self.old}
        lost = {task: self.lost(task, stage, learned.get(task, 0)) for task in self.tasks}
        return holm({task: one_sided(*loss.best_guess) if loss else None for task, loss in lost.items()})

    def after(self, stage: int) -> dict[str, Any]:
        """Return all figures after `stage`, and what is known of their errors in the same shape."""
        linear, losses, by_task = self.combinations(stage), self.losses(stage), self.by_task(stage)
        values: dict[str, Any] = {name: c and c.value(self.scores) for name, c in linear.items()}
        errors: dict[str, Any] = {name: c and c.stderr(self.scores, self.paired) for name, c in linear.items()}
        guesses = {name: (values[name], errors[name]) for name in linear}
        corrected: dict[str, Any] = {}
        for name, lost in losses.items():
            values[name] = mean_of([one.value for one in lost])
            errors[name] = mean_error([one.stderr for one in lost])
            corrected[name] = mean_of([one.corrected for one in lost])
            guesses[name] = (
                mean_of([one.best_guess[0] for one in lost]), mean_error([one.best_guess[1] for one in lost])
            )  # fmt: skip
        intervals: dict[str, Any] = {name: interval(*guess) for name, guess in guesses.items()}
        values["forgetting_by_task"] = {task: lost and lost.value for task, lost in by_task.items()}
        errors["forgetting_by_task"] = {task: lost and lost.stderr for task, lost in by_task.items()}
        corrected["forgetting_by_task"] = {task: lost and lost.corrected for task, lost in by_task.items()}
        intervals["forgetting_by_task"] = {
            task: interval(*lost.best_guess) if lost else None for task, lost in by_task.items()
        }
        shares = {
            task: self.paired[task].forgotten(lost.since, stage) if lost and task in self.paired else None
            for task, lost in by_task.items()
        }
        return {
            **{name: values[name] for name in (*FIGURES, "forgetting_by_task")},
            "stderr": {name: errors[name] for name in (*FIGURES, "forgetting_by_task")},
            "corrected": corrected,
            "interval": {name: intervals[name] for name in (*FIGURES, "forgetting_by_task")},
            "forgotten": {task: both[0] for task, both in shares.items() if both},
            "gained": {task: both[1] for task, both in shares.items() if both},
            "p_value": (p_values := self.p_values(stage)),
            "fell": fallen(p_values),
            "paired": sorted(self.paired),
        }


def interval(value: float | None, error: float | None) -> list[float] | None:
    """Return the ends of the 95 % interval."""
    return None if value is None or error is None else [value - Z95 * error, value + Z95 * error]
