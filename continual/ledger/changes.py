"""Whether a configuration may resume the run in its folder: one rule for the run, its plan and sweeps."""

from pathlib import Path

from continual.config.load import Loaded, differences
from continual.errors import ConfigurationError, fingerprinted
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import FORMAT, read_ledger
from continual.store.json_files import read_json


def refuse_changes(folder: Path, loaded: Loaded) -> None:
    """Raise ConfigurationError if the run in `folder` cannot be resumed.

    It was begun by another version, or with a configuration that asks for other results.
    """
    files = RunFolder(folder)
    ledger = read_ledger(folder)
    begun = ledger.find_first("run")
    # The event is missing if an earlier version began the run, or if its line is damaged.
    if begun.get("format") != FORMAT if begun else ledger.events and not ledger.damaged:
        problem = f"the run `{loaded.sequence.name}` in {folder} was begun by another version of continual"
    elif files.identity.is_file() and (changed := _changed(files, loaded)):
        values = ", ".join(changed)
        problem = f"the run `{loaded.sequence.name}` in {folder} was begun with other values of {values}"
    else:
        return
    fix = "choose a new `name`, or give --fresh to begin it again"
    raise ConfigurationError("name", problem, fix, loaded.file)


def _changed(files: RunFolder, loaded: Loaded) -> list[str]:
    """Return the keys whose values differ from those that the run was begun with."""
    fix = "give --fresh to begin the run again"
    begun = fingerprinted(read_json(files.identity, fix))  # which earlier versions wrote as they were
    return differences(begun, loaded.identity)
