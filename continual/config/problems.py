"""pydantic's findings as one sentence: file, dotted key, what is wrong, what to write instead."""

import copy
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from continual.config.overrides import KeyPath, Override, dotted, shortened
from continual.contract.base import Strict
from continual.contract.mitigation import Mitigation
from continual.contract.registry import MITIGATIONS, SOURCES
from continual.contract.source import Source
from continual.errors import ConfigurationError, nearest, together

MOST_FINDINGS = 50
"""Findings that are put into words."""
EXPECTED = {
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


def explain(
    error: ValidationError, root: type[BaseModel], raw: dict[str, Any], file: str, overrides: list[Override]
) -> "Misconfigured":
    """Return the first finding as a ConfigurationError that names the others, too.

    Args:
        error: What pydantic raised for `raw`.
        root: The model of the whole file, e.g. `Sequence`.
        raw: The mapping that was validated, with the overrides applied.
        file: The file's name in messages.
        overrides: The overrides that were applied; one that set the bad value is named.
    """
    findings: dict[KeyPath, Any] = {}
    for finding in error.errors(include_url=False):
        findings.setdefault(_place(finding, raw), finding)
    # An unknown key comes first: it is often the reason why another one is missing.
    order = sorted(findings, key=lambda path: findings[path]["type"] != "extra_forbidden")
    errors = []
    for path in order[:MOST_FINDINGS]:
        where = with_override(file, path, overrides)
        errors.append(ConfigurationError(dotted(path), *_sentence(findings[path], path, root, raw), where))
    more = len(order) - len(errors)
    return Misconfigured(together(errors, more), errors, more, _without(raw, order))


def with_override(file: str, path: KeyPath, overrides: list[Override]) -> str:
    """Return the file's name, with the last override that set the value at `path`, or a section around or below it."""
    for override in reversed(overrides):
        shared = min(len(path), len(override.path))
        if path and path[:shared] == override.path[:shared]:
            return f"{file} with override `{shortened(override.text)}`"
    return file


def shown(value: Any) -> str:
    """Return a value for a message: short, on one line, as YAML writes it."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else " ".join(repr(value).split())
    return text if len(text) <= 50 else f"{text[:47]}..."


def _place(finding: Any, raw: Any) -> KeyPath:
    """Return pydantic's location without the parts that name members of a union."""
    path: list[str | int] = []
    value, last = raw, len(finding["loc"]) - 1
    for number, part in enumerate(finding["loc"]):
        if isinstance(value, list) and isinstance(part, int):
            value = value[part] if part < len(value) else None
        elif isinstance(value, dict) and number == last and finding["type"] == "missing":
            value = None
        elif isinstance(value, dict) and part in value and (number == last or part != value.get("type")):
            value = value[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _sentence(finding: Any, path: KeyPath, root: type[BaseModel], raw: Any) -> tuple[str, str]:
    """Return what is wrong and what to write instead."""
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(path, root, raw)
    if kind == "missing" and isinstance(path[-1], int):
        return "the list is too short", f"give at least {path[-1] + 1} entries"
    if kind == "missing":
        return "this key is missing", f"add `{path[-1]}:`{_meaning(path, root, raw)}"
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
        return f"{value} is out of range", f"write a number that is {words} {context[name]:.12g}"
    if kind == "string_pattern_mismatch":
        fix = "use letters, digits, `.`, `-` and `_`; begin with a letter or digit and end without a dot"
        return f"{value} is not a valid name", fix
    if kind == "string_too_long":
        return f"{value} has {len(finding['input'])} characters", f"write at most {context['max_length']}"
    if kind == "too_short":
        return "the list is too short", f"give at least {context['min_length']}"
    expected = EXPECTED.get(kind.split("_")[0])
    if expected is None:
        return f"{value} is not allowed ({finding['msg']})", "see the key's description in docs/configuration.md"
    return f"{value} is of the wrong type", f"write {expected}"


def _unknown(path: KeyPath, root: type[BaseModel], raw: Any) -> tuple[str, str]:
    model = _model_at(path[:-1], root, raw)
    known = list(model.model_fields) if model else []
    word = str(path[-1])
    if near := _usual(model, word) or nearest(word, known) or nearest(word.lower(), known):
        return "there is no such key", f"did you mean `{near}`?"
    sections = _sections(root).items()
    elsewhere = [f"{name}.{word}" for name, section in sections if word in section.model_fields]
    elsewhere += [f"{name}.{key}" for name, section in sections if (key := _usual(section, word))]
    if elsewhere:
        return "there is no such key here", f"did you mean `{elsewhere[0]}`?"
    return "there is no such key", f"known here: {', '.join(sorted(known))}"


def _usual(model: type[BaseModel] | None, word: str) -> str | None:
    """Return the key that other tools call `word`, None if there is none."""
    return model.usual.get(word.lower()) if model and issubclass(model, Strict) else None


def _meaning(path: KeyPath, root: type[BaseModel], raw: Any) -> str:
    model = _model_at(path[:-1], root, raw)
    field = model.model_fields.get(str(path[-1])) if model else None
    return f" ({field.description})" if field and field.description else ""


def _sections(root: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the model of every key that holds one section, e.g. `train`."""
    return {name: model for name, field in root.model_fields.items() if (model := model_of(field.annotation, None))}


def _model_at(path: KeyPath, root: type[BaseModel], raw: Any) -> type[BaseModel] | None:
    """Return the model of the mapping at `path`, or None if it has none."""
    annotation: Any = root
    for part in path:
        if (model := model_of(annotation, raw)) is None:
            annotation = item_of(annotation)
        else:
            annotation = model.model_fields[str(part)].annotation if part in model.model_fields else None
        raw = raw[part]
    return model_of(annotation, raw)


def item_of(annotation: Any) -> Any:
    """Return the annotation of the items of a list or of the values of a dict, or None."""
    items = [part for member in _members(annotation) for part in get_args(member) if part is not Ellipsis]
    return items[-1] if items else None


def model_of(annotation: Any, value: Any) -> type[BaseModel] | None:
    """Return the model of `value` among those of its annotation; of several, its `type` decides."""
    models = [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)]
    kind = value.get("type") if isinstance(value, dict) else None
    for base, registry in ((Mitigation, MITIGATIONS), (Source, SOURCES)):
        if base in models:
            loaded: type[BaseModel] | None = registry.find(kind)
            return loaded
    types = {model: model.model_fields.get("type") for model in models}
    typed = [model for model, field in types.items() if field and kind in get_args(field.annotation)]
    return next(iter(typed or models), None)


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation itself, without metadata."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


class Misconfigured(ConfigurationError):
    """The findings of a file together, and what is left of its mapping without the keys that they are about."""

    def __init__(self, told: ConfigurationError, errors: list[ConfigurationError], more: int, rest: dict[str, Any]):
        super().__init__(told.key, told.problem, told.fix, told.file)
        self.errors, self.more, self.rest = errors, more, rest

    def __reduce__(self) -> Any:
        return ConfigurationError, (self.key, self.problem, self.fix, self.file)


def _without(raw: dict[str, Any], paths: Iterable[KeyPath]) -> dict[str, Any]:
    """Return a copy of a mapping without the keys at some paths; items of lists stay."""
    rest = copy.deepcopy(raw)
    for path in paths:
        holder: Any = rest
        for part in path[:-1]:
            known = isinstance(holder, dict) or (isinstance(holder, list) and isinstance(part, int))
            holder = holder[part] if known and (part in holder if isinstance(holder, dict) else True) else None
        if isinstance(holder, dict) and path:
            holder.pop(path[-1], None)
    return rest
