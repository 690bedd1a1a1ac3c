"""A request for samples: what the contract, the services of a run and the rehearsal of a sweep all pass around."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from continual.contract.models import ModelRef
from continual.contract.view import StageView


@dataclass(frozen=True)
class SampleRequest:
    """Samples to make.

    Attributes:
        model: The model to sample from.
        count: Number of samples; None where `rows` says how many are needed.
        start: What a sample begins with: `bos`, `template` (the chat template up to the user's turn), `tasks` (any of
            `start_tokens`) or `prompts`.
        start_tokens: Declared start tokens, for `tasks`; several share the samples equally.
        prompts: Token ids, for `prompts`; used in turn: sample i begins with prompt i mod len(prompts).
        max_tokens: Longest sample in tokens, start included; None for a row.
        new_tokens: Most tokens to sample after each prompt, however long it is; None if `max_tokens` decides.
        temperature: 1 is unbiased.
        top_p: 1 is off.
        top_k: 0 is off.
        run_on: Ignore end-of-text: every sample has the full length.
        seed: Seed of the set; None for the sequence's.
        rows: Packed rows to fill beside those held out: samples are made until they do.
        held_out: Rows to pack of documents that are drawn by the hash of their number and lie in no other row. They
            come first. Never more than half of the documents; with `rows`, samples are made until they suffice.
        row_tokens: Tokens in a packed row; 0 until the stage has filled it in.
        step_rows: Rows that an optimizer step reads, if nothing else but `Context.score` reads them: in order, and
            waiting for those that are missing. The stage may then train while they are made (`generate.delivery`). 0:
            others read them, too.
    """

    model: ModelRef
    count: int | None = None
    start: Literal["bos", "template", "tasks", "prompts"] = "bos"
    start_tokens: tuple[str, ...] = ()
    prompts: Sequence[Sequence[int]] = ()
    max_tokens: int | None = None
    new_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    run_on: bool = False
    seed: int | None = None
    rows: int | None = None
    held_out: int = 0
    row_tokens: int = 0
    step_rows: int = 0

    def __post_init__(self) -> None:
        if (self.count is None) == (self.rows is None):
            raise ValueError("a request names `count` or `rows`, and not both")

    def resolved(self, view: StageView) -> "SampleRequest":
        """Return the request with what the stage decides filled in, and without what does not count for its start."""
        return replace(
            self,
            start_tokens=self.start_tokens if self.start == "tasks" else (),
            prompts=self.prompts if self.start == "prompts" else (),
            max_tokens=None if self.new_tokens else self.max_tokens or view.row_tokens,
            seed=view.seed if self.seed is None else self.seed,
            row_tokens=view.row_tokens,
        )

    @property
    def tokens(self) -> int:
        """About the most tokens that all samples of a resolved request hold, prompts of `new_tokens` not counted."""
        if self.count is not None:
            return self.count * (self.new_tokens or self.max_tokens or 0)
        return least_samples(self.rows or 0, self.held_out) * self.row_tokens

    def identity(self) -> dict[str, Any]:
        """Return what decides the samples, JSON-able, with the model by its hash. Call it on a resolved request.

        How many are made does not: a set that is asked for more grows.
        """
        packing = ("count", "rows", "held_out", "row_tokens", "step_rows")
        decisive = {key: value for key, value in asdict(self).items() if key not in packing}
        return {**decisive, "model": self.model.hash, "prompts": [list(prompt) for prompt in self.prompts]}


def most_filled(count: int, held_out: int) -> int:
    """Return the most rows that `count` samples fill beside those held out, of which half are at most."""
    return count - min(held_out, count // 2)


def least_samples(rows: int, held_out: int) -> int:
    """Return the fewest samples that can fill so many rows and rows held out, of which no more than half are."""
    return max(rows + held_out, 2 * held_out)
