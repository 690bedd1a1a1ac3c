"""Replay of what the start model answers to the new task's own prompts."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from continual.api import (
    Artefact,
    ConfigurationError,
    Context,
    Mitigation,
    ModelRef,
    SampleRequest,
    StageView,
    TeacherReplay,
    column,
    digest,
    most_filled,
)


def task_prompts(rows: Artefact) -> list[list[int]]:
    """Return the distinct prompts of a rows artefact as token ids, in its order: the ids before the first trained one.

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


class Contextual(TeacherReplay):
    """Replay of the start model's answers to the prompts of the task at hand; loss on answer and end tokens.

    The contrast to context-free replay: it preserves the model's behavior on the new task's prompts only.
    """

    reference: ClassVar[str] = "contextual synthetic baseline of Bansal & Sanghavi 2025 (2505.13811)"

    type: Literal["contextual"] = "contextual"
    model: Literal["stage_start", "start"] = Field("start", description="who answers")
    temperature: float = Field(1.0, gt=0, description="1: unbiased")
    top_p: float = Field(1.0, gt=0, le=1, description="1: off")
    top_k: int = Field(0, ge=0, description="0: off")
    answers: int | None = Field(
        None, ge=1, description="answers; null: as many as fill the stage's replay rows, several to a prompt if need be"
    )
    seed: int | None = Field(None, ge=0, description="null: the sequence's")

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        if not view.has_prompts:
            return f"stage `{view.name}` is running text and has no prompts; use `context_free`"
        if self.answers and self.answers <= (held_out := self.held_out_rows(view)):
            return (
                f"`answers` {self.answers} leaves nothing beside {held_out} held-out rows; write more of them, or null"
            )
        return super().check(view, others)

    def sampled_tokens(self, view: StageView) -> int:
        return self._request(view, ModelRef("", ""), []).resolved(view).tokens

    def scores_samples(self, view: StageView) -> bool:
        return self.teacher == "cached"

    def most_rows(self, view: StageView) -> int | None:
        return most_filled(self.answers, self.held_out_rows(view)) if self.answers else None

    def rows(self, ctx: Context) -> Artefact:
        prompts = task_prompts(ctx.task_rows)
        if not prompts:
            problem = f"the rows of stage `{ctx.view.name}` have no prompts"
            raise ConfigurationError(f"mitigation ({self.label})", problem, "use `context_free`")
        seed = ctx.view.seed if self.seed is None else self.seed
        key = int(digest(["prompts", seed, ctx.view.number]), 16) % (1 << 64)
        order = np.random.Generator(np.random.Philox(key)).permutation(len(prompts))
        return ctx.sample(self._request(ctx.view, self.frozen_model(ctx), [prompts[place] for place in order]))

    def _request(self, view: StageView, model: ModelRef, prompts: list[list[int]]) -> SampleRequest:
        return SampleRequest(
            model,
            count=self.answers,
            rows=None if self.answers else view.replay_rows(self.ratio),
            held_out=self.held_out_rows(view),
            start="prompts",
            prompts=prompts,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
            step_rows=view.replay_step(self.ratio),
        )
