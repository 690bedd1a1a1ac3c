"""A sound method, and methods that each break one promise, as an outside package would write them."""

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from continual.api import Artefact, Context, Mitigation, SampleRequest, StageView, Stream, TeacherReplay


class Sound(TeacherReplay):
    """Replay of samples."""

    type: str
    loss: Literal["kl"] = Field("kl", description="the KL to the model before the stage")

    def rows(self, ctx: Context) -> Artefact:
        return ctx.sample(SampleRequest(self.frozen_model(ctx), count=10))

    def sampled_tokens(self, view: StageView) -> int:
        return 10 * view.row_tokens


class Strong(Sound):
    """Counts when its weight is 0."""

    def coefficient(self) -> float:
        return self.weight + 1.0


class Idle(Sound):
    """Never counts."""

    def coefficient(self) -> float:
        return 0.0


class Forgetful(Sound):
    """Keeps its state where no checkpoint sees it."""

    control_every: ClassVar[int] = 2
    calls: ClassVar[list[float]] = []

    def control(self, state: dict[str, Any], measured: dict[str, float]) -> tuple[dict[str, Any], dict[str, float]]:
        self.calls.append(measured[f"drift/{self.label}"])
        return state, {self.label: 0.5 ** len(self.calls)}


class Unplanned(Sound):
    """Samples more than it says."""

    def sampled_tokens(self, view: StageView) -> int:
        return 9 * view.row_tokens


class Greedy(Sound):
    """Replays more than it says."""

    def replay_ratio(self) -> float:
        return self.ratio / 2


class Misnamed(Sound):
    """Calls its stream by another name."""

    def streams(self, ctx: Context, artefacts: dict[str, Artefact]) -> list[Stream]:
        [stream] = super().streams(ctx, artefacts)
        return [Stream(**{**vars(stream), "name": "other"})]


class Wordy(Sound):
    """Refuses in two lines."""

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        return "rows are too short\nuse longer ones" if view.row_tokens < 4 else None


class Undecided(Sound):
    """Refuses without a way out."""

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        return "rows are too short" if view.row_tokens < 4 else None


class Undescribed(Sound):
    """Has an option that says nothing."""

    strength: float = 1.0


class Lenient(Sound):
    """Takes any option."""

    model_config = ConfigDict(extra="ignore")
