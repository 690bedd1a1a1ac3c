"""Dry-run the mitigations' hooks to find which samples and stages trials share, before anything starts.

Models, rows and samples are represented by hashes of their inputs. Equal hashes mean equal results, so the number of
distinct ones is what will be made.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

from continual.config.compare import compared
from continual.config.schema import Sequence
from continual.contract.context import Context, StageRecord
from continual.contract.mitigation import Mitigation
from continual.contract.models import ModelRef
from continual.contract.registry import ENGINES
from continual.contract.requests import SampleRequest
from continual.contract.source import Source
from continual.contract.view import StageView
from continual.preflight.stages import acting, stage_view
from continual.store import Artefact, Store
from continual.store.files import digest


class _NeedsRun(Exception):
    """A hook asked for content that only a run has."""


@dataclass(frozen=True)
class StageShare:
    """One stage: the address of its training, and tokens to sample by address of the sample set."""

    training: str
    samples: dict[str, int]


class _Rehearsal(Context):
    """The contract's Context of a stage that does not run; `requested` gathers the sample sets, `calls` counts."""

    def __init__(self, sequence: Sequence, view: StageView, start: ModelRef, stage_start: ModelRef):
        self.sequence, self.view, self.start, self.stage_start = sequence, view, start, stage_start
        self.earlier = [
            StageRecord(stage.name, ModelRef("", ""), _artefact(stage.name), stage.start_token)
            for stage in sequence.stages[: view.number - 1]
        ]
        self.requested: dict[str, int] = {}
        self.calls = 0

    @property
    def task_rows(self) -> Artefact:
        return self.read(self.sequence.stages[self.view.number - 1].data)

    @property
    def store(self) -> Store:  # type: ignore[override]
        raise _NeedsRun

    @property
    def max_failed(self) -> float:
        return self.sequence.generate.max_failed

    def sampler(self) -> dict[str, Any]:
        generate = self.sequence.generate
        block = ENGINES.load(generate.engine)().block(generate)
        return {
            **generate.model_dump(include={"engine", "engine_arguments"}), "block": block,
            "dtype": self.sequence.model.dtype,
        }  # fmt: skip

    def sample(self, request: SampleRequest) -> Artefact:
        """Record a sample set."""
        request = request.resolved(self.view)
        address = digest([request.identity(), self.sampler()])
        self.requested[address] = max(request.tokens, self.requested.get(address, 0))
        self.calls += 1
        return _artefact(address)

    def generate(self, request: SampleRequest, title: str = "generate") -> Artefact:
        """Fail: what a model says after prompts decides what is done with it, and only a run has it."""
        raise _NeedsRun

    def use(self, samples: Artefact, count: int) -> None:
        raise _NeedsRun

    def step(self, title: str) -> Any:
        raise _NeedsRun

    def score(self, model: ModelRef, rows: Artefact, **settings: Any) -> Artefact:
        return _artefact(digest([model.hash, rows.hash, settings]))

    def losses(self, model: ModelRef, title: str = "evaluate") -> Any:
        raise _NeedsRun

    def read(self, source: Source) -> Artefact:
        return _artefact(digest([source.model_dump(mode="json"), self.view.row_tokens]))

    def model(self, source: str) -> ModelRef:
        return ModelRef("", digest(source))


def _artefact(address: str) -> Artefact:
    return Artefact("rows", address, "/nowhere")


def rehearse(sequence: Sequence, steps: list[int]) -> list[StageShare]:
    """Return what decides each stage of the sequence; `steps` are optimizer steps by stage."""
    seed = [sequence.seed] if sequence.model.type == "python" else []
    start = current = ModelRef("", digest([sequence.model.model_dump(mode="json"), *seed]))
    shares = []
    train = compared({"train": sequence.train.model_dump(mode="json")})["train"]
    for number, stage in enumerate(sequence.stages, 1):
        ctx = _Rehearsal(sequence, stage_view(sequence, number, steps[number - 1]), start, current)
        mitigations = [mitigation for _, mitigation in acting(sequence, number)]
        for mitigation in mitigations:
            _rehearse_sampling(mitigation, ctx)
        options = [mitigation.model_dump(mode="json") for mitigation in mitigations]
        inputs = [current.hash, stage.data.model_dump(mode="json"), ctx.view.steps, sequence.seed, train, options]
        training = digest([*inputs, sorted(ctx.requested)])
        shares.append(StageShare(training, ctx.requested))
        current = ModelRef("", training)
    return shares


def _rehearse_sampling(mitigation: Mitigation, ctx: _Rehearsal) -> None:
    """Record what the mitigation samples; a set of its own where its hook cannot tell without a run."""
    tokens = mitigation.sampled_tokens(ctx.view)
    if not tokens:
        return
    before = ctx.calls
    # What a hook misses here (rows to read, a store to write to) comes after its requests for samples.
    with contextlib.suppress(Exception):
        mitigation.prepare(ctx)
    if ctx.calls == before:
        inputs = [ctx.stage_start.hash, ctx.start.hash, mitigation.model_dump(mode="json"), ctx.view.seed]
        ctx.requested[digest(inputs)] = tokens
