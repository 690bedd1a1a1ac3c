"""What decides the score of an lm-eval task: its YAML with what it includes, its Python, its data."""

import datetime
import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Any

from continual.config.paths import expanded, is_uri
from continual.config.task_files import Function, TaskFiles
from continual.errors import ConfigurationError
from continual.evaluation.task_data import PACKAGED, is_local, loaded_commit
from continual.store import digest, hash_file
from continual.store.code import module_code, with_content

NOT_DATA = (".yaml", ".yml", ".pyc")
"""What may lie beside a task's Python and is not read by it: other tasks."""
GIVEN = ("dataset_kwargs", "metadata")
"""Options that are given to the code that makes the data."""
PLACES = ("data_files", "data_dir")


def task_identity(name: str, files: TaskFiles) -> str:
    """Return the address of a task, group or tag: equal as long as no file, module or data set of it changes."""
    return digest(_identity(name, files, ()))


def functions_of(name: str, files: TaskFiles) -> list[Function]:
    """Return the functions in the files of a task, group or tag of the user's, and of its members, each once."""
    found: dict[tuple[str, str], Function] = {}

    def gather(value: Any) -> None:
        if isinstance(value, Function):
            found.setdefault((value.folder, str(value)), value)
        elif isinstance(value, dict):
            for item in value.values():
                gather(item)
        elif isinstance(value, list | tuple | set):
            for item in value:
                gather(item)

    seen: set[str] = set()
    waiting = [name]
    while waiting:
        if (name := waiting.pop()) in seen or name not in files.own:
            continue
        seen.add(name)
        known = files.own[name]
        if known.kind == "tag":
            waiting += files.members(name)
            continue
        for place in known.places:
            config = files.read(place)
            gather(config)
            members = config.get("task")
            for member in members if isinstance(members, list) else []:
                inner = member.get("task") if isinstance(member, dict) else member
                waiting += [inner] if isinstance(inner, str) else []
    return list(found.values())


def _identity(name: str, files: TaskFiles, within: tuple[str, ...]) -> Any:
    found = files.find(name)
    if found is None or name in within:
        return name  # the check before the start refuses it
    if found.kind == "tag":
        return {member: _identity(member, files, (*within, name)) for member in files.members(name)}
    return [_config(files.read(place), files, (*within, name)) for place in found.places]


def _config(config: dict[str, Any], files: TaskFiles, within: tuple[str, ...]) -> Any:
    """Return the content of a task or group with hashes in place of functions, data and members."""
    try:
        known = {key: _value(value) for key, value in config.items() if key not in ("task", "dataset_path", *GIVEN)}
        known |= _given(config)
        data = _data(config)
    except ConfigurationError as error:
        raise ConfigurationError("evaluate", error.problem, error.fix) from error
    if isinstance(config.get("task"), str):
        known["task"] = config["task"]
    if isinstance(config.get("task"), list):
        known["task"] = [_member(item, files, within) for item in config["task"]]
    return {**known, "data": data}


def _member(item: Any, files: TaskFiles, within: tuple[str, ...]) -> Any:
    if isinstance(item, dict):
        name = item.get("task")
        own = _identity(name, files, within) if isinstance(name, str) else None
        return [_config(item, files, within), own]
    return _identity(item, files, within) if isinstance(item, str) else _value(item)


def _value(value: Any, key: str = "", beside: Path | None = None) -> Any:
    """Return a value of a task's YAML; below a `key` with the content of the files that it names."""
    if isinstance(value, Function):
        return {"function": str(value), **_code(value)}
    if isinstance(value, dict):
        return {str(name): _value(item, key and f"{key}.{name}", beside) for name, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_value(item, key, beside) for item in value]
    if key and isinstance(value, str):
        return with_content(key, value, None, beside)
    return str(value) if isinstance(value, datetime.date | bytes | float) else value


def _given(config: dict[str, Any]) -> dict[str, Any]:
    """Return what is given to the code that makes the data; places that `_data` knows by content are left out."""
    path, made = config.get("dataset_path"), config.get("custom_dataset")
    local = isinstance(path, str) and is_local(path)
    here = local and path not in ("", *PACKAGED) and not is_uri(str(path))
    given = {"dataset_path": _value(path)} if "dataset_path" in config and not here else {}
    beside = _module_file(made) if isinstance(made, Function) else None
    for key in GIVEN:
        value = config.get(key)
        if key == "dataset_kwargs" and isinstance(value, dict) and made is None:
            # Names on the hub stay names, whatever lies here under them.
            elsewhere = [name for name in PLACES if name in value and not (local and _is_here(value[name]))]
            others = {name: item for name, item in value.items() if name not in PLACES}
            given[key] = _value(others, key) | {name: _value(value[name]) for name in elsewhere}
        elif key in config:
            given[key] = _value(value, key, beside)
    return given


def _is_here(named: Any) -> bool:
    """Return whether a place of data, or one of several, is no URL."""
    if isinstance(named, dict | list):
        return any(map(_is_here, named.values() if isinstance(named, dict) else named))
    return isinstance(named, str) and (not is_uri(named) or named.startswith("file:"))


def _module_file(function: Function) -> Path:
    """Return where the module of a function lies if it lies beside the YAML that names it."""
    return Path(function.folder) / f"{str(function).rpartition('.')[0].replace('.', '/')}.py"


def _code(function: Function) -> dict[str, Any]:
    """Return hashes of a function's module, of what it imports, and of the files beside it, which it may read."""
    module, beside = str(function).rpartition(".")[0], _module_file(function)
    if beside.is_file():
        others = [
            [str(path.relative_to(beside.parent)), hash_file(path)]
            for path in sorted(beside.parent.rglob("*"))
            if path.is_file() and path.suffix not in (*NOT_DATA, ".py") and "__pycache__" not in path.parts
        ]
        return {"module": hash_file(beside), **module_code(beside, beside.stem, beside=True), "beside": others}
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(module)
        if spec and spec.origin and Path(spec.origin).is_file():
            return {"module": hash_file(spec.origin), **module_code(spec.origin, module)}
    return {}


def _data(config: dict[str, Any]) -> Any:
    """Return the content of local data, and the commit of those of the hub."""
    path, options = config.get("dataset_path"), config.get("dataset_kwargs") or {}
    if not isinstance(path, str) or isinstance(path, Function) or not isinstance(options, dict):
        return None
    folder = options.get("data_dir")
    named = options.get("data_files")
    if not is_local(path):
        return loaded_commit(path, config.get("dataset_name"), options)
    places = {"path": None if path in PACKAGED else path, "folder": folder, "files": _joined(folder, named)}
    try:
        return with_content("dataset_kwargs", places)
    except ConfigurationError as error:
        raise ConfigurationError("evaluate", f"{error.problem}", "name the files of the task's data") from error


def _joined(folder: Any, named: Any) -> Any:
    if isinstance(named, dict):
        return {str(key): _joined(folder, item) for key, item in named.items()}
    if isinstance(named, list):
        return [_joined(folder, item) for item in named]
    return str(expanded(Path(str(folder or ""), named))) if isinstance(named, str) and not is_uri(named) else named
