"""Forward passes over packed rows: hidden states and logits for training, log-probabilities for scores.

Position ids that restart with every document are all that keeps packed documents apart: transformers reads document
borders off them, and only where there is no attention mask and no cache (`masking_utils._preprocess_mask_arguments` in
5.x). For flash attention it does so in a single row alone (`modeling_flash_attention_utils._is_packed_sequence`), so
the borders are given to it. `check_head` finds models for which that does not hold.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from continual.errors import ConfigurationError
from continual.models.attention import BY_DOCUMENT, PACKAGES, attention_of
from continual.models.by_document import documents_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGIT_BYTES = 256 * 2**20
"""Largest block of float32 logits (rows x row_tokens x vocabulary) that a scoring pass makes, but one row at least."""
BLOCK_TOKENS = 8192
"""Most tokens of a scoring pass: with a small vocabulary, attention needs more memory than the logits."""
CHUNK_TOKENS = 1024
"""Positions whose log-probabilities exist at one time."""
Places = tuple[np.ndarray, np.ndarray]
"""Row numbers and token numbers of some tokens of a packed batch."""


def hidden_states(model: Any, ids: Tensor, positions: Tensor, borders: Mapping[str, Any] | None = None) -> Tensor:
    """Return the last hidden states [B x T, H] of packed rows [B, T]. `borders`: their `document_borders`, if known."""
    return model.get_decoder()(**_packed(model, ids, positions, borders)).last_hidden_state.flatten(0, 1)


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Return logits [N, V] of hidden states [N, H]. The head is called as a module: its hooks are ZeRO-3's."""
    logits = model.get_output_embeddings()(hidden)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _packed(model: Any, ids: Tensor, positions: Tensor, borders: Mapping[str, Any] | None = None) -> dict[str, Any]:
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": None, "use_cache": False}
    if attention_of(model) == BY_DOCUMENT:
        return inputs | {"documents": documents_of(positions)}
    return inputs | dict(borders or document_borders(positions)) if asks_for_borders(model) else inputs


def asks_for_borders(model: Any) -> bool:
    """Return whether a model's attention is told the `document_borders` of packed rows."""
    return attention_of(model) in PACKAGES


def document_borders(positions: Tensor) -> dict[str, Any]:
    """Return what flash attention asks of packed rows [B, T]: where documents begin, and how long the longest is.

    Rows lie one behind the other. Padding counts as a document.
    """
    flat = positions.flatten()
    ends = flat.new_full((1,), len(flat))
    borders = torch.cat([(flat == 0).nonzero().flatten(), ends]).to(torch.int32)
    longest = int(borders.diff().max())
    return {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": longest, "max_length_k": longest}


def vocabulary_size(model: Any) -> int:
    return int(model.config.get_text_config().vocab_size)


def log_probabilities(model: Any, rows: Mapping[str, np.ndarray]) -> Iterator[tuple[Places, Tensor]]:
    """Yield the places of tokens that a document predicts and log p(. | the document before them), chunk by chunk.

    `rows` has `ids`, `positions` and `documents` [rows, T]; log p is [places, V], in nats, from a float32 log-softmax.
    First tokens of documents and padding have no place. The logits are the model's own, whatever its head does.
    """
    yield from ((places, log_p) for places, (log_p,) in _log_probabilities((model,), rows))


def _log_probabilities(
    models: Sequence[Any], rows: Mapping[str, np.ndarray]
) -> Iterator[tuple[Places, tuple[Tensor, ...]]]:
    """Yield places, and log p of each model there.

    One generator for all: two that take turns would leave inference mode to the caller, since each restores on its end
    what it has found.
    """
    first_model = models[0]
    count, width = rows["ids"].shape
    size = max(1, min(BLOCK_TOKENS, LOGIT_BYTES // (4 * vocabulary_size(first_model))) // width)
    predicted = (rows["documents"] >= 0) & (rows["positions"] > 0)
    with torch.inference_mode():
        for first in range(0, count, size):
            block = slice(first, first + size)
            ids, positions = (
                torch.from_numpy(rows[name][block].astype(np.int64)).to(first_model.device)
                for name in ("ids", "positions")
            )
            logits = [model(**_packed(model, ids, positions)).logits for model in models]
            row, token = np.nonzero(predicted[block])
            for start in range(0, len(row), CHUNK_TOKENS):
                r, t = row[start : start + CHUNK_TOKENS], token[start : start + CHUNK_TOKENS]
                each = (torch.log_softmax(of[r, t - 1], -1, dtype=torch.float32) for of in logits)
                yield (first + r, t), tuple(each)


def token_losses(model: Any, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return -log p(token t | its document before t), float32 [rows, T] in nats; 0 for first tokens and padding."""
    losses = np.zeros(rows["ids"].shape, np.float32)
    for places, log_p in log_probabilities(model, rows):
        tokens = torch.from_numpy(rows["ids"][places].astype(np.int64)).to(log_p.device)
        losses[places] = -log_p.gather(-1, tokens[:, None]).squeeze(-1).cpu().numpy()
    return losses


def token_divergences(model: Any, start: Any, rows: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return what `token_losses` returns, and KL(start || model) of the same predictions, over the whole vocabulary.

    Both are float32 [rows, T] in nats. `start` is a model of the same vocabulary.
    """
    losses, divergences = (np.zeros(rows["ids"].shape, np.float32) for _ in range(2))
    for places, (log_q, log_p) in _log_probabilities((model, start), rows):
        tokens = torch.from_numpy(rows["ids"][places].astype(np.int64)).to(log_q.device)
        losses[places] = -log_q.gather(-1, tokens[:, None]).squeeze(-1).cpu().numpy()
        p = log_p.exp()
        # q - p sums to zero, and makes every summand non-negative: a small KL is not lost in float32.
        summands = log_p.sub_(log_q).mul_(p).add_(log_q.exp_()).sub_(p)
        divergences[places] = summands.sum(-1).clamp_min_(0.0).cpu().numpy()
    return losses, divergences


def check_split(model: Any) -> None:
    """Raise ConfigurationError unless the class tells its body from its head, and its body takes position ids.

    Needs no weights: the model may be on the meta device.
    """
    name = type(model).__name__
    decoder = model.get_decoder()
    if decoder is None or decoder is model or model.get_output_embeddings() is None:
        raise ConfigurationError("", f"{name} does not tell its body from its head; it cannot be trained")
    if "position_ids" not in inspect.signature(decoder.forward).parameters:
        problem = f"{name} takes no position ids, so documents packed in one row would see each other"
        raise ConfigurationError("", f"{problem}; it cannot be trained")


def check_head(model: "PreTrainedModel", tokens: int = 2) -> None:
    """Compare `logits_of(hidden_states)` with the model's own logits; raise ConfigurationError if they differ.

    This finds heads that do more than one projection (scaled logits, extra layers), models whose packed documents see
    each other (in transformers 5.24 OPT, GPT-OSS and every model with a recurrent state, among others), and models
    whose tokens see the tokens after them. Call it before a strategy shards the parameters. Four documents of `tokens`
    tokens are run: what acts over some distance only, such as blocks of attention, shows in longer ones.
    """
    check_split(model)
    name = type(model).__name__
    embedding: Any = model.get_input_embeddings().weight
    device = embedding.device
    ids = (torch.arange(4 * tokens, device=device) * 7 + 1) % len(embedding)
    apart, packed = ids.view(4, tokens), ids.view(2, 2 * tokens)
    positions = torch.arange(tokens, device=device)
    training = model.training
    model.eval()
    with torch.no_grad():
        expected = model(input_ids=apart, use_cache=False).logits.flatten(0, 1).float()
        begun = model(input_ids=apart[:, : tokens // 2], use_cache=False).logits.float()
        own = logits_of(model, hidden_states(model, apart, positions.expand(4, tokens))).float()
        together = logits_of(model, hidden_states(model, packed, positions.repeat(2, 2))).float()
        scored = model(**_packed(model, packed, positions.repeat(2, 2))).logits.flatten(0, 1).float()
    model.train(training)
    if not bool(expected.isfinite().all()):
        raise ConfigurationError("", f"{name} computes logits that are not finite; it cannot be trained")
    # A low-precision model rounds differently in another shape; documents that see each other differ by far more.
    tolerance = max(1e-4, 8 * torch.finfo(model.dtype).eps) * float(expected.abs().max())
    if float((own - expected).abs().max()) > tolerance:
        problem = f"the head of {name} does more than project the hidden states; it cannot be trained"
        raise ConfigurationError("", problem)
    if float((begun - expected.view(4, tokens, -1)[:, : tokens // 2]).abs().max()) > tolerance:
        raise ConfigurationError("", f"{name} lets a token see those after it; as configured, it is not a causal model")
    if max(float((found - expected).abs().max()) for found in (together, scored)) > tolerance:
        problem = f"{name} lets documents that are packed in one row see each other"
        raise ConfigurationError("", f"{problem} (attention `{attention_of(model)}`); it cannot be trained")
