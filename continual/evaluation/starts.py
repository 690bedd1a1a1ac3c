"""The models that drift is measured from, of which one is in memory at a time beside the model that is scored."""

import gc
from collections.abc import Callable
from typing import Any


class Starts:
    """Loads models by their folders; the model that is scored is there already, under its own folder."""

    def __init__(self, folder: str, model: Any, load: Callable[[str], Any]):
        self._known, self._load = {folder: model}, load
        self._loaded: dict[str, Any] = {}

    def get(self, folder: str) -> Any:
        """Return the model of a folder; another one that was loaded before makes room for it."""
        if folder in self._known:
            return self._known[folder]
        if folder not in self._loaded:
            self._let_go()
            self._loaded[folder] = self._load(folder)
        return self._loaded[folder]

    def close(self) -> None:
        """Let all models go."""
        self._known.clear()
        self._let_go()

    def _let_go(self) -> None:
        if self._loaded:
            self._loaded.clear()
            gc.collect()  # models refer to themselves
