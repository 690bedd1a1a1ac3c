"""Find the class of a model folder, and refuse those that cannot be trained. Imports transformers when called."""

from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError, one_line
from continual.errors.json_text import load_json
from continual.models.imports import whole_transformers
from continual.models.numbers import check_config

READ_IT = "correct config.json, or copy it again"
OTHER_FAMILY = "take a causal language model, e.g. of the Llama or Qwen3 family"


def read_config(folder: str) -> Any:
    """Return the configuration of the model in `folder`. Raise ConfigurationError if transformers cannot read it."""
    try:
        written = load_json(Path(folder, "config.json"))
    except ValueError as error:
        raise ConfigurationError("", f"{folder}/config.json is damaged ({one_line(error)})", READ_IT) from error
    if not isinstance(written, dict):
        raise ConfigurationError("", f"{folder}/config.json does not hold a JSON object", READ_IT)
    check_config(folder, written)
    if not written.get("model_type"):
        raise ConfigurationError("", f"{folder}/config.json has no `model_type`", READ_IT)
    try:
        config = whole_transformers().AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except OSError:
        raise
    except Exception as error:
        family = f"`model_type: {written['model_type']}`"
        if own_code(written):
            problem = (
                f"the model in {folder} ({family}) needs code of its own (`auto_map` in config.json), which is not run"
            )
            raise ConfigurationError("", problem, "take a model of a class that transformers has") from error
        if str(written["model_type"]) not in _families():
            problem = f"transformers has no class for {family} in {folder}/config.json"
            raise ConfigurationError("", problem, "correct it, or take another model") from error
        raise ConfigurationError("", f"{folder}/config.json cannot be used ({one_line(error)})", READ_IT) from error
    return config


def _families() -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING


def own_code(config: dict[str, Any]) -> dict[str, str]:
    """Return the classes that `auto_map` names for the configuration and the causal language model."""
    named = config.get("auto_map") or {}
    return {key: str(named[key]) for key in ("AutoConfig", "AutoModelForCausalLM") if named.get(key)}


def model_class(folder: str, config: Any) -> Any:
    """Return the class that trains the model in `folder`. Raise ConfigurationError if there is none.

    It is the one of AutoModelForCausalLM, unless the weights are quantized, or config.json names code of its own or
    another class of transformers, of which that one would be only a part.
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

    named = [str(name) for name in getattr(config, "architectures", None) or []]
    title = f"{named[0] if named else 'a model'} (`model_type: {config.model_type}`) in {folder}"
    if getattr(config, "quantization_config", None):
        raise ConfigurationError(
            "", f"the weights in {folder} are quantized and cannot be trained", "take unquantized ones"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        kind = "an encoder-decoder" if getattr(config, "is_encoder_decoder", False) else "no causal language model"
        raise ConfigurationError("", f"{title} is {kind} to transformers and cannot be trained here", OTHER_FAMILY)
    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigurationError("", f"{title} is an encoder-decoder and cannot be trained here", OTHER_FAMILY)
    own = own_code({"auto_map": getattr(config, "auto_map", None)}).get("AutoModelForCausalLM")
    if own is not None and own.rpartition(".")[2] != found.__name__:
        problem = f"config.json in {folder} names code of its own (`{own}`), which is not run"
        fix = f"take `auto_map` out of config.json if transformers' {found.__name__} computes the same"
        raise ConfigurationError("", problem, fix)
    # The body alone is right if the head is tied to its embedding: its weights decide.
    body = getattr(MODEL_MAPPING[type(config)], "__name__", "") if type(config) in MODEL_MAPPING else ""
    others = [name for name in named if name not in (found.__name__, body) and hasattr(transformers, name)]
    if others:
        problem = f"config.json in {folder} names {others[0]}, of which a {found.__name__} would be made"
        raise ConfigurationError("", problem, f"save the model as a {found.__name__}, or take another one")
    return found


def notes_about(folder: str | Path, config: Any, found: Any) -> list[str]:
    """Return a note if config.json names a class that transformers does not have, or code that it has itself."""
    import transformers

    named = [str(name) for name in getattr(config, "architectures", None) or []]
    notes = []
    if getattr(config, "auto_map", None):
        notes.append(
            f"config.json in {folder} names code of its own: transformers' own {found.__name__} is used instead"
        )
    if unknown := [name for name in named if not hasattr(transformers, name)]:
        notes.append(f"config.json in {folder} names the class {unknown[0]}: it is loaded as {found.__name__}")
    return notes
