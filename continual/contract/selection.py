"""Which documents of a source are asked for: the values that their columns must hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from continual.contract.columns import EmptyCell, is_number, kind_of, readable
from continual.errors import ConfigurationError, nearest

MOST_VALUES = 8
"""Values of a column that are remembered for a message."""


@dataclass
class Selection:
    """The values asked for, by column, and what a reading has met of them.

    Attributes:
        wanted: The values of which a column must hold one.
        options: The option that asks, by column, for messages.
        optional: Columns that a document may lack.
        met: The columns there were, and the positions of the wanted values that occurred.
        others: Some of the other values that occurred.
        left_out: Documents that hold none of the wanted values.
    """

    wanted: dict[str, list[Any]]
    options: dict[str, str]
    optional: frozenset[str] = frozenset()
    met: dict[str, set[int]] = field(default_factory=dict)
    others: dict[str, set[str]] = field(default_factory=dict)
    left_out: int = 0

    def takes(self, document: Mapping[str, Any]) -> bool:
        """Return whether a document is asked for; count it if it is not."""
        taken = True
        for column, values in self.wanted.items():
            if column not in document:
                taken = taken and column in self.optional
                continue
            met = self.met.setdefault(column, set())
            place = next((place for place, wanted in enumerate(values) if same(wanted, document[column])), None)
            if place is None:
                taken = False
                others = self.others.setdefault(column, set())
                if len(others) < MOST_VALUES:
                    others.add(_words(document[column]))
            else:
                met.add(place)
        self.left_out += not taken
        return taken

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add what `facts` returned of a reading of another part."""
        self.left_out += facts["left_out"]
        for column, places in facts["met"].items():
            self.met.setdefault(column, set()).update(places)
        for column, values in facts["others"].items():
            self.others.setdefault(column, set()).update(values)

    def facts(self) -> dict[str, Any]:
        """Return what was met, JSON-able."""
        met = {column: sorted(places) for column, places in self.met.items()}
        others = {column: sorted(values) for column, values in self.others.items()}
        return {"left_out": self.left_out, "met": met, "others": others}

    def check(self, taken: int) -> None:
        """Check, after all was read, that what is asked for occurred: `taken` documents. Raises ConfigurationError."""
        for column, values in self.wanted.items():
            option = self.options[column]
            if column not in self.met:
                if column not in self.optional:
                    raise ConfigurationError(option, f"no document has a field `{column}`", "name one that they have")
                continue
            missing = [value for place, value in enumerate(values) if place not in self.met[column]]
            if missing:
                known = sorted(self.others.get(column, set()))[:MOST_VALUES]
                near = nearest(str(missing[0]), known)
                fix = f"did you mean `{near}`?" if near else f"there is {', '.join(known) or 'nothing else'}"
                if missing[0] == "" and _words(EmptyCell()) in known:
                    fix = "write `null`: an empty cell of a table is a missing value"
                asked = _words(missing[0])
                shown = f"`{asked}`" if missing[0] not in ("", None) else asked
                raise ConfigurationError(option, f"no document has {shown} in `{column}`", fix)
        if self.wanted and not taken:
            asked = " and ".join(f"`{column}`" for column in self.wanted)
            option = next(iter(self.options.values()))
            raise ConfigurationError(option, f"no document matches {asked} together", "remove one of the conditions")


def _words(value: Any) -> str:
    """Return a value for a message, and words for one that shows nothing."""
    if value is None or isinstance(value, EmptyCell):
        return kind_of(value)
    return readable(value) or "an empty text"


def same(wanted: Any, value: Any) -> bool:
    """Return whether a column holds a value of the YAML; tables hold numbers and truth values as text."""
    if isinstance(value, EmptyCell):
        value = None
    if wanted is None or value is None:
        return wanted is value
    truth = type(value).__name__ in ("bool", "bool_")
    if isinstance(wanted, bool):
        return (truth and bool(value) == wanted) or (isinstance(value, str) and value.lower() == str(wanted).lower())
    if truth:
        return isinstance(wanted, str) and wanted.lower() == str(value).lower()
    if is_number(wanted) and is_number(value):
        return bool(wanted == value)
    return isinstance(value, str | int | float) and str(wanted) == str(value)
