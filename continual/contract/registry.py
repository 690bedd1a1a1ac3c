"""Find a class or function by the name in the YAML. Packages from outside register theirs by entry point."""

import importlib
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from continual.contract.announce import announce
from continual.errors import nearest


def registered(group: str) -> EntryPoints:
    """Return the entry points of a group. All that are installed are read once, which takes 20 ms."""
    found: EntryPoints = _installed(tuple(sys.path)).select(group=group)
    return found


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> Any:
    return entry_points()


class Registry:
    """The registered names of one kind of extension, each loaded on first use.

    Args:
        group: The entry-point group, e.g. `continual.mitigations`.
        kind: What messages call an entry, e.g. `mitigation`.
        base: The class that every entry must inherit from, as "module:Class"; "" for plain functions.
    """

    def __init__(self, group: str, kind: str, base: str = ""):
        self.group, self.kind, self.base = group, kind, base
        self._points: dict[str, EntryPoint] = {}

    def names(self) -> list[str]:
        """Return the registered names, sorted.

        Raises:
            ValueError: Two packages register the same name for different things.
        """
        if not self._points:
            for point in registered(self.group):
                known = self._points.setdefault(point.name, point)
                if known.value != point.value:
                    self._points = {}
                    raise ValueError(
                        f"two packages register the {self.kind} `{point.name}` ({known.value} and {point.value}); "
                        f"uninstall one, or write the other as `package.module:Name`"
                    )
        return sorted(self._points)

    def load(self, name: str) -> Any:
        """Return what `name` stands for; `package.module:Name` works without registration.

        Raises:
            ValueError: With the problem and the fix, for an unknown name or something that is not a `base`.
        """
        if ":" in name:
            announce("imports", name.partition(":")[0], self.kind)
            loaded = _import(name, self.kind)
        elif name in self.names():
            self._announce(name)
            loaded = self._points[name].load()
        else:
            near = nearest(name, self.names())
            hint = f"did you mean `{near}`?" if near else f"known: {', '.join(self.names())}"
            raise ValueError(f"there is no {self.kind} `{name}`; {hint}")
        if self.base and not (isinstance(loaded, type) and issubclass(loaded, _import(self.base, self.kind))):
            raise ValueError(f"`{name}` is not a subclass of continual.api.{self.base.partition(':')[2]}")
        return loaded

    def _announce(self, name: str) -> None:
        """Say that a package from outside is imported."""
        if not (point := self._points[name]).value.startswith(("continual.", "baselines.")):
            announce("imports", point.module, f"{self.kind} `{name}`")

    def find(self, name: object) -> Any:
        """Return what `load` returns; None for anything that names nothing."""
        try:
            return self.load(name) if isinstance(name, str) else None
        except ValueError:
            return None

    def check(self, name: str) -> str:
        """Return `name` if it is registered or can be imported (a pydantic validator).

        Raises:
            ValueError: As `load`, but without importing a registered entry.
        """
        if name not in self.names():
            self.load(name)
        return name

    def build(self, value: Any) -> Any:
        """Return the model that a mapping with a `type` describes (a pydantic validator); models pass unchanged.

        Raises:
            ValueError: For a value without `type`, or as `load`.
        """
        if isinstance(value, _import(self.base, self.kind)):
            return value
        if not isinstance(value, dict) or "type" not in value:
            raise ValueError(f"a {self.kind} is a mapping with a `type`, e.g. {{type: {self.names()[0]}}}")
        loaded = self.load(str(value["type"]))
        if missing := sorted(getattr(loaded, "__abstractmethods__", ())):
            methods = ", ".join(f"`{name}`" for name in missing)
            raise ValueError(f"the {self.kind} `{value['type']}` lacks {methods}; write what is missing")
        return loaded.model_validate(value)


def _import(reference: str, kind: str) -> Any:
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        problem = f"the {kind} `{reference}` cannot be imported ({error}); is its package on the path?"
        raise ValueError(problem) from error


MITIGATIONS = Registry("continual.mitigations", "mitigation", "continual.contract.mitigation:Mitigation")
SOURCES = Registry("continual.sources", "data source", "continual.contract.source:Source")
LOSSES = Registry("continual.losses", "loss", "continual.contract.loss:Loss")
SCHEDULES = Registry("continual.schedules", "schedule")
"""Functions of the progress after warm-up, from 0 to 1, that return a factor of the peak learning rate."""
ENGINES = Registry("continual.engines", "engine", "continual.sampling.engine:Engine")
