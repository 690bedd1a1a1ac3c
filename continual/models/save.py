"""The only place that writes a model's weights."""

from pathlib import Path
from typing import Any


def save_model(model: Any, folder: str | Path) -> None:
    """Write config and weights of a model, which is none of DeepSpeed's engines, as safetensors."""
    from unittest.mock import patch

    from accelerate.utils import other

    # transformers lets accelerate ask for the class of those engines, which imports DeepSpeed: two seconds
    # (transformers 5.24, accelerate 1.15).
    with patch.object(other, "is_deepspeed_available", lambda: False, create=True):
        model.save_pretrained(folder, safe_serialization=True)
