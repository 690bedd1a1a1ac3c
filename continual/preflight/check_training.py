"""Check what the schema cannot check of the training options and the storage."""

import importlib.util
import os
import tempfile
from pathlib import Path

from continual.config.paths import is_uri
from continual.config.schema import Sequence, Train
from continual.errors import ConfigurationError


def check_training(sequence: Sequence) -> list[str]:
    """Return notes. Raise ConfigurationError for options that cannot work together."""
    train = sequence.train
    if train.workers > train.batch_rows:
        problem = f"{train.workers} workers cannot share {train.batch_rows} rows per step"
        raise ConfigurationError("train.workers", problem, f"write at most {train.batch_rows} or raise `batch_tokens`")
    if train.strategy == "deepspeed":
        _check_deepspeed(train)
    notes = []
    for stage in sequence.stages:
        if stage.steps is None:
            continue
        if stage.steps <= train.warmup_steps:
            notes.append(f"stage `{stage.name}` ends within its warm-up ({stage.steps} of {train.warmup_steps} steps)")
        if sequence.evaluate.every is not None and sequence.evaluate.every >= stage.steps:
            notes.append(f"stage `{stage.name}` ends before its first evaluation (`evaluate.every`)")
    return notes


def _check_deepspeed(train: Train) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigurationError("train.strategy", "deepspeed is not installed", "install it or write `strategy: ddp`")
    if train.deepspeed is not None:
        from continual.training.strategies.deepspeed_json import read_json

        read_json(train.deepspeed)


def check_storage(storage: str) -> None:
    """Raise ConfigurationError unless the storage is a local path that can be written to. Leave no file behind."""
    if is_uri(storage):
        fix = "object storage is not supported yet; use a path on a shared file system"
        raise ConfigurationError("storage", f"`{storage}` is not a local path", fix)
    folder = Path(storage)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigurationError("storage", f"{folder} is a file, not a folder", "give a folder")
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = f"nothing can be written to {folder} ({error.strerror})"
        raise ConfigurationError("storage", problem, "give a folder that you may write to") from error
