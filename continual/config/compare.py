"""Whether two configurations ask for the same results."""

from typing import Any

NOT_COMPARED = {
    "name": "it names the folder in which the comparison is made",
    "storage": "where results lie, not what they are",
    "track": "what is recorded of a run elsewhere does not change the run",
    "train.cpus_per_worker": "resources decide the pace only",
    "train.max_failures": "how many failures are survived; a resumed stage equals an undisturbed one",
    "train.checkpoint_every": "a resumed stage equals an undisturbed one wherever it resumes",
    "train.keep_checkpoints": "old checkpoints are never read again",
    "train.micro_rows": "rows at a time: equal up to rounding, and the way out of a full memory",
    "train.loss_chunk_tokens": "positions at a time: equal up to rounding, and the way out of a full memory",
    "generate.replicas": "every sample has its own seed, whichever engine makes it",
    "generate.gpus_per_replica": "resources decide the pace only",
    "generate.cpus_per_replica": "resources decide the pace only",
    "generate.batch_size": "every sample has its own seed, whatever it is batched with",
    "generate.max_failed": "decides when to give up, not what is sampled",
    "evaluate.batch_size": "documents at a time: equal up to rounding, and the way out of a full memory",
    "evaluate.gpus": "resources decide the pace only",
}
"""Keys that may change between two starts of a run, each with the reason. All others decide results.

`train.workers` is not among them: how rows are dealt to workers decides the order of sums in every step.
"""


def compared(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the keys of NOT_COMPARED."""
    found = {}
    for key, value in config.items():
        if key in NOT_COMPARED:
            continue
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if f"{key}.{name}" not in NOT_COMPARED}
        found[key] = value
    return found


def config_fingerprint(config: dict[str, Any]) -> str:
    """An address of what the configuration asks for: equal for configurations without differences."""
    from continual.store.files import digest  # brings pyarrow, which a mistake in the YAML need not wait for

    return digest(compared(config))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Dotted keys whose values differ, in the order of the configuration; a list of another length counts per entry."""
    return _differences(compared(old), compared(new), "")


def _differences(old: Any, new: Any, at: str) -> list[str]:
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new and isinstance(old, bool) == isinstance(new, bool) else [at]
    found = []
    for key in [*old, *(key for key in new if key not in old)]:
        place = f"{at}.{key}" if at else str(key)
        if key in old and key in new:
            found += _differences(old[key], new[key], place)
        else:
            found.append(place)
    return found
