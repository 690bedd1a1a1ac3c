"""All code of the user's that a sequence runs, and by what each result of it is known: for the plan and the run's log.

One list, so that no kind of code is left out of what is said.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual.config.measured import evaluation_tasks
from continual.config.references import module_file
from continual.config.schema import Sequence
from continual.config.task_files import Function, TaskFiles, some
from continual.contract.registry import ENGINES, LOSSES, SCHEDULES
from continual.contract.source import Source
from continual.data.sources.python import PythonSource
from continual.evaluation.identity import functions_of
from continual.preflight.stages import entries
from continual.store.code import module_code, own_file

MOST_LETTERS = 300
ARGUMENTS = "the files and folders among its arguments"
OPTIONS = "the files and folders among its options"
ENGINE = "the files and folders among `generate.engine_arguments`"
KEY, CONSTANT, METADATA = "say by `version`", "change a constant there", "raise the task's `metadata.version`"
"""What makes results again whose code reads something that its files do not show."""


@dataclass(frozen=True)
class UserCode:
    """Code that is not ours.

    Attributes:
        key: Where the configuration names it.
        reference: How it names it.
        modules: The local modules that it imports or names, and the installed distributions with their versions.
        files: Other files that its code names.
        given: What else its results are known by, "" for nothing.
        fix: What to do when something else that it reads changes.
        version: The user's own, None if there is none.
    """

    key: str
    reference: str
    modules: tuple[str, ...]
    files: tuple[str, ...]
    given: str
    fix: str
    version: Any = None

    def note(self) -> str:
        """Return one sentence: by what its results are told apart, and what that leaves out."""
        what = f"the modules {'and files that it imports or names' if self.files else 'that it imports'}"
        for shown in (f"{what} ({some([*self.modules, *self.files])})", what):
            imports = shown if self.modules or self.files else "no other module"
            known = [known for known in ("its module", imports, self.given) if known]
            listed = f"{', '.join(known[:-1])} and {known[-1]}"
            text = f"`{self.reference}` is known by {listed}; {self.fix} when something else that it reads changes"
            if len(text) <= MOST_LETTERS:
                break
        return text


def user_code(sequence: Sequence) -> list[UserCode]:
    """Return the user's code in a sequence, each reference once.

    Raises ConfigurationError if one cannot be found.
    """
    found = [
        *_of_model(sequence), *_of_sources(sequence), *_of_mitigations(sequence), *_of_options(sequence),
        *_of_tasks(sequence),
    ]  # fmt: skip
    return list({(code.reference, code.fix, code.version): code for code in reversed(found)}.values())[::-1]


def notes_of_code(sequence: Sequence) -> list[str]:
    """Return a note for all of the user's code, and whatever else results come from unseen, that has no `version`."""
    notes = [code.note() for code in user_code(sequence) if code.version is None]
    stages = range(1, len(sequence.stages) + 1)
    told = [note for number in stages for _, mitigation in entries(sequence, number) for note in mitigation.notes()]
    return [*notes, *dict.fromkeys(told)]


def _read(file: str | Path, name: str, beside: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the modules and the files that the code of a module imports or names."""
    code = module_code(file, name, beside)
    packages = (f"{name} {version}" for name, version in code.get("packages", {}).items())
    return (*code.get("imports", ()), *packages), tuple(name for name, _ in code.get("files", ()))


def _function(key: str, reference: str, version: Any) -> UserCode:
    read = _read(module_file(reference, key), reference.partition(":")[0])
    return UserCode(key, reference, *read, ARGUMENTS, KEY, version)


def _definition(
    key: str, reference: str, definition: Any, given: str, fix: str, version: Any = None
) -> Iterator[UserCode]:
    """Yield a class or function that a registry has found, unless it comes with this project."""
    file = own_file(definition)
    if file is not None and not definition.__module__.startswith("baselines."):
        yield UserCode(key, reference, *_read(file, definition.__module__), given, fix, version)


def _of_model(sequence: Sequence) -> Iterator[UserCode]:
    model = sequence.model
    if model.build:
        yield _function("model.build", model.build, model.version)
        if ":" in str(model.tokenizer):
            yield _function("model.tokenizer", str(model.tokenizer), model.version)


def _of_sources(sequence: Sequence) -> Iterator[UserCode]:
    sources: list[tuple[str, Source]] = [
        (f"stages.{number}.data", stage.data) for number, stage in enumerate(sequence.stages)
    ]
    sources += [(f"evaluate.texts.{number}.data", text.data) for number, text in enumerate(sequence.evaluate.texts)]
    for number in range(1, len(sequence.stages) + 1):
        for key, mitigation in entries(sequence, number):
            sources += [(f"{key}.{name}", source) for name, source in mitigation.data_sources().items()]
    for key, source in sources:
        if isinstance(source, PythonSource):
            yield _function(key, source.function, source.version)
        kind = str(getattr(source, "type", type(source).__name__))
        yield from _definition(key, kind, type(source), "its `identity`", CONSTANT, getattr(source, "version", None))


def _of_mitigations(sequence: Sequence) -> Iterator[UserCode]:
    for number in range(1, len(sequence.stages) + 1):
        for key, mitigation in entries(sequence, number):
            version = getattr(mitigation, "version", None)
            fix = KEY if "version" in type(mitigation).model_fields else CONSTANT
            yield from _definition(key, mitigation.type, type(mitigation), OPTIONS, fix, version)
            loss = getattr(mitigation, "loss", None)
            yield from _definition(f"{key}.loss", str(loss), LOSSES.find(loss), "", CONSTANT)


def _of_options(sequence: Sequence) -> Iterator[UserCode]:
    schedule, engine = sequence.train.schedule, sequence.generate.engine
    yield from _definition("train.schedule", schedule, SCHEDULES.find(schedule), "", CONSTANT)
    yield from _definition("generate.engine", engine, ENGINES.find(engine), ENGINE, CONSTANT)


def _of_tasks(sequence: Sequence) -> Iterator[UserCode]:
    """Yield the functions of tasks that the user has written; lm-eval's own are known by its version."""
    files = TaskFiles(sequence.evaluate.include_path)
    if not files.own:
        return
    for task in evaluation_tasks(sequence):
        for function in functions_of(task.name, files):
            yield from _of_task(f"evaluate: {task.name}", function)


def _of_task(key: str, function: Function) -> Iterator[UserCode]:
    module = str(function).rpartition(".")[0]
    beside = Path(function.folder) / f"{module.replace('.', '/')}.py"
    given = "the files beside it"
    if beside.is_file():
        yield UserCode(key, f"!function {function}", *_read(beside, beside.stem, True), given, METADATA)
        return
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(module)
        if spec and spec.origin and not module.startswith("lm_eval."):
            yield UserCode(key, f"!function {function}", *_read(spec.origin, module), "", METADATA)
