"""How much memory of a GPU a worker's training takes: a cost model of a decoder, from its sizes alone.

The largest of some moments counts: the start of the backward pass, when all activations are there; its end, when all
gradients of layers are; the sum over ranks of the gradients of embeddings and head; and with DeepSpeed what
`preflight.memory_zero` adds.
`python -m benchmarks.throughput.memory` compares it with torch's own trackers.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

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
    needs = _Needs(sizes, train, rows, teachers, live, adapter, penalty_copies, masked)
    return max(needs.moments(), key=lambda moment: moment.total)


@dataclass(frozen=True)
class _Needs:
    """What a worker needs at different moments of a step; the fields are those of `memory`."""

    sizes: Sizes
    train: Train
    rows: int
    teachers: int
    live: bool
    adapter: int | None
    penalty_copies: int
    masked: bool

    def moments(self) -> list[Memory]:
        """Return the moments of which one may need most."""
        begin = self.begin()
        # The first gradients go into DeepSpeed's bucket while nearly all activations are there, and logits no more.
        bucket = self.bucket if self.between < self.gradients else 0
        first = replace(begin, logits=0.0, gradients=begin.gradients + bucket)
        return [begin, first, self.layers(), self.rest(), *(self.of_zero3(begin) if self.zero.spread else [])]

    def states(self) -> Memory:
        """What is there at all moments."""
        sizes, train, share, zero = self.sizes, self.train, _sharded(self.train), self.zero
        return Memory(
            weights=4 * (sizes.parameters + (self.adapter or 0)) * share["weights"] * zero.weights
            + 4 * self.trained * share["optimizer"] * zero.copies,
            optimizer=8 * self.trained * share["optimizer"] * zero.optimizer,
            gathered=_gathered(sizes, train, self.low, zero),
            teacher=self.teachers * _teacher(sizes, train, self.low),
            penalties=4 * self.penalty_copies * self.trained * share["weights"],
        )

    def begin(self) -> Memory:
        """The start of the backward pass."""
        states, sizes, train = self.states(), self.sizes, self.train
        logits = min(self.chunk, self.tokens) * sizes.vocabulary
        # The gradient of the head that the first chunks have is there with the logits of the next one, see
        # `training/chunks.py`.
        whole = _sharded(train)["weights"] == 1
        head = sizes.vocabulary * sizes.hidden if self.head_in_chunks and whole else 0
        kept = INPUTS[self.computes] * sizes.hidden if train.activation_checkpointing else self.per_layer
        return replace(
            states,
            # Autocast's copies of the weights go as the backward pass does; of what ZeRO-3 gathers there are none.
            gathered=states.gathered
            + (2 * sizes.parameters if self.computes == "autocast" and not self.zero.spread else 0),
            activations=self.tokens * (kept * sizes.layers + self.around),
            logits=logits * (BOTH_LOGITS if self.live else LOGITS)[self.computes]
            + min(logits, PART_LOGITS) * (BOTH_PART if self.live else PART)[self.computes],
            # DDP keeps the buckets of its gradients from one step to the next.
            gradients=4 * (head + (self.trained if train.strategy == "ddp" and train.workers > 1 else 0))
            + self.between,
        )

    def layers(self) -> Memory:
        """The end of the backward pass, when all gradients of layers are there."""
        summed = self.sizes.layer * (4 + self.low) if self.sums_parts else 0
        activations = self.tokens * (self.per_layer + self.around)
        return replace(self.states(), activations=activations, gradients=self.gradients + summed)

    def rest(self) -> Memory:
        """The sum over ranks of what belongs to no layer, whose weights have been given back by then."""
        summed = self.sizes.rest * (4 + self.low) if self.sums_parts else 0
        activations = self.tokens * self.around
        return replace(self.states(), activations=activations, gathered=0.0, gradients=self.gradients + summed)

    def of_zero3(self, begin: Memory) -> list[Memory]:
        """The end of the forward pass of ZeRO-3, and the gradient of a head that is trained."""
        sizes = self.sizes
        # What is fetched ahead of its use arrives in one piece, of which its weights are copies.
        ahead = min(begin.gathered, 4 * (self.zero.ahead + sizes.hidden * sizes.inner))
        moments = [replace(begin, logits=0.0, gathered=begin.gathered + ahead)]
        if self.head_in_chunks:
            # Its sum over chunks, that of a chunk, and what that is computed from.
            head = 3 * 4 * sizes.vocabulary * sizes.hidden
            moments.append(replace(begin, logits=0.0, gradients=begin.gradients + head))
        return moments

    @property
    def computes(self) -> str:
        """The key of what the constants above say of a precision."""
        train = self.train
        return train.precision if train.precision == "float32" or train.strategy == "fsdp" else "autocast"

    @property
    def low(self) -> int:
        """Bytes of a number in computations."""
        return 4 if self.computes == "float32" else 2

    @property
    def trained(self) -> int:
        """How many parameters are trained."""
        return self.sizes.parameters if self.adapter is None else self.adapter

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass."""
        return self.rows * self.train.row_tokens

    @property
    def per_layer(self) -> int:
        """Bytes that a layer keeps of a token."""
        widths = (self.sizes.hidden, self.sizes.inner, self.train.row_tokens if self.masked else 0)
        return sum(bytes_ * width for bytes_, width in zip(ACTIVATIONS[self.computes], widths, strict=True))

    @property
    def around(self) -> int:
        """Bytes that are kept of a token outside of the layers."""
        return 4 * self.low * self.sizes.hidden

    @property
    def chunk(self) -> int:
        """Positions whose logits exist at one time."""
        return chunk_positions(self.train, self.sizes.vocabulary)

    @property
    def head_in_chunks(self) -> bool:
        """Whether a head that is trained computes logits in more than one chunk."""
        return self.chunk < self.tokens and self.adapter is None

    @property
    def sums_parts(self) -> bool:
        """Whether gradients are summed over ranks one by one, each into the parts that ranks keep."""
        return _sharded(self.train)["gradients"] < 1 and self.adapter is None

    @cached_property
    def zero(self) -> Zero:
        return zero_of(self.train)

    @property
    def bucket(self) -> float:
        """Bytes of the bucket for gradients; without a GPU the system gives it no memory but what gradients fill."""
        return self.zero.buckets if self.train.gpus_per_worker else min(self.zero.buckets, 4 * self.trained)

    @property
    def gradients(self) -> float:
        """Bytes of the gradients of all layers, and of the bucket."""
        return 4 * self.trained * _sharded(self.train)["gradients"] * self.zero.optimizer + self.bucket

    @property
    def between(self) -> float:
        """What DeepSpeed keeps of gradients and bucket between passes: ZeRO-3 both, the others within a step."""
        train = self.train
        if train.strategy != "deepspeed" or (train.zero_stage < 3 and self.rows * train.workers >= train.batch_rows):
            return 0.0
        return self.gradients - self.bucket if train.zero_stage == 2 else self.gradients


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
