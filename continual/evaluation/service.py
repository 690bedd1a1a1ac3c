"""Score models with one long-lived actor per sequence; scores are cached in the store."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from continual.config.measured import evaluation_tasks
from continual.config.schema import Sequence
from continual.config.task_files import TaskFiles
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError, ContinualError, describe, unwrap
from continual.evaluation.identity import task_identity
from continual.forgetting import Scores, are_scores, scores_from_json
from continual.ledger.folder import StageFolder, steps_in
from continual.store import Artefact, Store
from continual.store.artefact import versions
from continual.store.json_files import read_json

SCORES = "scores.json"
"""The file of an evaluation's artefact that holds its scores."""
ACTOR_CPUS = 0
"""The actor mostly waits and lives as long as the sequence. If it reserved a CPU, an engine might not get enough to
start, which happened on two cores."""


class Scorer:
    """A service that scores models; equal models under equal settings are scored once per storage."""

    def __init__(self, store: Store, sequence: Sequence, texts: dict[str, Artefact], threads: int):
        self.store, self.sequence, self.texts, self.threads = store, sequence, texts, threads
        self.tasks = evaluation_tasks(sequence)
        files = TaskFiles(sequence.evaluate.include_path) if self.tasks else None
        of_tasks = [(task, files) for task in self.tasks if files]
        self.measured: dict[str, dict[str, Any]] = {
            task.name: {"task": task.model_dump(), "identity": task_identity(task.name, known)}
            for task, known in of_tasks
        } | {name: {"text": rows.hash} for name, rows in texts.items()}
        """What decides each score beside the model and the settings: scores of equal ones are stored one by one."""
        self.settings = {
            "settings": sequence.evaluate.model_dump(include={"limit", "num_fewshot", "apply_chat_template", "seed"}),
            "dtype": sequence.model.dtype,
            "versions": versions(("lm-eval", "transformers", "torch")),
        }
        self._actor: Any = None

    @property
    def shared(self) -> dict[str, Any]:
        """Everything that decides scores beside the model."""
        return {"measured": list(self.measured.items()), **self.settings}

    def actor(self) -> Any:
        if self._actor is None:
            import ray

            from continual.evaluation.evaluator import Evaluator

            evaluate, dtype = self.sequence.evaluate, self.sequence.model.dtype
            evaluator = ray.remote(Evaluator).options(
                num_cpus=ACTOR_CPUS, num_gpus=evaluate.gpus or None, max_restarts=2, max_task_retries=2
            )
            self._actor = evaluator.remote(
                evaluate.model_dump(), [task.model_dump() for task in self.tasks], self.texts, self.threads, dtype
            )
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
        places: dict[str, Artefact] = {}
        with ExitStack() as held:
            inputs = {name: {"model": model.hash, **own, **self.settings} for name, own in self.measured.items()}
            places = {name: self.store.artefact("scores", given) for name, given in inputs.items()}
            # Locks are taken in the order of the addresses, so that two runs never wait for each other.
            writers = {}
            for name in sorted(places, key=lambda name: places[name].hash):
                writers[name] = held.enter_context(self.store.write(places[name], inputs[name]))
            with ExitStack() as unfinished:
                missing = {
                    name: str(unfinished.enter_context(writer.files()) / "scores")
                    for name in places
                    if (writer := writers[name]) is not None
                }
                if missing:
                    self._evaluate(model, missing)
            for writer in writers.values():
                if writer is not None:
                    writer.finish()
        return {name: read_scores(place.file(SCORES), name)[name] for name, place in places.items()}

    def _evaluate(self, model: ModelRef, outputs: dict[str, str]) -> None:
        import ray

        try:
            ray.get(self.actor().evaluate_each.remote(model.path, outputs))
        except ray.exceptions.RayError as error:
            raise _failed(f"the evaluation of {model.path} failed", error) from error
        finally:
            self._release()


def _failed(problem: str, error: Exception) -> ContinualError:
    """Return the actor's own error if it is about the configuration, else one sentence about the failure."""
    inner = unwrap(error)
    return inner if isinstance(inner, ConfigurationError) else ContinualError(f"{problem}: {describe(error)}")


def read_scores(path: Path, *tasks: str) -> Scores:
    """Read the scores that an evaluation wrote, with those of `tasks` among them.

    Raises ContinualError for a file that is damaged.
    """

    def good(value: Any) -> bool:
        scores: Any = value.get("scores") if isinstance(value, dict) else None
        return are_scores(scores) and all(task in scores for task in tasks)

    read: dict[str, Any] = read_json(path, "delete it and run the same command again", good)
    return scores_from_json(read["scores"])


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
