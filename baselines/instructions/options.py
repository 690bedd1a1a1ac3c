"""The options of instruction synthesis, and the sizes that follow from them."""

from typing import Literal

from pydantic import Field

from baselines.instructions.generators import SELF, Generator
from continual.api import Context, StageView, TeacherReplay, least_samples, most_filled


class SynthesisOptions(TeacherReplay):
    """What decides the instructions, the answers and the scores."""

    ratio: float = Field(
        0.25,
        gt=0,
        le=1000,
        description="replay tokens per task token in every optimizer step (the paper's mix: about 4.9)",
    )
    model: Literal["stage_start", "start"] = Field("stage_start", description="who makes up the instructions")
    generators: tuple[Generator, ...] = Field(
        (Generator(type="local", source=SELF),),
        description="who answers and judges; each is {type: local, source: folder, hub id or self} or {type: openai, "
        "url, model, api_key_env: variable with the key, concurrency: requests at one time, retries, timeout: seconds}",
    )
    instructions: int | None = Field(
        None,
        ge=1,
        description="instructions sampled; null: rounds of them until the kept pairs fill the stage's replay rows",
    )
    answers: int = Field(3, ge=1, description="answers by each generator to each instruction")
    instruction_tokens: int | None = Field(
        None, ge=1, description="longest instruction, tokens sampled; null: a quarter of a row"
    )
    answer_tokens: int | None = Field(None, ge=1, description="longest answer, tokens sampled; null: half a row")
    judge_tokens: int = Field(256, ge=4, description="longest judgement, tokens sampled")
    instruction_temperature: float = Field(1.0, gt=0, description="of the instructions; 1: unbiased")
    instruction_top_p: float = Field(0.98, gt=0, le=1, description="of the instructions; 1: off")
    answer_temperature: float = Field(0.7, gt=0, description="of the answers; 1: unbiased")
    answer_top_p: float = Field(0.8, gt=0, le=1, description="of the answers; 1: off")
    judge_temperature: float = Field(0.3, gt=0, description="of the judgements")
    min_score: float | None = Field(
        None, ge=1, le=5, description="instructions whose best mean score, 1 to 5, is lower are dropped; null: none"
    )
    seed: int | None = Field(None, ge=0, description="of all sampling; null: the sequence's")
    from_stage: int | None = Field(None, ge=1, description="first stage; null: 2 after random weights, else 1")

    def longest(self, view: StageView) -> tuple[int, int]:
        """Return the tokens of the longest instruction and of the longest answer."""
        instruction = self.instruction_tokens or max(1, view.row_tokens // 4)
        return instruction, self.answer_tokens or max(1, view.row_tokens // 2)

    def count(self, view: StageView) -> int:
        """Return the instructions to sample in the first round: those that are asked for, or one per row needed."""
        return self.instructions or self.needed(view)

    def most_rows(self, view: StageView) -> int | None:
        return most_filled(self.instructions, self.held_out_rows(view)) if self.instructions else None

    def needed(self, view: StageView) -> int:
        """Return the rows to fill: those that the stage reads and those held out. At most half are held out."""
        return least_samples(view.replay_rows(self.ratio), self.held_out_rows(view))

    def seed_of(self, ctx: Context) -> int:
        """Return the seed of all sampling."""
        return ctx.view.seed if self.seed is None else self.seed
