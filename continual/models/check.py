"""Check that a model can be trained here: its files, its class, and what it computes. Imports torch when called."""

import copy
from typing import Any

from continual.errors import ConfigurationError, one_line
from continual.models.architecture import notes_about, read_config
from continual.models.attention import BY_DOCUMENT, attention_as, default_of, use_attention
from continual.models.load import load_model
from continual.models.quiet import quiet
from continual.models.settings import check_saving

SMALL = 30_000_000
"""Parameters of a model that is loaded and run before the start, which takes about a second."""
COPY = 100_000_000
"""Parameters of the largest small copy of a larger model: setting them at random takes about a second."""
LONG = 40
"""Tokens of a document that small models are run on."""
VOCABULARY, INNER, EXPERTS = 256, 32, 8
"""Tokens, inner width of the layers and experts of a small copy."""


def check_files(folder: str, attention: str = "") -> list[str]:
    """Check a model folder before the start: its tensors are those of its class, and the class can be trained.

    Reads the headers of the weights. A model of up to `SMALL` parameters is also loaded and run on a few tokens, and of
    a larger one a small copy of random weights, where one can be made; the rest is left to `check_weights`. `attention`
    is what they run with, one that CPUs have; "" is transformers' own choice, with which `by_document` is compared.

    Returns:
        Notes for the user.

    Raises:
        ConfigurationError: The model cannot be trained here.
    """
    from continual.models.forward import check_split
    from continual.models.trainable import freeze_unreached, note_about

    model = load_model(folder, "float32", "meta")
    check_split(model)
    if sum(parameter.numel() for parameter in model.parameters()) <= SMALL:
        return check_weights(folder, attention)
    check_saving(folder, model)
    notes = notes_about(folder, model.config, type(model))
    if (small := small_copy(model)) is not None:
        if attention not in ("", BY_DOCUMENT):
            use_attention(small, attention)
        _check_packing(small, attention, LONG)
    else:
        notes.append(f"the run checks, once it has loaded {type(model).__name__}, that packed documents stay apart")
    frozen = freeze_unreached(model)
    return notes + [note_about(frozen)] * bool(frozen)


def check_weights(folder: str, attention: str = "") -> list[str]:
    """Load a model and check what it computes, on a few tokens; return notes and raise as `check_files` does."""
    import torch

    from continual.models.trainable import freeze_unreached, note_about

    model = load_model(folder, "float32", "cpu", "" if attention == BY_DOCUMENT else attention)
    check_saving(folder, model)
    broken = [name for name, parameter in model.named_parameters() if not bool(torch.isfinite(parameter).all())]
    if broken:
        problem = f"{len(broken)} tensors in {folder} hold values that are not finite, the first in `{broken[0]}`"
        raise ConfigurationError("", problem, "copy the weights again")
    small = sum(parameter.numel() for parameter in model.parameters()) <= SMALL
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or LONG
    try:
        _check_packing(model, attention)
        if small:
            _check_packing(model, attention, min(LONG, positions))
    except (ConfigurationError, MemoryError):
        raise
    except Exception as error:
        problem = f"{type(model).__name__} in {folder} cannot be run on packed rows ({one_line(error)})"
        raise ConfigurationError("", problem, "correct config.json, or take another model") from error
    frozen = freeze_unreached(model)
    return notes_about(folder, read_config(folder), type(model)) + [note_about(frozen)] * bool(frozen)


def _check_packing(model: Any, attention: str, tokens: int = 2) -> None:
    """Raise ConfigurationError unless packed documents stay apart: as the model is loaded, and by document if asked."""
    from continual.models.forward import check_head

    check_head(model, tokens)
    if attention == BY_DOCUMENT:
        try:
            with attention_as(model, BY_DOCUMENT):
                check_head(model, tokens)
        except ConfigurationError as error:
            problem = f"{type(model).__name__} does not keep packed documents apart with `{BY_DOCUMENT}`"
            fix = f"write `model.attention: {default_of(type(model))}`"
            raise ConfigurationError("", problem, fix) from error


def small_copy(model: Any) -> Any:
    """Return a random model of the same family with few layers and tokens, or None if it would not be small.

    A layer of every kind is kept. Where the configuration does not allow it, there is no copy: the real weights tell.
    """
    import torch

    config = copy.deepcopy(model.config)
    try:
        _shrink(config.get_text_config())
        with quiet(), torch.device("meta"):
            size = sum(parameter.numel() for parameter in type(model)(config).parameters())
        if size > COPY:
            return None
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            small = type(model)._from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            ids = torch.arange(4)[None]
            small(input_ids=ids, use_cache=False)
    except Exception:
        return None
    return small


def _shrink(config: Any) -> None:
    """Keep the first layer of every kind, and at least two; make vocabulary and inner widths small, in place."""
    layers = config.num_hidden_layers
    kinds = {name: value for name, value in vars(config).items() if _per_layer(value, layers)}
    different: dict[tuple[Any, ...], int] = {}
    for number in range(layers):
        different.setdefault(tuple(str(value[number]) for value in kinds.values()), number)
    kept = sorted({*different.values(), *range(min(2, layers))})
    for name, value in kinds.items():
        setattr(config, name, [value[number] for number in kept])
    config.num_hidden_layers = len(kept)
    config.vocab_size = min(config.vocab_size, VOCABULARY)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config, name, None)
    for name in ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_dim", "n_inner"):
        if isinstance(width := getattr(config, name, None), int):
            setattr(config, name, min(width, INNER))
    for name in ("num_experts", "num_local_experts"):
        if isinstance(experts := getattr(config, name, None), int):
            setattr(config, name, min(experts, max(EXPERTS, getattr(config, "num_experts_per_tok", EXPERTS))))
    # With far smaller values than these the layers would hardly change what goes through them.
    for name in ("initializer_range", "init_std"):
        if isinstance(spread := getattr(config, name, None), float):
            setattr(config, name, max(spread, config.hidden_size**-0.5))


def _per_layer(value: Any, layers: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == layers
