"""What trials share, told before the start: the hooks of their mitigations are asked what they would sample.

Models, rows and samples are stood for by hashes of all that will decide them. Equal hashes mean equal results, so the
number of distinct ones is what will be made.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

from continual.config.compare import compared
from continual.config.schema import Sequence
from continual.contract.mitigation import Mitigation, ModelRef, StageRecord
from continual.contract.source import Source
from continual.store import Artefact, Store
from continual.store.files import digest


class _NothingThere(Exception):
    """A hook asked for content that only a run has."""


@dataclass(frozen=True)
class StageShare:
    """One stage: the address of its training, and tokens to sample by address of the sample set."""

    training: str
    samples: dict[str, int]


class _Rehearsal:
    """The contract's Context of a stage that does not run; `asked` gathers the sample sets, `calls` counts."""

    def __init__(self, sequence: Sequence, stage: int, start: ModelRef, stage_start: ModelRef, steps: int):
        self.sequence, self.stage, self.start, self.stage_start, self.steps = sequence, stage, start, stage_start, steps
        self.earlier = [
            StageRecord(done.name, ModelRef("", ""), _artefact(done.name), done.start_token)
            for done in sequence.stages[: stage - 1]
        ]
        self.asked: dict[str, int] = {}
        self.calls = 0

    @property
    def stage_name(self) -> str:
        return self.sequence.stages[self.stage - 1].name

    @property
    def seed(self) -> int:
        return self.sequence.seed

    @property
    def task_rows(self) -> Artefact:
        return self.read(self.sequence.stages[self.stage - 1].data)

    @property
    def store(self) -> Store:
        raise _NothingThere

    def sample(self, model: ModelRef, *, count: int, tokens: int | None = None, **settings: Any) -> Artefact:
        """Takes down a sample set; of `count` samples at most `tokens` long."""
        sequence = self.sequence
        longest = tokens or sequence.train.row_tokens
        if settings.get("seed") is None:
            settings["seed"] = self.seed
        if settings.get("start", "bos") != "tasks":
            settings.pop("start_tokens", None)
        generate = sequence.generate.model_dump(include={"engine", "engine_arguments", "shard_samples"})
        address = digest([model.hash, count, longest, settings, generate, sequence.model.dtype])
        self.asked[address] = count * longest
        self.calls += 1
        return _artefact(address)

    def generate(self, model: ModelRef, prompts: list[list[int]], **settings: Any) -> Artefact:
        """What a model says after prompts decides what is done with it, and is not known before the run."""
        raise _NothingThere

    def use(self, samples: Artefact) -> None:
        raise _NothingThere

    def step(self, title: str) -> Any:
        raise _NothingThere

    def score(self, model: ModelRef, rows: Artefact, **settings: Any) -> Artefact:
        return _artefact(digest([model.hash, rows.hash, settings]))

    def read(self, source: Source) -> Artefact:
        return _artefact(digest([source.model_dump(mode="json"), self.sequence.train.row_tokens]))


def _artefact(address: str) -> Artefact:
    return Artefact("rows", address, "/nowhere")


def rehearse(sequence: Sequence, steps: list[int]) -> list[StageShare]:
    """The sequence's stages, with `steps` optimizer steps each, by what decides them."""
    own = [sequence.seed] if sequence.model.type == "python" else []
    start = current = ModelRef("", digest([sequence.model.model_dump(mode="json"), *own]))
    found = []
    train = compared({"train": sequence.train.model_dump(mode="json")})["train"]
    for number, stage in enumerate(sequence.stages, 1):
        ctx = _Rehearsal(sequence, number, start, current, steps[number - 1])
        acting = [one for one in sequence.mitigations(number) if one.active(sequence, number)]
        for one in acting:
            _ask(one, ctx)
        methods = [one.model_dump(mode="json") for one in acting]
        decided = [current.hash, stage.data.model_dump(mode="json"), ctx.steps, sequence.seed, train, methods]
        training = digest([*decided, sorted(ctx.asked)])
        found.append(StageShare(training, ctx.asked))
        current = ModelRef("", training)
    return found


def _ask(one: Mitigation, ctx: _Rehearsal) -> None:
    """What the mitigation samples; where its hook cannot tell without a run, a set of its own."""
    tokens = one.samples(ctx.sequence, ctx.stage)
    if not tokens:
        return
    before = ctx.calls
    # Whatever a hook misses here (rows to read, a store to write to), it comes after what it has asked for.
    with contextlib.suppress(Exception):
        one.prepare(ctx)
    if ctx.calls == before:
        ctx.asked[digest([ctx.stage_start.hash, ctx.start.hash, one.model_dump(mode="json"), ctx.seed])] = tokens
