"""The model and its loss as one module, which a strategy wraps.

Body, head and loss run inside one `forward`, so that DDP sees every use of every parameter (with the head outside,
ranks silently train apart) and the hooks of ZeRO-3 fire for the head too. Logits exist for one chunk of
positions at a time.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from continual.contract.loss import Loss, LossInputs
from continual.models.forward import asks_for_borders, hidden_states, logits_of
from continual.training.chunks import sum_again, sum_at_once
from continual.training.layout import Layout, layout_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LossModule(nn.Module):
    """A causal language model together with its loss.

    `chunk_tokens`: positions whose logits exist at one time. `autocast_dtype`: compute dtype of body and head (the
    parameters keep theirs, the losses are float32), None for the parameters' own.
    """

    equal_chunks = False
    """Set under ZeRO-3: each chunk gathers the head's weights from all ranks, so all need the same number of chunks."""
    head_is_spread = False
    """Set where the head's weights are spread over ranks: only a backward pass that they take part in may gather them,
    so it computes the logits again."""

    def __init__(self, model: "PreTrainedModel", chunk_tokens: int, autocast_dtype: torch.dtype | None):
        super().__init__()
        self.model = model
        self.chunk_tokens = chunk_tokens
        self.autocast_dtype = autocast_dtype

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        weights: Tensor,
        loss: Loss,
        teacher: Any = None,
        columns: Mapping[str, Tensor] | None = None,
        documents: Tensor | None = None,
        count: int = 0,
        layout: Layout | None = None,
    ) -> Tensor:
        """Return the sum over positions of weight x loss, a float32 scalar in nats; the caller divides it.

        ids, positions, weights [B, T]; columns, by name, [B, T, k]. `weights[b, t]` and a column's [b, t] belong to
        predicting token t from the tokens before it, so `weights[:, 0]` is ignored. `teacher` is a frozen causal
        language model in eval mode with the same vocabulary, for a loss that needs one. `layout`: that of the rows, on
        the device; without it a GPU is waited for.

        With `documents` [B, T], the number of each token's document, from 0 to `count` - 1, the result is a float64
        [1 + count] without a gradient: that sum, the same bit by bit, and behind it its parts by document.

        With no weight anywhere the result is a zero that still reaches every parameter: DDP waits for all gradients.
        Under ZeRO-3 all ranks must call this the same number of times.
        """
        columns = columns or {}
        if (loss.teacher and teacher is None) or not columns.keys() >= set(loss.columns):
            needs = ", ".join(f"`{name}`" for name in ("teacher",) * loss.teacher + loss.columns)
            raise ValueError(f"the loss `{loss.name}` needs {needs}")
        if teacher is not None and teacher.training:
            raise ValueError("the teacher is in training mode; call teacher.eval()")
        layout = layout or layout_of(positions, weights, asks_for_borders(self.model))
        predicting, kept, chunks = self._positions(layout)
        # The token that each position predicts; a row's last position predicts none and has no weight.
        token = torch.where(predicting % ids.shape[1] == ids.shape[1] - 1, predicting, predicting + 1)
        with torch.autocast(ids.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            tensors = [
                hidden_states(self.model, ids, positions, layout.borders).index_select(0, predicting),
                kept,
                ids.reshape(-1)[token].long(),
            ]
            if loss.teacher:
                with torch.no_grad():
                    states = hidden_states(teacher, ids, positions, layout.borders)
                    tensors.append(states.index_select(0, predicting))
            tensors += [columns[name].flatten(0, 1)[token] for name in loss.columns]
            parts = list(zip(*(tensor.tensor_split(chunks) for tensor in tensors), strict=True))
            if documents is not None:
                return self._by_document(loss, teacher, parts, documents.reshape(-1)[token].tensor_split(chunks), count)
            compute = partial(self._chunk, loss, teacher)
            if chunks == 1 or not torch.is_grad_enabled():
                return torch.stack([compute(*part) for part in parts]).sum()
            if self.head_is_spread:
                return sum_again(compute, parts)
            return sum_at_once(compute, parts, tensors[0])

    def _positions(self, layout: Layout) -> tuple[Tensor, Tensor, int]:
        """Return the flat positions [N] that go through the head, their weights [N], and the number of chunks."""
        predicting = layout.predicting
        chunks = max(1, -(-len(predicting) // self.chunk_tokens))
        if self.equal_chunks:
            most = torch.tensor(chunks, device=predicting.device)
            dist.all_reduce(most, dist.ReduceOp.MAX)
            chunks = int(most)
        # A chunk must not be empty: fill it with a position of weight 0, which uses the head and leaves no gradient.
        filled = max(0, chunks - len(predicting))
        kept = torch.cat([layout.weights, layout.weights.new_zeros(filled)])
        return torch.cat([predicting, predicting.new_zeros(filled)]), kept, chunks

    def _chunk(self, loss: Loss, teacher: Any, *part: Tensor) -> Tensor:
        """Return the weighted sum of one chunk."""
        return loss.sum(self._inputs(loss, teacher, *part))

    @torch.no_grad()
    def _by_document(
        self, loss: Loss, teacher: Any, parts: list[tuple[Tensor, ...]], documents: Sequence[Tensor], count: int
    ) -> Tensor:
        """Return the weighted sum of all chunks, and behind it that of each document [1 + count]."""
        totals, sums = [], torch.zeros(count, dtype=torch.float64, device=documents[0].device)
        for part, numbers in zip(parts, documents, strict=True):
            inputs = self._inputs(loss, teacher, *part)
            totals.append(loss.sum(inputs))
            # Positions of a document lie side by side, so each run of them is a view of the logits.
            run, lengths = torch.unique_consecutive(numbers, return_counts=True)
            ends = lengths.cumsum(0).tolist()
            for number, first, end in zip(run.tolist(), [0, *ends], ends, strict=False):
                sums[number] += loss.sum(_positions_of(inputs, slice(first, end)))
        return torch.cat([torch.stack(totals).sum().double()[None], sums])

    def _inputs(
        self, loss: Loss, teacher: Any, hidden: Tensor, weights: Tensor, targets: Tensor, *further: Tensor
    ) -> LossInputs:
        """Return what the loss sees of one chunk. `further`: the teacher's hidden states if needed, then columns."""
        logits, teacher_logits = logits_of(self.model, hidden), None
        if loss.teacher:
            with torch.no_grad():
                teacher_logits = logits_of(teacher, further[0])
        columns = dict(zip(loss.columns, further[int(loss.teacher) :], strict=True))
        return LossInputs(logits, weights, targets, teacher_logits, columns)


def _positions_of(inputs: LossInputs, part: slice) -> LossInputs:
    """Return what a loss sees of some of the positions."""
    of_teacher = None if inputs.teacher_logits is None else inputs.teacher_logits[part]
    columns = {name: values[part] for name, values in inputs.columns.items()}
    return LossInputs(inputs.logits[part], inputs.weights[part], inputs.targets[part], of_teacher, columns)
