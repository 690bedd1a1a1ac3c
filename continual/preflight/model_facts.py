"""Facts about a model, read from its files without torch: its configuration and the headers of its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from continual.config.paths import hub_folder, looks_like_path, missing_folder, offline
from continual.config.references import find_function
from continual.config.schema import Generate, ModelSource
from continual.contract.registry import ENGINES
from continual.errors import ConfigurationError, one_line
from continual.models.files import check_shards, loaded_files, weight_files, weight_map
from continual.preflight.tokenizer_facts import read_json

KEY = "model.source"


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of the architecture, None if unknown. `folder` holds a pretrained model's files, if they are local."""

    folder: Path | None
    vocabulary: int | None = None
    positions: int | None = None
    head_size: int | None = None


def read_model(model: ModelSource) -> tuple[ModelFacts, list[str]]:
    """Return the facts, and notes about what is unknown. Raise ConfigurationError for a model that cannot be loaded."""
    if model.type == "python":
        find_function("model.build", str(model.build))
        return _facts(None, model.arguments), []
    source = str(model.source)
    folder = Path(source)
    if not folder.is_dir():
        if folder.is_file():
            problem, fix = f"{folder} is a file, not a model folder", "give the folder that holds config.json"
            raise ConfigurationError(KEY, problem, fix)
        if looks_like_path(source):
            raise ConfigurationError(KEY, *missing_folder(source))
        cached = cached_model(source)
        if cached is None:
            if offline():
                problem = f"`{source}` is not a local folder, and HF_HUB_OFFLINE forbids its download"
                raise ConfigurationError(KEY, problem, "give a local folder or unset HF_HUB_OFFLINE")
            where = f"there is no folder {Path.cwd() / source}, so "
            return ModelFacts(None), [
                f"{where}model `{source}` comes from the hub: it is checked when it is downloaded"
            ]
        folder = cached
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        fix = "merge the adapter into its base model first" if adapter else "save it with `model.save_pretrained`"
        raise ConfigurationError(KEY, f"{folder} has no config.json", fix)
    check_weights(folder)
    return _facts(folder, read_json(KEY, folder / "config.json")), []


def cached_model(source: str) -> Path | None:
    """Return the snapshot of a hub model in the local Hugging Face cache, or None."""
    folder = hub_folder("models", source)
    head = folder / "refs" / "main"
    snapshot = folder / "snapshots" / head.read_text().strip() if head.is_file() else None
    return snapshot if snapshot and (snapshot / "config.json").is_file() else None


def _facts(folder: Path | None, config: dict[str, Any]) -> ModelFacts:
    text = config.get("text_config")
    config = text if isinstance(text, dict) else config

    def number(*names: str) -> int | None:
        return next((config[name] for name in names if isinstance(config.get(name), int)), None)

    heads, width = number("num_attention_heads", "n_head"), number("hidden_size", "n_embd")
    head = number("head_dim") or (width // heads if heads and width else None)
    return ModelFacts(folder, number("vocab_size"), number("max_position_embeddings", "n_positions"), head)


def check_weights(folder: Path) -> None:
    """Raise ConfigurationError unless the folder has weights and their files are complete."""
    for index in sorted(folder.glob("*.index.json")):
        try:
            listed = weight_map(index)
        except ConfigurationError as error:
            raise error.within(KEY) from error
        for name in sorted(set(listed.values())):
            if not (folder / name).is_file():
                raise ConfigurationError(KEY, f"{index.name} lists {name}, which is missing", "copy that file too")
    files = weight_files(folder)
    if not files:
        other = ", and GGUF is not supported" if any(folder.glob("*.gguf")) else ""
        fix = "copy model.safetensors there or save it with `model.save_pretrained`"
        raise ConfigurationError(KEY, f"{folder} has no weights (*.safetensors or *.bin){other}", fix)
    for file in files:
        if file.stat().st_size == 0:
            raise ConfigurationError(KEY, f"{file} is empty", "copy it again")
        with file.open("rb") as data:
            if data.read(23) == b"version https://git-lfs":
                raise ConfigurationError(KEY, f"{file} is a Git LFS pointer, not the weights", "run `git lfs pull`")
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "np"):
                    pass
            except (SafetensorError, OSError) as error:
                problem = f"{file} is damaged or incomplete ({one_line(error)})"
                raise ConfigurationError(KEY, problem, "copy it again") from error
    try:
        loaded_files(folder)
        check_shards(folder)
    except ConfigurationError as error:
        raise error.within(KEY) from error


def cannot_sample(generate: Generate, facts: ModelFacts) -> str | None:
    """Return why the configured engine cannot sample from a model, as "problem; fix", or None."""
    reason: str | None = ENGINES.load(generate.engine)().problem(facts, generate)
    return reason
