"""The losses that come with the package. Importing this module imports no torch: a name in the YAML must be cheap."""

from typing import TYPE_CHECKING, ClassVar

from continual.contract.loss import Loss, LossInputs

if TYPE_CHECKING:
    from torch import Tensor


class Nll(Loss):
    """-log p of the target token."""

    name: ClassVar[str] = "nll"

    def sum(self, inputs: LossInputs) -> "Tensor":
        from continual.training.losses.sums import nll_sum

        return nll_sum(inputs.logits, inputs.targets, inputs.weights)


class TopK(Loss):
    """KL(teacher || student) over the teacher's k likeliest tokens and one class for all others.

    Columns: `top_ids` and `top_logprobs`, as `ctx.score(what="topk")` stores them.
    """

    name: ClassVar[str] = "topk"
    columns: ClassVar[tuple[str, ...]] = ("top_ids", "top_logprobs")

    def sum(self, inputs: LossInputs) -> "Tensor":
        from continual.training.losses.sums import kl_topk_sum

        top_ids, top_logprobs = (inputs.columns[name] for name in self.columns)
        return kl_topk_sum(inputs.logits, top_ids, top_logprobs, inputs.weights)


class Kl(Loss):
    """KL(teacher || student) over the whole vocabulary."""

    name: ClassVar[str] = "kl"
    teacher: ClassVar[bool] = True
    cached: ClassVar[type[Loss] | None] = TopK

    def sum(self, inputs: LossInputs) -> "Tensor":
        from continual.training.losses.sums import kl_sum

        assert inputs.teacher_logits is not None
        return kl_sum(inputs.logits, inputs.teacher_logits, inputs.weights)
