"""What lm-eval will report for tasks, told from their YAML without its data. Imports lm-eval, but not torch.

Groups are built and aggregated by lm-eval's own code over made-up numbers. What Python of a task computes (its class or
`process_results`) cannot be told.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, is_higher_better, metric_registry
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.task import TaskConfig
from lm_eval.evaluator_utils import EvalAcc, aggregate_groups
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry, Kind, TaskIndex

from continual.config.task_files import Function, TaskFiles
from continual.errors import ConfigurationError, one_line
from continual.evaluation.harness import quiet
from continual.evaluation.task_data import check_data, check_functions, hub_data
from continual.evaluation.task_fields import check_fields

REPORTED = {
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "multiple_choice": (
        "acc", "f1", "mcc", "acc_norm", "acc_bytes", "exact_match", "brier_score", "likelihood", "acc_mutual_info",
    ),
}  # fmt: skip
"""The metrics that lm-eval computes by the kind of output (lm-eval 0.4.13, `ConfigurableTask.process_results`); of text
that is generated it computes all that are listed."""


@dataclass(frozen=True)
class Prediction:
    """What lm-eval will report: like its `results`, `higher_is_better` and `group_subtasks`, by name.

    `uncertain` are the tasks, and the groups with such a task, of which Python of their own decides that. `data` are
    the hub ids of data sets that are to be fetched.
    """

    results: Mapping[str, Mapping[str, Any]]
    higher_is_better: Mapping[str, Mapping[str, bool | None]]
    members: Mapping[str, list[str]]
    uncertain: frozenset[str]
    data: tuple[str, ...]


class _Task(ConfigurableTask):
    """A task without its data."""

    def __init__(self, config: dict[str, Any], file: str):
        self.file, self.own_class = file, "class" in config
        if not self.own_class:
            check_fields(file, config)
        try:
            # A class may take keys that no other task has.
            self._config = TaskConfig(task=config["task"]) if self.own_class else TaskConfig(**config)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                file, f"lm-eval refuses the task: {one_line(error)}", "correct the YAML"
            ) from error
        if not self.own_class:
            check_data(file, self._config)

    @property
    def task_name(self) -> str:
        return str(self.config.task)


class _Factory(TaskFactory):
    """lm-eval's factory of groups, with tasks that have no data. `files` are the files of the entries."""

    def __init__(self, files: Mapping[str, str]):
        super().__init__()
        self.files = files

    def _build_task(self, entry: Entry, overrides: dict[str, Any] | None) -> _Task:
        config = self._load_full_config(entry, overrides)
        for key in ("tag", "group", "task_list"):
            config.pop(key, None)
        return _Task(config, self.files[entry.name])


def predict(places: Mapping[str, str], include_path: str | None) -> Prediction:
    """Return what lm-eval will report for tasks and groups; `places`: their keys in the configuration.

    Raises ConfigurationError for a task that lm-eval cannot load.
    """
    with quiet():
        return _predict(places, TaskFiles(include_path))


def _predict(places: Mapping[str, str], known: TaskFiles) -> Prediction:
    registry, files = _registry(places, known)
    factory, built = _Factory(files), {}
    for name, key in places.items():
        try:
            built[name] = factory.build(registry[name], overrides=None, registry=registry)
        except ConfigurationError as error:
            raise _at(key, name, error) from error
        except Exception as error:
            problem = f"lm-eval cannot load `{name}` of {files[name]}: {one_line(error)}"
            raise ConfigurationError(key, problem, "correct its YAML") from error
    _check_once(places, built)
    found = _Loaded().load(list(built.values()))
    metrics: dict[str, Any] = {}
    higher: dict[str, dict[str, bool | None]] = {}
    uncertain = set()
    for name, task in found["tasks"].items():
        key = next(place for owner, place in places.items() if name == owner or _holds(built[owner], name))
        listed, higher[name], certain = _metrics(task)
        metrics[name] = {f"{metric},{kind}": 0.0 for kind in _filters(key, task) for metric in listed}
        metrics[name] |= {"name": name, "alias": name, "sample_len": 1}
        if not certain:
            uncertain.add(name)
    groups = found.get("groups", {})
    uncertain |= {name for name, group in groups.items() if uncertain & {t.task_name for t in group.get_all_tasks()}}
    results: Any = aggregate_groups(EvalAcc(metrics=metrics, higher_is_better=higher, groups=groups))._to_eval_results()
    fetched = dict.fromkeys(data for task in found["tasks"].values() if (data := hub_data(task.config)))
    return Prediction(
        results=results["results"],
        higher_is_better=results["higher_is_better"],
        members=results["group_subtasks"],
        uncertain=frozenset(uncertain),
        data=tuple(fetched),
    )


class _Loaded(TaskManager):
    """lm-eval's manager without an index: it is given what is built already."""

    def __init__(self) -> None:
        pass


def _at(key: str, name: str, error: ConfigurationError) -> ConfigurationError:
    """Return an error about a file of task `name` as one at the key that names the task."""
    place = f"{error.key}: " if error.key else ""
    return ConfigurationError(key, f"`{name}` cannot be evaluated: {place}{error.problem}", error.fix)


def _registry(places: Mapping[str, str], files: TaskFiles) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return lm-eval's entries of the names and of all members of groups among them, and the files of the entries."""
    registry: dict[str, Entry] = {}
    members: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    for owner, key in places.items():
        waiting = [owner]
        while waiting:
            name = waiting.pop()
            if name in registry:
                continue
            try:
                registry[name], sources[name] = _entry(name, files)
                members[name] = _members(registry[name], sources[name], registry, sources, files)
                _refuse_endless(name, sources[name], members)
            except ConfigurationError as error:
                raise _at(key, owner, error) from error
            waiting += members[name]
    return registry, sources


def _refuse_endless(name: str, file: str, members: Mapping[str, list[str]]) -> None:
    """Refuse a group that is a member of itself, also of a group within it."""
    seen: set[str] = set()
    waiting = list(members[name])
    while waiting:
        member = waiting.pop()
        if member == name:
            raise ConfigurationError(file, f"the group `{name}` contains itself", "remove it from the list `task`")
        if member not in seen:
            seen.add(member)
            waiting += members.get(member, [])


def _entry(name: str, files: TaskFiles) -> tuple[Entry, str]:
    found = files.find(name)
    if found is None:
        raise ConfigurationError("", f"there is no task `{name}`", "correct the group's list")
    if found.kind == "tag":
        members = files.members(name)
        return Entry(name=name, kind=Kind.TAG, yaml_path=None, tags=set(members)), found.places[0]
    file = found.places[0]
    if len(found.places) > 1 and file in {place for own in files.own.values() for place in own.places}:
        problem = f"`{name}` is defined again in {found.places[1]}, which lm-eval leaves out"
        raise ConfigurationError(file, problem, "give one of them another name")
    config = files.read(file)
    check_functions(file, config)
    return Entry(name=name, kind=TaskIndex._kind_of(config), yaml_path=None, cfg=config), file


def _members(
    entry: Entry, file: str, registry: dict[str, Entry], sources: dict[str, str], files: TaskFiles
) -> list[str]:
    """Return the names that a group or tag lists; enter the tasks that a group itself defines into the registry."""
    if entry.kind == Kind.TAG:
        return sorted(entry.tags)
    if entry.kind == Kind.GROUP and not (entry.cfg or {}).get("task"):
        raise ConfigurationError(file, f"the group `{entry.name}` has no tasks", "list them below `task`")
    names = []
    for item in _listed(entry.cfg if entry.kind == Kind.GROUP else None):
        name = item if isinstance(item, str) else str(item.get("task"))
        if isinstance(item, dict) and ("dataset_path" in item or "include" in item) and files.find(name) is None:
            registry[name] = Entry(name=name, kind=Kind.TASK, yaml_path=None, cfg=dict(item))
            sources[name] = file
        else:
            names.append(name)
    return names


def _listed(config: Any) -> Iterator[Any]:
    """Yield what a group lists, also in groups that are written inside it."""
    listed = config.get("task") if isinstance(config, dict) else None
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and "group" in item:
            yield from _listed(item)
            if not isinstance(item.get("task"), list):
                yield str(item["group"])
        else:
            yield item


def _check_once(places: Mapping[str, str], built: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a task that is measured by two names: lm-eval refuses that."""
    seen: dict[str, str] = {}
    for owner, item in built.items():
        tasks = [item] if isinstance(item, _Task) else item.get_all_tasks()
        for task in tasks:
            other = seen.setdefault(task.task_name, owner)
            if other != owner:
                problem = f"`{task.task_name}` is measured by `{other}` and by `{owner}`, and lm-eval runs it once"
                raise ConfigurationError(places[owner], problem, "remove one of them")


def _holds(item: Any, name: str) -> bool:
    return not isinstance(item, _Task) and any(task.task_name == name for task in item.get_all_tasks())


def _metrics(task: _Task) -> tuple[list[str], dict[str, bool | None], bool]:
    """Return the metrics that a task reports, whether more of each is better, and whether that is certain."""
    config = task.config
    if task.own_class:
        return [], {}, False
    kind = config.output_type
    listed = config.metric_list
    entries = [{"metric": name} for name in DEFAULT_METRIC_REGISTRY[kind]] if listed is None else listed
    higher: dict[str, bool | None] = {}
    certain = config.process_results is None
    for entry in entries:
        metric = str(entry["metric"])
        if isinstance(entry["metric"], Function):
            metric, certain = metric.rpartition(".")[2], False
        elif kind == "generate_until" and metric not in metric_registry:
            certain = False  # a metric of Hugging Face's `evaluate`, which may report several
        higher[metric] = entry.get("higher_is_better", is_higher_better(metric))
    computed = REPORTED.get(kind) if config.process_results is None else None
    return [name for name in computed or higher if name in higher], higher, certain


def _filters(key: str, task: _Task) -> list[str]:
    """Return the names of a task's filters."""
    if task.own_class or task.config.filter_list is None:
        return ["none"]
    try:
        for entry in task.config.filter_list:
            steps = [[step["function"], {k: v for k, v in step.items() if k != "function"}] for step in entry["filter"]]
            if not any(isinstance(step[0], Function) for step in steps):
                for make in build_filter_ensemble(entry["name"], steps).filters:
                    make()
    except Exception as error:
        problem = f"a filter of `{task.task_name}` cannot be made: {type(error).__name__}: {one_line(error)}"
        raise ConfigurationError(key, problem, f"correct `filter_list` in {task.file}") from error
    return [str(entry["name"]) for entry in task.config.filter_list]
