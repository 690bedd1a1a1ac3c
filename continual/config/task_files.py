"""The files that define lm-eval tasks: found by name, read as lm-eval reads them. Imports no lm-eval.

lm-eval's own index parses 14,000 YAML files in six seconds. The names are values of unindented keys, so a scan of the
files' bytes finds them in 0.3 s, and much sooner if the folders named like the task are enough.
"""

import functools
import io
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml

from continual.config.paths import CORRECT_PATH
from continual.config.yaml_text import OutOfBounds, load_bounded
from continual.errors import ConfigurationError, nearest
from continual.errors.bounded import check_size
from continual.errors.json_text import TooMuch, read_bytes

KEY = re.compile(rb"^[\"']?(task|group|tag)[\"']?:[ \t]*([^\n]*(?:\n[ \t]*-[^\n]*)*)", re.MULTILINE)
"""A key that names a task, a group or tags, with the rest of its line and the list below it."""
WORD = re.compile(rb"[\w.:+/@][\w.:+/@-]*")
NO_TASKS = (".py", ".pyc", ".md", ".json", ".jsonl", ".csv", ".txt", ".sh", ".parquet", ".png", ".gz")
MOST_FILES = 30_000
"""How many files the user's folder of tasks may hold; lm-eval itself has 14,000."""
MOST_BYTES = 1 << 20
"""How much of a file is looked at: no task's is larger, and a folder may hold anything."""
MOST_INCLUDES = 20
IGNORED = {"__pycache__", ".ipynb_checkpoints"}


class Function(str):
    """A `!function` in a task's YAML, `module.name`; `folder` is where its module may lie."""

    folder = ""


@dataclass(frozen=True)
class Found:
    """What files say of a name: a task or group and the files that define it, or a tag and folders that may use it."""

    kind: Literal["task", "group", "tag"]
    places: tuple[str, ...]


def scan(folder: str) -> dict[str, Found]:
    """Return what the files below a folder define, by name; a file that cannot be read is left out."""
    defined: dict[str, Found] = {}
    tags: dict[str, None] = {}
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - IGNORED)
        for file in sorted(file for file in files if not file.endswith(NO_TASKS)):
            # `Path.read_bytes` takes twice as long for 14,000 small files.
            if not os.path.isfile(f"{path}/{file}"):  # noqa: PTH113  a pipe or a device would be waited for
                continue
            with suppress(OSError), io.FileIO(f"{path}/{file}") as opened:
                for kind, value in KEY.findall(opened.read(MOST_BYTES)):
                    if kind == b"tag":
                        words = re.sub(rb"(^|\s)#[^\n]*", b"", value)
                        tags |= dict.fromkeys(word.decode() for word in WORD.findall(words))
                    elif file.endswith(".yaml") and (name := _name(value)):
                        known = defined.get(name)
                        places = (*(known.places if known else ()), f"{path}/{file}")
                        defined[name] = Found("group" if kind == b"group" else "task", places)
    return {name: Found("tag", (folder,)) for name in tags} | defined


def _name(value: bytes) -> str:
    """Return the name after a key; "" for a list, which holds the members of a group."""
    name = value.partition(b"\n")[0].decode(errors="replace").split(" #")[0].strip().strip("\"'")
    return "" if name.startswith(("[", "-", "#")) else name


@functools.cache
def _scan_of_lm_eval(folder: str) -> dict[str, Found]:
    return scan(folder)


class TaskFiles:
    """The tasks, groups and tags of `include_path` and of lm-eval; the user's come first.

    Raises ConfigurationError if the folder does not exist.
    """

    def __init__(self, include_path: str | None = None):
        if include_path and not Path(include_path).is_dir():
            raise ConfigurationError("evaluate.include_path", f"there is no folder {include_path}", CORRECT_PATH)
        if include_path:
            check_size(include_path, "evaluate.include_path", MOST_FILES)
        self._include_path = include_path
        self.own = scan(include_path) if include_path else {}
        self._known: dict[str, Found] = {}
        self._scanned: set[str] = set()

    def find(self, name: str) -> Found | None:
        """Return what defines a name, None if nothing does. Raises ConfigurationError if lm-eval is not installed."""
        if name in self.own:
            return self.own[name]
        folders = _folders()
        # `arc_easy` is in `arc`: folders that the name starts with usually answer. A tag may be used in several.
        self._scan([folder for folder in folders if name.startswith(Path(folder).name)])
        if (found := self._known.get(name)) is None or found.kind == "tag":
            self._scan(folders)
        return self._known.get(name)

    def near(self, name: str) -> str | None:
        """Return the task, group or tag whose name is nearest to an unknown one: one of the user's before lm-eval's.

        About 12,000 are known.
        """
        own = {other.lower(): other for other in self.own}
        if near := nearest(name.lower(), own):
            return own[near]
        self._scan(_folders())
        return nearest(name, [*self.own, *self._known], length_difference=4)

    def unread(self, name: str) -> str | None:
        """Return a file of the user's that defines a name but is not read, because lm-eval reads `*.yaml` only."""
        for path in sorted(Path(self._include_path).glob("**/*.yml")) if self._include_path else []:
            with suppress(OSError):
                if any(kind != b"tag" and _name(value) == name for kind, value in KEY.findall(path.read_bytes())):
                    return str(path)
        return None

    def check_names(self) -> None:
        """Raise ConfigurationError for a file whose task or group has a name that is not text: lm-eval fails on it."""
        for name, found in self.own.items():
            # The scan takes a name for text; what YAML may take for something else is read.
            if found.kind == "tag" or not re.match(r"[-+.\d{&*!|>]|(?i:true|false|yes|no|on|off|null|~)$", name):
                continue
            for place in found.places:
                with suppress(ConfigurationError):  # lm-eval leaves it out
                    value = self.read(place).get(found.kind)
                    if value is not None and not isinstance(value, str | list):
                        fix = f'write `{found.kind}: "{name}"`'
                        break
            else:
                continue
            raise ConfigurationError(
                "evaluate.include_path", f"{place}: `{found.kind}: {name}` is {type(value).__name__}, not text", fix
            )

    def check_bounds(self) -> None:
        """Raise ConfigurationError for a file that lm-eval would read without end: it reads all `*.yaml` of the folder.

        One that is only broken is left to lm-eval, which leaves it out.
        """
        for path in sorted(Path(self._include_path).glob("**/*.yaml")) if self._include_path else []:
            try:
                data = read_bytes(path, MOST_BYTES)
                if b"include" in data or (b"*" in data and b"&" in data):
                    read_task(str(path))
            except TooMuch as error:
                problem, fix = f"{path}: {error}", "remove it: lm-eval reads every *.yaml there"
                raise ConfigurationError("evaluate.include_path", problem, fix) from error
            except ConfigurationError as error:
                if isinstance(error.__cause__, OutOfBounds | TooMuch):
                    raise error.within("evaluate.include_path") from error
            except OSError:
                continue

    def members(self, tag: str) -> list[str]:
        """Return the tasks with a tag, sorted as lm-eval sorts them."""
        found = self.find(tag)
        names = set()
        for folder in found.places if found and found.kind == "tag" else ():
            for path in sorted(Path(folder).glob("**/*.yaml")):
                with suppress(ConfigurationError):  # lm-eval leaves it out, too
                    config = self.read(str(path))
                    tags = config.get("tag")
                    if isinstance(config.get("task"), str) and tag in ([tags] if isinstance(tags, str) else tags or []):
                        names.add(config["task"])
        return sorted(names)

    def read(self, file: str) -> dict[str, Any]:
        """Return the content of a task's file, see `read_task`; lm-eval's own are read once. Do not change it."""
        own = self._include_path is not None and Path(file).is_relative_to(self._include_path)
        return read_task(file) if own else _read_of_lm_eval(file)

    def _scan(self, folders: Iterable[str]) -> None:
        for folder in folders:
            if folder not in self._scanned:
                self._scanned.add(folder)
                for name, found in _scan_of_lm_eval(folder).items():
                    known = self._known.get(name)
                    if known and known.kind == "tag" == found.kind:
                        found = Found("tag", (*known.places, *found.places))
                    elif known and (found.kind == "tag" or known.kind != "tag"):
                        continue
                    self._known[name] = found


def _folders() -> list[str]:
    """Return lm-eval's folders of tasks. Raises ConfigurationError if it is not installed."""
    package = find_spec("lm_eval")
    if package is None or not package.submodule_search_locations:
        raise ConfigurationError("evaluate", "lm-eval is not installed", "pip install lm-eval")
    with os.scandir(f"{next(iter(package.submodule_search_locations))}/tasks") as entries:
        return sorted(entry.path for entry in entries if entry.is_dir() and entry.name not in IGNORED)


def read_task(file: str, including: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the content of a task's YAML with what it includes; its functions are not resolved.

    Raises ConfigurationError, whose key is the file, for one that cannot be read.
    """
    path = os.path.realpath(file)
    if path in including:
        raise ConfigurationError(file, "the file includes itself", "remove that `include`")
    if len(including) > MOST_INCLUDES:
        raise ConfigurationError(file, f"the file is included through {MOST_INCLUDES} others", "include fewer")
    try:
        config = load_bounded(read_bytes(path, MOST_BYTES), _reader(os.path.dirname(path)))  # noqa: PTH120
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file} line {mark.line + 1}" if mark else file
        problem, _, fix = " ".join(str(getattr(error, "problem", error)).split()).partition("; ")
        raise ConfigurationError(place, problem, fix or "correct the YAML there or just before") from error
    except (OSError, ValueError, RecursionError) as error:
        by = f" ({including[-1]} includes it)" if including else ""
        known = str(error) if isinstance(error, TooMuch) else type(error).__name__
        reason = getattr(error, "strerror", None) or known
        raise ConfigurationError(file, f"the file cannot be read: {reason}{by}", "correct its path") from error
    if not isinstance(config, dict):
        raise ConfigurationError(file, "the file does not hold a mapping", "write the keys of a task or group")
    includes = config.pop("include", [])
    merged: dict[str, Any] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        included = read_task(str(Path(path).parent / str(include)), (*including, path))
        included.pop("task_list", None)
        merged |= included
    return merged | config


def _reader(folder: str) -> Any:
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    def construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Function:
        function = Function(loader.construct_scalar(node))
        function.folder = folder
        return function

    reader: Any = type("_Reader", (base,), {})
    reader.add_constructor("!function", construct)
    return reader


@functools.cache
def _read_of_lm_eval(file: str) -> dict[str, Any]:
    return read_task(file)


def expand_tags(raw: dict[str, Any]) -> list[str]:
    """Replace lm-eval's tags among the tasks of a configuration by the tasks that have them, in place; return notes.

    lm-eval does not score a tag itself; it runs the tag's tasks.
    """
    evaluate = raw.get("evaluate") if isinstance(raw.get("evaluate"), dict) else {}
    stages = raw.get("stages") if isinstance(raw.get("stages"), list) else []
    lists = [(f"stages.{number}.tasks", stage, "tasks") for number, stage in enumerate(stages or [])]
    lists.append(("evaluate.old_tasks", evaluate, "old_tasks"))
    texts = evaluate.get("texts") if evaluate and isinstance(evaluate.get("texts"), list) else []
    learned = {text.get("name") for text in texts or [] if isinstance(text, dict) and isinstance(text.get("name"), str)}
    folder = evaluate.get("include_path") if evaluate else None
    files: TaskFiles | None = None
    notes = []
    for key, section, option in lists:
        listed = section.get(option) if isinstance(section, dict) else None
        if not isinstance(listed, list):
            continue
        expanded: list[Any] = []
        for task in listed:
            name = task.get("name") if isinstance(task, dict) else task
            members: list[str] = []
            if isinstance(name, str) and name not in learned:
                with suppress(ConfigurationError):  # the check says it
                    files = files or TaskFiles(folder if isinstance(folder, str) else None)
                    members = files.members(name)
            if members:
                notes.append(f"`{name}` in {key} is a tag: its tasks are {some(members)}")
            expanded += [{**task, "name": m} if isinstance(task, dict) else m for m in members] or [task]
        section[option] = expanded
    return notes


def some(names: list[str]) -> str:
    """Return names for a message, the first eight of many."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
