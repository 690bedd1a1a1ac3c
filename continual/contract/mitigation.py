"""The contract of a mitigation, and how a `type` finds its class. Imports neither torch nor ray.

A mitigation is one pydantic model. Its fields are its options in the YAML, its methods are hooks, all optional. The
trainer and the sequence know no mitigation by name: they call the hooks of every entry of the list, in its order.
"""

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from continual.contract.models import ModelRef
from continual.contract.stream import Stream

if TYPE_CHECKING:
    from continual.config.schema import Sequence
    from continual.contract.source import Source
    from continual.show.progress import Step
    from continual.store import Artefact, Store

GROUP = "continual.mitigations"


@dataclass(frozen=True)
class Anchor:
    """An elementwise pull, weight x sum(curvature x (theta - centre)^2); curvature None means 1.

    `centre` is a model; `curvature` an artefact with one tensor per parameter name.
    """

    name: str
    centre: ModelRef
    curvature: "Artefact | None"
    weight: float


@dataclass(frozen=True)
class Candidate:
    """Weights to consider after a stage. The first of all continues, the others are only scored."""

    name: str
    model: ModelRef


@dataclass(frozen=True)
class StageRecord:
    """A stage that is done: its name, the model after it, its task rows, its declared start token."""

    name: str
    model: ModelRef
    rows: "Artefact"
    start_token: str | None


class Context(Protocol):
    """What the hooks of a mitigation may use on the driver. Services run in the cluster and answer from the store.

    `stage` counts from 1; `earlier` are the stages before it; `task_rows` its own rows, `steps` its optimizer steps;
    `store` is where artefacts of one's own go.
    """

    @property
    def sequence(self) -> "Sequence": ...
    @property
    def stage(self) -> int: ...
    @property
    def stage_name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def start(self) -> ModelRef: ...
    @property
    def stage_start(self) -> ModelRef: ...
    @property
    def earlier(self) -> list[StageRecord]: ...
    @property
    def task_rows(self) -> "Artefact": ...
    @property
    def steps(self) -> int: ...
    @property
    def store(self) -> "Store": ...

    def sample(
        self,
        model: ModelRef,
        *,
        count: int,
        start: str = "bos",
        start_tokens: list[str] | None = None,
        tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        run_on: bool = False,
        seed: int | None = None,
        prompts: list[list[int]] | None = None,
    ) -> "Artefact":
        """Rows of `count` samples from `model`.

        `start` is `bos`, `template`, `tasks` (any of `start_tokens`) or `prompts` (token ids that are used in turn).
        `tokens` is the longest sample, start included (default: a row). Samples stop at end-of-text unless `run_on`.
        """
        ...

    def generate(
        self,
        model: ModelRef,
        prompts: list[list[int]],
        *,
        tokens: int,
        samples: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        title: str = "generate",
    ) -> "Artefact":
        """What any model says after each prompt, `samples` times: a samples artefact, not packed into rows.

        `prompts` are ids of the model's own tokenizer, whose end tokens end a sample; at most `tokens` tokens are
        sampled. Sample i, column `number`, is for prompt i mod len(prompts).
        """
        ...

    def use(self, samples: "Artefact") -> None:
        """Put a samples artefact on the stage's record of tokens; for one that need not be asked for again."""
        ...

    def step(self, title: str) -> "Step":
        """A line on the user's terminal while something goes on: `with ctx.step(title) as step: step.update(3, 10)`."""
        ...

    def score(
        self,
        model: ModelRef,
        rows: "Artefact",
        *,
        what: Literal["nll", "topk", "fisher"] = "nll",
        top_k: int = 64,
        sequences: int = 256,
        seed: int = 0,
    ) -> "Artefact":
        """What a frozen model says about `rows`: columns for every token, shard by shard as the rows are, or F.

        `nll`: column `nll`, nats of token t given its document before t. `topk`: columns `top_ids` and `top_logprobs`,
        the model's `top_k` likeliest tokens there; this is what a cached teacher is. `fisher`: the diagonal Fisher
        information on `sequences` documents, one tensor per parameter; labels are drawn from the model under `seed`.
        """
        ...

    def read(self, source: "Source") -> "Artefact":
        """Packed rows of a data source, tokenised as the task's rows are."""
        ...


class Mitigation(BaseModel):
    """Base of all mitigations. Subclass, add fields, override hooks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: ClassVar[str] = ""
    """Paper and equation, shown by `--list mitigations`."""
    type: str
    name: str | None = Field(None, description="stream name; needed only if a type stands in the list twice")

    @property
    def label(self) -> str:
        """The stream's name: `name` if given, else the type."""
        return self.name or self.type.rsplit(":", 1)[-1].rsplit(".", 1)[-1]

    @property
    def control_every(self) -> int:
        """Steps between calls of `control`; 0: never."""
        return 0

    def active(self, sequence: "Sequence", stage: int) -> bool:
        """Whether the mitigation does anything in stage `stage` (1-based). Pure, called at configuration time too."""
        return True

    def refuse(self, sequence: "Sequence", stage: int, others: list["Mitigation"]) -> str | None:
        """Why this mitigation cannot work here, in one sentence, or None. Called before anything starts."""
        return None

    def sources(self) -> Mapping[str, "Source"]:
        """Data sources among the options, by key, so that their files are checked before anything starts."""
        return {}

    def samples(self, sequence: "Sequence", stage: int) -> int:
        """Tokens that this mitigation will sample in stage `stage`, for the plan."""
        return 0

    def prepare(self, ctx: Context) -> dict[str, "Artefact"]:
        """Make or find artefacts, on the driver, by content hash."""
        return {}

    def streams(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Stream]:
        """Streams of rows added to every batch."""
        return []

    def weigh(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> "Artefact | None":
        """A weight column for the task's rows; columns of several mitigations multiply."""
        return None

    def anchors(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Anchor]:
        """Elementwise pulls towards earlier weights."""
        return []

    def adapt(self, model: Any) -> Callable[[Any], Any] | None:
        """On the worker: change the model in place; return how to undo it for export (e.g. merge an adapter)."""
        return None

    def control(self, state: dict[str, Any], measured: dict[str, float]) -> tuple[dict[str, Any], dict[str, float]]:
        """Pure, every `control_every` steps, equal on all ranks: new state, and new weights by stream name.

        `measured` holds `drift/<stream>` in nats per token. The state is in every checkpoint.
        """
        return state, {}

    def candidates(self, ctx: Context, trained: ModelRef) -> list[Candidate]:
        """Models to put in place of the trained one (the first) or to score beside it (the others)."""
        return []


@dataclass
class Registry:
    """Types known by entry point, loaded on first use."""

    found: dict[str, Any] = field(default_factory=dict)

    def names(self) -> list[str]:
        if not self.found:
            self.found = {point.name: point for point in entry_points(group=GROUP)}
        return sorted(self.found)

    def load(self, kind: str) -> type[Mitigation]:
        """The class of a type; `package.module:Class` works without registration. Raises ValueError with the fix."""
        if ":" in kind:
            module, _, attribute = kind.partition(":")
            try:
                loaded = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                raise ValueError(f"type `{kind}` cannot be imported ({error}); is its package on the path?") from error
        elif kind in self.names():
            loaded = self.found[kind].load()
        else:
            near = difflib.get_close_matches(kind, self.names(), 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known types: {', '.join(self.names())}"
            raise ValueError(f"there is no mitigation `{kind}`; {hint}")
        if not (isinstance(loaded, type) and issubclass(loaded, Mitigation)):
            raise ValueError(f"type `{kind}` is no subclass of continual.contract.mitigation.Mitigation")
        return loaded


REGISTRY = Registry()


def build_mitigation(value: Any) -> Mitigation:
    """A mitigation from its entry in the YAML (pydantic validator; ValueError becomes a configuration error)."""
    if isinstance(value, Mitigation):
        return value
    if not isinstance(value, dict) or "type" not in value:
        raise ValueError("a mitigation is a mapping with a `type`, e.g. {type: context_free, loss: kl}")
    return REGISTRY.load(str(value["type"])).model_validate(value)
