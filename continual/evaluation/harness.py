"""Run lm-eval tasks on a model that is already loaded."""

import contextlib
import io
import json
import logging
import os
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from continual.config.task_files import TaskFiles
from continual.errors import ContinualError, describe
from continual.evaluation import names
from continual.forgetting import Score, Scores

BOOTSTRAP = 1000
"""Resamples for the standard error of a metric that is not a mean: 1,000 give it to 2 %, 100,000 take minutes."""
KEPT = ("doc_id", "doc", "target", "resps", "filtered_resps", "filter", "doc_hash", "prompt_hash", "target_hash")
"""Keys of lm-eval's sample records that are kept, in addition to the prompt and the values of the metrics."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress progress bars, prints, log lines below an error and bootstrap processes; restore everything on exit."""
    disabled, multiprocessing = logging.root.manager.disable, os.environ.get("DISABLE_MULTIPROC")
    logging.disable(logging.WARNING)
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
        del os.environ["DISABLE_MULTIPROC"]
        if multiprocessing is not None:
            os.environ["DISABLE_MULTIPROC"] = multiprocessing


class Harness:
    """The tasks of a sequence, which run on one model after another with equal settings."""

    def __init__(self, evaluate: Mapping[str, Any], tasks: list[dict[str, Any]]):
        """`evaluate`: a dump of `config.schema.Evaluate`; `tasks`: dumps of `EvaluationTask`.

        lm-eval indexes its 14,000 own task files (6 s) only if a task is not in `include_path`.
        """
        from lm_eval.tasks import TaskManager

        self.evaluate, self.tasks = dict(evaluate), names.plan_tasks(tasks)
        folder = self.evaluate.get("include_path")
        files = TaskFiles(folder)
        files.check_bounds()
        own = files.own
        defaults = any(task["name"] not in own or own[task["name"]].kind != "task" for task in self.tasks)
        with quiet():
            self.manager = TaskManager(include_path=folder, include_defaults=defaults)

    def run(
        self, model: Any, tokenizer: Any, wanted: Collection[str] | None = None
    ) -> tuple[Scores, list[dict[str, Any]], dict[str, Any]]:
        """Return what `run_on` does of a transformers causal model in eval mode, on its device."""
        from continual.evaluation.stopping import StoppingLM

        return self.run_on(lambda: StoppingLM(model, tokenizer, self.evaluate["batch_size"], self.chat), wanted)

    def run_on(
        self, language_model: Callable[[], Any], wanted: Collection[str] | None = None
    ) -> tuple[Scores, list[dict[str, Any]], dict[str, Any]]:
        """Return scores by task (see `names.score`), a record per document and filter, and facts about the tasks.

        `language_model()`: lm-eval's form of the model, asked for by every task. `wanted`: the tasks to run; None: all.
        Raises ContinualError if lm-eval fails.
        """
        scores: Scores = {}
        records: list[dict[str, Any]] = []
        facts: dict[str, Any] = {"task_versions": {}, "num_fewshot": {}}
        for task in self.tasks:
            if wanted is not None and task["name"] not in wanted:
                continue
            scores[task["name"]], of_task, found = self._run_one(task, language_model)
            records += of_task
            facts = {key: {**facts[key], **found[key]} for key in facts}
        return scores, records, facts

    @property
    def chat(self) -> bool:
        """Whether models are asked through their chat template."""
        return bool(self.evaluate.get("apply_chat_template", False))

    def _run_one(
        self, task: dict[str, Any], language_model: Callable[[], Any]
    ) -> tuple[Score, list[dict[str, Any]], dict[str, Any]]:
        """Return what `run_on` does for one task.

        Each is run by itself: together they would share random states and batches, whose padding changes sums.
        """
        from lm_eval import evaluate

        try:
            with quiet():
                results: Any = evaluate(
                    lm=language_model(),
                    task_dict=self.load(task["name"]),
                    limit=self.evaluate.get("limit"),
                    apply_chat_template=self.chat,
                    fewshot_as_multiturn=self.chat,
                    bootstrap_iters=BOOTSTRAP,
                    log_samples=True,
                )
        except Exception as error:
            raise ContinualError(f"lm-eval failed on {task['name']}: {describe(error)}") from error
        records = [record(of, sample) for of, samples in results["samples"].items() for sample in samples]
        return (
            self.score(task, results),
            records,
            {"task_versions": results["versions"], "num_fewshot": results["n-shot"]},
        )

    def load(self, name: str) -> Any:
        """Load a task with its data, and seed every random state.

        This does what `simple_evaluate` does before it calls `evaluate`: `num_fewshot` replaces a task's own number
        unless that is 0. `simple_evaluate` itself lists the machine's packages after every call, which takes seconds.
        """
        import torch

        seed, shots = self.evaluate["seed"], self.evaluate.get("num_fewshot")
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        loaded = self.manager.load([name])
        for task in loaded["tasks"].values():
            own = task.get_config("num_fewshot")
            if own is None or (shots is not None and own != 0):
                task.set_config(key="num_fewshot", value=shots or 0)
            task.set_fewshot_seed(seed=seed)
        return loaded

    def score(self, task: Mapping[str, Any], results: Mapping[str, Any]) -> Score:
        """Return the score of one task or group."""
        name = task["name"]
        reported = results["results"].get(name, {})
        members = results["group_subtasks"]
        higher = names.directions(name, results["higher_is_better"], members)
        choice = names.choose(name, reported, higher, task["metric"], task["filter"], members.get(name, []))
        return names.score(name, reported, choice, documents(name, results))


def documents(name: str, results: Mapping[str, Any]) -> int:
    """Return the number of documents behind the score of a task, or of the members of a group."""
    if name in results["n-samples"]:
        return int(results["n-samples"][name]["effective"])
    return sum(documents(member, results) for member in results["group_subtasks"].get(name, []))


def record(task: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample's JSON-able record: `task`, `prompt` (of its first request), KEPT and the metrics' values."""
    arguments = sample["arguments"]
    kept = {key: sample[key] for key in KEPT} | {metric: sample[metric] for metric in sample["metrics"]}
    kept = {"task": task, "prompt": arguments[0][0] if arguments else None, **kept}
    return json.loads(json.dumps(kept, default=plain))


def plain(value: Any) -> Any:
    """Return a JSON-able form of numpy scalars and arrays, and the text of anything else."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
