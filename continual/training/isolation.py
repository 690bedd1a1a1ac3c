"""Whether packed documents stay apart where a model trains: on its device, spread as it is, with its attention."""

import torch
from torch import Tensor

from continual.contract.loss import Loss, LossInputs
from continual.errors import ConfigurationError, ContinualError, one_line
from continual.models.attention import FLEX, KEY, attention_as, attention_of, default_of
from continual.training.strategies.base import Strategy

TOKENS = 24
"""Of each document, or as many as the model has positions."""


class _Kept(Loss):
    """Keeps the logits that it is given, and is 0."""

    name = "kept"

    def __init__(self) -> None:
        self.logits: list[Tensor] = []

    def sum(self, inputs: LossInputs) -> Tensor:
        self.logits.append(inputs.logits)
        return inputs.logits.new_zeros((), dtype=torch.float32)


def check_isolation(strategy: Strategy, device: torch.device) -> None:
    """Compare documents in rows of their own with the same ones packed; called by all ranks, before the first step.

    The first run with transformers' own choice, the packed ones with the attention that the model trains with: this
    finds documents that see each other as well as a kernel that computes something else. `continual.models.forward`
    compares the same on a CPU, which has no such kernels, and without autocast.

    Raises:
        ConfigurationError: The logits differ by more than the precision, or the kernel does not run.
    """
    model = strategy.module.model
    kind, name, text = type(model), attention_of(model), model.config.get_text_config()
    tokens = min(TOKENS, getattr(text, "max_position_embeddings", None) or TOKENS)
    apart = (torch.arange(4 * tokens, device=device) * 7 + 1).remainder(text.vocab_size).view(4, tokens)
    positions = torch.arange(tokens, device=device)
    strategy.eval()
    with torch.no_grad():
        with attention_as(model, default_of(kind)):
            expected = _logits(strategy, apart, positions.expand(4, tokens))
        try:
            found = _logits(strategy, apart.view(2, 2 * tokens), positions.repeat(2, 2))
        except (ContinualError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            problem = f"{kind.__name__} cannot be run on packed rows with `{name}` ({one_line(error)})"
            raise ConfigurationError(KEY, problem, f"write {default_of(kind)}") from error
    strategy.train()
    # Flex attention is compiled by transformers, for these short rows now; the next length would get a graph for any.
    if name == FLEX:
        torch.compiler.reset()
    # A low precision rounds differently in another shape; documents that see each other differ by far more.
    tolerance = max(1e-4, 8 * torch.finfo(expected.dtype).eps) * float(expected.abs().max())
    if not float((found.float() - expected.float()).abs().max()) <= tolerance:
        problem = (
            f"packed documents of {kind.__name__} do not compute what they do alone, with `{name}` ({device.type})"
        )
        raise ConfigurationError(KEY, problem, f"write {default_of(kind)}")


def _logits(strategy: Strategy, ids: Tensor, positions: Tensor) -> Tensor:
    """Return the logits [predicted tokens, V] of packed rows, document by document."""
    kept = _Kept()
    strategy(ids, positions, (positions > 0).float(), kept)  # the first token of a document is not predicted
    return torch.cat(kept.logits)
