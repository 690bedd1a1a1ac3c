"""What a start finds of an earlier one: its models and data as they were then, or a sentence that says what changed.

A run and its plan ask the same functions; a plan (`foreseen`) writes nothing and needs no cluster.
"""

from collections.abc import Callable
from pathlib import Path

from continual.config.load import Loaded
from continual.config.schema import Sequence
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError, naming_file
from continual.evaluation.service import Scorer, evaluators_of
from continual.ledger.folder import RunFolder, StageFolder
from continual.ledger.ledger import Events, Ledger, read_ledger
from continual.ledger.places import placed, placed_model
from continual.ledger.progress import read_progress
from continual.models.start import built_inputs, cached_hash, start_model
from continual.run.read import FIX, Named, changed_note, changed_sources
from continual.run.reuse import DROPOUT, stored_model, take_model
from continual.store import Store, digest, hash_file
from continual.training.checkpoints import step_folder, steps_found
from continual.training.job import TASK

EARLIER = ("ddp.pt", "deepspeed")
"""What a checkpoint of an earlier version has in its folder."""


def same_start(sequence: Sequence, store: Store, known: ModelRef) -> ModelRef:
    """Return the start model where it lies now.

    Raises ConfigurationError if it is not what the run began with.
    """
    found = _start_here(sequence, store, known) or start_model(store, sequence.model, sequence.seed)
    return _unchanged(sequence, found, known)


def _unchanged(sequence: Sequence, found: ModelRef, known: ModelRef) -> ModelRef:
    if found.hash != known.hash:
        problem = f"the start model in {found.path} has changed since this run began"
        raise ConfigurationError(_start_key(sequence), problem, FIX)
    return found


def _start_key(sequence: Sequence) -> str:
    return "model.source" if sequence.model.type == "pretrained" else "model.build"


def _start_here(sequence: Sequence, store: Store, known: ModelRef, remember: bool = True) -> ModelRef | None:
    """Return the start model as it lies here, None if it has yet to be built or downloaded."""
    source = sequence.model
    if source.type == "python":
        built = store.artefact("models", built_inputs(source, sequence.seed))
        folder = built.path if built.complete and not built.damage() else None
    elif (folder := Path(str(source.source))).is_dir():
        folder = folder.resolve()
    else:
        folder = Path(known.path) if Path(known.path).is_dir() else None
    return ModelRef(str(folder), cached_hash(store, folder, remember)) if folder else None


def _built_anew(sequence: Sequence, store: Store, known: ModelRef) -> bool:
    """Return whether the code, arguments or files of a model builder are others than those that built `known`."""
    if sequence.model.type != "python":
        return False
    return store.artefact("models", built_inputs(sequence.model, sequence.seed)).hash != Path(known.path).name


def check_finished(
    store: Store,
    stage: int,
    model: ModelRef,
    plan: bool = False,
    again: Callable[[ModelRef], bool] = lambda model: False,
) -> str | None:
    """Take the model of a finished stage from the store if it is missing or has changed; return a note that says so.

    `plan`: only say that it would be taken. `again` makes it again where the store does not have it whole, if it can.
    Raises ConfigurationError if all that is in vain.
    """
    folder = Path(model.path)
    if folder.is_dir() and cached_hash(store, folder, remember=not plan) == model.hash:
        return None
    what = "has changed" if folder.is_dir() else "is missing"
    if not store.holds(folder):
        problem = f"its model in {folder} {what}, and it lies outside of the storage, where nothing is replaced"
        raise ConfigurationError(f"stages.{stage - 1}", problem, FIX)
    if not (stored_model(store, model) if plan else take_model(store, model)):
        if not plan and again(model):
            return f"the model of stage {stage} in {folder} {what}; it was made again"
        raise ConfigurationError(f"stages.{stage - 1}", f"its model in {folder} {what}, and the store lacks it", FIX)
    taken = "will be" if plan else "was"
    return f"the model of stage {stage} in {folder} {what}; it {taken} taken from the store again"


def refuse_other_inputs(stage: int, files: StageFolder, changed: list[str]) -> None:
    """Refuse to resume a stage whose training was begun with other data, samples, models or options."""
    if changed and any(path.is_dir() for path in (files.checkpoints, files.model, files.evaluations, files.scores)):
        problem = (
            f"its training began with different contents of {', '.join(changed)} (files, code or versions changed)"
        )
        raise ConfigurationError(f"stages.{stage - 1}", problem, FIX)


def refuse_lost_part(stage: int, files: StageFolder, step: int) -> None:
    """Refuse to resume a stage that has gone on from a model which is gone, and from which its rows were chosen."""
    if any(done > step for done in steps_found(files.checkpoints)):
        problem = f"its model after step {step} in {files.part_model(step)} is gone, and its training is past that step"
        raise ConfigurationError(f"stages.{stage - 1}", problem, f"delete {files.path} to train the stage again")


def refuse_other_checkpoints(stage: int, files: StageFolder) -> None:
    """Refuse to resume a stage from checkpoints that an earlier version wrote."""
    steps = steps_found(files.checkpoints)
    if not steps or files.model.is_dir():
        return
    newest = step_folder(files.checkpoints, steps[0])
    if any((newest / name).exists() for name in EARLIER):
        problem = f"its checkpoints in {files.checkpoints} are of an earlier version"
        raise ConfigurationError(f"stages.{stage - 1}", problem, "finish it with that version, or delete that folder")


def foreseen(loaded: Loaded) -> list[str]:
    """Return what a start of the sequence would say of all that has changed since its run began.

    Writes nothing and asks no cluster: a model that has to be built again is only named.

    Raises:
        ConfigurationError: The start would be refused.
    """
    files, sequence = RunFolder(loaded.run_folder), loaded.sequence
    ledger, store = read_ledger(files.path), Store(files.storage / "store")
    if not (began := ledger.find("start_model")):
        return []
    if read_progress(files.path).finished and ledger.all("closed"):
        return ledger.loss + changes(loaded, plan=True)
    with naming_file(loaded.file):
        known = ModelRef(placed(began["path"], files.storage), began["hash"])
        notes = ledger.loss
        if found := _start_here(sequence, store, known, remember=False):
            _unchanged(sequence, found, known)
        elif _built_anew(sequence, store, known):
            built = "its code, arguments or files have changed since this run began"
            notes.append(f"`model.build`: {built}; the model is built again, and refused if it is another one")
        other = changed_sources(sequence, ledger, store, known.path)
        notes += [changed_note(named, ledger) for named in other]
        compare_measures(ledger, Scorer(store, sequence, {}, evaluators_of(sequence, 1)))
        for number, stage in enumerate(sequence.stages, 1):
            if not (done := ledger.find("stage_done", stage=number)):
                changed_inputs = _changed_inputs(sequence, ledger, number, other)
                refuse_other_inputs(number, files.stage(number, stage.name), changed_inputs)
                refuse_other_checkpoints(number, files.stage(number, stage.name))
                break  # the others have not begun
            model = ModelRef(placed_model(done["model"], files.path), done["hash"])
            notes += filter(None, [check_finished(store, number, model, plan=True)])
    return notes


def _changed_inputs(sequence: Sequence, ledger: Events, stage: int, other: list[Named]) -> list[str]:
    """Return which inputs of a stage that was begun have changed, as far as files and options tell."""
    known = (ledger.find("prepared", stage=stage) or {}).get("inputs", {})
    own = f"stages.{stage - 1}.data"
    names = [TASK if named.key == own else named.key for named in other if named.stage == stage] if known else []
    now = {title: [str(getattr(sequence.train, key))] for key, title in DROPOUT.items()}
    if isinstance(sequence.train.deepspeed, str):
        now["train.deepspeed"] = [hash_file(sequence.train.deepspeed)]
    return names + [name for name, value in now.items() if known.get(name, value) != value]


def changes(loaded: Loaded, plan: bool = False) -> list[str]:
    """Return a sentence for everything of a finished run that has changed since: its result is that of what it had.

    `plan`: write nothing.
    """
    files, sequence = RunFolder(loaded.run_folder), loaded.sequence
    ledger, store = read_ledger(files.path), Store(files.storage / "store")
    if not (began := ledger.find("start_model")):
        return []
    known = ModelRef(placed(began["path"], files.storage), began["hash"])
    other = [named.key for named in changed_sources(sequence, ledger, store, known.path)]
    found = _start_here(sequence, store, known, remember=not plan)
    if found.hash != known.hash if found else _built_anew(sequence, store, known):
        other.insert(0, _start_key(sequence))
    then = "has changed since; the result is that of what was there then"
    notes = [f"finished with other data: `{key}` {then}" for key in other]
    try:
        if sequence.evaluate.include_path:  # other tasks are lm-eval's
            compare_measures(ledger, Scorer(store, sequence, {}, evaluators_of(sequence, 1)))
    except ConfigurationError as error:
        notes.append(f"{error.key}: {error.problem}")
    for event in {event["stage"]: event for event in ledger.all("stage_done")}.values():
        model = ModelRef(placed_model(event["model"], files.path), event["hash"])
        try:
            notes += filter(None, [check_finished(store, event["stage"], model, plan)])
        except ConfigurationError as error:
            notes.append(f"{error.key}: {error.problem}")
    return notes


def compare_measures(ledger: Events, scorer: Scorer) -> dict[str, dict[str, str]]:
    """Return what decides the scores to come beside the models and texts.

    Raises ConfigurationError if they would be measured otherwise than those that the run has.
    """
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
    return now


def refuse_other_measures(ledger: Ledger, scorer: Scorer) -> None:
    """Record what decides the scores to come. Raises ConfigurationError as `compare_measures`."""
    now = compare_measures(ledger, scorer)
    if (ledger.find("measures") or {}).get("measures") != now:
        ledger.add("measures", measures=now)
