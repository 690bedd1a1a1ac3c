"""What a start finds of an earlier one: its models and data as they were then, or a sentence that says what changed."""

from pathlib import Path

from continual.config.load import Loaded
from continual.config.schema import Sequence
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError
from continual.evaluation.service import Scorer
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Ledger, read_ledger
from continual.ledger.places import placed, placed_model
from continual.models.start import cached_hash, start_model
from continual.run.read import changed_sources
from continual.run.reuse import take_model
from continual.store import Store, digest

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
    then = "has changed since; the result is that of what was there then"
    notes = [f"finished with other data: `{key}` {then}" for key in changed]
    for event in {event["stage"]: event for event in ledger.all("stage_done")}.values():
        model = ModelRef(placed_model(event["model"], files.path), event["hash"])
        try:
            notes += filter(None, [check_finished(store, event["stage"], model)])
        except ConfigurationError as error:
            notes.append(f"{error.key}: {error.problem}")
    return notes


def refuse_other_measures(ledger: Ledger, scorer: Scorer) -> None:
    """Raise ConfigurationError if the scores to come would be measured otherwise than those that the run has."""
    # Texts are compared where they are read; other versions of libraries are the user's choice.
    tasks = {name: digest(what) for name, what in scorer.measured.items() if name not in scorer.texts}
    settings = {key: digest(value) for key, value in scorer.settings.items() if key != "versions"}
    now = {"tasks": tasks, "settings": settings}
    known = (ledger.find("measures") or {}).get("measures", now)
    others = {
        kind: [key for key in now[kind] if known[kind].get(key, now[kind][key]) != now[kind][key]] for kind in now
    }
    if ledger.find("scored") and (changed := others["tasks"] + others["settings"]):
        what = f"files or data of the tasks {', '.join(others['tasks'])}" if others["tasks"] else ", ".join(changed)
        problem = f"{what} have changed since this run began, and its scores would not compare"
        raise ConfigurationError("evaluate", problem, FIX)
    if known != now or not ledger.find("measures"):
        ledger.add("measures", measures=now)
