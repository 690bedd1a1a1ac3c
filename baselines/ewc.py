"""Elastic weight consolidation: pull each weight the more, the more the earlier tasks depend on it."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from baselines.l2_start import no_anchor
from continual.contract.mitigation import Anchor, Context, Mitigation, ModelRef

if TYPE_CHECKING:
    from continual.config.schema import Sequence
    from continual.store import Artefact


class Ewc(Mitigation):
    """(weight / 2) x sum F (theta - theta*)^2 added to the loss; theta* are the weights before the stage.

    F is the diagonal Fisher information, labels drawn from the model, summed over the earlier stages: each on its own
    rows under the model that it left (`rows: task`), or without any data on what the start model and the models after
    each stage say after their start token (`rows: context_free`), which works from stage 1 on.
    """

    source: ClassVar[str] = "Kirkpatrick et al. 2017 (1612.00796); one summed anchor: Schwarz et al. 2018 (1805.06370)"

    type: Literal["ewc"] = "ewc"
    weight: float = Field(
        1.0, ge=0, description="lambda; 1: a nat of KL per earlier document (to second order) is a nat per task token"
    )
    decay: float = Field(1.0, ge=0, le=1, description="an earlier stage's F counts this much less with every stage")
    rows: Literal["task", "context_free"] = Field("task", description="what F is estimated on")
    sequences: int = Field(256, ge=1, description="documents, one backward pass each, per stage")
    seed: int | None = Field(None, ge=0, description="null: the sequence's")

    def active(self, sequence: "Sequence", stage: int) -> bool:
        return stage > 1 or (self.rows == "context_free" and sequence.model.type != "python")

    def refuse(self, sequence: "Sequence", stage: int, others: list[Mitigation]) -> str | None:
        return no_anchor(sequence, stage, others)

    def samples(self, sequence: "Sequence", stage: int) -> int:
        return self.sequences * sequence.train.row_tokens if self.rows == "context_free" else 0

    def prepare(self, ctx: Context) -> dict[str, "Artefact"]:
        seed = ctx.seed if self.seed is None else self.seed
        found = [
            ctx.score(model, rows, what="fisher", sequences=self.sequences, seed=seed)
            for model, rows in self._estimated_on(ctx, seed)
        ]
        factors = [self.decay**age for age in reversed(range(len(found)))]
        inputs = {"sum": [artefact.hash for artefact in found], "factors": factors}
        artefact = ctx.store.artefact("fisher", inputs)
        with ctx.store.write(artefact, inputs) as writer:
            if writer is not None:
                import ray

                task = ray.remote(add).options(num_cpus=0.5)
                ray.get(task.remote([str(one.path) for one in found], factors, str(artefact.path)))
                writer.finish()
        return {"fisher": artefact}

    def anchors(self, ctx: Context, artefacts: dict[str, "Artefact"]) -> list[Anchor]:
        return [Anchor(self.label, ctx.stage_start, artefacts["fisher"], self.weight / 2)]

    def _estimated_on(self, ctx: Context, seed: int) -> list[tuple[ModelRef, "Artefact"]]:
        """Models and rows, oldest first."""
        if self.rows == "task":
            return [(record.model, record.rows) for record in ctx.earlier]
        models = [record.model for record in ctx.earlier]
        if ctx.sequence.model.type != "python":
            models.insert(0, ctx.start)
        return [(model, ctx.sample(model, count=self.sequences, seed=seed)) for model in models]


def add(folders: list[str], factors: list[float], folder: str) -> None:
    """Write the weighted sum of the tensors in `folders` into `folder`, as `fisher.safetensors`."""
    from safetensors.torch import load_file, save_file

    total: dict[str, object] = {}
    for path, factor in zip(folders, factors, strict=True):
        for name, tensor in load_file(Path(path) / "fisher.safetensors").items():
            total[name] = total.get(name, 0.0) + factor * tensor  # type: ignore[operator]
    temporary = Path(folder) / ".fisher.safetensors.tmp"
    save_file(total, temporary)
    temporary.replace(Path(folder) / "fisher.safetensors")
