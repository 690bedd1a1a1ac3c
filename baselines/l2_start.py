"""Pull the weights towards those before the stage."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from continual.contract.mitigation import Anchor, Context, Mitigation

if TYPE_CHECKING:
    from continual.config.schema import Sequence
    from continual.store import Artefact


def no_anchor(sequence: "Sequence", stage: int, others: list[Mitigation]) -> str | None:
    """Why weights cannot be pulled in this stage, or None."""
    if sequence.train.strategy != "ddp":
        return f"strategy `{sequence.train.strategy}` has no whole gradients to pull; write `train.strategy: ddp`"
    for other in others:
        if type(other).adapt is not Mitigation.adapt and other.active(sequence, stage):
            return f"`{other.label}` trains other parameters than the weights that are pulled; keep one of them"
    return None


class L2Start(Mitigation):
    """weight x sum (theta - theta0)^2 added to the loss, over all trained parameters.

    In the loss and not in the optimizer: under Adam its gradient is scaled like the task's, and it counts for clipping.
    """

    source: ClassVar[str] = "L2-SP, Li et al. 2018 (1802.01483); baseline of 2502.02797 (weight 1e-3) and 2505.13811"

    type: Literal["l2_start"] = "l2_start"
    weight: float = Field(1e-3, ge=0, description="lambda, in nats per squared distance of the weights")
    centre: Literal["start", "stage_start"] = Field("start", description="theta0: before the sequence or the stage")

    def refuse(self, sequence: "Sequence", stage: int, others: list[Mitigation]) -> str | None:
        return no_anchor(sequence, stage, others)

    def anchors(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Anchor]:
        centre = ctx.start if self.centre == "start" else ctx.stage_start
        return [Anchor(self.label, centre, None, self.weight)]
