"""What each event of a ledger, and each record of a step, has; a line that lacks it or has it otherwise is damaged."""

from typing import Any

from continual.forgetting import are_scores

Kind = type | tuple[type, ...]
NUMBER = (int, float)
FIELDS: dict[str, dict[str, Kind]] = {
    "run": {"id": str},
    "phase": {"phase": str, "seconds": NUMBER},
    "start_model": {"path": str, "hash": str},
    "read": {"key": str, "stage": int, "rows": str},
    "measures": {"measures": dict},
    "started": {"name": str, "tags": dict, "params": dict, "files": list},
    "scored": {"stage": int, "name": str, "scores": dict},
    "prepared": {"stage": int, "samples": list, "steps": int},
    "inside": {"stage": int, "step": int, "scores": dict},
    "reused": {"stage": int, "maker": str},
    "candidate": {"stage": int, "name": str, "model": str, "scores": dict},
    "stage_done": {"stage": int, "name": str, "model": str, "hash": str, "rows": str},
    "best": {"done": int, "metrics": dict},
    "stopped": {"why": str},
    "ended": {"status": str, "open": list, "files": list},
}
"""The fields that readers of an event need; other events need none."""
OPTIONAL: dict[str, Kind] = {
    "time": NUMBER, "stage": int, "key": str, "name": str, "model": str, "metrics": dict, "tags": dict, "data": dict,
    "inputs": dict, "sampled": dict, "passes": dict, "version": (dict, type(None)), "matrix": (list, type(None)),
}  # fmt: skip
"""Fields that earlier versions did not write, or that not all readers need."""
RECORD: dict[str, Kind] = {
    "time": NUMBER, "seconds": NUMBER, "data_wait": NUMBER, "tokens": int, "task_tokens": int, "loss": dict,
    "weight": dict, "drift": dict,
}  # fmt: skip


def is_event(value: Any) -> bool:
    """Return whether a value of JSON is an event as `Events.add` writes it."""
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        return False
    needed = FIELDS.get(value["event"], {})
    if not all(name in value and _is(value[name], kind) for name, kind in needed.items()):
        return False
    if not all(_is(value[name], kind) for name, kind in OPTIONAL.items() if name in value):
        return False
    measures = value.get("measures", {"tasks": {}, "settings": {}})
    if not all(isinstance(measures.get(name), dict) for name in ("tasks", "settings")):
        return False
    inner = [(value.get("passes", {}).values(), dict), (value.get("sampled", {}).values(), int)]
    inner += [(value["samples"], str)] if "samples" in needed else []
    if not all(_is(item, kind) for items, kind in inner for item in items):
        return False
    return "scores" not in needed or are_scores(value["scores"])


def is_record(value: Any) -> bool:
    """Return whether a value of JSON is the record of an optimizer step."""
    if not isinstance(value, dict) or not _is(value.get("step"), int):
        return False
    return all(_is(value[name], kind) for name, kind in RECORD.items() if name in value)


def _is(value: Any, kind: Kind) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
