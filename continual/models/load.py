"""The only place that loads models and tokenizers. Imports torch and transformers when called."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError, one_line
from continual.models.architecture import model_class, read_config
from continual.models.attention import use_attention
from continual.models.dtypes import refuse_quantized
from continual.models.files import ADAPTER, check_shards, loaded_files, tokenizer_files
from continual.models.imports import whole_transformers
from continual.models.misfit import misfit_error, misfit_of
from continual.models.quiet import quiet
from continual.models.settings import check_ends


def load_model(folder: str, dtype: str, device: Any = "cpu", attention: str = "") -> Any:
    """Load a causal language model in eval mode, with exactly the tensors of its files.

    Args:
        folder: The model's folder.
        dtype: The dtype of its parameters, "auto" for that of its files.
        device: Where to put it. "meta": read only the headers of the files, for a check of names and shapes.
        attention: What it runs with, by transformers' name; "" for transformers' own choice.

    Raises:
        ConfigurationError: The class cannot be trained here, or the files lack a tensor of it, or hold one that it does
            not have or that has another shape (as transformers judges it), or `attention` does not run here.
    """
    import torch

    config = read_config(folder)
    found = model_class(folder, config)
    if (Path(folder) / ADAPTER).is_file():
        problem = f"an adapter ({ADAPTER}) lies beside the weights in {folder}, and would be loaded on top of them"
        raise ConfigurationError("", problem, "merge it into the weights, or move it to another folder")
    if not loaded_files(folder):
        problem = (
            f"{folder} has no weights that transformers finds (model.safetensors, pytorch_model.bin or their index)"
        )
        raise ConfigurationError("", problem, "save them there with `model.save_pretrained`")
    check_shards(folder)
    check_ends(folder, config)
    with quiet(), torch.random.fork_rng(devices=[]):
        # A tensor that a class lets be absent is set at random: equally in every process.
        torch.manual_seed(0)
        try:
            loaded: Any = whole_transformers().AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                trust_remote_code=False,
                dtype=dtype,
                device_map="meta" if str(device) == "meta" else None,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise _unloadable(folder, found.__name__, error) from error
    model, info = loaded
    text = config.get_text_config()
    if misfit := misfit_of(info):
        raise misfit_error(folder, found.__name__, misfit, text, _head_name(model))
    refuse_quantized(folder, model)
    if attention:
        use_attention(model, attention)
    if str(device) == "meta":
        return model
    _refuse_two_heads(folder, model, config)
    return model.to(device)


def _unloadable(folder: str, architecture: str, error: Exception) -> ConfigurationError:
    import pickle

    if isinstance(error, pickle.UnpicklingError):
        problem = f"the weights in {folder} are a pickle that holds more than tensors, which could run code"
        return ConfigurationError("", problem, "save them as *.safetensors with `model.save_pretrained`")
    problem = f"{folder} cannot be loaded as a {architecture} ({type(error).__name__}: {one_line(error)})"
    return ConfigurationError("", problem, "correct its config.json, or copy the folder again")


def _head_name(model: Any) -> str | None:
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    return next((name for name, value in model.named_parameters(remove_duplicate=False) if value is weight), None)


def _refuse_two_heads(folder: str, model: Any, config: Any) -> None:
    """Refuse a head apart from the embedding that it is tied to: other libraries take the embedding for it."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if not getattr(config, "tie_word_embeddings", False) or head is None or head.weight is embedding.weight:
        return
    problem = f"config.json in {folder} ties the head to the embedding, but the weights hold a head of their own"
    raise ConfigurationError("", problem, "write `tie_word_embeddings: false` in config.json, or remove that tensor")


def import_loading() -> None:
    """Import what `load_model` will, which takes seconds that a process may have while it waits for its first model."""
    import transformers.masking_utils
    import transformers.modeling_utils  # noqa: F401


def load_tokenizer(folder: str) -> Any:
    """Load a tokenizer, once in a process as long as its files stay as they are. Code of its own is not run."""
    state = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in tokenizer_files(folder))
    return _tokenizer(folder, state)


@lru_cache(maxsize=8)
def _tokenizer(folder: str, state: tuple[Any, ...]) -> Any:
    return whole_transformers().AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
