"""BLiMP pairs from the folder of shared data; lm-eval loads this file by its path."""

import os
from pathlib import Path
from typing import Any


def shared() -> Path:
    """The folder with real models and data: CONTINUAL_SHARED, else `shared` beside the repository."""
    return Path(os.environ.get("CONTINUAL_SHARED", Path(__file__).resolve().parents[4] / "shared"))


def load(paradigm: str, **_: Any) -> dict[str, Any]:
    """The paradigm's minimal pairs as the split `validation`."""
    import datasets

    path = shared() / "data" / "eval" / "blimp" / f"{paradigm}.jsonl"
    return {"validation": datasets.Dataset.from_json(str(path), split="train")}
