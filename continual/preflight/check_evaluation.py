"""Checks of what is measured: every task exists and has one name and one place."""

from pathlib import Path

from continual.config.paths import CORRECT_PATH
from continual.config.schema import EvaluationTask, Sequence
from continual.errors import ConfigurationError
from continual.preflight.check_data import check_source
from continual.preflight.tokenizer_facts import TokenizerFacts

SHARES = ("acc", "acc_norm", "acc_mutual_info", "exact_match", "f1", "mcc", "em", "brier_score")
UNITS = {
    **dict.fromkeys(SHARES, "shares of 1"),
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity"), "perplexity"),
    "bits_per_byte": "bits per byte",
    **dict.fromkeys(("bleu", "chrf", "ter"), "points of 100"),
}
"""Units of lm-eval's metrics, of those that are known: scores in different ones have no mean."""


def measured(sequence: Sequence) -> list[tuple[str, str]]:
    """(key, name) of everything that gets a column in the score matrix. A stage may list a text as its task."""
    found = []
    learned = {task.name for stage in sequence.stages for task in stage.tasks}
    for number, stage in enumerate(sequence.stages):
        found += [(f"stages.{number}.tasks.{at}", task.name) for at, task in enumerate(stage.tasks)]
    found += [(f"evaluate.old_tasks.{at}", task.name) for at, task in enumerate(sequence.evaluate.old_tasks)]
    texts = [(f"evaluate.texts.{at}", text.name) for at, text in enumerate(sequence.evaluate.texts)]
    return found + [(key, name) for key, name in texts if name not in learned]


def check_evaluation(sequence: Sequence, tokenizer: TokenizerFacts | None) -> list[str]:
    """Notes. Raises ConfigurationError for a measurement that cannot be made or would mean nothing."""
    evaluate = sequence.evaluate
    places = _places(sequence)
    notes = []
    if not places:
        if evaluate.every:
            problem = "there is nothing to evaluate: no stage has `tasks`, and there are no `old_tasks` or `texts`"
            raise ConfigurationError("evaluate.every", problem, "name tasks or remove the key")
        notes.append("nothing is measured: no stage has `tasks`, and there are no `evaluate.old_tasks` or `texts`")
    _check_units([(f"stages.{n}.tasks", task) for n, stage in enumerate(sequence.stages) for task in stage.tasks])
    _check_units([("evaluate.old_tasks", task) for task in evaluate.old_tasks])
    for number, text in enumerate(evaluate.texts):
        chat = tokenizer.chat_template if tokenizer else None
        notes += check_source(f"evaluate.texts.{number}.data", text.data, chat)
    if evaluate.include_path is not None and not Path(evaluate.include_path).is_dir():
        raise ConfigurationError("evaluate.include_path", f"there is no folder {evaluate.include_path}", CORRECT_PATH)
    _check_known(sequence, places)
    return notes


def _places(sequence: Sequence) -> dict[str, str]:
    """The key where each name is measured first.

    A later stage may list a task again, which then counts as learned at the first one. Raises ConfigurationError for a
    name that stands twice otherwise, or with another metric: every name has one column of scores.
    """
    places: dict[str, str] = {}
    options = {task.name: task for stage in sequence.stages for task in stage.tasks}
    for key, name in measured(sequence):
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


def _check_known(sequence: Sequence, places: dict[str, str]) -> None:
    """Every lm-eval task is in its registry or below `include_path`."""
    texts = {text.name for text in sequence.evaluate.texts}
    names = [name for name in places if name not in texts]
    if not names:
        return
    from continual.evaluation.check import unknown_tasks

    for name, near in unknown_tasks(names, sequence.evaluate.include_path):
        fix = (
            f"did you mean `{near}`?"
            if near
            else "name one of lm-eval's, or give its folder as `evaluate.include_path`"
        )
        raise ConfigurationError(places[name], f"there is no evaluation task `{name}`", fix)


def _check_units(tasks: list[tuple[str, EvaluationTask]]) -> None:
    known = [(key, task, UNITS[task.metric]) for key, task in tasks if task.metric in UNITS]
    for key, task, unit in known[1:]:
        if unit != known[0][2]:
            problem = f"`{task.name}` is in {unit} and `{known[0][1].name}` in {known[0][2]}: mixed units have no mean"
            raise ConfigurationError(key, problem, "choose metrics of one unit")
