"""The contract of a mitigation. Imports neither torch nor ray.

A mitigation is one pydantic model. Its fields are its options in the YAML; its methods are hooks, all optional. The
trainer and the sequence know no mitigation by name: they call the hooks of every entry of the list, in its order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from continual.contract.base import Strict
from continual.contract.context import Context
from continual.contract.models import ModelRef
from continual.contract.source import Source
from continual.contract.stream import Stream
from continual.contract.view import StageView
from continual.contract.walk import Walk

if TYPE_CHECKING:
    from continual.store import Artefact


@dataclass(frozen=True)
class Penalty:
    """A quadratic penalty on the weights, coefficient x sum(curvature x (theta - centre)^2).

    Attributes:
        name: Unique within the stage.
        centre: The model that the weights are drawn to.
        curvature: An artefact with one tensor per parameter name; None for 1 everywhere.
        coefficient: In nats per squared distance.
    """

    name: str
    centre: ModelRef
    curvature: "Artefact | None"
    coefficient: float


@dataclass(frozen=True)
class Candidate:
    """A model proposed after a stage. The first of all continues the sequence, the others are only scored.

    `walk`: what was tried to find it. That of the one which continues goes into the ledger, the report and MLflow.
    """

    name: str
    model: ModelRef
    walk: Walk | None = None


def label_of(kind: str, name: str | None) -> str:
    """Return what the streams of a mitigation of type `kind` are called: its name if it has one, else the type."""
    return name or kind.rsplit(":", 1)[-1].rsplit(".", 1)[-1]


class Mitigation(Strict):
    """Base of all mitigations. Subclass it, add options as fields, override hooks."""

    reference: ClassVar[str] = ""
    """Paper and equation, shown by `--list mitigations`."""

    type: str
    name: str | None = Field(None, description="stream name; needed only if a type occurs twice in the list")

    @property
    def label(self) -> str:
        """The stream's name: `name` if given, else the type."""
        return label_of(self.type, self.name)

    def overrides(self, hook: str) -> bool:
        """Return whether this type implements the hook of that name."""
        return getattr(type(self), hook) is not getattr(Mitigation, hook)

    # Before a start: pure, called on the configuration alone -------------------------------------------------------

    def active(self, view: StageView) -> bool:
        """Return whether the mitigation does anything in this stage."""
        return True

    def check(self, view: StageView, others: list["Mitigation"]) -> str | None:
        """Return why this mitigation cannot work here, as "problem; fix" in one sentence, or None.

        Args:
            view: The stage.
            others: The other mitigations that the stage lists, active or not.
        """
        return None

    def notes(self) -> list[str]:
        """Return sentences for the plan and the log: what its results depend on and are not told apart by."""
        return []

    def data_sources(self) -> Mapping[str, Source]:
        """Return the data sources among the options by key, so that their files are checked before a start."""
        return {}

    @classmethod
    def paths(cls, options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, tuple[str | int, ...]]]:
        """Yield the paths among the raw options, of which each may be a hub id: (mapping, key, place in the options).

        Data sources are found without this hook.
        """
        yield from ()

    def replay_ratio(self) -> float:
        """Return the tokens of its streams per task token, for checks and the plan; 0 without streams."""
        return 0.0

    def sample_start(self) -> str | None:
        """Return what its samples begin with (`bos`, `template`, `tasks`), None if it samples nothing or prompts."""
        return None

    def sampled_tokens(self, view: StageView) -> int:
        """Return the most tokens that it will sample in this stage, for the plan."""
        return 0

    def held_out_rows(self, view: StageView) -> int:
        """Return the rows of its streams that are kept from training, at most."""
        return 0

    def loss_limits(self, view: StageView) -> Mapping[str, float]:
        """Return the limits that its option `max_forgetting` has, written as those of `evaluate.max_forgetting`, so
        that their names and units are checked before a start. `Context.losses` measures what they limit.
        """
        return {}

    def scores_samples(self, view: StageView) -> bool:
        """Return whether a frozen model scores its samples while the stage trains (`while_training` of
        `Context.score`): the resources for that are then counted.
        """
        return False

    def needs_first(self, view: StageView) -> str | None:
        """Return why the stage cannot train while its samples are made and scored, for the plan: a clause such as
        `its weights need the median of all losses`; None if it can, or has none.
        """
        return None

    def most_rows(self, view: StageView) -> int | None:
        """Return the most rows, beside those held out, that it can replay in this stage; None: what the stage reads, or
        what there is in `data_sources`.

        For the plan, which warns of rows that are read again.
        """
        return None

    def frozen_models(self, view: StageView) -> set[str]:
        """Return names of the frozen models that the workers hold for it, for the plan's memory; methods that name the
        same one share it. `stage_start` and `start` are the sequence's own.
        """
        return set()

    def penalty_copies(self, view: StageView) -> int:
        """Return how many float32 values its penalties keep of every trained parameter, for the plan's memory."""
        return 0

    def trained_parameters(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """Return how many parameters are trained in place of the model's, whose tensors have these shapes; None: those.

        For the plan's memory.
        """
        return None

    # While a stage runs, on the driver ------------------------------------------------------------------------------

    def prepare(self, ctx: Context) -> dict[str, "Artefact"]:
        """Make artefacts, or get them from the store, and return them by name for the hooks below."""
        return {}

    def streams(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Stream]:
        """Return streams of rows to add to every batch."""
        return []

    def token_weights(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> "Artefact | None":
        """Return an artefact with one weight per token of the task's rows; those of several mitigations multiply."""
        return None

    def penalties(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Penalty]:
        """Return quadratic penalties on the weights."""
        return []

    def parts(self, view: StageView) -> Sequence[int]:
        """Return the numbers of optimizer steps after which the stage pauses for `part`; each 1 or more, and below the
        steps of the stage.

        Such a stage trains when all its samples are there, and is not shared with other runs.
        """
        return ()

    def part(self, ctx: Context, step: int, trained: ModelRef) -> list[Stream]:
        """Return streams that every batch has after `step` steps, a number of `parts`; one takes its name's place.

        What they read is in the store, and the same whenever the hook is called with the same model: a resume calls it
        again. A stream that replaces one of the same name keeps the coefficient that `control` has set.

        Args:
            ctx: The services of the stage.
            step: The steps that are done.
            trained: The model after these steps, as it would be exported.
        """
        return []

    def after_training(self, ctx: Context, trained: ModelRef) -> list[Candidate]:
        """Return models to continue with instead of the trained one (the first) or to score as well (the others).

        Every start calls it again until the stage is done: it must find what it made, and choose the same.
        """
        return []

    # In the workers -------------------------------------------------------------------------------------------------

    def adapt(self, model: Any, seed: int) -> Callable[[Any], Any] | None:
        """Change the model in place; return how to undo that for the export (e.g. merge an adapter).

        Args:
            model: The loaded transformers model. Under `fsdp` and ZeRO-3 the first worker alone has weights; those of
                the others are on the meta device, so that only their shapes can be read. Those of the first are spread.
            seed: Of this stage and sequence, equal on all ranks and at every start; for whatever is drawn.
        """
        return None

    def unadapted(self, model: Any) -> AbstractContextManager[None]:
        """Return a context in which the adapted model computes what it did before `adapt`.

        Override it if there is one: a teacher with the weights that the stage starts from is then not loaded beside
        the model. Otherwise it is never called.
        """
        raise NotImplementedError

    @property
    def control_every(self) -> int:
        """Steps between calls of `control`; 0 for never."""
        return 0

    def control(self, state: dict[str, Any], measured: dict[str, float]) -> tuple[dict[str, Any], dict[str, float]]:
        """Return the new state and new coefficients by stream name. Pure, and equal on all ranks.

        Args:
            state: What the last call returned, {} at first. It is in every checkpoint: plain values, tensors and NumPy
                arrays alone.
            measured: `drift/<stream>` in nats per token.
        """
        return state, {}
