"""The services that the hooks of a mitigation use on the driver."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from continual.contract.models import ModelRef
from continual.contract.requests import SampleRequest
from continual.contract.source import Source
from continual.contract.view import StageView
from continual.forgetting import ScoreLoss

if TYPE_CHECKING:
    from continual.store import Artefact, Store


@dataclass(frozen=True)
class StageRecord:
    """A finished stage: its name, the model after it, its task rows, its declared start token."""

    name: str
    model: ModelRef
    rows: "Artefact"
    start_token: str | None


class Step(Protocol):
    """A line on the user's terminal while something long happens."""

    def update(self, done: float, total: float | None = None, extra: str = "") -> None:
        """Show `done` of `total` units (None: unknown), and `extra` behind them. Cheap: call it often."""

    def note(self, text: str) -> None:
        """Set what the last line says of the result."""


class Context(ABC):
    """The services for one stage. They run in the cluster, and answer from the store what was made before.

    Attributes:
        view: The stage.
        start: The model before the sequence.
        stage_start: The model before this stage.
        earlier: The stages before this one.
        task_rows: The rows artefact of the stage's own data.
        store: Where artefacts of a mitigation's own go.
    """

    view: StageView
    start: ModelRef
    stage_start: ModelRef
    earlier: list[StageRecord]
    store: "Store"

    @property
    @abstractmethod
    def task_rows(self) -> "Artefact":
        """The rows artefact of the stage's own data."""

    @abstractmethod
    def sample(self, request: SampleRequest) -> "Artefact":
        """Return rows packed from the samples. They stop at end-of-text unless the request says `run_on`.

        The first rows, as many as `held_out` of the first shard's facts, are for measuring alone; the others can be
        read from first to last. With `step_rows` of the request only the first shard may be there yet; the others come
        while the stage trains.
        """

    @abstractmethod
    def generate(self, request: SampleRequest, title: str = "generate") -> "Artefact":
        """Return the samples artefact itself, not packed into rows: what any model says after each prompt.

        The set may hold more than `request.count` samples: those with a `number` below it are the request's.

        Prompts are ids of the model's own tokenizer, whose end tokens end a sample. The column `number` tells the
        prompt: number mod len(prompts).

        Raises:
            ConfigurationError: The longest prompt and `new_tokens` do not fit the model's positions.
        """

    @abstractmethod
    def use(self, samples: "Artefact", count: int) -> None:
        """Record that `count` samples of a cached set are used, so that their tokens are counted for this stage."""

    @abstractmethod
    def score(
        self,
        model: ModelRef,
        rows: "Artefact",
        *,
        what: Literal["nll", "topk", "fisher"] = "nll",
        top_k: int = 64,
        documents: int = 256,
        seed: int = 0,
        while_training: bool = False,
    ) -> "Artefact":
        """Return what a frozen model says about `rows`. Rows that still come are waited for.

        Args:
            model: The frozen model.
            rows: A rows artefact.
            what: `nll`: column `nll`, nats of token t given its document before t. `topk`: columns `top_ids` and
                `top_logprobs`, the `top_k` likeliest tokens there; this is a cached teacher. `fisher`: the diagonal
                Fisher information, one tensor per parameter.
            top_k: Tokens kept per position, for `topk`.
            documents: Documents that F is estimated on, for `fisher`.
            seed: Seed of the labels drawn from the model, for `fisher`.
            while_training: The training alone reads the columns, beside rows that it reads in order (`step_rows` of
                their request). Where the mitigation's `scores_samples` says so, too, no shard may be there yet: each is
                scored when its rows are there, while the stage trains (`generate.delivery`). Not for `fisher`.

        Returns:
            A columns artefact, shard by shard as the rows are, or an artefact with `fisher.safetensors`.
        """

    @abstractmethod
    def losses(self, model: ModelRef, title: str = "evaluate") -> dict[str, ScoreLoss]:
        """Return what would have been lost after this stage if it left `model`: `forgetting` and `forgetting_old`, and
        the loss of each task and text, by name, as far as they are known: before the first stage is learned, nothing
        but old abilities can be lost.

        For `after_training`. The model is evaluated as the one that continues is; if it is that one, it is not
        evaluated again. Scores of earlier stages that still come are waited for.
        """

    @abstractmethod
    def read(self, source: Source) -> "Artefact":
        """Return the packed rows of a data source, tokenised as the task's rows are."""

    @abstractmethod
    def model(self, source: str) -> ModelRef:
        """Return a pretrained model by its folder or hub id."""

    @abstractmethod
    def sampler(self) -> dict[str, Any]:
        """Return what decides samples in addition to a request, JSON-able: engine, its arguments, dtype, versions."""

    @property
    @abstractmethod
    def max_failed(self) -> float:
        """The largest tolerated share of failed requests (`generate.max_failed`)."""

    @abstractmethod
    def step(self, title: str) -> AbstractContextManager[Step]:
        """Show a line on the user's terminal: `with ctx.step(title) as step: step.update(3, 10)`."""
