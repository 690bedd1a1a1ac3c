"""Replay of instructions that the model makes up, with the best of a committee's answers."""

import json
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from baselines.instructions.committee import RUBRIC
from baselines.instructions.endpoint import check_endpoint
from baselines.instructions.generators import SELF
from baselines.instructions.options import SynthesisOptions
from baselines.instructions.rounds import Rounds
from continual.api import (
    SOURCES,
    Artefact,
    ConfigurationError,
    Context,
    Mitigation,
    ModelRef,
    StageView,
    TeacherReplay,
    digest,
    versions,
)

MOST_ROUNDS, MOST_GROWTH, MARGIN = 6, 4, 1.1
"""Rounds of instructions; how many times as many a round may have as the one before; what is added to an estimate."""
PAIRS = "pairs.jsonl"


class InstructionSynthesis(SynthesisOptions):
    """Replay of the best answers of a committee to instructions that the model makes up after its bare chat template.

    Every generator answers every instruction several times, and every generator scores every answer from 1 to 5. One
    answer per instruction is kept: that with the highest mean over the scores that could be read. Instructions and
    answers that were cut off by their limit of tokens are dropped, since no end is to be learned from them; near
    duplicates of instructions are dropped before they cost an answer. All that is dropped is counted in the manifest
    of the `pairs` artefact, whose `pairs.jsonl` can be read.
    """

    reference: ClassVar[str] = "Ding & Wang 2025 (2506.09428); instructions as in Magpie, Xu et al. 2024 (2406.08464)"

    type: Literal["instruction_synthesis"] = "instruction_synthesis"

    @classmethod
    def paths(cls, options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, tuple[str | int, ...]]]:
        generators = options.get("generators")
        for number, generator in enumerate(generators if isinstance(generators, list) else ()):
            if isinstance(generator, dict) and isinstance(generator.get("source"), str) and generator["source"] != SELF:
                yield generator, "source", ("generators", number, "source")

    def notes(self) -> list[str]:
        return [
            f"replies of `{generator.title}` are known by its name and the URL alone, and are used again; "
            "change the generator's `version` when the endpoint serves another model"
            for generator in self.generators
            if generator.type == "openai" and generator.version is None
        ]

    def active(self, view: StageView) -> bool:
        return view.has_reached(self.from_stage)

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        if not self.generators:
            return "`generators` is empty; list at least one, e.g. {type: local, source: self}"
        places = [generator.place for generator in self.generators]
        if len({tuple(place) for place in places}) < len(places):
            return "a generator is listed twice and would say everything twice; raise `answers` instead"
        asked, answered = self.longest(view)
        if asked + answered > view.row_tokens:
            row = f"a row of {view.row_tokens} tokens"
            return f"an instruction of {asked} and an answer of {answered} tokens do not fit {row}; lower one of them"
        if view.facts(None).chat_template is False:
            return "the model's tokenizer has no chat template to make up instructions after; use `context_free`"
        for number, generator in enumerate(self.generators):
            if reason := generator.check(view, asked + answered + self.judge_tokens):
                return f"generators.{number}: {reason}"
        return super().check(view, others)

    def sampled_tokens(self, view: StageView) -> int:
        """Return the most tokens of local models; endpoints sample elsewhere."""
        asked, answered = self.longest(view)
        local = sum(generator.type == "local" for generator in self.generators)
        judged = len(self.generators) * self.judge_tokens
        return self.count(view) * (asked + local * self.answers * (answered + judged))

    def needs_first(self, view: StageView) -> str | None:
        return "its answers are compared before one is kept"

    def rows(self, ctx: Context) -> Artefact:
        try:
            sampled: tuple[int, ...] = (self.count(ctx.view),)
            rows, total = self._read(ctx, sampled)
            needed = self.needed(ctx.view)
            while not self.instructions and total < needed:
                if len(sampled) == MOST_ROUNDS:
                    with ctx.step("instructions") as step:
                        step.note(
                            f"{sampled[-1]} fill {total} of {needed} rows; no more are sampled, rows are repeated"
                        )
                    break
                more = math.ceil(sampled[-1] * (needed - total) / total * MARGIN)
                sampled = (*sampled, sampled[-1] + min(more, (MOST_GROWTH - 1) * sampled[-1]))
                rows, total = self._read(ctx, sampled)
            return rows
        except ConfigurationError as error:
            raise error.within(f"mitigation ({self.label})") from error

    def _read(self, ctx: Context, sampled: tuple[int, ...]) -> tuple[Artefact, int]:
        """Return the rows of the pairs that some rounds make, and their number."""
        path = self.pairs(ctx, sampled).file(PAIRS)
        source = {"type": "jsonl", "path": str(path), "messages": "messages", "overlong": "drop"}
        rows = ctx.read(SOURCES.build(source))
        return rows, rows.manifest()["counts"]["rows"]

    def pairs(self, ctx: Context, sampled: tuple[int, ...]) -> Artefact:
        """Return the artefact with `pairs.jsonl`, one conversation per kept instruction.

        `sampled` are the instructions sampled after every round. A further round keeps what the earlier ones made.
        """
        inputs = self._inputs(ctx, models := self._models(ctx), sampled)
        artefact = ctx.store.artefact("pairs", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is None:
                for samples, count in artefact.manifest()["samples"].items():
                    ctx.use(Artefact("samples", samples, str(ctx.store.root)), count)
                return artefact
            # Probe endpoints first: sampling takes hours.
            for generator in self.generators:
                if generator.type == "openai":
                    check_endpoint(generator)
            pairs, facts = Rounds(ctx, self, models, sampled).run()
            with writer.files() as folder:
                (folder / PAIRS).write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
            writer.finish(**facts)
        return artefact

    def _models(self, ctx: Context) -> list[ModelRef | None]:
        """Return the generators' models, None for endpoints."""
        return [
            None
            if generator.type == "openai"
            else self.frozen_model(ctx)
            if generator.source == SELF
            else ctx.model(str(generator.source))
            for generator in self.generators
        ]

    def _inputs(self, ctx: Context, models: list[ModelRef | None], sampled: tuple[int, ...]) -> dict[str, Any]:
        """Return what decides the pairs: models by content, endpoints by name, and how all are asked."""
        apart = {"type", "name", "generators", "instructions", "seed", "from_stage", *TeacherReplay.model_fields}
        pairs = zip(self.generators, models, strict=True)
        return {
            "synthesis": self.model_dump(exclude=apart) | {"rubric": digest(RUBRIC)},
            "tokens": self.longest(ctx.view),
            "sampled": sampled,
            "seed": self.seed_of(ctx),
            "model": self.frozen_model(ctx).hash,
            "generators": [[model.hash] if model else generator.served for generator, model in pairs],
            "sampler": ctx.sampler() | versions(("rensa",)),
        }
