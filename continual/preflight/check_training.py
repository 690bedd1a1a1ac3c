"""Check what the schema cannot check of the training options and the storage."""

import importlib.util
import os
import shutil
from pathlib import Path

from continual.config.schema import Sequence, Track, Train
from continual.contract.registry import registered
from continual.errors import ConfigurationError, nearest, secrets_in
from continual.preflight.resources import detect_machine

OURS_BY = {
    "model": "by `model` and the stages",
    "tokenizer": "samples are token ids, and the model's own tokenizer reads them",
    "dtype": "by `model.dtype`",
    "max_model_len": "by the longest sample",
    "seed": "every sample has its own seed",
    "skip_tokenizer_init": "samples are token ids",
}
"""vLLM's engine arguments that follow from other keys, with the reason."""
OURS = frozenset(OURS_BY)
SCHEMES = frozenset(
    {"", "file", "sqlite", "mysql", "postgresql", "mssql", "http", "https", "databricks", "databricks-uc", "uc"}
)
"""Schemes of MLflow's tracking stores; packages add others by the entry point `mlflow.tracking_store`."""


def check_training(sequence: Sequence) -> list[str]:
    """Return notes. Raise ConfigurationError for options that cannot work together."""
    train = sequence.train
    if train.workers > train.batch_rows:
        problem = f"{train.workers} workers cannot share {train.batch_rows} rows per step"
        raise ConfigurationError("train.workers", problem, f"write at most {train.batch_rows} or raise `batch_tokens`")
    if train.strategy == "deepspeed":
        _check_deepspeed(train)
    if train.compile:
        _check_compile(train)
    if sequence.generate.engine == "vllm" and (taken := sorted(OURS & set(sequence.generate.engine_arguments))):
        problem = f"`{taken[0]}` is decided by the configuration: {OURS_BY[taken[0]]}"
        raise ConfigurationError(f"generate.engine_arguments.{taken[0]}", problem, "remove it")
    if secrets_in(sequence.generate.engine_arguments):
        problem = "it holds a password or token, and vLLM logs the arguments that it is given"
        raise ConfigurationError("generate.engine_arguments", problem, "export it instead, e.g. HF_TOKEN")
    _check_tracking(sequence.track)
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


def _check_compile(train: Train) -> None:
    """Raise ConfigurationError where torch.compile cannot make kernels: under DeepSpeed, or without a compiler.

    Another machine of a cluster is not asked for its compiler.
    """
    if train.strategy == "deepspeed":
        problem = "layers are not compiled under DeepSpeed, whose ZeRO-3 gathers and frees weights inside of them"
        raise ConfigurationError("train.compile", problem, "write false, or `train.strategy: ddp` or `fsdp`")
    if detect_machine().cpus is None:
        return
    # As torch's inductor finds it for kernels of CPUs, and triton for what starts those of GPUs.
    variable, usual = ("CC", ("gcc", "clang")) if train.gpus_per_worker else ("CXX", ("g++",))
    named = os.environ.get(variable)
    if not any(map(shutil.which, [named] if named else usual)):
        language = "C" if train.gpus_per_worker else "C++"
        problem = f"torch.compile needs a {language} compiler, and there is no {named or ' or '.join(usual)}"
        raise ConfigurationError(
            "train.compile", problem, f"install one (Debian: g++), name it in {variable}, or write false"
        )


def _check_tracking(track: Track) -> None:
    """Raise ConfigurationError for a tracking URI of a kind that MLflow does not know."""
    scheme, separator, _ = (track.uri or "").partition(":")
    known = SCHEMES | {point.name for point in registered("mlflow.tracking_store")}
    if track.enabled and separator and scheme.partition("+")[0] not in known and not Path(str(track.uri)).exists():
        near = nearest(scheme, known)
        fix = f"did you mean `{near}:`?" if near else "write e.g. sqlite:///<file> or http://<host>:<port>"
        raise ConfigurationError("track.uri", f"MLflow has no tracking store of the kind `{scheme}:`", fix)
