"""What each event of a ledger, and each record of a step, has; a line that lacks it or has it otherwise is damaged."""

import math
from typing import Any

from continual.contract.walk import is_walk
from continual.forgetting import are_scores
from continual.store.json_files import has
from continual.store.places import is_inner, is_name, is_path

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
    "part": {"stage": int, "step": int, "model": str, "inputs": dict},
    "reused": {"stage": int, "maker": str},
    "candidate": {"stage": int, "name": str, "model": str, "scores": dict},
    "walked": {"stage": int, "name": str, "candidate": str, "walk": dict},
    "stage_done": {"stage": int, "name": str, "model": str, "hash": str, "rows": str},
    "best": {"done": int, "metrics": dict},
    "results": {"step": int, "metrics": dict, "files": list},
    "stopped": {"why": str},
    "ended": {"status": str, "open": list, "files": list},
}
"""The fields that readers of an event need; other events need none."""
OPTIONAL: dict[str, Kind] = {
    "time": NUMBER, "stage": int, "key": str, "name": str, "model": str, "metrics": dict, "tags": dict, "data": dict,
    "inputs": dict, "sampled": dict, "passes": dict, "version": (dict, type(None)), "matrix": (list, type(None)),
    "evaluations": dict,
}  # fmt: skip
"""Fields that earlier versions did not write, or that not all readers need."""
RECORD: dict[str, Kind] = {
    "time": NUMBER, "seconds": NUMBER, "data_wait": NUMBER, "evaluation_wait": NUMBER, "tokens": int,
    "task_tokens": int, "loss": dict, "weight": dict, "drift": dict, "drift_stderr": dict,
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
    if not all(_is(passes, dict) for passes in value.get("passes", {}).values()):
        return False
    if not all(_is(count, int) for count in value.get("sampled", {}).values()) or not _leads_nowhere_else(value):
        return False
    if value.get("version") is not None and not has(name=str, tags=dict)(value["version"]):
        return False
    if value["event"] == "walked" and not is_walk(value["walk"]):
        return False
    return "scores" not in needed or are_scores(value["scores"])


def _leads_nowhere_else(event: dict[str, Any]) -> bool:
    """Return whether what an event names in the run's folder and in the store lies there, and its paths are paths."""
    kind = event["event"]
    addresses = [*event.get("sampled", {}), *(event["samples"] if kind == "prepared" else [])]
    addresses += [event["rows"]] if kind in ("read", "stage_done") else []
    addresses += [event["name"]] if kind in ("prepared", "stage_done") and "name" in event else []  # a stage's folder
    addresses += event.get("evaluations", {}).values() if kind == "scored" else []
    files = event["files"] if kind in ("started", "results", "ended") else []
    data = event.get("data", {}).values() if kind == "prepared" else []
    if not all(map(has(content=str, path=str, counts=dict), data)):
        return False
    paths = [stream["path"] for stream in data]
    paths += {"start_model": [event.get("path")], "stage_done": [event.get("model")]}.get(kind, [])
    return all(map(is_name, addresses)) and all(map(is_inner, files)) and all(map(is_path, paths))


def is_record(value: Any) -> bool:
    """Return whether a value of JSON is the record of an optimizer step."""
    if not isinstance(value, dict) or not _is(value.get("step"), int):
        return False
    return all(_is(value[name], kind) for name, kind in RECORD.items() if name in value)


def _is(value: Any, kind: Kind) -> bool:
    if kind is int and isinstance(value, int) and value < 0:
        return False  # of stages, steps and counts
    if kind is NUMBER and isinstance(value, float) and not math.isfinite(value):
        return False  # of seconds
    return isinstance(value, kind) and not isinstance(value, bool)
