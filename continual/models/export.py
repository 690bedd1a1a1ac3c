"""A trained state as a folder that transformers and vLLM load."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from continual.errors import ContinualError
from continual.errors.json_text import load_json
from continual.models.dtypes import restore_dtypes
from continual.models.files import PROCESSOR, TOKENIZER, copy_files
from continual.models.load import load_model
from continual.models.save import save_model
from continual.models.settings import GENERATION
from continual.store import empty_folder, publish_folder

Adapt = Callable[[Any], Callable[[Any], Any] | None]
"""Changes a loaded model in place, and returns what turns it back into a plain one, or None if it did nothing."""


def export_model(
    source: str,
    tokenizer: str,
    tensors: Iterable[tuple[str, Any]],
    target: Path,
    adapt: Iterable[Adapt] = (),
    facts: Mapping[str, Any] | None = None,
    ends: tuple[int, ...] = (),
) -> None:
    """Publish trained tensors as the model folder `target`.

    A fresh copy of the model is adapted as the trained one was, gets the tensors, is turned back into a plain model,
    and is written in the dtype of the model that was trained. Memory: the model in float32, and one tensor.

    Args:
        source: The folder of the model that was trained.
        tokenizer: A folder with its tokenizer, and with its processor if it has one.
        tensors: Names of the adapted model's state dict with the trained tensors, on any device. Each is copied before
            the next one is asked for.
        target: The new folder.
        adapt: What was done to the model before its training, in order.
        facts: What goes into the folder's manifest.
        ends: Ids of the tokens that were trained to end an answer. Generation ends at them as well as at those that
            `source` lists.

    Raises:
        ContinualError: The tensors are not those of the model in `source`.
    """
    model = load_model(source, "float32")
    undo = [restore for change in adapt if (restore := change(model)) is not None]
    _fill(model, tensors, source)
    for restore in reversed(undo):
        model = restore(model)
    restore_dtypes(source, model)
    temporary = empty_folder(target.with_name(f".{target.name}.tmp"))
    save_model(model, temporary)
    copy_files(tokenizer, temporary, (*TOKENIZER, *PROCESSOR))
    copy_files(source, temporary, (GENERATION,))
    _end_at(temporary / GENERATION, model.config, ends)
    publish_folder(temporary, target, facts or {})


def _fill(model: Any, tensors: Iterable[tuple[str, Any]], source: str) -> None:
    """Copy all of the model's tensors into it."""
    import torch

    own = model.state_dict()
    missing = dict.fromkeys(own)
    for name, tensor in tensors:
        if name not in own or own[name].shape != tensor.shape:
            problem = f"`{name}` of shape {tuple(tensor.shape)} was trained, which it does not have"
            raise ContinualError(f"the model in {source} has changed: {problem}")
        with torch.no_grad():
            own[name].copy_(tensor)
        missing.pop(name, None)
        del tensor  # before the next one is gathered
    if missing:
        raise ContinualError(f"the model in {source} has changed: `{next(iter(missing))}` was not trained")


def _end_at(file: Path, config: Any, ends: Iterable[int]) -> None:
    """Add `ends` to the end tokens of a generation config, and make one of `config` if there is none."""
    text = config.get_text_config()
    ids = {key: getattr(text, key, None) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    made = {key: value for key, value in ids.items() if value is not None}
    settings = load_json(file) if file.is_file() else made
    listed = settings.get("eos_token_id")
    known = [] if listed is None else listed if isinstance(listed, list) else [listed]
    added = [number for number in dict.fromkeys(ends) if number not in known]
    if added:
        settings["eos_token_id"] = [*known, *added] if len(known) + len(added) > 1 else added[0]
    if added or not file.is_file():
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
