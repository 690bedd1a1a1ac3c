"""Checks of what is measured: every task exists, has one column of scores, and shares its mean's unit."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from continual.config.measured import Measured, evaluation_tasks, measured_keys
from continual.config.paths import offline
from continual.config.schema import EvaluationTask, Sequence
from continual.config.task_files import TaskFiles, some
from continual.errors import ConfigurationError
from continual.errors.suggest import nearest
from continual.evaluation.names import TEXT_UNIT, Choice, choose, directions, unit
from continual.forgetting import DEFAULT, MEAN_LOSSES, limits_by_name
from continual.preflight.check_data import check_source
from continual.preflight.stages import entries
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
    check_units(_of_stages(sequence), texts)
    check_units([("evaluate.old_tasks", task) for task in evaluate.old_tasks], texts)
    stages = range(1, len(sequence.stages) + 1)
    replayed = {mitigation.label for stage in stages for _, mitigation in entries(sequence, stage)}
    for number, text in enumerate(evaluate.texts):
        if text.drift and text.name in replayed:
            problem = f"the drift on a text and that on a mitigation's rows would both be `drift/{text.name}`"
            raise ConfigurationError(f"evaluate.texts.{number}.name", problem, "give the text another name")
        chat = tokenizer.chat_template if tokenizer else None
        notes += check_source(f"evaluate.texts.{number}.data", text.data, chat)
    check_limits(sequence)
    files = TaskFiles(evaluate.include_path)
    files.check_bounds()
    files.check_names()
    for name in places:
        if name not in texts and files.find(name) is None:
            if path := files.unread(name):
                problem = f"`{name}` is defined in {path}, and lm-eval reads `*.yaml` only"
                raise ConfigurationError(places[name], problem, "rename the file")
            other = "name one of lm-eval's tasks, or give your task's folder as `evaluate.include_path`"
            fix = f"did you mean `{near}`?" if (near := files.near(name)) else other
            raise ConfigurationError(places[name], f"there is no evaluation task `{name}`", fix)
    return notes


def check_limits(sequence: Sequence, default: float | None = None) -> None:
    """Raise ConfigurationError for a limit of forgetting that nothing can exceed, or that has two units.

    `default`: that of the command line.
    """
    _check_limits("evaluate.max_forgetting", sequence.evaluate.max_forgetting or {}, default, Measured.of(sequence))


def check_own_limits(key: str, written: Mapping[str, float], sequence: Sequence) -> None:
    """Raise ConfigurationError for limits of a mitigation at `key`, also where nothing that they name can be lost."""
    measured, key = Measured.of(sequence), f"{key}.max_forgetting"
    _check_limits(key, written, None, measured)
    can_be_lost = {"forgetting": measured.earlier, "forgetting_old": measured.old}
    if written and not any(can_be_lost.get(name, [name]) for name in limits_by_name(written)):
        problem = "nothing is measured that could be lost"
        raise ConfigurationError(key, problem, "name tasks of the stages, or `evaluate.old_tasks` or `evaluate.texts`")


def _check_limits(key: str, written: Mapping[str, float], default: float | None, measured: Measured) -> None:
    known = {DEFAULT, *MEAN_LOSSES, *measured.names}
    for name in written:
        if name not in known:
            near = nearest(name, known)
            fix = f"did you mean `{near}`?" if near else f"name one of {some(sorted(known))}"
            raise ConfigurationError(f"{key}.{name}", "nothing of this name is measured", fix)
    one_limit = (default is not None or DEFAULT in written) and not set(MEAN_LOSSES) & written.keys()
    texts = set(measured.texts)
    if one_limit and measured.earlier and measured.old:
        learned, old = (set(names) <= texts for names in (measured.earlier, measured.old))
        if learned != old:
            problem = f"`forgetting` and `forgetting_old` have two units, one of them {TEXT_UNIT}"
            fix = f"give each its own limit, `{key}: {{forgetting: 0.05, forgetting_old: 0.1}}`"
            raise ConfigurationError(key if default is None else "--max-forgetting", problem, fix)


def check_metrics(sequence: Sequence) -> list[str]:
    """Return notes. Raise ConfigurationError for a task that lm-eval cannot load, or that has no score of its own.

    Imports lm-eval, which takes about a second. What lm-eval will report is told from the YAML of the tasks, and the
    score is chosen among that as the run chooses it.
    """
    tasks = evaluation_tasks(sequence)
    if not tasks:
        return []
    from continual.evaluation.predict import predict
    from continual.evaluation.task_data import is_cached

    places = _places(sequence)
    predicted = predict({task.name: places[task.name] for task in tasks}, sequence.evaluate.include_path)
    choices = {}
    for task in tasks:
        if task.name in predicted.uncertain:
            continue
        reported = predicted.results.get(task.name, {})
        higher = directions(task.name, predicted.higher_is_better, predicted.members)
        try:
            members = predicted.members.get(task.name, [])
            choices[task.name] = choose(task.name, reported, higher, task.metric, task.filter, members)
        except ConfigurationError as error:
            raise ConfigurationError(places[task.name], error.problem, error.fix) from error
    texts = {text.name for text in sequence.evaluate.texts}
    check_units(_of_stages(sequence), texts, choices)
    check_units([("evaluate.old_tasks", task) for task in sequence.evaluate.old_tasks], texts, choices)
    unknown = [task.name for task in tasks if task.name in predicted.uncertain]
    when = "it is checked when the start model is scored"
    notes = [f"Python of the task decides what lm-eval reports for {some(unknown)}: {when}"] if unknown else []
    if offline() and (missing := [name for name in predicted.data if not is_cached(name)]):
        notes.append(f"HF_HUB_OFFLINE is set, and the cache lacks data that evaluation reads: {some(missing)}")
    return notes


def _of_stages(sequence: Sequence) -> list[tuple[str, EvaluationTask]]:
    return [(f"stages.{number}.tasks", task) for number, stage in enumerate(sequence.stages) for task in stage.tasks]


def check_units(
    tasks: list[tuple[str, EvaluationTask]],
    texts: Collection[str] = (),
    choices: Mapping[str, Choice] = MappingProxyType({}),
) -> None:
    """Raise ConfigurationError if the tasks of a mean, each with its key, are scored in different units.

    Args:
        tasks: The tasks, each with its key.
        texts: Names of tasks that are texts.
        choices: What scores a task. One that is not there and for which the YAML names no metric is left to the
            scores of the start model.
    """
    first: tuple[str, str] | None = None
    for key, task in tasks:
        if task.name not in texts and task.metric is None and task.name not in choices:
            continue
        chosen = choices.get(task.name)
        task_unit = TEXT_UNIT if task.name in texts else chosen.unit if chosen else unit(str(task.metric))
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
