"""How much memory of a GPU a worker's training takes: a cost model of a decoder, from its sizes alone.

The largest of some moments counts: the start of the backward pass, when all activations are there; its end, when all
gradients of layers are; the sum over ranks of the gradients of embeddings and head; and with DeepSpeed what
`preflight.memory_zero` adds.
`python -m benchmarks.throughput.memory` compares it with torch's own trackers.
"""

from dataclasses import dataclass, fields, replace

from continual.config.schema import Train
from continual.preflight.memory_zero import Zero, zero_of
from continual.training.resources import PART_LOGITS, chunk_positions
from continual.training.strategies import spreads_weights

ACTIVATIONS = {"float32": (40, 16, 4), "bfloat16": (24, 8, 2), "autocast": (34, 8, 2)}
"""Bytes that a layer keeps per token for the backward pass, per unit of its width, of its inner width, and per token of
a row if documents that share a row are kept apart by a mask. Counted on Llama, as transformers 5.24 runs it."""
INPUTS = {"float32": 4, "bfloat16": 2, "autocast": 4}
"""Bytes per token and unit of width where a layer keeps its input alone."""
LOGITS = {"float32": 8, "bfloat16": 6, "autocast": 6}
"""Bytes per logit of the positions whose logits exist at one time."""
BOTH_LOGITS = {"float32": 12, "bfloat16": 8, "autocast": 8}
"""The same where a live teacher's logits are beside them."""
PART = {"float32": 4, "bfloat16": 8, "autocast": 8}
BOTH_PART = {"float32": 12, "bfloat16": 12, "autocast": 12}
"""Further bytes per logit of the positions that a loss computes at one time, without and with a live teacher."""


@dataclass(frozen=True)
class Sizes:
    """A decoder's sizes: parameters of all, of one layer and of what is in no layer; layers, widths, vocabulary.

    `queries` is the width of all heads of a layer, `products` counts the weights of all layers that multiply a token:
    no vectors, and of experts those that are chosen for it.
    """

    parameters: int
    layer: int
    rest: int
    layers: int
    hidden: int
    inner: int
    vocabulary: int
    queries: int
    products: int


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the moment when most are taken, by what they are for.

    `gathered`: weights that are there in addition, from other ranks or in a lower precision.
    """

    weights: float = 0.0
    optimizer: float = 0.0
    gradients: float = 0.0
    gathered: float = 0.0
    teacher: float = 0.0
    penalties: float = 0.0
    activations: float = 0.0
    logits: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def memory(
    sizes: Sizes,
    train: Train,
    rows: int,
    teachers: int = 0,
    live: bool = False,
    adapter: int | None = None,
    penalty_copies: int = 0,
    masked: bool = True,
) -> Memory:
    """Return the memory of one worker.

    Args:
        sizes: The trained model's.
        train: The options of training.
        rows: Rows in a forward pass, of `train.row_tokens`.
        teachers: Frozen models of the same sizes that are loaded beside it.
        live: Whether there is a live teacher; it may be the base of an adapter, which is not loaded.
        adapter: Trained parameters of an adapter; None if all are trained.
        penalty_copies: Values that penalties keep of every trained parameter.
        masked: Whether attention keeps the documents of a row apart by a mask of its tokens x tokens.
    """
    sharded = _sharded(train)
    computes = train.precision if train.precision == "float32" or train.strategy == "fsdp" else "autocast"
    low = 4 if computes == "float32" else 2
    trained = sizes.parameters if adapter is None else adapter
    tokens = rows * train.row_tokens
    widths = (sizes.hidden, sizes.inner, train.row_tokens if masked else 0)
    per_layer = sum(bytes_ * width for bytes_, width in zip(ACTIVATIONS[computes], widths, strict=True))
    around = 4 * low * sizes.hidden
    chunk = chunk_positions(train, sizes.vocabulary)
    logits = min(chunk, tokens) * sizes.vocabulary
    # The gradient of the head that the first chunks have is there with the logits of the next (`training/chunks.py`).
    head = sizes.vocabulary * sizes.hidden if chunk < tokens and sharded["weights"] == 1 and adapter is None else 0
    zero = zero_of(train)
    states = Memory(
        weights=4 * (sizes.parameters + (adapter or 0)) * sharded["weights"] * zero.weights
        + 4 * trained * sharded["optimizer"] * zero.copies,
        optimizer=8 * trained * sharded["optimizer"] * zero.optimizer,
        gathered=_gathered(sizes, train, low, zero),
        teacher=teachers * _teacher(sizes, train, low),
        penalties=4 * penalty_copies * trained * sharded["weights"],
    )
    kept = INPUTS[computes] * sizes.hidden if train.activation_checkpointing else per_layer
    spreads = sharded["gradients"] < 1 and adapter is None
    # Without a GPU the system gives a bucket no memory but what gradients fill.
    bucket = zero.buckets if train.gpus_per_worker else min(zero.buckets, 4 * trained)
    gradients = 4 * trained * sharded["gradients"] * zero.optimizer + bucket
    between = _between(train, rows, gradients, bucket)
    begin = replace(
        states,
        # Autocast's copies of the weights go as the backward pass does; of what ZeRO-3 gathers there are none.
        gathered=states.gathered + (2 * sizes.parameters if computes == "autocast" and not zero.spread else 0),
        activations=tokens * (kept * sizes.layers + around),
        logits=logits * (BOTH_LOGITS if live else LOGITS)[computes]
        + min(logits, PART_LOGITS) * (BOTH_PART if live else PART)[computes],
        # DDP keeps the buckets of its gradients from one step to the next.
        gradients=4 * (head + (trained if train.strategy == "ddp" and train.workers > 1 else 0)) + between,
    )
    layers = replace(
        states,
        activations=tokens * (per_layer + around),
        gradients=gradients + (sizes.layer * (4 + low) if spreads else 0),
    )
    # Last comes what belongs to no layer, whose weights have been given back when its gradients are summed over ranks.
    rest = replace(
        states,
        activations=tokens * around,
        gathered=0.0,
        gradients=gradients + (sizes.rest * (4 + low) if spreads else 0),
    )
    # The first gradients go into DeepSpeed's bucket while nearly all activations are there, and logits no more.
    first = replace(begin, logits=0.0, gradients=begin.gradients + (bucket if between < gradients else 0))
    further = _zero3(begin, sizes, zero, chunk < tokens and adapter is None) if zero.spread else []
    return max((begin, first, layers, rest, *further), key=lambda moment: moment.total)


def _between(train: Train, rows: int, gradients: float, bucket: float) -> float:
    """Return what DeepSpeed keeps of gradients and bucket between passes: ZeRO-3 both, the others within a step."""
    if train.strategy != "deepspeed" or (train.zero_stage < 3 and rows * train.workers >= train.batch_rows):
        return 0.0
    return gradients - bucket if train.zero_stage == 2 else gradients


def _zero3(begin: Memory, sizes: Sizes, zero: Zero, in_chunks: bool) -> list[Memory]:
    """Return two more moments of ZeRO-3: the end of the forward pass, and the gradient of a head that is trained."""
    # What is fetched ahead of its use arrives in one piece, of which its weights are copies.
    ahead = min(begin.gathered, 4 * (zero.ahead + sizes.hidden * sizes.inner))
    fetched = replace(begin, logits=0.0, gathered=begin.gathered + ahead)
    # Its sum over chunks, that of a chunk, and what that is computed from.
    head = 3 * 4 * sizes.vocabulary * sizes.hidden
    return [fetched, *([replace(begin, logits=0.0, gradients=begin.gradients + head)] if in_chunks else [])]


def _gathered(sizes: Sizes, train: Train, low: int, zero: Zero) -> float:
    """Return the bytes of weights that are there in addition, from other ranks."""
    if train.strategy == "fsdp":
        return low * (sizes.rest + 2 * sizes.layer)
    if spreads_weights(train):
        # What is used again soon is kept until then.
        return float(4 * min(sizes.parameters, zero.live))
    return 0.0


def _sharded(train: Train) -> dict[str, float]:
    """Return the share of optimizer state, gradients and weights that a worker holds."""
    stage = {"ddp": 0, "fsdp": 3, "deepspeed": train.zero_stage}[train.strategy]
    names = ("optimizer", "gradients", "weights")
    return {name: 1 / train.workers if stage >= number else 1.0 for number, name in enumerate(names, 1)}


def _teacher(sizes: Sizes, train: Train, low: int) -> float:
    if not spreads_weights(train):
        return 4 * sizes.parameters
    if train.strategy == "deepspeed":
        low = 4  # autocast rounds what it uses
    # Its layers are gathered before the trained model's logits are there.
    return low * ((sizes.parameters - sizes.rest) / train.workers + sizes.rest)
