"""Checks of what is measured: every task exists, has one column of scores, and shares its mean's unit."""

from collections.abc import Collection
from pathlib import Path

from continual.config.measured import measured_keys
from continual.config.paths import CORRECT_PATH
from continual.config.schema import EvaluationTask, Sequence
from continual.errors import ConfigurationError
from continual.evaluation.check import unknown_tasks
from continual.evaluation.names import TEXT_UNIT, unit
from continual.preflight.check_data import check_source
from continual.preflight.tokenizer_facts import TokenizerFacts


def check_evaluation(sequence: Sequence, tokenizer: TokenizerFacts | None) -> list[str]:
    """Return notes. Raise ConfigurationError for a measurement that cannot be made or has no meaning."""
    evaluate = sequence.evaluate
    places = _places(sequence)
    notes = []
    if not places:
        if evaluate.every:
            problem = "there is nothing to evaluate: no stage has `tasks`, and there are no `old_tasks` or `texts`"
            raise ConfigurationError("evaluate.every", problem, "name tasks or remove the key")
        notes.append("nothing is measured: no stage has `tasks`, and there are no `evaluate.old_tasks` or `texts`")
    texts = {text.name for text in evaluate.texts}
    check_units([(f"stages.{n}.tasks", t) for n, stage in enumerate(sequence.stages) for t in stage.tasks], texts)
    check_units([("evaluate.old_tasks", task) for task in evaluate.old_tasks], texts)
    for number, text in enumerate(evaluate.texts):
        chat = tokenizer.chat_template if tokenizer else None
        notes += check_source(f"evaluate.texts.{number}.data", text.data, chat)
    if evaluate.include_path is not None and not Path(evaluate.include_path).is_dir():
        raise ConfigurationError("evaluate.include_path", f"there is no folder {evaluate.include_path}", CORRECT_PATH)
    for name, near in unknown_tasks([name for name in places if name not in texts], evaluate.include_path):
        other = "name one of lm-eval's tasks, or give your task's folder as `evaluate.include_path`"
        fix = f"did you mean `{near}`?" if near else other
        raise ConfigurationError(places[name], f"there is no evaluation task `{name}`", fix)
    return notes


def check_units(tasks: list[tuple[str, EvaluationTask]], texts: Collection[str] = ()) -> None:
    """Raise ConfigurationError if the tasks of a mean, each with its key, are scored in different units.

    Only lm-eval knows the metric of a task for which the YAML names none: its unit is checked when the start model is
    scored. `texts` are the names of tasks that are texts.
    """
    first: tuple[str, str] | None = None
    for key, task in tasks:
        if task.name not in texts and task.metric is None:
            continue
        task_unit = TEXT_UNIT if task.name in texts else unit(str(task.metric))
        first = first or (task.name, task_unit)
        if task_unit != first[1]:
            problem = f"`{task.name}` is scored in {task_unit} and `{first[0]}` in {first[1]}: a mean would mix units"
            raise ConfigurationError(key, problem, "choose metrics of one unit")


def _places(sequence: Sequence) -> dict[str, str]:
    """Return the key under which each name is measured first.

    A later stage may list a task again; it counts as learned in the first. Raise ConfigurationError for any other name
    that is listed twice, or again with another metric: a name has one column of scores.
    """
    places: dict[str, str] = {}
    options = {task.name: task for stage in sequence.stages for task in stage.tasks}
    for key, name in measured_keys(sequence):
        first = places.setdefault(name, key)
        if first == key:
            continue
        again = first.startswith("stages.") and key.startswith("stages.") and first.split(".")[1] != key.split(".")[1]
        same = all(task == options[name] for stage in sequence.stages for task in stage.tasks if task.name == name)
        if not again or not same:
            how = " with other options" if again else ""
            problem = f"`{name}` is measured at {first} already{how}, and a name has one column of scores"
            raise ConfigurationError(key, problem, "remove one of them")
    return places
