"""Average the weights before and after a stage."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from continual.api import Candidate, Context, Mitigation, ModelRef, StageView, copy_settings, load_model, model_hash


class WeightAverage(Mitigation):
    """(1 - alpha) x before + alpha x after the stage, elementwise; the average continues the sequence.

    It costs no training; every further alpha costs one evaluation. It works if both ends lie in one basin of the loss,
    so not from random weights.
    """

    reference: ClassVar[str] = "WiSE-FT, Wortsman et al. 2022 (2109.01903); baseline of 2505.13811 and 2502.02797"

    type: Literal["weight_average"] = "weight_average"
    alpha: float = Field(0.5, ge=0, le=1, description="share of the weights after the stage, in what continues")
    further: tuple[float, ...] = Field((), description="alphas (0 to 1) that are only scored")
    before: Literal["stage_start", "start"] = Field("stage_start", description="the other end of the average")
    from_stage: int | None = Field(None, ge=1, description="first stage; null: 2 after random weights, else 1")

    def active(self, view: StageView) -> bool:
        return view.has_reached(self.from_stage)

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        if bad := [alpha for alpha in self.further if not 0 <= alpha <= 1]:
            return f"`further` has {bad[0]:g}; write alphas from 0 to 1"
        return also_chooses(view, others)

    def after_training(self, ctx: Context, trained: ModelRef) -> list[Candidate]:
        before = ctx.stage_start if self.before == "stage_start" else ctx.start
        alphas = dict.fromkeys([self.alpha, *self.further])
        return [Candidate(f"{self.label} {alpha:g}", averaged(ctx, before, trained, alpha)) for alpha in alphas]


def also_chooses(view: StageView, others: list[Mitigation]) -> str | None:
    """Return why what chooses the model that continues cannot stand beside these others; None if it can."""
    for other in others:
        if other.overrides("after_training") and other.active(view):
            return f"`{other.label}` also chooses the model that continues; keep one of them"
    return None


def averaged(ctx: Context, before: ModelRef, after: ModelRef, alpha: float) -> ModelRef:
    """Return the average as a model in the store, computed in the cluster unless it is there as it was stored."""
    inputs = {"average": [before.hash, after.hash], "alpha": alpha}
    artefact = ctx.store.artefact("models", inputs)
    with ctx.store.write(artefact, inputs) as writer:
        if writer is not None:
            import ray

            task = ray.remote(average).options(num_cpus=0.5)
            with writer.files() as folder:
                ray.get(task.remote(before.path, after.path, alpha, str(folder)))
            writer.finish()
    return ModelRef(str(artefact.path), model_hash(artefact.path))


def average(before: str, after: str, alpha: float, folder: str) -> None:
    """Write the average into `folder`, computed in float32 and saved in the dtype of `after`; all else is `after`'s."""
    import torch

    model, start = load_model(after, "auto"), dict(load_model(before, "auto").named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_((1 - alpha) * start[name].float() + alpha * parameter.float())
    model.save_pretrained(folder, safe_serialization=True)
    copy_settings(after, Path(folder))
