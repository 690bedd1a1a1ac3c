"""`python -m docs.generate`: renew the generated blocks of the pages, from schema, methods and results.

A block begins with the line `<!-- generated: NAME -->` and ends with `<!-- end -->`; everything around it is written by
hand. A test fails when a block differs from what this module writes.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from benchmarks.throughput import goals, memory, operations
from continual.associations.spec import Associate
from continual.config.compare import NOT_COMPARED
from continual.config.schema import Sequence
from continual.contract.mitigation import Mitigation
from continual.contract.registry import MITIGATIONS, SOURCES
from continual.contract.source import Source
from continual.sweep.spec import Ablation

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/configuration.md", "docs/methods.md", "docs/results.md", "docs/sizes.md")
COMMAND = "python -m docs.generate"
BLOCK = re.compile(r"(?<=^<!-- generated: )([\w ]+)( -->\n)(.*?)(?=^<!-- end -->$)", re.DOTALL | re.MULTILINE)
OWN_PACKAGES = ("continual", "baselines")
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
SCALARS = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true` or `false`", "null": "`null`"}


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        new = renewed(text)
        if new != text:
            path.write_text(new)
            print(f"{page}: renewed")


def renewed(page: str) -> str:
    """Return the page with every generated block written anew."""
    return BLOCK.sub(lambda block: f"{block[1]}{block[2]}{BLOCKS[block[1]]()}\n", page)


def sequence_keys() -> str:
    """Return one table for each mapping of a sequence's YAML."""
    return _sections(Sequence, "Keys of a sequence")


def changeable_keys() -> str:
    """Return the table of the keys that may change between two starts of a run."""
    rows = [f"| `{key}` | {_cell(reason)} |" for key, reason in NOT_COMPARED.items()]
    return "\n".join(["| key | why it may change |", "|---|---|", *rows])


def sweep_keys() -> str:
    """Return one table for each mapping of a sweep's YAML."""
    return _sections(Ablation, "Keys of a sweep")


def association_keys() -> str:
    """Return one table for each mapping of the YAML of associations."""
    return _sections(Associate, "Keys of associations")


def source_kinds() -> str:
    """Return a section for each kind of data source: its docstring and a table of the keys that only it has."""
    sections = []
    for name, source in _own(SOURCES.names(), SOURCES.load).items():
        keys = [field for field in source.model_fields if field not in Source.model_fields]
        sections.append("\n\n".join([f"#### `type: {name}`", _doc(source), *([_table(source, keys)] if keys else [])]))
    return "\n\n".join(sections)


def method_table() -> str:
    """Return the table of all methods: type, what it does, source."""
    rows = [
        f"| `{name}` | {_doc(method).splitlines()[0]} | {method.reference} |" for name, method in _methods().items()
    ]
    return "\n".join(["| type | what it does | source |", "|---|---|---|", *rows])


def method_options() -> str:
    """Return a section for each method: its docstring and a table of its options."""
    sections = []
    for name, method in _methods().items():
        parts = [f"### `{name}`", _doc(method), f"Source: {method.reference}.", _table(method)]
        parts += [
            f"Keys of `{place}`:\n\n{_table(model)}"
            for place, model in _nested(method, "")
            if model.__module__ == method.__module__ or model.__module__.startswith("baselines.")
        ]
        sections.append("\n\n".join(parts))
    return "\n\n".join(sections)


BLOCKS: dict[str, Callable[[], str]] = {
    "keys of a sequence": sequence_keys,
    "keys that may change": changeable_keys,
    "keys of a sweep": sweep_keys,
    "keys of associations": association_keys,
    "kinds of data source": source_kinds,
    "methods": method_table,
    "options of the methods": method_options,
    "throughput": goals.table,
    "memory": memory.kept_table,
    "time": operations.table,
}


def _methods() -> dict[str, type[Mitigation]]:
    """Return the methods of this repository by type; those of other installed packages are left out."""
    return _own(MITIGATIONS.names(), MITIGATIONS.load)


def _own(names: list[str], load: Callable[[str], Any]) -> dict[str, Any]:
    loaded = {name: load(name) for name in names}
    return {name: cls for name, cls in loaded.items() if cls.__module__.split(".")[0] in OWN_PACKAGES}


def _doc(model: type[BaseModel]) -> str:
    """Return the docstring with each paragraph's lines as they are, without its indentation."""
    return inspect.getdoc(model) or ""


def _sections(root: type[BaseModel], title: str) -> str:
    """Return a table for `root` and for every mapping below it, each once, headed by all places where it occurs."""
    places: dict[type[BaseModel], list[str]] = {}
    for place, model in _nested(root, ""):
        places.setdefault(model, []).append(f"`{place}`")
    sections = [f"### {title}\n\n{_table(root)}"]
    for model, where in places.items():
        described = [_doc(model)] if vars(model).get("__doc__") else []
        sections.append("\n\n".join([f"### {' and '.join(where)}", *described, _table(model)]))
    return "\n\n".join(sections)


def _nested(model: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield (place, model) for every mapping below `model`, depth first; the methods' own options are not followed."""
    for name, field in model.model_fields.items():
        for suffix, below in _models(field.annotation):
            if issubclass(below, Mitigation):
                continue
            key = f"{place}.{name}".lstrip(".") + suffix
            yield key, below
            yield from _nested(below, key)


def _models(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the pydantic models in a type, with what its place adds to the key: `.N` in a list, `.KEY` in a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
        return
    origin = getattr(annotation, "__origin__", None)
    step = {list: ".N", tuple: ".N", dict: ".KEY"}.get(origin, "") if origin is not None else ""
    for part in get_args(annotation):
        for suffix, model in _models(part):
            yield step + suffix, model


def _table(model: type[BaseModel], keys: Iterable[str] = ()) -> str:
    """Return the table of a model's keys, or of those in `keys`: key, type, default, meaning."""
    schema = model.model_json_schema()
    rows = []
    for name, field in model.model_fields.items():
        if (name == "type" and issubclass(model, Mitigation)) or (keys and name not in keys):
            continue
        kind = _type(schema["properties"][name])
        rows.append(f"| `{name}` | {kind} | {_default(field)} | {_cell(_meaning(model, name))} |")
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _meaning(model: type[BaseModel], key: str) -> str:
    """Return the description of a key, with the former name under which it still works."""
    former = [old for old, new in getattr(model, "renamed", {}).items() if new == key]
    return (model.model_fields[key].description or "") + "".join(f" (formerly `{old}`)" for old in former)


def _cell(text: str) -> str:
    """Return text that Markdown shows as it is inside a table's cell."""
    return re.sub(r"([|<*])", r"\\\1", text.replace("\n", " "))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "the defaults of its keys"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """Return a default as YAML in one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, BaseModel):
        return _yaml(value.model_dump(exclude_unset=True))
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        return value
    return re.sub(r"e-0*", "e-", json.dumps(value))


def _type(schema: dict[str, Any]) -> str:
    """Return a JSON schema in words, e.g. `integer ≥ 1 or null`."""
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(dict.fromkeys(_type(option) for option in schema.get("anyOf") or schema["oneOf"]))
    if "enum" in schema:
        values = [f"`{value}`" for value in schema["enum"]]
        return " or ".join([", ".join(values[:-1]), values[-1]])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema or "allOf" in schema:
        return "mapping"
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return f"{len(schema['prefixItems'])} {_plural(_type(schema['prefixItems'][0]))}"
        return f"list of {_plural(_type(schema['items']))}" if schema.get("items") else "list"
    if kind == "object":
        return "mapping"
    if kind is None:
        return "anything"
    bounds = [f"{sign} {schema[name]:g}" for name, sign in BOUNDS.items() if name in schema]
    return " ".join([SCALARS[kind], ", ".join(bounds)]).strip()


def _plural(kind: str) -> str:
    noun, _, bound = kind.partition(" ")
    return f"{noun}s {bound}".strip() if noun in ("mapping", "integer", "number") else kind


if __name__ == "__main__":
    main()
