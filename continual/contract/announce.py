"""Say which of the user's code is imported and called, before that happens: for `--plan`, which starts nothing else."""

from collections.abc import Callable

_listener: list[Callable[[str], None]] = []
_said: set[str] = set()


def listen(listener: Callable[[str], None] | None) -> None:
    """Pass what follows to `listener`, each thing once; None: to nobody."""
    _listener[:] = [listener] if listener else []
    _said.clear()


def announce(doing: str, reference: str, key: str = "") -> None:
    """Say that the code of `reference` is about to be imported or called; `key` is where the configuration names it."""
    said = f"{doing} {reference}"
    if _listener and said not in _said:
        _said.add(said)
        _listener[0](f"{said} ({key})" if key else said)
