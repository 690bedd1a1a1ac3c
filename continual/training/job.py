"""What a stage's training is, as one small picklable value."""

from dataclasses import dataclass
from pathlib import Path

from continual.config.schema import Train
from continual.contract.mitigation import Anchor, Mitigation, ModelRef
from continual.training.order import StreamRows

TASK = "task"
"""Name of the task's own stream."""


@dataclass(frozen=True)
class Component:
    """A stream's part in the loss: L = sum over components of weight x (sum of row weight x loss / global count).

    `loss` is `nll`, `kl` (teacher: a model) or `topk` (teacher: columns in the rows).
    """

    rows: StreamRows
    loss: str
    weight: float
    teacher: ModelRef | None = None


@dataclass(frozen=True)
class TrainJob:
    """Everything that the workers need for one stage.

    `folder` is the stage's folder: `metrics.jsonl`, `checkpoints/`, `evaluations/` and at the end `model/`.
    """

    folder: Path
    model: ModelRef
    tokenizer: str
    components: tuple[Component, ...]
    train: Train
    steps: int
    seed: int
    evaluate_every: int | None = None
    anchors: tuple[Anchor, ...] = ()
    mitigations: tuple[Mitigation, ...] = ()
    threads: int = 1

    @property
    def inputs(self) -> dict[str, list[str]]:
        """Hashes of what is trained and on what, by stream; equal for a stage that goes on."""
        found = {"the stage-start model": [self.model.hash]}
        for component in self.components:
            rows = component.rows
            stored = [rows.artefact, *rows.row_weights, *([rows.columns] if rows.columns else [])]
            teacher = [component.teacher.hash] if component.teacher else []
            found[rows.name] = [artefact.hash for artefact in stored] + teacher
        return found

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def export(self) -> Path:
        return self.folder / "model"
