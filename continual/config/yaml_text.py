"""YAML read and written by the rules of its version 1.2.

PyYAML follows YAML 1.1, where `1e-5` is text, `no` is false, `12:30` is 750 and `2024-01-01` is a date. Here numbers
are what they look like, only `true` and `false` are booleans, and a repeated key is an error; PyYAML silently keeps the
last one.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from continual.errors import ConfigurationError, naming_file, one_line

TAG = "tag:yaml.org,2002:"
MOST_VALUES = 200_000
"""Values of a file with every use of an anchor counted: a few hundred bytes of nested ones would fill any memory."""
MOST_BYTES = 256 << 10
"""Most bytes that are read of a file: more would be parsed for seconds, and a device never ends."""
SHORT = 32 << 10
"""Characters up to which a text with a mistake is read again for a better sentence."""
MOST_DEPTH = 100
"""How deep lists and mappings may lie in each other, as written or by anchors."""
MOST_DIGITS = 400
"""Digits of a number: more than any number that is used, fewer than Python's own limit."""


class _Rules(yaml.composer.Composer, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """What a text means, whoever takes it apart."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  PyYAML copies it into the class on first use

    def __init__(self) -> None:
        yaml.composer.Composer.__init__(self)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag == f"{TAG}merge":
                continue
            if key.tag != f"{TAG}str":
                raise yaml.composer.ComposerError(problem="a key must be text; quote it", problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"the key `{key.value}` is given twice; keep one of them"
                raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return node


class _Reader(_Rules, yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    """PyYAML's own, whose sentences say what was found."""

    def __init__(self, text: str | bytes):
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        _Rules.__init__(self)


_Fast: Any = _Reader
if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _Libyaml(_Rules, CParser):
        """libyaml's, which is four times as fast."""

        def __init__(self, text: str | bytes):
            CParser.__init__(self, text)
            _Rules.__init__(self)

    _Fast = _Libyaml


TOO_MUCH = f"the anchors expand to more than {MOST_VALUES:,} values; write fewer"
TOO_DEEP = f"the YAML contains itself or is nested more than {MOST_DEPTH} deep; remove the alias"


class OutOfBounds(yaml.composer.ComposerError):
    """A YAML that is too deep, or too large with its anchors."""


def check_bounds(node: Any) -> None:
    """Raise OutOfBounds for a composed YAML that contains itself, is too deep, or too large with its anchors.

    What is constructed of it, merged keys included, is at most as large.
    """
    known: dict[int, tuple[int, int]] = {}

    def measure(node: Any, depth: int) -> tuple[int, int]:
        """Return values and depth of a node; each is looked at once, however often an anchor is used."""
        if id(node) in known:
            return known[id(node)]
        if depth > MOST_DEPTH:
            _refuse(TOO_DEEP, node)
        known[id(node)] = (0, MOST_DEPTH + 1)  # meets itself within: too deep
        values, deepest = 1, 0
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        for part in parts:
            for item in part if isinstance(part, tuple) else (part,):
                more, below = measure(item, depth + 1)
                values, deepest = values + more, max(deepest, below + 1)
            if values > MOST_VALUES or deepest > MOST_DEPTH:
                _refuse(TOO_MUCH if values > MOST_VALUES else TOO_DEEP, node)
        known[id(node)] = (values, deepest)
        return known[id(node)]

    if node is not None:
        measure(node, 0)


def _refuse(sentence: str, node: Any) -> None:
    raise OutOfBounds(problem=sentence, problem_mark=node.start_mark)


def load_bounded(data: str | bytes, reader: Any) -> Any:
    """Return what a loader makes of a YAML, whose bounds are checked before anything is constructed.

    Raises what the loader raises: yaml.YAMLError, ValueError, RecursionError.
    """
    loader = reader(data)
    try:
        node = loader.get_single_node()
        check_bounds(node)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _number(kind: type) -> Any:
    def construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        text = str(loader.construct_scalar(node)).replace("_", "")
        if len(text) > MOST_DIGITS:
            problem = f"a number of {len(text):,} characters; write a shorter one, or quote it if it is text"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        return kind(text)

    return construct


class _Writer(yaml.SafeDumper):
    """Quotes what either version would not read as text: PyYAML would leave the text `1e-5` bare."""


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+",
     "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("merge", r"<<", "<"),
):  # fmt: skip
    for _rules in (_Rules, _Writer):
        _rules.add_implicit_resolver(f"{TAG}{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
_Rules.add_constructor(f"{TAG}int", _number(int))
_Rules.add_constructor(f"{TAG}float", _number(float))


def _loaded(text: str) -> Any:
    try:
        return load_bounded(text, _Fast)
    except yaml.YAMLError as error:
        if "nesting depth" in str(error):  # libyaml's own bound
            raise RecursionError from error
        if len(text) > SHORT:
            raise
        return load_bounded(text, _Reader)  # for its sentence


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text as dicts, lists and scalars that share no parts.

    Raises:
        ConfigurationError: The text cannot be read; the error's key is the line and column.
    """
    try:
        return _plain(_loaded(text), [MOST_VALUES])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem, _, fix = " ".join(str(error.problem or error.context).split()).partition("; ")
        raise ConfigurationError(place, problem, fix or "correct the YAML there or just before") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError("", f"this is not valid YAML ({one_line(error)})", "correct the text") from error
    except RecursionError:
        raise ConfigurationError("", "the YAML contains itself or is nested too deep", "remove the alias") from None


def yaml_text(value: Any) -> str:
    """Return a value of dicts, lists and scalars as a YAML text that `parse_yaml` reads as the same value."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path, file: str) -> dict[str, Any]:
    """Return the mapping in a YAML file; `file` is its name in messages. Raise ConfigurationError if it has none."""
    with naming_file(file):
        value = parse_yaml(_read(path))
    if not isinstance(value, dict):
        content = "is empty" if value is None else f"holds a {kind_name(value)}"
        fix = "write keys such as `name:`, `model:` and `stages:`"
        raise ConfigurationError("", f"the file {content}, not a mapping", fix, file)
    return value


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ConfigurationError("", f"the file has more than {MOST_BYTES >> 10} KiB", "name a YAML that you wrote")
        return data.decode("utf-8")
    except FileNotFoundError:
        raise ConfigurationError("", "there is no such file", "give the path of a sequence's YAML") from None
    except IsADirectoryError:
        raise ConfigurationError("", "this is a folder", "give the path of a sequence's YAML in it") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError("", f"the file is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    except OSError as error:
        raise ConfigurationError("", f"the file cannot be read ({error.strerror})", "check its permissions") from error


def kind_name(value: Any) -> str:
    """Return the word for a value's type in messages."""
    names = {dict: "mapping", list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _plain(value: Any, left: list[int]) -> Any:
    """Return a deep copy without shared parts: an override of one use of an anchor must not change the other.

    `left` holds how many values may still come.
    """
    left[0] -= 1
    if left[0] < 0:
        problem, _, fix = TOO_MUCH.partition("; ")
        raise ConfigurationError("", problem, fix)
    if isinstance(value, dict):
        return {key: _plain(item, left) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, left) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigurationError("", f"a value of type {type(value).__name__} is not supported", "write it as text")
