"""The settings of a model folder: what generation ends at, and whether they can be saved again after training."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from continual.errors import ConfigurationError, one_line
from continual.errors.json_text import load_json
from continual.models.imports import whole_transformers
from continual.models.numbers import check_generation

GENERATION = "generation_config.json"


def check_ends(folder: str, config: Any) -> None:
    """Raise ConfigurationError unless transformers reads the generation settings, and generation ends at known ids.

    Args:
        folder: The model's folder.
        config: Its configuration, which says it where there is no generation_config.json.
    """
    text = config.get_text_config()
    file, listed = Path(folder, GENERATION), getattr(text, "eos_token_id", None)
    found = file.is_file()
    made = not found
    if found:
        try:
            settings = load_json(file)
        except (OSError, ValueError) as error:
            raise ConfigurationError("", f"{file} is damaged ({one_line(error)})", "copy the file again") from error
        if not isinstance(settings, dict):
            raise ConfigurationError("", f"{file} does not hold a JSON object", "copy the file again")
        check_generation(file, settings)
        _check_values(file, settings)
        listed, made = settings.get("eos_token_id"), bool(settings.get("_from_model_config"))
    size = getattr(text, "vocab_size", None)
    ids = listed if isinstance(listed, list) else [] if listed is None else [listed]
    for number in ids:
        whole = isinstance(number, int) and not isinstance(number, bool)
        # Classes have defaults for their own vocabulary; a configuration with a smaller one keeps them, and so do
        # generation settings that transformers made of it.
        if whole and (made or size is None or 0 <= number < size):
            continue
        place = file if found else Path(folder, "config.json")
        problem = f"{place}: `eos_token_id: {json.dumps(listed)}` is not an id of the vocabulary"
        among = f" from 0 to {size - 1}" if isinstance(size, int) else ""
        raise ConfigurationError("", problem, f"write an id{among}, or a list of ids")


def _check_values(file: Path, settings: dict[str, Any]) -> None:
    try:
        whole_transformers().GenerationConfig.from_dict(settings)
    except Exception as error:
        raise ConfigurationError("", f"transformers refuses {file}: {one_line(error)}", "correct it") from error


def check_saving(folder: str, model: Any) -> None:
    """Raise ConfigurationError if transformers would refuse to save a loaded model's settings: the export saves them.

    The settings are saved to a temporary folder.
    """
    with TemporaryDirectory() as target:
        for name, settings in (("config.json", model.config), (GENERATION, getattr(model, "generation_config", None))):
            if settings is None:
                continue
            try:
                settings.save_pretrained(target)
            except Exception as error:
                problem = f"{Path(folder, name)} could not be saved with the trained model: {one_line(error)}"
                raise ConfigurationError("", problem, "correct it") from error
