"""Check what a task's YAML names: its functions and its data, as far as they are files here."""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from continual.config.hub import (
    BRANCH,
    COMMIT,
    ONLINE,
    SHOWN,
    asked_commit,
    noted_commit,
    prepared_folder,
    ready_folder,
)
from continual.config.paths import expanded, is_path, is_uri, offline
from continual.config.references import defined_names
from continual.config.task_files import Function
from continual.errors import ConfigurationError, nearest
from continual.errors.bounded import matches
from continual.errors.syntax import parse

OUTPUTS = ("loglikelihood", "multiple_choice", "loglikelihood_rolling", "generate_until")
BUILDERS = ("json", "csv", "parquet", "text", "arrow", "pandas")
"""Data sets that are files: kinds that `datasets` reads by `data_files`."""
PACKAGED = (
    *BUILDERS, "conll", "imagefolder", "audiofolder", "videofolder", "meshfolder", "pdffolder", "niftifolder",
    "webdataset", "xml", "hdf5", "eval", "lance", "tsfile", "iceberg", "vortex", "mmcif", "pdb", "genbank", "fasta",
    "fastq", "harbor",
)  # fmt: skip
"""Names that `datasets` takes for a kind of file, and never for a data set of the hub."""
OF_LOADING = ("split", "streaming", "num_proc", "keep_in_memory", "verification_mode", "save_infos")
"""Options of `datasets.load_dataset` that do not decide which data are loaded."""


def check_functions(file: str, config: Any) -> None:
    """Raise ConfigurationError, whose key is the file, for a `!function` that does not exist. No module is run."""
    for function in _functions(config):
        module, _, name = str(function).rpartition(".")
        beside = Path(function.folder) / f"{module.replace('.', '/')}.py"
        if not beside.is_file():
            try:
                installed = bool(module) and importlib.util.find_spec(module) is not None
            except (ImportError, ValueError):
                installed = False
            if not installed:
                problem = f"there is no file {beside} for `!function {function}`"
                raise ConfigurationError(file, problem, "correct the reference, or put the file there")
            continue
        try:
            known = defined_names(parse(beside.read_text(encoding="utf-8")))
        except (SyntaxError, ValueError, OSError) as error:
            raise ConfigurationError(str(beside), f"the module cannot be read ({error})", "correct it") from error
        if name not in known and "*" not in known:
            near = nearest(name, known)
            fix = f"did you mean `{module}.{near}`?" if near else "correct the reference"
            raise ConfigurationError(file, f"{beside} has no function `{name}`", fix)


def _functions(value: Any) -> Iterator[Function]:
    if isinstance(value, Function):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _functions(item)


def check_data(file: str, config: Any) -> None:
    """Raise ConfigurationError, whose key is the file, for a task without data, or whose local data are missing.

    `config`: lm-eval's `TaskConfig`.
    """
    if config.output_type not in OUTPUTS:
        near = nearest(str(config.output_type), OUTPUTS)
        fix = f"did you mean `{near}`?" if near else f"write one of {', '.join(OUTPUTS)}"
        raise ConfigurationError(file, f"there is no `output_type: {config.output_type}`", fix)
    if config.custom_dataset is not None:
        return
    if not config.dataset_path:
        raise ConfigurationError(file, "the task names no data", "write `dataset_path`")
    if config.test_split is None and config.validation_split is None:
        raise ConfigurationError(file, "the task names no split to ask", "write `test_split` or `validation_split`")
    path, options = str(config.dataset_path), config.dataset_kwargs or {}
    files = options.get("data_files")
    if path in BUILDERS and files is not None:
        _check_files(file, config, files, options.get("data_dir"))
    elif path in BUILDERS and (data_dir := options.get("data_dir")) is None:
        raise ConfigurationError(file, "the task names no files of data", "write `data_files` below `dataset_kwargs`")
    elif path in BUILDERS and not is_uri(str(data_dir)) and not expanded(str(data_dir)).is_dir():
        fix = "correct `data_dir` (relative ones start at the current folder)"
        raise ConfigurationError(file, f"there is no folder {expanded(str(data_dir)).absolute()}", fix)
    elif path not in PACKAGED and not is_uri(path):
        folder = expanded(path).absolute()
        if is_path(path, folder) and not folder.exists():
            fix = "correct it (relative ones start at the current folder)"
            raise ConfigurationError(file, f"there is no folder {folder} (`dataset_path`)", fix)
        if offline() and not is_local(path):
            try:
                loaded_commit(path, config.dataset_name, options)
            except ConfigurationError as error:
                raise error.within(file) from error


def hub_data(config: Any) -> str | None:
    """Return the hub id of a task's data, None for local data and for those that Python of the task makes."""
    path = str(config.dataset_path or "")
    return None if not path or is_local(path) or config.custom_dataset is not None else path


def is_local(path: str) -> bool:
    """Return whether a `dataset_path` names files, here or by a URL, and no data set of the hub."""
    return path in PACKAGED or is_uri(path) or is_path(path, expanded(path).absolute())


def is_cached(data: str) -> bool:
    """Return whether `datasets` has made a data set ready: without the hub it reads nothing else."""
    return any(path.is_dir() for path in prepared_folder(data).glob("*/*/*"))


def loaded_commit(data: str, subset: str | None, options: dict[str, Any]) -> Any:
    """Return the commit of the data set of the hub that lm-eval loads, with its configuration if that is not named.

    Without an answer of the hub `datasets` takes the newest data that its cache has ready, whatever `revision` says.

    Raises ConfigurationError, whose key is `dataset_kwargs.revision`, if these are of another commit.
    """
    revision = options.get("revision")
    if asked := asked_commit(data, revision):
        return asked
    noted = revision if revision and COMMIT.fullmatch(str(revision)) else noted_commit(data, revision)
    taken = _taken(data, subset, options)
    if taken is None:
        return noted
    if revision not in (None, BRANCH) and noted not in (None, taken.hash):
        problem = f"the cache of `datasets` would give commit {taken.hash[:SHOWN]} of `{data}` for {noted[:SHOWN]}"
        raise ConfigurationError("dataset_kwargs.revision", problem, ONLINE)
    named = subset is not None or taken.config_id == "default"
    return taken.hash if named else [taken.hash, taken.config_id]


def _taken(data: str, subset: str | None, options: dict[str, Any]) -> Any:
    """Return what `datasets` finds for a data set where the hub does not answer, None if it finds nothing."""
    if not is_cached(data):
        return None
    import datasets

    given = {key: value for key, value in options.items() if key not in OF_LOADING}
    # It warns that it takes the newest, which is what is asked here.
    logging.getLogger("datasets").setLevel(logging.ERROR)
    with suppress(Exception):  # of many libraries
        return datasets.load_dataset_builder(data, subset, **{"cache_dir": str(ready_folder()), **given})
    return None


def _check_files(file: str, config: Any, files: Any, folder: str | None) -> None:
    splits = files if isinstance(files, dict) else {"train": files}
    for split in (config.test_split or config.validation_split, config.fewshot_split):
        if split is not None and str(split).partition("[")[0] not in splits:
            fix = f"`data_files` has {', '.join(map(str, splits))}"
            raise ConfigurationError(file, f"the task asks for a split `{split}`, which its data do not have", fix)
    for listed in splits.values():
        for name in listed if isinstance(listed, list) else [listed]:
            path = str(expanded(Path(folder or "", str(name))).absolute())
            if is_uri(str(name)) or is_uri(str(folder or "")):
                continue
            found = next(iter(matches(path, file)), None)
            if found is None and not Path(path).exists():
                fix = "correct `data_files` (relative ones start at the current folder)"
                raise ConfigurationError(file, f"there is no file {path}", fix)
