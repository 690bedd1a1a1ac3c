"""Check what a task's YAML says of prompts, metrics and generation, before lm-eval meets it in the run."""

import math
import re
from pathlib import Path
from typing import Any

import lm_eval.api.metrics  # noqa: F401  fills the registries
from jinja2 import TemplateSyntaxError
from lm_eval.api.registry import aggregation_registry, metric_agg_registry, metric_registry
from lm_eval.utils import env

from continual.config.paths import expanded
from continual.config.task_files import Function
from continual.errors import ConfigurationError, nearest
from continual.errors.bounded import matches
from continual.errors.json_text import parse_json

SHAPES: dict[str, tuple[type, str]] = {
    "metric_list": (list, "a list of mappings, each with `metric`"),
    "filter_list": (list, "a list of mappings, each with `name` and `filter`"),
    "generation_kwargs": (dict, "a mapping"),
    "dataset_kwargs": (dict, "a mapping"),
}
MOST_LINE = 1 << 20
"""How much of a document is read in order to learn its columns."""
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")


def check_fields(file: str, config: dict[str, Any]) -> None:
    """Raise ConfigurationError, whose key is the file, for a field that lm-eval would fail on or misread.

    `config`: the keys of a task, with functions that are not resolved.
    """
    for key, (kind, expected) in SHAPES.items():
        value = config.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, Function)):
            raise ConfigurationError(file, f"`{key}: {value}` is not {expected}", f"write {expected}")
    for key in TEMPLATES:
        _check_template(file, key, config.get(key))
    for entry in config.get("metric_list") or []:
        _check_metric(file, entry, config.get("process_results") is not None)
    repeats = config.get("repeats", 1)
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        raise ConfigurationError(file, f"`repeats: {repeats}` is not a number of answers", "write 1 or more")
    shots = config.get("num_fewshot")
    if shots is not None and (not isinstance(shots, int) or isinstance(shots, bool) or shots < 0):
        raise ConfigurationError(file, f"`num_fewshot: {shots}` is not a number of examples", "write 0 or more")
    for key, value in (config.get("generation_kwargs") or {}).items():
        _check_generation(file, str(key), value)
    until = (config.get("generation_kwargs") or {}).get("until", [])
    if not all(isinstance(text, str) for text in (until if isinstance(until, list) else [until])):
        raise ConfigurationError(file, f"`until: {until}` is neither a text nor a list of texts", "put it in quotes")
    _check_columns(file, config)


def _check_generation(file: str, key: str, value: Any) -> None:
    """Refuse a number that is not finite, negative, or no number where one is needed."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in ("max_gen_toks", "max_new_tokens", "max_length") and value is not None:
        wrong, expected = not isinstance(value, int) or isinstance(value, bool) or value < 1, "a whole number above 0"
    elif key in ("temperature", "top_p", "top_k") and value is not None:
        wrong, expected = not number or not math.isfinite(value) or value < 0, "a number of 0 or more"
    else:
        return
    if wrong:
        raise ConfigurationError(file, f"`{key}: {value}` below `generation_kwargs` is wrong", f"write {expected}")


def _check_template(file: str, key: str, value: Any) -> None:
    if not isinstance(value, str) or isinstance(value, Function):
        return
    try:
        env.from_string(value)
    except TemplateSyntaxError as error:
        problem = f"`{key}` is not a template that Jinja can read (line {error.lineno}: {error.message})"
        raise ConfigurationError(file, problem, f"correct `{key}`") from error


def _check_metric(file: str, entry: Any, own_results: bool) -> None:
    """Refuse a metric that lm-eval cannot compute or aggregate; `own_results`: Python of the task computes it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("metric"), str):
        raise ConfigurationError(file, f"`{entry}` in `metric_list` names no metric", "write `- metric: NAME`")
    name, aggregation = entry["metric"], entry.get("aggregation")
    known = isinstance(name, Function) or own_results or name in metric_registry
    # lm-eval looks for a name that it does not know among those of Hugging Face's `evaluate`.
    if not known and entry.get("hf_evaluate") is not True and "/lm_eval/tasks/" not in file:
        near = nearest(name, metric_registry.keys())
        other = "name one of lm-eval's, or write `hf_evaluate: true` for one of Hugging Face's `evaluate`"
        raise ConfigurationError(file, f"there is no metric `{name}`", f"did you mean `{near}`?" if near else other)
    if isinstance(aggregation, Function):
        return
    if "aggregation" not in entry:
        if isinstance(name, Function) or name not in metric_agg_registry:
            raise ConfigurationError(file, f"metric `{name}` has no `aggregation`", "write `aggregation: mean`")
    elif not isinstance(aggregation, str) or aggregation not in aggregation_registry:
        near = nearest(str(aggregation), aggregation_registry.keys())
        fix = f"did you mean `{near}`?" if near else f"write one of {', '.join(aggregation_registry.keys())}"
        raise ConfigurationError(file, f"there is no `aggregation: {aggregation}`", fix)


def _check_columns(file: str, config: dict[str, Any]) -> None:
    """Refuse a single word that is nearly the name of a column of local JSON lines: lm-eval would ask that word."""
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    columns = _columns(files, config) if config.get("process_docs") is None else set()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        word = config.get(key)
        if isinstance(word, Function) or not isinstance(word, str) or not re.fullmatch(r"[^\W\d]\w*", word):
            continue
        if columns and word not in columns and (near := nearest(word, columns)):
            problem = f"`{key}: {word}` is not a column of the data, and lm-eval would take it for the text itself"
            raise ConfigurationError(file, problem, f"did you mean `{near}`?")


def _columns(files: Any, config: dict[str, Any]) -> set[str]:
    """Return the columns of the first local document; none if there is no line of JSON to tell them."""
    split = config.get("test_split") or config.get("validation_split")
    listed = files.get(split) if isinstance(files, dict) else files
    first = listed[0] if isinstance(listed, list) and listed else listed
    if config.get("dataset_path") != "json" or not isinstance(first, str) or "://" in first:
        return set()
    path = str(expanded(Path((config.get("dataset_kwargs") or {}).get("data_dir") or "", first)).absolute())
    found = path if Path(path).is_file() else next(iter(matches(path, "evaluate")), None)
    try:
        with Path(str(found)).open(encoding="utf-8") as opened:
            document = parse_json(opened.readline(MOST_LINE))
    except (OSError, ValueError):
        return set()
    return set(document) if isinstance(document, dict) else set()
