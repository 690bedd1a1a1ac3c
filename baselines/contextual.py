"""Replay of what the start model answers to the new task's own prompts."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from continual.contract.mitigation import Context, Mitigation, ModelRef, Stream
from continual.contract.registry import LOSSES
from continual.data.rows import column
from continual.errors import ConfigurationError

if TYPE_CHECKING:
    from continual.config.schema import Sequence
    from continual.store import Artefact


def task_prompts(rows: "Artefact") -> list[list[int]]:
    """The distinct prompts of a rows artefact as token ids, in its order: what stands before the first trained token.

    A document without a prompt begins to be trained at its second token, and gives nothing.
    """
    found: dict[tuple[int, ...], None] = {}
    for table in rows.tables():
        ids, weights, documents, positions = (
            column(table, name).reshape(-1) for name in ("ids", "weights", "documents", "positions")
        )
        begins = np.flatnonzero((documents >= 0) & (positions == 0))
        trained = np.flatnonzero(weights > 0)
        for begin, place in zip(begins, np.searchsorted(trained, begins), strict=True):
            first = trained[place] if place < len(trained) else begin
            if first > begin + 1 and documents[first] == documents[begin]:
                found[tuple(int(token) for token in ids[begin:first])] = None
    return [list(prompt) for prompt in found]


class Contextual(Mitigation):
    """Replay of the start model's answers to the prompts of the task at hand; loss on answer and end tokens.

    The contrast to context-free replay: it holds on to the model's behaviour on the new task's prompts only.
    """

    source: ClassVar[str] = "contextual synthetic baseline of Bansal & Sanghavi 2025 (2505.13811)"

    type: Literal["contextual"] = "contextual"
    loss: Literal["nll", "kl"] = Field("nll", description="next-token loss, or forward KL to the model that answered")
    weight: float = Field(1.0, ge=0, description="multiplies the replay component")
    share: float = Field(0.25, gt=0, description="replay tokens per task token in every optimizer step")
    model: Literal["start", "stage_start"] = Field("start", description="who answers")
    temperature: float = Field(1.0, gt=0, description="1: unbiased")
    top_p: float = Field(1.0, gt=0, le=1, description="1: off")
    top_k: int = Field(0, ge=0, description="0: off")
    answers: int | None = Field(
        None, ge=1, description="null: one per prompt, but no more than the stage's replay rows"
    )
    seed: int | None = Field(None, ge=0, description="null: the sequence's")
    held_out: int = Field(8, ge=0, description="rows that are never trained on and measure drift (kl)")

    def refuse(self, sequence: "Sequence", stage: int, others: list[Mitigation]) -> str | None:
        data = sequence.stages[stage - 1].data
        if data.type == "text" or data.text:
            return f"stage `{sequence.stages[stage - 1].name}` is running text and has no prompts; use `context_free`"
        return None

    def count(self, sequence: "Sequence", steps: int) -> int:
        """The most answers that are made."""
        return self.answers or round(self.share * sequence.train.batch_rows) * steps + self.held_out

    def samples(self, sequence: "Sequence", stage: int) -> int:
        return self.count(sequence, sequence.stages[stage - 1].steps or 1000) * sequence.train.row_tokens

    def prepare(self, ctx: Context) -> dict[str, "Artefact"]:
        prompts = task_prompts(ctx.task_rows)
        if not prompts:
            problem = f"the rows of stage `{ctx.stage_name}` have no prompts"
            raise ConfigurationError(f"mitigation ({self.label})", problem, "use `context_free`")
        count = self.count(ctx.sequence, ctx.steps)
        count = count if self.answers else min(count, len(prompts))
        settings: dict[str, Any] = self.model_dump(include={"temperature", "top_p", "top_k", "seed"})
        rows = ctx.sample(self._model(ctx), count=count, start="prompts", prompts=prompts[:count], **settings)
        return {"rows": rows}

    def streams(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Stream]:
        loss = LOSSES.load(self.loss)
        return [
            Stream(
                name=self.label,
                rows=artefacts["rows"],
                loss=loss(),
                teacher=self._model(ctx) if loss.teacher else None,
                coefficient=self.weight,
                ratio=self.share,
                held_out=self.held_out if loss.teacher else 0,
            )
        ]

    def _model(self, ctx: Context) -> ModelRef:
        return ctx.start if self.model == "start" else ctx.stage_start
