"""A stream of rows with its loss: what a mitigation adds to every batch, and what the workers read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from continual.contract.loss import Loss
from continual.contract.models import ModelRef

if TYPE_CHECKING:
    from continual.store import Artefact


@dataclass(frozen=True)
class Stream:
    """Rows in every batch, and their part in the loss: coefficient x (sum of token weight x loss / global count).

    Attributes:
        name: Unique within the stage; the task's own stream is `task`.
        rows: A rows artefact.
        loss: The loss on these rows.
        teacher: The frozen model, for a loss that needs one.
        columns: An artefact with the stored columns that the loss needs, for the same rows.
        coefficient: Multiplies the stream's mean loss (`weight` in the YAML).
        ratio: Tokens of this stream per task token in every optimizer step (`share` in the YAML).
        token_weights: Artefacts with one weight per token, which multiply the rows' own.
        held_out: So many rows are never trained on; drift is measured on them. They are the first ones, or those of a
            permutation that is the same in every stage, if the others are shuffled.
        shuffle: Read in a new permutation every epoch, another one in each stage; else sequentially from row `held_out`
            on, endlessly.
        since: The step (0-based) at which the stream begins: its first rows are read there.
        rows_per_step: Rows in every optimizer step over all workers; set by the stage from `ratio`.
    """

    name: str
    rows: "Artefact"
    loss: Loss
    teacher: ModelRef | None = None
    columns: "Artefact | None" = None
    coefficient: float = 1.0
    ratio: float = 1.0
    token_weights: tuple["Artefact", ...] = ()
    held_out: int = 0
    shuffle: bool = False
    since: int = 0
    rows_per_step: int = 0
