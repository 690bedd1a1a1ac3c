"""pydantic's findings as one sentence: file, dotted key, what is wrong, what to write instead."""

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from continual.config.overrides import KeyPath, Override, dotted
from continual.config.schema import Sequence
from continual.contract.mitigation import REGISTRY, Mitigation
from continual.errors import ConfigurationError

WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text (in quotes if it looks like a number)",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "finite": "a finite number",
}
"""What to write, by the first word of pydantic's error type."""
LIMITS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    found = difflib.get_close_matches(word, list(known), 1, 0.6)
    return found[0] if found else None


def explain(error: ValidationError, raw: dict[str, Any], file: str, overrides: list[Override]) -> ConfigurationError:
    """The first finding as a ConfigurationError; how many others there are is said, not listed."""
    findings: dict[KeyPath, Any] = {}
    for finding in error.errors(include_url=False):
        findings.setdefault(_place(finding, raw), finding)
    # An unknown key comes first: it is often why another one is missing.
    order = sorted(findings, key=lambda path: findings[path]["type"] != "extra_forbidden")
    path, finding = order[0], findings[order[0]]
    problem, fix = _sentence(finding, path, raw)
    if len(findings) > 1:
        fix = f"{fix} (and {len(findings) - 1} more)" if fix else f"(and {len(findings) - 1} more)"
    return ConfigurationError(dotted(path), problem, fix, with_override(file, path, overrides))


def with_override(file: str, path: KeyPath, overrides: list[Override]) -> str:
    """The file, and the override that set what stands at `path` or the section that holds it."""
    for override in reversed(overrides):
        shared = min(len(path), len(override.path))
        if path and path[:shared] == override.path[:shared]:
            text = override.text if len(override.text) <= 60 else f"{override.text[:57]}..."
            return f"{file} with override `{text}`"
    return file


def _place(finding: Any, raw: Any) -> KeyPath:
    """pydantic's location without the parts that name members of a union."""
    path: list[str | int] = []
    at = raw
    for part in finding["loc"]:
        if isinstance(at, list) and isinstance(part, int):
            at = at[part] if part < len(at) else None
        elif isinstance(at, dict) and (part in at or finding["type"] == "missing"):
            at = at.get(part)
        else:
            break
        path.append(part)
    return tuple(path)


def _sentence(finding: Any, path: KeyPath, raw: Any) -> tuple[str, str]:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(path, raw)
    if kind == "missing" and isinstance(path[-1], int):
        return "the list is too short", f"give at least {path[-1] + 1} entries"
    if kind == "missing":
        return "this key is missing", f"add `{path[-1]}:`{_meaning(path, raw)}"
    if kind == "value_error":
        problem, _, fix = " ".join(str(context["error"]).split()).partition("; ")
        return problem, fix
    value = shown(finding["input"])
    if kind == "literal_error":
        choices = [part.strip("' ") for part in context["expected"].replace(" or ", ", ").split(",")]
        near = nearest(str(finding["input"]), choices)
        return f"{value} is not allowed", f"did you mean `{near}`?" if near else f"write one of {', '.join(choices)}"
    if kind in LIMITS:
        name, words = LIMITS[kind]
        return f"{value} is out of range", f"write a number that is {words} {context[name]}"
    if kind == "string_pattern_mismatch":
        return f"{value} is no name", "use letters, digits, `.`, `-` and `_`, beginning with a letter or digit"
    if kind == "too_short":
        return "the list is too short", f"give at least {context['min_length']}"
    wanted = WANTED.get(kind.split("_")[0])
    if wanted is None:
        return f"{value} is not allowed ({finding['msg']})", "see the key's description in the README"
    return f"{value} is of the wrong type", f"write {wanted}"


def shown(value: Any) -> str:
    """A value in a message: short, on one line."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else " ".join(repr(value).split())
    return text if len(text) <= 50 else f"{text[:47]}..."


def _unknown(path: KeyPath, raw: Any) -> tuple[str, str]:
    model = _model_at(path[:-1], raw)
    known = list(model.model_fields) if model else []
    word = str(path[-1])
    if near := nearest(word, known):
        return "there is no such key", f"did you mean `{near}`?"
    elsewhere = [f"{section}.{word}" for section, fields in _sections().items() if word in fields]
    if elsewhere:
        return "there is no such key here", f"did you mean `{elsewhere[0]}`?"
    return "there is no such key", f"known here: {', '.join(sorted(known))}"


def _sections() -> dict[str, list[str]]:
    """The keys of every section that a sequence has once."""
    sections = {name: _models(field.annotation) for name, field in Sequence.model_fields.items()}
    return {n: list(m[0].model_fields) for n, m in sections.items() if m and n not in ("stages", "mitigation")}


def _models(annotation: Any) -> list[Any]:
    """The pydantic models somewhere in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _model_at(path: KeyPath, raw: Any) -> type[BaseModel] | None:
    """The model that describes the mapping at `path`; a mitigation's is found by its `type`."""
    model: type[BaseModel] | None = Sequence
    at = raw
    for part in path:
        at = at[part]
        if isinstance(part, str):
            if model is None or part not in model.model_fields:
                return None
            models = _models(model.model_fields[part].annotation)
            model = models[0] if models else None
        if model is not None and issubclass(model, Mitigation) and isinstance(at, dict):
            try:
                model = REGISTRY.load(str(at.get("type")))
            except ValueError:
                return None
    return model


def _meaning(path: KeyPath, raw: Any) -> str:
    model = _model_at(path[:-1], raw)
    field = model.model_fields.get(str(path[-1])) if model else None
    return f", the {field.description}" if field and field.description else ""
