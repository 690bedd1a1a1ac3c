"""A trained state as a folder that transformers and vLLM load."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from continual.models.files import TOKENIZER, copy_files
from continual.models.load import load_model
from continual.store import empty_folder, publish_folder

Adapt = Callable[[Any], Callable[[Any], Any] | None]
"""Changes a loaded model in place, and returns what turns it back into a plain one, or None if it did nothing."""


def export_model(
    source: str,
    tokenizer: str,
    state: Mapping[str, Any],
    target: Path,
    adapt: Iterable[Adapt] = (),
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Publish `state` (full weights by name, float32) as the model folder `target`.

    `source` is the folder of the model that was trained, `tokenizer` a folder with its tokenizer. A fresh copy of the
    model is adapted as the trained one was, gets the state, and is turned back into a plain model. `facts` go into the
    folder's manifest.
    """
    model = load_model(source, "float32")
    undo = [restore for change in adapt if (restore := change(model)) is not None]
    model.load_state_dict(state, strict=True)
    for restore in reversed(undo):
        model = restore(model)
    temporary = empty_folder(target.with_name(f".{target.name}.tmp"))
    model.save_pretrained(temporary, safe_serialization=True)
    copy_files(tokenizer, temporary, TOKENIZER)
    copy_files(source, temporary, ("generation_config.json",))
    publish_folder(temporary, target, facts or {})
