"""Train a low-rank adapter instead of the weights, and merge it at the end of the stage."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field

from continual.api import Mitigation, StageView, digest


class Lora(Mitigation):
    """A LoRA adapter (PEFT) in every linear layer but the head; a fresh one in each stage, merged into its export.

    The exported model is a plain one with the names of the model before. Nothing else is trained, so it composes with
    everything that works on losses and rows, and with nothing that penalizes or changes weights.
    """

    reference: ClassVar[str] = "Hu et al. 2021 (2106.09685); baseline of 2502.02797 (rank = alpha = 64) and 2605.26097"

    type: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, description="of the adapter's matrices")
    alpha: float | None = Field(None, gt=0, description="the adapter counts alpha / rank times; null: alpha = rank")
    targets: list[str] | None = Field(
        None, min_length=1, description="endings of the names of the layers; null: every linear one but the head"
    )
    seed: int = Field(
        0, ge=0, description="of the adapter's first values, together with the stage and the sequence's seed"
    )
    from_stage: int | None = Field(None, ge=1, description="first stage; null: 1, refused there on random weights")

    def active(self, view: StageView) -> bool:
        return view.number >= (self.from_stage or 1)

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        for other in others:
            if other.overrides("adapt") and other.active(view):
                return f"`{other.label}` changes the model too, and two adapters cannot be merged apart; keep one"
        if view.number == 1 and view.random_start and self.from_stage is None:
            return (
                "an adapter of low rank cannot train a model from random weights; "
                "write `from_stage: 2`, or `from_stage: 1` to do it all the same"
            )
        return None

    def trained_parameters(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Every matrix of a layer counts, whose names have numbers, or those of `targets`."""
        matrices = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) == 2}
        chosen = tuple(self.targets or ())
        return sum(
            self.rank * sum(shape)
            for name, shape in matrices.items()
            if (name.endswith(chosen) if chosen else re.search(r"\.\d+\.", name))
        )

    def adapt(self, model: Any, seed: int) -> Callable[[Any], Any]:
        import torch
        from peft import LoraConfig, LoraModel

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha or self.rank,  # type: ignore[arg-type]
            target_modules=self.targets or "all-linear",
            lora_dropout=0.0,
        )
        # Equal first values on every rank and at every start, and the trainer's random numbers as they were.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(digest([seed, self.seed])[:12], 16))
            adapted = LoraModel(model, {"default": config}, "default")
        return lambda _: adapted.merge_and_unload()

    @contextmanager
    def unadapted(self, model: Any) -> Iterator[None]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        # The public `enable_adapters` would also turn their gradients off, in the middle of a step (peft 0.21).
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in layers:
                layer._disable_adapters = False
