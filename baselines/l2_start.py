"""Penalize moving away from the weights before the sequence or the stage."""

from typing import ClassVar, Literal

from pydantic import Field

from continual.api import Artefact, Context, Mitigation, Penalty, StageView


def cannot_penalize(view: StageView, others: list[Mitigation]) -> str | None:
    """Return why a penalty on the weights cannot work in this stage, or None."""
    for other in others:
        if other.overrides("adapt") and other.active(view):
            return f"`{other.label}` trains other parameters than the penalized weights; keep one of them"
    return None


class L2Start(Mitigation):
    """weight x sum (theta - theta0)^2 added to the loss, over all trained parameters.

    In the loss and not in the optimizer: under Adam its gradient is scaled like the task's, and it counts for clipping.
    """

    reference: ClassVar[str] = "L2-SP, Li et al. 2018 (1802.01483); baseline of 2502.02797 (weight 1e-3) and 2505.13811"

    type: Literal["l2_start"] = "l2_start"
    weight: float = Field(1e-3, ge=0, description="lambda, in nats per squared distance of the weights")
    centre: Literal["start", "stage_start"] = Field("start", description="theta0: before the sequence or the stage")

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        return cannot_penalize(view, others)

    def penalty_copies(self, view: StageView) -> int:
        return 1

    def penalties(self, ctx: Context, artefacts: dict[str, Artefact]) -> list[Penalty]:
        centre = ctx.start if self.centre == "start" else ctx.stage_start
        return [Penalty(self.label, centre, None, self.weight)]
