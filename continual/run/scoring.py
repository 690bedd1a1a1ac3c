"""Scores of finished stages, where resources allow beside the next stage; the ledger reads as if it came after."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from continual.contract.models import ModelRef
from continual.errors import describe
from continual.forgetting import Scores
from continual.ledger.ledger import Ledger
from continual.show.progress import Step, duration
from continual.show.terminal import Terminal

LOOK_SECONDS = 0.2

Score = Callable[[ModelRef, Sequence[ModelRef], Callable[[int, int, str], object], ModelRef | None], Scores]
"""Returns the scores of a model; those after it will be asked for next. Tells how many of how many are there, and what
is being scored. The last argument is the model that the stage began with, None before the first one."""


class Scored(NamedTuple):
    """Scores of a model, and how long it took to get them."""

    scores: Scores
    seconds: float


@dataclass
class ScoringTask:
    """The models of one stage: `record(number, scores)` writes those of a model, `close()` what follows them, and
    `then()` is called when all is written.
    """

    stage: int
    title: str
    models: list[ModelRef]
    record: Callable[[int, Scores], object]
    close: Callable[[], object] = lambda: None
    then: Callable[[], object] = lambda: None
    stage_start: ModelRef | None = None
    scored: list[Scored] = field(default_factory=list)
    error: BaseException | None = None
    told: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    step: Step | None = None
    """What shows the progress."""

    def tell(self, done: int, total: int, now: str) -> None:
        """Show how far the scoring of a model is."""
        if self.step is not None:
            self.step.waits(f"scoring {now}, {done} of {total} done" if now else "scoring")

    def words(self) -> str:
        """Return the scores of the first model."""
        return ", ".join(f"{task} {score.score:.3f}" for task, score in self.scored[0].scores.items())


class Scoring(AbstractContextManager["Scoring"]):
    """Calls `score`, with `beside` in a thread; the caller's thread does all writing.

    While a stage is scored beside the next one, the ledger holds what the next one says: a kill forgets that, and the
    next start finds by the files what is done.
    """

    def __init__(self, ledger: Ledger, terminal: Terminal, score: Score, beside: bool):
        self._ledger, self._terminal, self._score, self._beside = ledger, terminal, score, beside
        self._task: ScoringTask | None = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is known; what is still scored is scored again by the next start."""
        if (task := self._task) is None:
            return
        if task.ended.is_set() and task.error is None:
            self._write(task)
            return
        held = self._ledger.release()
        self._ledger.drop(held)
        self._ledger.write([line for line in held if line["event"] == "phase"])

    def start(self, task: ScoringTask, last: bool) -> None:
        """Score a stage's models, after those of the stages before; beside what the caller does next unless `last`."""
        self.finish()
        if not task.models:
            self._settle(task)
            return
        if not self._beside or last:
            with self._terminal.step(f"{task.title}: evaluate", "scoring") as task.step:
                self._run(task)
                if task.error is not None:
                    raise task.error
                task.step.note(task.words())
            self._settle(task)
            return
        self._task = task
        self._ledger.hold()
        self._terminal.line(f"{task.title}: is scored beside the next stage")
        threading.Thread(target=self._run, args=(task,), name="scoring", daemon=True).start()

    def poll(self) -> str:
        """Write scores that have come; return what the line of the next stage says of those that have not."""
        if (task := self._task) is None:
            return ""
        if not task.ended.is_set():
            return f", {task.title} is scored"
        if task.error is None:
            self._settle(task)
        elif not task.told:
            task.told = True
            self._terminal.line(f"{task.title}: evaluate: {describe(task.error)}; the run ends after this training")
        return ""

    def finish(self) -> None:
        """Wait for the scores that have not come, and write them. Raises what the scoring has raised."""
        if (task := self._task) is None:
            return
        if not task.ended.is_set():
            with self._terminal.step(f"{task.title}: evaluate", "scoring") as task.step:
                while not task.ended.wait(LOOK_SECONDS):
                    pass
        self._settle(task)

    def _run(self, task: ScoringTask) -> None:
        try:
            for number, model in enumerate(task.models):
                begun = time.monotonic()
                scores = self._score(model, task.models[number + 1 :], task.tell, task.stage_start)
                task.scored.append(Scored(scores, round(time.monotonic() - begun, 3)))
        except BaseException as error:
            task.error = error
        finally:
            task.ended.set()

    def _settle(self, task: ScoringTask) -> None:
        if task.error is not None:
            raise task.error
        if self._task is not None:
            seconds = sum(scored.seconds for scored in task.scored)
            self._terminal.line(f"{task.title}: evaluate: {task.words()}, {duration(seconds)} beside the next stage")
        self._write(task)
        task.then()

    def _write(self, task: ScoringTask) -> None:
        """Write the scores, and behind them what was held back for them."""
        self._task = None
        held = self._ledger.release()
        for number, (scores, seconds) in enumerate(task.scored):
            self._ledger.add("phase", phase="evaluate", stage=task.stage, seconds=seconds)
            task.record(number, scores)
        task.close()
        self._ledger.write(held)
