"""Trained stages in the store: runs that would train the same stage train it once.

Arms of a comparison and trials of a sweep often begin alike, e.g. with a first stage in which no mitigation acts.
Everything that decides a stage's weights is in its address; a run that finds it complete takes over the model, the
records of the steps and the scores inside the stage, and a run that wants it at the same moment waits.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from continual.config.compare import compared
from continual.contract.mitigation import Mitigation
from continual.contract.models import ModelRef
from continual.contract.registry import SCHEDULES
from continual.contract.stream import Stream
from continual.evaluation.service import Scorer
from continual.ledger.folder import StageFolder
from continual.models import tokenizer_hash
from continual.models.dropout import has_dropout
from continual.models.files import model_files
from continual.store import Store, digest, folder_damage, hash_file, hash_folder, second_copy
from continual.store.artefact import versions
from continual.store.code import OURS, definition_code, own_file, with_content
from continual.store.folders import listed_files
from continual.store.places import remove
from continual.training.job import TrainJob
from continual.training.launch import exported

KIND = "stages"
DROPOUT = {key: f"train.{key} (the model has dropout)" for key in ("micro_rows", "workers")}
"""How inputs of stages that draw dropout are called, by the key of `train`."""
ROOMS = Path(__file__).parents[1]
CODE = (
    "training", "models", "methods", "contract/loss.py", "contract/stream.py", "data/documents.py", "data/rows.py",
    "data/packing.py",
)  # fmt: skip
"""Rooms and files whose code decides what training leaves; a mitigation may use other files of its room."""


def stage_inputs(job: TrainJob, scorer: Scorer) -> dict[str, Any]:
    """Return everything that decides what `job` leaves in its folder."""
    return {
        "model": job.model.hash,
        "tokenizer": tokenizer_hash(job.tokenizer),
        "streams": [_stream(job, stream) for stream in job.streams],
        "penalties": [
            [p.name, p.centre.hash, p.curvature.hash if p.curvature else None, p.coefficient] for p in job.penalties
        ],
        "mitigations": [
            [
                with_content(
                    mitigation.label,
                    mitigation.model_dump(mode="json"),
                    getattr(mitigation, "version", None),
                    own_file(type(mitigation)),
                ),
                definition_code(type(mitigation)),
            ]
            for mitigation in job.mitigations
            if _has_code(mitigation)
        ],
        "train": compared({"train": job.train.model_dump()})["train"] | _file_options(job),
        "schedule": definition_code(SCHEDULES.load(job.train.schedule)),
        "steps": job.steps,
        "seed": job.seed,
        "ends": job.ends,
        **({"attention": job.attention} if job.attention else {}),
        "evaluate_every": job.evaluate_every,
        "scores": scorer.shared if job.evaluate_every else None,
        **_drawn(job),
        "code": [hash_folder(path, (".py",)) if (path := ROOMS / name).is_dir() else hash_file(path) for name in CODE],
        "versions": versions(("torch", "transformers", "peft", "deepspeed")),
    }


def _has_code(mitigation: Mitigation) -> bool:
    """Return whether a mitigation's code decides more than what its streams and penalties tell by their content; all of
    the user's own may.
    """
    ours = type(mitigation).__module__.partition(".")[0] in (*OURS, "baselines")
    return not ours or mitigation.overrides("adapt") or mitigation.overrides("control")


def _file_options(job: TrainJob) -> dict[str, Any]:
    """Return the options of `train` that are files, by their content."""
    return {"deepspeed": job.inputs["train.deepspeed"]} if "train.deepspeed" in job.inputs else {}


def resumed_inputs(job: TrainJob) -> dict[str, list[str]]:
    """Return what must be equal for a stage to be trained on from a checkpoint: its data, and what dropout hangs on."""
    return job.inputs | {DROPOUT[key]: [str(value)] for key, value in _drawn(job).items()}


def _drawn(job: TrainJob) -> dict[str, Any]:
    """Return options that change results only where dropout is drawn: by each worker, once per forward pass; {} without
    dropout.

    The number of threads is left out: it only changes the order of sums, and results stay equal up to rounding.
    """
    options = [mitigation.model_dump(mode="json") for mitigation in job.mitigations if mitigation.overrides("adapt")]
    return {key: getattr(job.train, key) for key in DROPOUT} if has_dropout(job.model.path, options) else {}


def _stream(job: TrainJob, stream: Stream) -> list[Any]:
    """Return what decides a stream's part in the weights: its settings, its loss's code, its data."""
    loss = [type(stream.loss).__qualname__, definition_code(type(stream.loss))]
    settings = [stream.name, stream.coefficient, stream.rows_per_step, stream.shuffle, stream.held_out]
    return settings + loss + job.inputs[stream.name]


@contextmanager
def trained_once(
    store: Store,
    job: TrainJob,
    scorer: Scorer,
    taken: Callable[[str], None],
) -> Iterator[None]:
    """Wrap the training of a stage: copy what another run has trained into the job's folder before the block, and what
    the block has trained into the store after it.

    Waits, and says so, if another run trains the same stage now. `taken(run)` is called if its result was taken over.
    """
    inputs = stage_inputs(job, scorer)
    artefact = store.artefact(KIND, inputs)
    with store.write(artefact, inputs) as writer:
        if writer is None and not exported(job):
            shutil.rmtree(job.files.evaluations, ignore_errors=True)
            _copy(artefact.path, job.folder)
            taken(artefact.manifest()["maker"])
        yield
        if writer is not None:
            _copy(job.folder, artefact.path)
            writer.finish()


def take_model(store: Store, model: ModelRef) -> bool:
    """Put a trained stage's model from the store into its folder again; return whether the store has it."""
    if (folder := stored_model(store, model)) is None:
        return False
    Path(model.path).parent.mkdir(parents=True, exist_ok=True)
    _place(folder, Path(model.path), partial(shutil.copytree, copy_function=second_copy, symlinks=True))
    return True


def stored_model(store: Store, model: ModelRef) -> Path | None:
    """Return the folder in which the store has a trained stage's model whole, None if it has not."""
    folders = sorted((store.root / KIND).glob("*/model"))
    return next((path for path in folders if _listed_hash(path) == model.hash and folder_damage(path) is None), None)


def _listed_hash(folder: Path) -> str | None:
    """Return `model_hash` of an exported model by what its manifest says, without reading it; None without one."""
    listed = listed_files(folder)
    with suppress(OSError, KeyError):
        names = [str(path.relative_to(folder)) for path in model_files(folder)]
        return digest([[name, listed[name]["sha256"]] for name in names])
    return None


def _copy(source: Path, target: Path) -> None:
    """Copy records and scores, and last the model, whose presence says that the stage is trained."""
    target.mkdir(parents=True, exist_ok=True)
    old, new = StageFolder(source), StageFolder(target)
    _place(old.metrics, new.metrics, shutil.copy2)
    if old.scores.is_dir():
        _place(old.scores, new.scores, partial(shutil.copytree, symlinks=True))
    _place(old.model, new.model, partial(shutil.copytree, copy_function=second_copy, symlinks=True))


def _place(source: Path, target: Path, copy: Callable[[Path, Path], Any]) -> None:
    """Copy to a temporary name and rename, so that a kill leaves the whole or nothing."""
    temporary = target.with_name(f".{target.name}.tmp")
    for leftover in (temporary, target):
        remove(leftover)
    copy(source, temporary)
    temporary.replace(target)
