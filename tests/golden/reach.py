"""Which of our files a module reaches through its imports, by their text alone."""

import ast
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

OURS = ("continual", "baselines")


def reached(entries: Iterable[str], without: Callable[[str], bool]) -> set[str]:
    """Return the files that those of `entries`, and all that they import, are in; paths are relative to ROOT.

    A name that a package only passes on (`from continual.models import load_model`) leads to the file that defines it.
    Imports for types alone lead nowhere, and neither do files that are left out (`without`).
    """
    waiting, seen = [ROOT / entry for entry in entries], set[str]()
    while waiting:
        file = waiting.pop()
        name = str(file.relative_to(ROOT))
        if name not in seen and not without(name):
            seen.add(name)
            waiting += _imported(file)
    return seen


@cache
def _imported(file: Path) -> list[Path]:
    found: list[Path | None] = []
    for node in _run(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [_file(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports by a relative name, which this does not follow"
            found += [_defines(str(node.module), alias.name) for alias in node.names]
    return [path for path in found if path]


def _run(node: ast.AST) -> list[ast.AST]:
    """Return the nodes below one, without what type checkers alone read."""
    below = []
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
            below += [child, *_run(child)]
    return below


def _defines(module: str, name: str) -> Path | None:
    """Return the file of a submodule `name`, or else the one that defines the name which `module` has."""
    file = _file(f"{module}.{name}") or _file(module)
    if file is None or file == _file(f"{module}.{name}") or (file.name != "__init__.py" and module != "continual.api"):
        return file
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return _defines(str(node.module), name)
    return file


def _file(module: str) -> Path | None:
    if module.partition(".")[0] not in OURS:
        return None
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)
