"""Which attention a model is trained with: transformers' own choice, or one that computes documents one by one.

Under `sdpa` and `eager` transformers makes a mask of tokens x tokens for every packed row. The kernels for documents of
any length make none: flash attention gets the documents' borders (see `continual.models.forward`), and flex attention a
mask of blocks, which transformers makes of the position ids. No such kernel runs on CPUs: there `by_document` computes
documents in batches of like lengths (`continual.models.by_document`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from continual.errors import ConfigurationError, one_line
from continual.models.dropout import DRAWN
from continual.models.quiet import quiet

KEY = "model.attention"
AUTO, EAGER, SDPA, FLEX, BY_DOCUMENT = "auto", "eager", "sdpa", "flex_attention", "by_document"
PACKAGES = {"flash_attention_3": "flash-attn-3", "flash_attention_2": "flash-attn"}
"""Flash attention by the name of its package, the newest first."""
KERNELS = (*PACKAGES, FLEX)
"""What `auto` tries on a GPU, in this order."""
HIDING = ("attention_chunk_size", "index_topk")
"""Options of models whose own masks hide tokens: all but those of a block, all but the likeliest."""
UNMASKED = (*KERNELS, BY_DOCUMENT)
"""What makes no mask of tokens x tokens."""
LEAST_HEAD = 16
"""Dimensions of a head that flex attention's kernel needs (torch 2.13, `torch/_inductor/kernel/flex`)."""


@dataclass(frozen=True)
class Workers:
    """What trains: `gpu`, whether on GPUs; `precision`, `train.precision`; `compiled`, `train.compile`."""

    gpu: bool
    precision: str
    compiled: bool = False


@dataclass(frozen=True)
class Attention:
    """An implementation by transformers' name, and why it was taken."""

    name: str
    why: str


def resolve(wanted: str, workers: Workers, kind: Any, config: Any) -> Attention:
    """Return the attention that `model.attention` stands for; the same answer on every machine with the same packages.

    Args:
        wanted: The key's value.
        workers: What trains.
        kind: The model's class.
        config: Its configuration.

    Raises:
        ConfigurationError: A named implementation does not run there.
    """
    if wanted != AUTO:
        if reason := _cannot(wanted, workers) or _lacks(wanted, kind, config):
            raise ConfigurationError(KEY, f"`{wanted}` {reason[0]}", reason[1])
        return Attention(wanted, "as configured")
    reasons = []
    for name in KERNELS if workers.gpu else (BY_DOCUMENT,):
        reason = _cannot(name, workers) or _lacks(name, kind, config)
        if reason is None:
            return Attention(name, "it needs no mask of tokens x tokens for packed documents")
        reasons.append(f"`{name}` {reason[0]}")
    return Attention(default_of(kind), "; ".join(reasons))


def check_wanted(wanted: str, workers: Workers) -> None:
    """Raise ConfigurationError if a named implementation does not run with these workers, whatever the model."""
    if wanted != AUTO and (reason := _cannot(wanted, workers)):
        raise ConfigurationError(KEY, f"`{wanted}` {reason[0]}", reason[1])


def default_of(kind: Any) -> str:
    """Return what transformers runs a class with unless it is told."""
    return SDPA if kind._supports_sdpa else EAGER


def installed(name: str) -> bool:
    """Return whether the package of a flash attention is installed, as transformers judges it; needs no GPU."""
    from transformers.modeling_flash_attention_utils import FLASH_ATTENTION_COMPATIBILITY_MATRIX

    return bool(FLASH_ATTENTION_COMPATIBILITY_MATRIX[int(name[-1])]["pkg_availability_check"]())


def _cannot(name: str, workers: Workers) -> tuple[str, str] | None:
    """Return why an implementation does not run with these workers, and the fix; None if it does."""
    if name == BY_DOCUMENT:
        if workers.gpu:
            return "trains on CPUs alone, and the workers train on GPUs", "write auto, which takes a kernel there"
        fix = "write auto, or `train.compile: false`"
        return ("has other shapes in every step, and `train.compile` is true", fix) if workers.compiled else None
    if name not in KERNELS:
        return None
    if not workers.gpu:
        fix = "write auto, or `train.gpus_per_worker: 1` where there are GPUs"
        return "trains on GPUs alone, and the workers train on CPUs", fix
    if name == FLEX:
        return None
    if workers.precision != "bfloat16":
        return f"computes in bfloat16, and `train.precision` is {workers.precision}", "write auto, or `bfloat16` there"
    if not installed(name):
        return f"needs the package `{PACKAGES[name]}`, which is not installed", "install it, or write auto"
    return None


def _lacks(name: str, kind: Any, config: Any) -> tuple[str, str] | None:
    """Return what a model lacks for an implementation, and the fix; None if it has all."""
    other = "write auto"
    if name == SDPA and not kind._supports_sdpa:
        return f"is not made for {kind.__name__}", other
    if name == BY_DOCUMENT and not _takes_documents(kind, config):
        return f"is not made for {kind.__name__}", other
    if name not in KERNELS:
        return None
    flag = "_supports_flex_attn" if name == FLEX else "_supports_flash_attn"
    named = None if name == FLEX else getattr(kind, "_compatible_flash_implementations", None)
    if not getattr(kind, flag) or (named is not None and name not in named):
        return f"is not made for {kind.__name__}", other
    text = config.get_text_config()
    if name != "flash_attention_2" and (key := _dropout(text)):
        return f"draws no dropout, and the model has `{key}: {getattr(text, key)}`", f"{other}, or 0.0 in config.json"
    if name == FLEX and _head_size(text) < LEAST_HEAD:
        problem = f"needs heads of {LEAST_HEAD} dimensions or more, and those of the model have {_head_size(text)}"
        return problem, other
    return None


def _takes_documents(kind: Any, config: Any) -> bool:
    """Return whether a class hands options on to its attention, as flash attention needs, and hides nothing else."""
    of_class = kind._supports_sdpa and kind._supports_flash_attn and kind._supports_attention_backend
    return bool(of_class) and all(getattr(config.get_text_config(), key, None) is None for key in HIDING)


def _dropout(text: Any) -> str | None:
    """Return the option of a configuration by which attention draws, None if it draws nothing."""
    return next(
        (
            key
            for key, value in text.to_dict().items()
            if "att" in key and any(word in key for word in DRAWN) and isinstance(value, int | float) and value > 0
        ),
        None,
    )


def _head_size(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def attention_of(model: Any) -> str:
    """Return the implementation that a model's body runs with."""
    return str(model.config.get_text_config()._attn_implementation)


def use_attention(model: Any, name: str) -> None:
    """Let the body of a model run with an implementation. A vision tower beside it keeps its own.

    Raises ConfigurationError if it does not run here.
    """
    if name == BY_DOCUMENT:
        from continual.models.by_document import register

        register(name)
    text = model.config.get_text_config()
    inside = [key for key in model.config.sub_configs if getattr(model.config, key, None) is text]
    try:
        with quiet():
            model.set_attn_implementation({inside[0]: name} if inside else name)
    except Exception as error:
        problem = f"{type(model).__name__} does not run with `{name}` here ({one_line(error)})"
        raise ConfigurationError(KEY, problem, f"write {default_of(type(model))}") from error
    if attention_of(model) != name:
        raise ConfigurationError(KEY, f"{type(model).__name__} does not let `{name}` be chosen", "write auto")


@contextmanager
def attention_as(model: Any, name: str) -> Iterator[None]:
    """Let the body of a model run with an implementation in the block."""
    before = attention_of(model)
    use_attention(model, name)
    try:
        yield
    finally:
        use_attention(model, before)
