"""Rules that a method's class keeps without training: its sentences, its schema, its imports."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from continual.contract.mitigation import Mitigation
from continual.contract.models import ModelFacts
from continual.contract.view import StageView

LONGEST = 300
"""Characters of a refusal."""
HEAVY = ("torch", "ray")
"""What a name in the YAML must not import."""


def unsuitable(view: StageView) -> dict[str, StageView]:
    """Return stages that a method may have to refuse, made from a suitable one."""
    return {
        "suitable": view,
        "under deepspeed": replace(view, strategy="deepspeed"),
        "rows of two tokens": replace(view, row_tokens=2),
        "documents without prompts": replace(view, has_prompts=False),
        "random weights": replace(view, number=1, random_start=True, start_tokens=()),
        "the first stage": replace(view, number=1, start_tokens=()),
        "epochs, not counted yet": replace(view, steps=None),
        "one row per step": replace(view, batch_rows=1),
        "no chat template": replace(view, facts=lambda _: ModelFacts(chat_template=False)),
        "a short context": replace(view, facts=lambda _: ModelFacts(chat_template=True, positions=2)),
        "a model that cannot sample": replace(view, facts=lambda _: ModelFacts(True, None, "its heads are too small")),
    }


def assert_sentence(reason: str | None, case: str) -> None:
    """Check that a refusal is one sentence, "problem; fix"."""
    if reason is None:
        return
    assert len(reason) <= LONGEST, f"{case}: the refusal has {len(reason)} characters: {reason}"
    assert "\n" not in reason, f"{case}: the refusal has several lines: {reason}"
    problem, _, fix = reason.partition("; ")
    assert problem.strip(), f"{case}: the refusal has no problem before `; `: {reason}"
    assert fix.strip(), f"{case}: the refusal has no fix after `; `: {reason}"


def assert_described(kind: type[Mitigation]) -> None:
    """Check that every option but `type` has a description, and the class a docstring."""
    assert kind.__doc__, f"{kind.__name__} has no docstring, which `--list mitigations` shows"
    schema = kind.model_json_schema()
    missing = [
        f"{place}.{name}"
        for place, properties in [("", schema["properties"]), *_nested(schema)]
        for name, value in properties.items()
        if name != "type" and not value.get("description")
    ]
    assert not missing, f"options without a description: {missing}"


def _nested(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, definition in schema.get("$defs", {}).items():
        yield name, definition.get("properties", {})


def assert_refuses_unknown(kind: type[Mitigation], options: dict[str, Any]) -> None:
    """Check that a typo is an error."""
    try:
        kind.model_validate({**options, "no_such_option": 1})
    except ValidationError as error:
        assert "no_such_option" in str(error), f"an unknown option is refused without its name: {error}"
    else:
        raise AssertionError("an unknown option is accepted; do not change `model_config`")


def assert_imports(kind: type[Mitigation]) -> None:
    """Check that the class's module imports neither torch nor ray, and of this project `continual.api` alone.

    Its own package it may import, too.
    """
    module = import_module(kind.__module__)
    assert module.__file__, f"{kind.__module__} has no file"
    own = kind.__module__.rpartition(".")[0] or kind.__module__
    private = [
        name
        for name in sorted(_imported(Path(module.__file__)))
        if name.split(".")[0] == "continual" and not _within(name, "continual.api") and not _within(name, own)
    ]
    assert not private, f"{kind.__module__} imports {private}; all that is public is in continual.api"
    assert not (heavy := _heavy(kind.__module__)), f"{kind.__module__} imports {heavy} before they are needed"


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _imported(file: Path) -> set[str]:
    """Return the modules that a file names in its imports; `from continual import api` is `continual.api`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner if node.module == "continual" else {node.module}
    return names


@cache
def _heavy(module: str) -> list[str]:
    """Return those of `HEAVY` that importing a module alone imports, too."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{module} cannot be imported alone:\n{done.stderr}"
    return done.stdout.split()
