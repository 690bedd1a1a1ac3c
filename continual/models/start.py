"""The start model as a folder with a hash: a local folder, a hub snapshot, or a random build in the store."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.config.references import load_function, module_file
from continual.config.schema import ModelSource
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError, unwrap
from continual.models.check import check_weights
from continual.models.files import model_files, model_hash, tokenizer_hash
from continual.models.load import load_tokenizer
from continual.models.save import save_model
from continual.store import Store, hash_file, hash_folder, write_atomic
from continual.store.artefact import versions
from continual.store.code import module_code, with_content
from continual.store.json_files import has, known_json


def cached_hash(store: Store, folder: Path, remember: bool = True) -> str:
    """Return `model_hash(folder)`, remembered in the store as long as none of its files is written.

    A copy that keeps size and time of modification (`rsync -t`, `cp -p`) is told by the time of change, which nobody
    can set. A plan, which writes nothing, uses what runs have remembered and does not `remember` more.
    """
    stats = [(path, path.stat()) for path in model_files(folder)]
    state = [[str(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for path, s in stats]
    path = store.hashes
    known = known_json(path)
    entry: Any = known.get(str(folder))
    if not _remembered(entry) or entry["state"] != state:
        known[str(folder)] = entry = {"state": state, "hash": model_hash(folder)}
        if remember:
            write_atomic(path, json.dumps(known))
    return str(entry["hash"])


_remembered = has(state=list, hash=str)


def start_model(store: Store, source: ModelSource, seed: int) -> ModelRef:
    """Return the start model; the cluster builds or downloads it if it does not exist yet."""
    if source.type == "python":
        folder = _built(store, source, seed)
    elif not (folder := Path(str(source.source)).resolve()).is_dir():
        folder = Path(_in_cluster(_snapshot, str(source.source))).resolve()
    return ModelRef(str(folder), cached_hash(store, folder))


def check_start(store: Store, source: ModelSource, model: ModelRef, attention: str = "") -> list[str]:
    """Check once per store, in the cluster, what the start model computes (see `continual.models.check`).

    It runs with `attention`, one that CPUs have; "" is transformers' own choice.

    Returns notes that the check before the start could not give, because the model was not there yet.
    """
    inputs = _check_inputs(model, attention)
    artefact = store.artefact("checks", inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            try:
                notes = _in_cluster(check_weights, model.path, attention)
            except Exception as error:
                if isinstance(inner := unwrap(error), ConfigurationError):
                    raise inner.within("model.source" if source.type == "pretrained" else "model.build") from error
                raise
            writer.finish(notes=notes)
    local = source.type == "pretrained" and Path(str(source.source)).is_dir()
    return [] if local else list(artefact.manifest()["notes"])


def is_checked(store: Store, model: ModelRef, attention: str = "") -> bool:
    """Return whether `check_start` has nothing to do."""
    return store.artefact("checks", _check_inputs(model, attention)).complete


def _check_inputs(model: ModelRef, attention: str) -> dict[str, Any]:
    code = hash_folder(Path(__file__).parent, (".py",))
    inputs: dict[str, Any] = {"model": model.hash, "code": code, "versions": versions(("torch", "transformers"))}
    return inputs | ({"attention": attention} if attention else {})


def _in_cluster(function: Callable[..., Any], *arguments: Any) -> Any:
    import ray

    return ray.get(ray.remote(function).options(num_cpus=0.5).remote(*arguments))


def _snapshot(name: str) -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name)
    except Exception as error:
        problem = f"`{name}` is not a folder, and the hub did not deliver it"
        raise ConfigurationError("model.source", problem, "check the name or the network") from error


def _built(store: Store, source: ModelSource, seed: int) -> Path:
    inputs = built_inputs(source, seed)
    artefact = store.artefact("models", inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            with writer.files() as folder:
                _in_cluster(_build, source, seed, str(folder))
            writer.finish()
    return artefact.path


def built_inputs(source: ModelSource, seed: int) -> dict[str, Any]:
    """Return what decides a model that the user's code builds.

    Raises ConfigurationError if a module is missing, or a folder among the arguments is too large to hash.
    """
    build, tokenizer = str(source.build), str(source.tokenizer)
    arguments = with_content("model.arguments", source.arguments, source.version, module_file(build))
    inputs: dict[str, Any] = {"build": build, "arguments": arguments, "seed": seed, **_code(build, "")}
    if ":" in tokenizer:
        code = _code(tokenizer, "tokenizer_")
        inputs |= {"tokenizer": code.pop("tokenizer_module"), **code}
    else:
        inputs["tokenizer"] = tokenizer_hash(tokenizer)
    return inputs if source.version is None else {**inputs, "version": source.version}


def _code(reference: str, prefix: str) -> dict[str, Any]:
    file = module_file(reference)
    code = {"module": hash_file(file), **module_code(file, reference.partition(":")[0])}
    return {f"{prefix}{key}": value for key, value in code.items()}


def _build(source: ModelSource, seed: int, folder: str) -> None:
    """Build the model from the seed and save it with its tokenizer; runs in the cluster."""
    import torch
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(seed)
    model = load_function("model.build", str(source.build))(**source.arguments)
    if ":" in str(source.tokenizer):
        built, special = load_function("model.tokenizer", str(source.tokenizer))()
        tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=built, **special)
    else:
        tokenizer = load_tokenizer(str(source.tokenizer))
    if len(tokenizer) > model.config.vocab_size:
        problem = f"the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}"
        raise ConfigurationError("model", problem, "enlarge it")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, key, getattr(tokenizer, key))
        setattr(model.generation_config, key, getattr(tokenizer, key))
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
