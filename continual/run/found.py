"""What a start finds of an earlier one: its models and data as they were then, or a sentence that says what changed."""

from pathlib import Path

from continual.config.load import Loaded
from continual.config.schema import Sequence
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import read_ledger
from continual.ledger.places import placed
from continual.models.start import cached_hash, start_model
from continual.run.read import changed_sources
from continual.run.reuse import take_model
from continual.store import Store

FIX = "put that back, choose a new `name`, or give --fresh to begin the run again"


def same_start(sequence: Sequence, store: Store, known: ModelRef) -> ModelRef:
    """Return the start model where it lies now.

    Raises ConfigurationError if it is not what the run began with.
    """
    source = sequence.model
    downloaded = source.type == "pretrained" and not Path(str(source.source)).is_dir()
    if downloaded and Path(known.path).is_dir():
        found = ModelRef(known.path, cached_hash(store, Path(known.path)))
    else:
        found = start_model(store, source, sequence.seed)
    if found.hash != known.hash:
        key = "model.source" if source.type == "pretrained" else "model.build"
        raise ConfigurationError(key, f"the start model in {found.path} has changed since this run began", FIX)
    return found


def check_finished(store: Store, stage: int, model: ModelRef) -> str | None:
    """Take the model of a finished stage from the store if it is missing or has changed; return a note that says so.

    Raises ConfigurationError if the store does not have it either.
    """
    folder = Path(model.path)
    if folder.is_dir() and cached_hash(store, folder) == model.hash:
        return None
    what = "has changed" if folder.is_dir() else "is missing"
    if not take_model(store, model):
        raise ConfigurationError(f"stages.{stage - 1}", f"its model in {folder} {what}, and the store lacks it", FIX)
    return f"the model of stage {stage} in {folder} {what}; it was taken from the store again"


def changes(loaded: Loaded) -> list[str]:
    """Return a sentence for everything of a finished run that has changed since: its result is that of what it had."""
    files = RunFolder(loaded.run_folder)
    ledger, store = read_ledger(files.path), Store(files.storage / "store")
    if not (began := ledger.find("start_model")):
        return []
    tokenizer = placed(began["path"], files.storage)
    changed = [named.key for named in changed_sources(loaded.sequence, ledger, store, tokenizer)]
    local = Path(str(loaded.sequence.model.source))
    if loaded.sequence.model.source and local.is_dir() and cached_hash(store, local.resolve()) != began["hash"]:
        changed.insert(0, "model.source")
    return [f"`{key}` has changed since this run began; its result is that of what was there then" for key in changed]
