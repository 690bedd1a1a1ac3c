"""Frozen teachers in the workers: whole on every rank, spread over the ranks, or the trained model's own base."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from continual.models import load_model
from continual.models.dropout import has_dropout
from continual.training.job import TrainJob
from continual.training.spread import round_parameters, spread
from continual.training.strategies import spreads_weights


class Unadapted:
    """The model that is trained, without what `Mitigation.adapt` added: a teacher that needs no memory.

    It has what `hidden_states` and `logits_of` ask of a model. Its modules are in training mode as the others are, so
    it is for models without dropout.
    """

    training = False

    def __init__(self, model: Any, context: Callable[[Any], AbstractContextManager[None]]):
        self._model, self._context = model, context
        self.config = model.config

    def get_decoder(self) -> Callable[..., Any]:
        return self._within(self._model.get_decoder())

    def get_output_embeddings(self) -> Callable[..., Any]:
        return self._within(self._model.get_output_embeddings())

    def _within(self, module: nn.Module) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._context(self._model):
                return module(*args, **kwargs)

        return call


def load_teachers(job: TrainJob, model: Any, rank: int, device: torch.device) -> dict[str, Any]:
    """Return frozen models by hash, in eval mode; streams with the same teacher share it. Called by all ranks.

    A teacher computes in the dtypes and with the attention of `model`, the trained one: with equal weights their logits
    are equal.
    """
    paths = {stream.teacher.hash: stream.teacher.path for stream in job.streams if stream.teacher}
    load = _spread if spreads_weights(job.train) else _whole
    base = _base(job, model)
    return {
        key: base if base and key == job.model.hash else load(job, path, rank, device) for key, path in paths.items()
    }


def _base(job: TrainJob, model: Any) -> Unadapted | None:
    """Return the model that the stage starts from, if it is still there inside the adapted one."""
    adapting = [mitigation for mitigation in job.mitigations if mitigation.overrides("adapt")]
    options = [mitigation.model_dump(mode="json") for mitigation in adapting]
    if len(adapting) != 1 or not adapting[0].overrides("unadapted") or has_dropout(job.model.path, options):
        return None
    return Unadapted(model, adapting[0].unadapted)


def _whole(job: TrainJob, path: str, rank: int, device: torch.device) -> nn.Module:
    model: nn.Module = load_model(path, "float32", device, job.attention)
    return model.requires_grad_(False)


def _spread(job: TrainJob, path: str, rank: int, device: torch.device) -> nn.Module:
    """Shard the layers; embeddings, norm and head stay whole: the loss computes logits outside of the model."""
    model: nn.Module = load_model(path, "float32", "cpu" if rank == 0 else "meta", job.attention)
    model.requires_grad_(False)
    if job.train.precision == "bfloat16" and job.train.strategy == "fsdp":  # under ZeRO autocast rounds them
        round_parameters(model)
    spread(model, device, MixedPrecisionPolicy(cast_forward_inputs=False))
    return model.eval()
