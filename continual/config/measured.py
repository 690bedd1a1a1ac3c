"""What a sequence measures: the columns of its score matrix, and what each of them counts as."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from continual.config.schema import EvaluationTask, Sequence
from continual.forgetting import FIGURES, Matrix, figures

LEAST_GAIN = 0.5
"""The part of the largest gain below which a run, or a point of a sweep, has learned little."""


@dataclass(frozen=True)
class Measured:
    """Names of what is measured: the tasks of every stage (which may be texts), the old tasks, and all texts."""

    stage_tasks: list[list[str]]
    old_tasks: list[str]
    texts: list[str]

    @classmethod
    def of(cls, sequence: Sequence) -> "Measured":
        """Return what `sequence` measures."""
        return cls.of_config(sequence.model_dump(include={"stages", "evaluate"}))

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> "Measured":
        """Return what a run measures, from its config.yaml, whose mitigations need not be installed."""
        return cls(
            [[task["name"] for task in stage["tasks"]] for stage in config["stages"]],
            [task["name"] for task in config["evaluate"]["old_tasks"]],
            [text["name"] for text in config["evaluate"]["texts"]],
        )

    @property
    def names(self) -> list[str]:
        """Everything that has a column in the score matrix, in the order of the sequence."""
        return list(dict.fromkeys([*self.earlier, *self.new, *self.old_tasks, *self.texts]))

    @property
    def new(self) -> list[str]:
        """What the last stage learns."""
        return self.stage_tasks[-1]

    @property
    def earlier(self) -> list[str]:
        """What the stages before the last one learn, each name once."""
        return list(dict.fromkeys(name for names in self.stage_tasks[:-1] for name in names))

    @property
    def old(self) -> list[str]:
        """What `forgetting_old` is the mean of: the old tasks, or without any the texts that no stage learns.

        The texts give `--max-forgetting` something to check. Both together would mix units.
        """
        return self.old_tasks or [name for name in self.texts if name not in {*self.earlier, *self.new}]


def figure_units(config: Mapping[str, Any], units: Mapping[str, str]) -> dict[str, str]:
    """Return the unit of every figure of a run with this config.yaml; `units` are those of its tasks and texts.

    A figure is left out if it has nothing to average, or if the units are unknown.
    """
    measured = Measured.of_config(config)
    learned = [*measured.earlier, *measured.new]
    averaged = {name: measured.old if name == "forgetting_old" else learned for name in FIGURES}
    found = {name: {units.get(task, "") for task in tasks} for name, tasks in averaged.items()}
    return {name: next(iter(of)) for name, of in found.items() if len(of) == 1 and of != {""}}


def gain_of(config: Mapping[str, Any], matrix: Matrix) -> float | None:
    """Return by how much the stages raised the scores of their own tasks, each in its stage; None without tasks.

    A model that learned nothing has nothing to forget: without this number, it would have the lowest forgetting.
    """
    rows = {row.stage: row.scores for row in matrix}
    stages = [(task, stage) for stage, tasks in enumerate(Measured.of_config(config).stage_tasks, 1) for task in tasks]
    if not stages or any(task not in rows.get(row, {}) for task, stage in stages for row in (0, stage)):
        return None
    return fmean(rows[stage][task].score - rows[0][task].score for task, stage in stages)


def evaluation_tasks(sequence: Sequence) -> list[EvaluationTask]:
    """Return the lm-eval tasks of all stages and the old tasks, each once, in the order of the sequence; no texts."""
    texts = {text.name for text in sequence.evaluate.texts}
    tasks = [*(task for stage in sequence.stages for task in stage.tasks), *sequence.evaluate.old_tasks]
    return list({task.name: task for task in tasks if task.name not in texts}.values())


def measured_keys(sequence: Sequence) -> list[tuple[str, str]]:
    """Return (key, name) of everything that gets a column in the score matrix. A stage may list a text as its task."""
    keys = []
    learned = {task.name for stage in sequence.stages for task in stage.tasks}
    for number, stage in enumerate(sequence.stages):
        keys += [(f"stages.{number}.tasks.{i}", task.name) for i, task in enumerate(stage.tasks)]
    keys += [(f"evaluate.old_tasks.{i}", task.name) for i, task in enumerate(sequence.evaluate.old_tasks)]
    texts = [(f"evaluate.texts.{i}", text.name) for i, text in enumerate(sequence.evaluate.texts)]
    return keys + [(key, name) for key, name in texts if name not in learned]


def figures_of(sequence: Sequence, matrix: Matrix, outcomes: Mapping[tuple[int, str], Any] = {}) -> dict[str, Any]:
    """Return forgetting and the other figures (see `continual.forgetting`) of the stages scored so far.

    `outcomes`: what is known of the documents behind the scores, for the errors.
    """
    names = Measured.of(sequence)
    return figures(matrix, names.stage_tasks, names.old, outcomes)
