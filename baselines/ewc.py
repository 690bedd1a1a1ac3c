"""Elastic weight consolidation: penalize moving weights in proportion to their Fisher information."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from baselines.l2_start import cannot_penalize
from continual.api import Artefact, Context, Mitigation, ModelRef, Penalty, SampleRequest, StageView


class Ewc(Mitigation):
    """(weight / 2) x sum F (theta - theta*)^2 added to the loss; theta* are the weights before the stage.

    F is the diagonal Fisher information, labels drawn from the model, summed over the earlier stages: each on its own
    rows under the model that it left (`estimate_on: task`), or without any data on what the start model and the models
    after each stage say after their start token (`estimate_on: context_free`), which works from stage 1 on.
    """

    reference: ClassVar[str] = "Kirkpatrick et al. 2017 (1612.00796); one summed term: Schwarz et al. 2018 (1805.06370)"
    renamed: ClassVar[dict[str, str]] = {"rows": "estimate_on", "sequences": "documents"}

    type: Literal["ewc"] = "ewc"
    weight: float = Field(
        1.0, ge=0, description="lambda; 1: a nat of KL per earlier document (to second order) is a nat per task token"
    )
    decay: float = Field(1.0, ge=0, le=1, description="an earlier stage's F counts this much less with every stage")
    estimate_on: Literal["task", "context_free"] = Field("task", description="what F is estimated on")
    documents: int = Field(256, ge=1, description="documents, one backward pass each, per stage")
    seed: int | None = Field(None, ge=0, description="null: the sequence's")

    def active(self, view: StageView) -> bool:
        return view.number > 1 or (self.estimate_on == "context_free" and not view.random_start)

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        return cannot_penalize(view, others)

    def sample_start(self) -> str | None:
        return "bos" if self.estimate_on == "context_free" else None

    def sampled_tokens(self, view: StageView) -> int:
        return self.documents * view.row_tokens if self.estimate_on == "context_free" else 0

    def needs_first(self, view: StageView) -> str | None:
        return "its Fisher information is a sum over all documents"

    def penalty_copies(self, view: StageView) -> int:
        return 2

    def prepare(self, ctx: Context) -> dict[str, Artefact]:
        seed = ctx.view.seed if self.seed is None else self.seed
        estimates = [
            ctx.score(model, rows, what="fisher", documents=self.documents, seed=seed)
            for model, rows in self._estimated_on(ctx, seed)
        ]
        factors = [self.decay**age for age in reversed(range(len(estimates)))]
        inputs = {"sum": [estimate.hash for estimate in estimates], "factors": factors}
        artefact = ctx.store.artefact("fisher", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is not None:
                import ray

                task = ray.remote(add).options(num_cpus=0.5)
                with writer.files() as folder:
                    ray.get(task.remote([str(estimate.folder()) for estimate in estimates], factors, str(folder)))
                writer.finish()
        return {"fisher": artefact}

    def penalties(self, ctx: Context, artefacts: dict[str, Artefact]) -> list[Penalty]:
        return [Penalty(self.label, ctx.stage_start, artefacts["fisher"], self.weight / 2)]

    def _estimated_on(self, ctx: Context, seed: int) -> list[tuple[ModelRef, Artefact]]:
        """Return models and rows, oldest first."""
        if self.estimate_on == "task":
            return [(record.model, record.rows) for record in ctx.earlier]
        models = [record.model for record in ctx.earlier]
        if not ctx.view.random_start:
            models.insert(0, ctx.start)
        return [(model, ctx.sample(SampleRequest(model, count=self.documents, seed=seed))) for model in models]


def add(folders: list[str], factors: list[float], folder: str) -> None:
    """Write the weighted sum of the tensors in `folders` into `folder`, as `fisher.safetensors`."""
    from safetensors.torch import load_file, save_file

    total: dict[str, Any] = {}
    for path, factor in zip(folders, factors, strict=True):
        for name, tensor in load_file(Path(path) / "fisher.safetensors").items():
            total[name] = total.get(name, 0.0) + factor * tensor
    save_file(total, Path(folder) / "fisher.safetensors")
