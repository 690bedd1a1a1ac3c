"""Whether two configurations ask for the same results."""

from typing import Any

NOT_COMPARED = {
    "name": "it names the run folder in which the comparison is made",
    "storage": "decides where results are, not what they are",
    "track": "recording a run elsewhere does not change it",
    "train.cpus_per_worker": "resources change only the speed",
    "train.max_failures": "how many failures a stage survives; a resumed stage equals an undisturbed one",
    "train.checkpoint_every": "a resumed stage equals an undisturbed one, from whichever step it resumes",
    "train.log_every": "decides when losses are written, not what they are",
    "train.keep_checkpoints": "old checkpoints are not read again",
    "train.micro_rows": "rows at a time: equal up to rounding; where training draws (dropout, noise), no other",
    "train.activation_checkpointing": "the same numbers computed again, and the fix when memory runs out",
    "train.workers": "who reads which rows: equal up to rounding; where training draws (dropout, noise), no other",
    "train.loss_chunk_tokens": "positions at a time: equal up to rounding, and the fix when memory runs out",
    "generate.replicas": "every sample has its own seed, whichever replica makes it",
    "generate.gpus_per_replica": "resources change only the speed",
    "generate.cpus_per_replica": "resources change only the speed",
    "generate.shard_samples": "decides how often samples are stored, not what is sampled",
    "generate.batch_size": "vllm: every sample has its own seed, whichever batch it is in; transformers: other samples "
    "are made, and a stage whose training has begun is refused",
    "generate.delivery": "samples, order of rows and weights are the same",
    "generate.ahead": "decides when samples are made, not which",
    "generate.max_failed": "decides when sampling gives up, not what is sampled",
    "generate.still_seconds": "decides when sampling gives up, not what is sampled",
    "evaluate.batch_size": "documents at a time: equal up to rounding, and the fix when memory runs out",
    "evaluate.gpus": "resources change only the speed",
    "evaluate.replicas": "every task and text is scored by itself, whichever process does it",
    "evaluate.max_forgetting": "decides how the command ends, not what is measured",
    "evaluate.overlap": "decides when a model is scored, not how",
}
"""Keys that may change between two starts of a run, each with the reason. All others decide results."""


def compared(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration without the keys of NOT_COMPARED."""
    kept = {key: value for key, value in config.items() if key not in NOT_COMPARED}
    for section, options in kept.items():
        if isinstance(options, dict):
            kept[section] = {key: value for key, value in options.items() if f"{section}.{key}" not in NOT_COMPARED}
    return kept


def config_fingerprint(config: dict[str, Any]) -> str:
    """Return a hash that is equal for exactly the configurations without differences."""
    from continual.store.files import digest  # imports pyarrow, for which a mistake in the YAML need not wait

    return digest(compared(config))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the dotted keys whose values differ, in the order of the configuration.

    Lists are compared entry by entry: an entry that only one of them has is a difference.
    """
    return _differences(compared(old), compared(new), "")


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new and isinstance(old, bool) == isinstance(new, bool) else [path]
    keys = []
    for key in [*old, *(key for key in new if key not in old)]:
        place = f"{path}.{key}" if path else str(key)
        keys += _differences(old[key], new[key], place) if key in old and key in new else [place]
    return keys
