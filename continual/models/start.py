"""Start models as folders with a hash: a local folder as it is, a hub snapshot, or a random build in the store."""

import json
from pathlib import Path
from typing import Any

from continual.config.references import load_function
from continual.config.schema import ModelSource
from continual.contract.mitigation import ModelRef
from continual.data.sources import module_file
from continual.errors import ConfigurationError
from continual.store import Store, hash_file, hash_folder, write_atomic

WEIGHTS = (
    ".safetensors",
    ".bin",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    ".model",
    ".jinja",
)
HASHES = ".hashes.json"


def model_hash(folder: str | Path) -> str:
    """Address of a model folder: its weights, configuration and tokenizer."""
    return hash_folder(folder, WEIGHTS)


def cached_hash(store: Store, folder: Path) -> str:
    """`model_hash`, remembered in the store for as long as no file of the folder changes in size or time."""
    state = [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(folder.iterdir()) if p.is_file()]
    path = store.root / HASHES
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    entry = known.get(str(folder))
    if not entry or entry["state"] != state:
        known[str(folder)] = entry = {"state": state, "hash": model_hash(folder)}
        write_atomic(path, json.dumps(known))
    return str(entry["hash"])


def start_model(store: Store, source: ModelSource, seed: int) -> ModelRef:
    """The start model; what has to be built or fetched is built or fetched in the cluster, once."""
    import ray

    if source.type == "python":
        return _built(store, source, seed)
    folder = Path(str(source.source))
    if not folder.is_dir():
        folder = Path(ray.get(ray.remote(_snapshot).options(num_cpus=0.5).remote(str(source.source))))
    return ModelRef(str(folder.resolve()), cached_hash(store, folder.resolve()))


def _snapshot(name: str) -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name)
    except Exception as error:
        raise ConfigurationError(
            "model.source", f"`{name}` is no folder, and the hub does not give it", "check the name or the network"
        ) from error


def _built(store: Store, source: ModelSource, seed: int) -> ModelRef:
    import ray

    inputs: dict[str, Any] = {"build": source.build, "arguments": source.arguments, "seed": seed}
    inputs["module"] = hash_file(module_file(str(source.build)))
    named = ":" in str(source.tokenizer)
    inputs["tokenizer"] = hash_file(module_file(str(source.tokenizer))) if named else hash_folder(str(source.tokenizer))
    artefact = store.artefact("models", inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            ray.get(ray.remote(_build).options(num_cpus=0.5).remote(source, seed, str(artefact.path)))
            writer.finish()
    return ModelRef(str(artefact.path), cached_hash(store, artefact.path))


def _build(source: ModelSource, seed: int, folder: str) -> None:
    """In the cluster: build, seed and save the model and its tokenizer."""
    import torch
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    model = load_function("model.build", str(source.build))(**source.arguments)
    if ":" in str(source.tokenizer):
        built, special = load_function("model.tokenizer", str(source.tokenizer))()
        tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=built, **special)
    else:
        tokenizer = AutoTokenizer.from_pretrained(str(source.tokenizer))
    if len(tokenizer) > model.config.vocab_size:
        raise ConfigurationError(
            "model", f"the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}", "enlarge it"
        )
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, key, getattr(tokenizer, key))
        setattr(model.generation_config, key, getattr(tokenizer, key))
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
