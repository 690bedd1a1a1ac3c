"""A stage's training as one small picklable value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from continual.config.schema import Train
from continual.contract.mitigation import Mitigation, Penalty
from continual.contract.models import ModelRef
from continual.contract.stream import Stream
from continual.ledger.folder import StageFolder
from continual.store import hash_file

TASK = "task"
"""Name of the task's own stream."""


@dataclass(frozen=True)
class TrainJob:
    """Everything that the workers need for one stage. The loss is the sum over its streams.

    `folder` is the stage's folder; `files` names what is in it. `ends` says what its data teach to end an answer, the
    end of a text or of a turn of the chat template: the exported model ends its generation there. `attention` is what
    the models run with, by transformers' name; "" is transformers' own choice. `most_exports`: of `evaluate_every`, so
    many may be there at one time, those that are being scored among them; None: any number. `until`: the job is a part
    of the stage and ends after that step, None: at the stage's end; `steps` are always the whole stage's.
    """

    folder: Path
    model: ModelRef
    tokenizer: str
    streams: tuple[Stream, ...]
    train: Train
    steps: int
    seed: int
    evaluate_every: int | None = None
    penalties: tuple[Penalty, ...] = ()
    mitigations: tuple[Mitigation, ...] = ()
    threads: int = 1
    ends: Literal["", "text", "chat"] = ""
    attention: str = ""
    most_exports: int | None = None
    until: int | None = None

    @property
    def last(self) -> int:
        """The step after which the workers stop: that of the part of the stage, or the stage's last."""
        return self.until or self.steps

    def evaluates_after(self, step: int) -> bool:
        """Return whether drift and scores inside the stage are due after a step."""
        return bool(self.evaluate_every) and step % (self.evaluate_every or 1) == 0

    def exports_after(self, step: int) -> bool:
        """Return whether a model inside the stage is exported after a step: not after the last, which has its own."""
        return self.evaluates_after(step) and step < self.steps

    @property
    def inputs(self) -> dict[str, list[str]]:
        """Hashes of the model, the streams' data and options' files; a stage can only resume with equal ones.

        So is the attention, which `auto` chooses.
        """
        hashes = {"the stage-start model": [self.model.hash]}
        for stream in self.streams:
            stored = [stream.rows, *stream.token_weights, stream.columns, stream.teacher]
            hashes[stream.name] = [item.hash for item in stored if item is not None]
        if isinstance(self.train.deepspeed, str):
            hashes["train.deepspeed"] = [hash_file(self.train.deepspeed)]
        if self.attention:
            hashes["model.attention"] = [self.attention]
        return hashes

    @property
    def files(self) -> StageFolder:
        return StageFolder(self.folder)

    @property
    def checkpoints(self) -> Path:
        return self.files.checkpoints

    @property
    def export(self) -> Path:
        """The folder of the model after step `last`."""
        return self.files.part_model(self.until) if self.until else self.files.model
