"""Floating-point operations of an optimizer step: a cost model of a decoder, from its sizes alone.

What multiplies matrices counts: two operations per weight and token forward, two for the gradient of what goes in, two
for that of the weight; and attention over whole rows, though documents and causality would need less. A test compares
it with torch's own counter.
"""

from collections.abc import Collection

from continual.config.schema import Train
from continual.preflight.memory import Sizes
from continual.training.resources import chunk_positions
from continual.training.strategies import spreads_weights


def step_operations(
    sizes: Sizes, train: Train, rows: float, live: Collection[float] = (), adapter: int | None = None
) -> float:
    """Return the operations of one optimizer step of all workers together.

    Args:
        sizes: The trained model's.
        train: The options of training.
        rows: Rows of all streams in a step, of `train.row_tokens`, every token of which is learned.
        live: For each live teacher, of the same sizes, the rows of these that it reads.
        adapter: Trained parameters of an adapter; None if all are trained.
    """
    attention = 4 * sizes.layers * sizes.queries * train.row_tokens
    layers, head = 2 * sizes.products, 2 * sizes.hidden * sizes.vocabulary
    again = _logits_again(sizes, train, rows)
    # Forward, and the gradients of inputs and weights; a frozen weight has none.
    of_weights = 3 if adapter is None else 2
    trained = of_weights * (layers + head) + 3 * attention + again * head
    if train.activation_checkpointing:
        # Nothing needs what a layer's last product gives, unless an adapter adds to it: torch stops before. ZeRO-3
        # lets the whole layer run again.
        whole = adapter is not None or (train.strategy == "deepspeed" and train.zero_stage == 3)
        trained += layers + attention - (0 if whole else 2 * sizes.layers * sizes.hidden * sizes.inner)
    if adapter is not None:
        trained += 2 * adapter * (3 + train.activation_checkpointing)
    taught = layers + attention + (1 + again) * head
    return train.row_tokens * (rows * trained + sum(live) * taught)


def _logits_again(sizes: Sizes, train: Train, rows: float) -> bool:
    """Return whether the backward pass makes logits again: where the head is spread, and there are chunks of them."""
    share = -(-rows // train.workers)
    return spreads_weights(train) and min(train.micro_rows or share, share) * train.row_tokens > chunk_positions(
        train, sizes.vocabulary
    )
