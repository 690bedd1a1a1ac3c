"""Whether a configuration may resume the run in its folder: one rule for the run, its plan and sweeps."""

import json
from pathlib import Path

from continual.config.load import Loaded, differences
from continual.errors import ConfigurationError, fingerprinted
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import FORMAT, read_ledger


def refuse_changes(folder: Path, loaded: Loaded) -> None:
    """Raise ConfigurationError if the run in `folder` cannot be resumed.

    It was begun by another version, or with a configuration that asks for other results.
    """
    files = RunFolder(folder)
    begun = read_ledger(folder).events
    if begun and begun[0].get("format") != FORMAT:
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
    begun = fingerprinted(json.loads(files.identity.read_text()))  # which earlier versions wrote as they were
    return differences(begun, loaded.identity)
