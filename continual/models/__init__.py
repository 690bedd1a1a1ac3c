"""Models as folders: their files, their hash, how they are built, loaded and exported."""

from continual.models.files import copy_settings, model_hash, tokenizer_hash
from continual.models.load import load_model, load_tokenizer
from continual.models.start import check_start, is_checked, start_model

__all__ = [
    "check_start",
    "copy_settings",
    "is_checked",
    "load_model",
    "load_tokenizer",
    "model_hash",
    "start_model",
    "tokenizer_hash",
]
