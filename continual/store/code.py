"""The identity of code that is not ours: the user's modules, what they import, and the files that they are given.

Nothing is run or imported: imports are read from the syntax tree, and so are texts that name a local module or a file
(`import_module("helper")`, `PATH = "data.txt"`). Names that are computed are not seen, nor is what code fetches by
itself. For that there is the key `version`.
"""

import ast
import functools
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, distributions, version
from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError
from continual.errors.syntax import parse
from continual.store.files import digest, hash_file
from continual.store.literals import literals, named_content, named_file
from continual.store.named import named_paths

OURS = ("continual",)
"""Packages whose results the revisions of the store and the hashes of whole rooms speak for."""
SHIPPED = (*OURS, "baselines")
"""Packages whose texts name no files of the user's."""
INSTALLED = ("site-packages", "dist-packages")
LEFT_OUT = frozenset({".git", ".cache", ".venv", "__pycache__", ".ipynb_checkpoints", ".DS_Store"})
"""What tools leave beside data."""
KINDS = ("rows", "models", "scores", "stages", "checks")
"""Folders of a storage's `store`, by which it is known."""
MODULE = re.compile(r"\.*[A-Za-z_][\w.]{0,200}(:[\w.]+)?")
"""A text that may name a module, or something in one."""
TOP_LEVEL = re.compile(r'^"?([^/,\n"]+?)(?:/[^,\n]*)?\.py"?,', re.MULTILINE)
"""The first part of a Python file's path, in the list of a distribution's files."""
MOST_FILES = 20_000
MOST_BYTES = 32 << 30


def module_code(file: str | Path, name: str, beside: bool = False) -> dict[str, Any]:
    """Return what is known of the code of a module, {} if it imports nothing but the standard library and ours.

    Args:
        file: The module's file, which the caller hashes.
        name: Its full name.
        beside: Whether its own imports may lie beside it, too.

    Returns:
        `imports`: hashes of the local modules that it imports or names, directly or not, by name; `packages`: versions
        of the installed distributions that these import; `files`: names and hashes of the other files that they name.
    """
    closure = _Closure(name.partition(".")[0], [str(Path(file).parent)] if beside else [])
    closure.walk(name, Path(file), Path(file).name == "__init__.py")
    found: dict[str, Any] = {"imports": dict(sorted(closure.files.items()))}
    found |= {"packages": _distributions(closure.installed), "files": sorted(closure.data.values())}
    return {key: value for key, value in found.items() if value}


def definition_code(definition: Any) -> Any:
    """Return the identity of the module that defines a class or function: a hash, with what it imports if it does."""
    module = getattr(definition, "__module__", None)
    file = _file(definition)
    if file is None:
        return ""
    code = module_code(file, str(module)) if own_file(definition) else {}
    return [hash_file(file), code] if code else hash_file(file)


def own_file(definition: Any) -> Path | None:
    """Return the file of the module that defines a class or function which is not ours; None for ours."""
    module = str(getattr(definition, "__module__", None) or "")
    return None if module.partition(".")[0] in OURS else _file(definition)


def _file(definition: Any) -> Path | None:
    loaded = sys.modules.get(getattr(definition, "__module__", None) or "")
    file = getattr(loaded, "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


class _Closure:
    """Gathers what modules import. `top` is the package of the first one, which is local wherever it is installed."""

    def __init__(self, top: str, folders: Sequence[str]):
        self.top, self.folders = top, list(folders)
        self.files: dict[str, str] = {}
        self.data: dict[Path, list[str]] = {}
        self.installed: set[str] = set()
        self._more: list[str] = []
        self._seen: set[str] = set()

    def walk(self, name: str, file: Path, package: bool) -> None:
        """Gather the imports of a module and of the packages that hold it."""
        waiting = [(name, file, package)]
        self._seen.add(name)
        parents = [name.rpartition(".")[0]] if "." in name else []
        while waiting:
            module, path, is_package = waiting.pop()
            names = [*parents, *_imported(path, module if is_package else module.rpartition(".")[0])]
            parents = []
            texts = literals(path) if self._is_local(module, path) else []
            self._more += [str(folder) for text in texts if (folder := named_file(text, path.parent, folder=True))]
            for imported in dict.fromkeys(names):
                waiting += self._local(imported)
            for text in texts:
                waiting += self._named(text, path, module if is_package else module.rpartition(".")[0])

    def _is_local(self, module: str, path: Path) -> bool:
        standard = path.is_relative_to(sysconfig.get_path("stdlib"))
        return not (standard or module.partition(".")[0] in SHIPPED or set(INSTALLED) & set(path.parts))

    def _named(self, text: str, by: Path, package: str) -> Iterator[tuple[str, Path, bool]]:
        """Yield the new local modules that a text in the code of `by` names, and keep the file that it names."""
        file = named_file(text, by.parent)
        if file is None:
            if MODULE.fullmatch(text) and (name := _absolute(text.partition(":")[0], package)):
                yield from self._local(name, only=True)
            return
        place = file.resolve()
        if place == by.resolve() or place in self.data or str(place) in self._seen or _is_of_tracker(place):
            return
        if file.suffix == ".py":
            self._seen.add(str(place))
            self.files[file.name] = hash_file(file)
            yield file.stem, file, False
        else:
            self.data[place] = [file.name, named_content(file)]

    def _local(self, name: str, only: bool = False) -> Iterator[tuple[str, Path, bool]]:
        """Yield the local modules of a dotted name that are new: its packages, and the module itself if it is one.

        Notes installed ones, unless `only` local ones count.
        """
        top = name.partition(".")[0]
        if top in OURS:
            return
        locations: Sequence[str] | None = None
        known = ""
        for part in name.split("."):
            known = f"{known}.{part}" if known else part
            spec = self._spec(known, locations)
            if spec is None:
                return
            locations = spec.submodule_search_locations
            file = Path(spec.origin) if spec.has_location and spec.origin else None
            place = file or Path(next(iter(locations or []), ""))
            if known == top and top != self.top and (where := _where(place, spec)) != "local":
                if where == "installed" and not only:
                    self.installed.add(top)
                return
            if file is not None and known not in self._seen:
                self._seen.add(known)
                self.files[known] = hash_file(file)
                yield known, file, locations is not None

    def _spec(self, name: str, locations: Sequence[str] | None) -> ModuleSpec | None:
        if locations is None and "." in name:
            return None
        try:
            if locations is not None:
                return PathFinder.find_spec(name, locations)
            if self.folders and (spec := PathFinder.find_spec(name, self.folders)):
                return spec
            return importlib.util.find_spec(name) or PathFinder.find_spec(name, self._more)
        except (ImportError, ValueError, AttributeError):
            return None


def _where(place: Path, spec: ModuleSpec) -> str:
    """Return whether a top-level module is `local`, `installed`, or of the `standard` library."""
    if spec.origin in ("built-in", "frozen") or (not spec.has_location and spec.submodule_search_locations is None):
        return "standard"
    if any(part in INSTALLED for part in place.parts):
        return "installed"
    return "standard" if place.is_relative_to(sysconfig.get_path("stdlib")) else "local"


def _imported(file: Path, package: str) -> list[str]:
    """Return the absolute dotted names that a module may import; `from a import b` gives `a.b`, whatever `b` is."""
    if file.suffix != ".py":
        return []
    try:
        return _names(file.read_bytes(), package)
    except (SyntaxError, ValueError, RecursionError):
        return []  # importing it fails, and says so


@functools.lru_cache(maxsize=1024)
def _names(code: bytes, package: str) -> list[str]:
    """Return what `_imported` does, from the text of a module; raises what `parse` does."""
    tree = parse(code)
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")] if base else []
        elif isinstance(node, ast.Call) and _imports(node.func) and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                names.append(_absolute(first.value, package))
    return [name for name in names if name]


def _imports(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _absolute(name: str, package: str) -> str:
    """Return the full name of a module that a module of `package` calls `name`, "" if it has none."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        # A file that is loaded by its path is in no package; what lies beside it is found by its plain name.
        return name.lstrip(".")
    return ".".join([*parts[: len(parts) - level + 1], *filter(None, [name.lstrip(".")])])


@functools.cache
def _owners() -> dict[str, list[Distribution]]:
    """Return the installed distributions by their top-level modules.

    They are those of `importlib.metadata.packages_distributions`, which takes half a second: it reads every metadata
    file, and makes a path of every file that is installed.
    """
    owners: dict[str, list[Distribution]] = {}
    for installed in distributions():
        if (declared := installed.read_text("top_level.txt") or "").split():
            names = set(declared.split())
        elif record := installed.read_text("RECORD"):
            names = set(TOP_LEVEL.findall(record))
        else:
            files = [file for file in installed.files or [] if file.suffix == ".py"]
            names = {file.parts[0] if len(file.parts) > 1 else file.stem for file in files}
        for name in names:
            owners.setdefault(name, []).append(installed)
    return owners


def _distributions(names: set[str]) -> dict[str, str]:
    """Return the versions of the installed distributions that have these top-level modules."""
    owners = {owner.metadata["Name"] for name in names for owner in _owners().get(name, [])}
    return {owner: version(owner) for owner in sorted(owners)}


def with_content(key: str, value: Any, version: str | float | None = None, module: str | Path | None = None) -> Any:
    """Return `value` with every text that names files or folders here replaced by its last name and their content.

    Args:
        key: The configuration key that holds the value, for messages.
        value: What is given to code: mappings and lists of plain values.
        version: The user's own; with one, what is too large to hash counts by its name alone.
        module: The file of the code that is given the value, which may look beside itself.

    Raises:
        ConfigurationError: A folder is too large to hash, and there is no `version`.
    """
    if isinstance(value, dict):
        return {name: with_content(f"{key}.{name}", item, version, module) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_content(f"{key}.{number}", item, version, module) for number, item in enumerate(value)]
    paths = named_paths(key, value, None if module is None else Path(module).parent) if isinstance(value, str) else []
    if not paths:
        return value
    return {"name": Path(str(value)).name, "content": [content(key, path, version) for path in paths]}


def content(key: str, path: Path, version: str | float | None = None) -> str:
    """Return the hash of a file, or the address of a folder by the relative names and content of its files.

    Raises ConfigurationError as `with_content`.
    """
    if path.is_file():
        return hash_file(path)
    found: list[Path] = []
    size = 0
    for file in _files(path):
        found.append(file)
        size += file.stat().st_size
        if len(found) > MOST_FILES or size > MOST_BYTES:
            if version is not None:
                return ""
            most = f"{MOST_FILES:,} files or {MOST_BYTES >> 30} GiB"
            problem = f"the folder {path} has more than {most}, too much to know it by its content"
            raise ConfigurationError(
                key, problem, "name a smaller one, or say what it holds by a `version` of your own"
            )
    return digest([[str(file.relative_to(path)), hash_file(file)] for file in sorted(found)])


def _files(folder: Path, within: set[str] | None = None) -> Iterator[Path]:
    """Yield the files below a folder, without what tools leave there and without storages, which runs change.

    Linked folders are followed, save into one that holds them or was read before under another name.
    """
    within = {os.path.realpath(folder)} if within is None else within
    entries = sorted(folder.iterdir())
    for entry in entries:
        if entry.name in LEFT_OUT or _is_of_tracker(entry):
            continue
        if entry.is_file():
            yield entry
        elif entry.is_dir() and not _is_storage(entry):
            real = os.path.realpath(entry)
            if real not in within:
                within.add(real)
                yield from _files(entry, within)


def _is_of_tracker(path: Path) -> bool:
    """Return whether a file is one of those in which MLflow keeps what runs do."""
    return path.name.startswith("mlflow.db")


def _is_storage(folder: Path) -> bool:
    return any((folder / "store" / kind).is_dir() for kind in KINDS)
