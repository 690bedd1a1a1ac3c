"""Trained stages in the store: runs that would train the same stage train it once.

Arms of a comparison and trials of a sweep often begin alike, e.g. with a first stage in which no mitigation acts. All
that decides a stage's weights is in its address; a run that finds it complete takes over the model, the records of the
steps and the scores inside the stage, and a run that wants it at the same moment waits.
"""

import inspect
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from continual.config.compare import compared
from continual.contract.mitigation import Mitigation
from continual.contract.stream import Stream
from continual.evaluation.service import Scorer
from continual.models import tokenizer_hash
from continual.store import Artefact, Store, hash_file, hash_folder
from continual.store.artefact import versions
from continual.training.job import TrainJob
from continual.training.launch import exported

KIND = "stages"
ROOMS = Path(__file__).parents[1]


def stage_inputs(job: TrainJob, scorer: Scorer) -> dict[str, Any]:
    """Everything that decides what `job` leaves in its folder."""
    return {
        "model": job.model.hash,
        "tokenizer": tokenizer_hash(job.tokenizer),
        "streams": [_stream(job, stream) for stream in job.streams],
        "anchors": [
            [anchor.name, anchor.centre.hash, anchor.curvature.hash if anchor.curvature else None, anchor.weight]
            for anchor in job.anchors
        ],
        "mitigations": [_in_worker(one) for one in job.mitigations if _acts_in_worker(one)],
        "train": compared({"train": job.train.model_dump()})["train"],
        "steps": job.steps,
        "seed": job.seed,
        "threads": job.threads,
        "evaluate_every": job.evaluate_every,
        "scores": scorer.shared if job.evaluate_every else None,
        # A mitigation may use other files of its room in the workers.
        "code": [hash_folder(ROOMS / room, (".py",)) for room in ("training", "models", "methods")],
        "versions": versions(("torch", "transformers", "peft", "deepspeed")),
    }


def _stream(job: TrainJob, stream: Stream) -> list[Any]:
    """Return what decides a stream's part in the weights: its settings, its loss's code, its data."""
    loss = [type(stream.loss).__qualname__, _source_hash(stream.loss)]
    settings = [stream.name, stream.coefficient, stream.rows_per_step, stream.shuffle, stream.held_out]
    return settings + loss + job.inputs[stream.name]


def _acts_in_worker(one: Mitigation) -> bool:
    """Whether it does more than streams, weights and anchors, which are told by their content."""
    return type(one).adapt is not Mitigation.adapt or type(one).control is not Mitigation.control


def _in_worker(one: Mitigation) -> list[Any]:
    return [one.model_dump(mode="json"), _source_hash(one)]


def _source_hash(instance: object) -> str:
    """Return the hash of the file that defines the class of `instance`, "" if there is none."""
    source = inspect.getsourcefile(type(instance))
    return hash_file(source) if source else ""


@contextmanager
def trained_once(
    store: Store, job: TrainJob, scorer: Scorer, waiting: Callable[[str], None], taken: Callable[[str], None]
) -> Iterator[None]:
    """Around the training of a stage: before it, what another run has trained is put into the job's folder; after it,
    what the block has trained is put into the store.

    `waiting(owner)` is called when another run trains the same stage now, `taken(run)` when its result was taken over.
    """
    inputs = stage_inputs(job, scorer)
    artefact = store.artefact(KIND, inputs)
    with store.write(artefact, inputs, waiting) as writer:
        if writer is None and not exported(job) and not artefact.damage():
            _take(artefact, job)
            taken(artefact.manifest()["maker"])
        yield
        if writer is not None:
            _copy(job.folder, artefact.path, job)
            writer.finish()


def _take(artefact: Artefact, job: TrainJob) -> None:
    shutil.rmtree(job.folder / "evaluations", ignore_errors=True)
    _copy(artefact.path, job.folder, job)


def _copy(source: Path, target: Path, job: TrainJob) -> None:
    """Records and scores, and last the model, whose presence says that the stage is trained."""
    target.mkdir(parents=True, exist_ok=True)
    _place(source / "metrics.jsonl", target / "metrics.jsonl", shutil.copy2)
    if (source / "scores").is_dir():
        _place(source / "scores", target / "scores", shutil.copytree)
    _place(source / job.export.name, target / job.export.name, _linked)


def _place(source: Path, target: Path, copy: Callable[[Path, Path], Any]) -> None:
    """Copy beside the target and rename, so that a kill leaves the whole or nothing."""
    temporary = target.with_name(f".{target.name}.tmp")
    for left in (temporary, target):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    copy(source, temporary)
    temporary.replace(target)


def _linked(source: Path, target: Path) -> None:
    """A copy of a folder whose files take no further room where the file system has hard links; nobody changes them."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    shutil.copytree(source, target, copy_function=link)
