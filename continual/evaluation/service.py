"""Score models with one long-lived actor per sequence; scores are cached in the store."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.config.measured import evaluation_tasks
from continual.config.schema import Sequence
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError, ContinualError, describe, unwrap
from continual.forgetting import Scores, scores_from_json
from continual.ledger.folder import StageFolder, steps_in
from continual.store import Artefact, Store, hash_folder
from continual.store.artefact import versions

ACTOR_CPUS = 0
"""The actor mostly waits and lives as long as the sequence. If it reserved a CPU, an engine might not get enough to
start, which happened on two cores."""

TASK_FILES = (".yaml", ".yml", ".py", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".gz", ".jinja")
"""Files of `include_path` that may decide a score; compiled Python next to them does not."""


class Scorer:
    """A service that scores models; equal models under equal settings are scored once per storage."""

    def __init__(self, store: Store, sequence: Sequence, texts: dict[str, Artefact], threads: int):
        self.store, self.sequence, self.texts, self.threads = store, sequence, texts, threads
        self.tasks = evaluation_tasks(sequence)
        include = sequence.evaluate.include_path
        self.shared = {
            "tasks": [task.model_dump() for task in self.tasks],
            "texts": {name: rows.hash for name, rows in texts.items()},
            "settings": sequence.evaluate.model_dump(include={"limit", "num_fewshot", "apply_chat_template", "seed"}),
            "include": hash_folder(include, TASK_FILES) if include else None,
            "dtype": sequence.model.dtype,
            "versions": versions(("lm-eval", "transformers", "torch")),
        }
        self._actor: Any = None

    def actor(self) -> Any:
        if self._actor is None:
            import ray

            from continual.evaluation.evaluator import Evaluator

            evaluate, dtype = self.sequence.evaluate, self.sequence.model.dtype
            evaluator = ray.remote(Evaluator).options(
                num_cpus=ACTOR_CPUS, num_gpus=evaluate.gpus or None, max_restarts=2, max_task_retries=2
            )
            self._actor = evaluator.remote(evaluate.model_dump(), self.shared["tasks"], self.texts, self.threads, dtype)
        return self._actor

    def _release(self) -> None:
        """End an actor that holds GPUs: training and sampling come next, and may need all GPUs."""
        if self._actor is not None and self.sequence.evaluate.gpus:
            import ray

            ray.kill(self._actor)
            self._actor = None

    def score(self, model: ModelRef) -> Scores:
        """Return the scores of a model; {} if there is nothing to evaluate.

        Raises ContinualError when the evaluation fails.
        """
        if not self.tasks and not self.texts:
            return {}
        import ray

        inputs = {"model": model.hash, **self.shared}
        artefact = self.store.artefact("scores", inputs)
        with self.store.write(artefact, inputs) as writer:
            if writer is not None:
                try:
                    with writer.files() as folder:
                        ray.get(self.actor().evaluate.remote(model.path, str(folder / "scores")))
                except ray.exceptions.RayError as error:
                    raise _failed(f"the evaluation of {model.path} failed", error) from error
                finally:
                    self._release()
                writer.finish()
        return read_scores(artefact.path / "scores.json")


def _failed(problem: str, error: Exception) -> ContinualError:
    """Return the actor's own error if it is about the configuration, else one sentence about the failure."""
    inner = unwrap(error)
    return inner if isinstance(inner, ConfigurationError) else ContinualError(f"{problem}: {describe(error)}")


def read_scores(path: Path) -> Scores:
    """Read the scores that an evaluation wrote."""
    return scores_from_json(json.loads(path.read_text())["scores"])


class InsideStage:
    """Scores what the workers export at every `evaluate.every` steps, while they train.

    `report(step, scores)` is called once for every step that is scored and not in `known`.
    """

    def __init__(self, scorer: Scorer, folder: StageFolder, known: set[int], report: Callable[[int, Scores], None]):
        self.scorer, self.folder, self.known, self.report = scorer, folder, known, report
        self.pending: dict[int, Any] = {}

    def poll(self) -> None:
        """Hand new exports to the actor; report and delete those that are scored."""
        for step, export in steps_in(self.folder.evaluations).items():
            file = self.folder.score_file(step)
            if file.is_file():
                self._report(step, file)
                shutil.rmtree(export, ignore_errors=True)
                self.pending.pop(step, None)
            elif step not in self.pending:
                self.pending[step] = self.scorer.actor().evaluate.remote(str(export), str(file.with_suffix("")))

    def finish(self) -> None:
        """Wait until every export is scored, and report also what was scored before this start or in another run."""
        import ray

        self.poll()
        if self.pending:
            try:
                ray.get(list(self.pending.values()))
            except ray.exceptions.RayError as error:
                raise _failed("an evaluation inside the stage failed", error) from error
            self.poll()
        for step, file in self.folder.score_files().items():
            self._report(step, file)

    def _report(self, step: int, file: Path) -> None:
        if step not in self.known:
            self.report(step, read_scores(file))
            self.known.add(step)
