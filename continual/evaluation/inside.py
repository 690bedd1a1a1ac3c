"""Score what the workers export inside a stage, while they train."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.contract.models import ModelRef
from continual.errors import ContinualError
from continual.evaluation.service import Scorer, failed, read_scores
from continual.forgetting import Scores
from continual.ledger.folder import StageFolder, steps_in

PATIENCE_SECONDS = 300.0
"""The training waits so long for scores while no evaluating process has started, which takes half a minute."""


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
        stage_start: ModelRef | None = None,
    ):
        self.scorer, self.folder, self.known, self.report, self.most, self.tell = (
            scorer, folder, known, report, most, tell,
        )  # fmt: skip
        self.texts = scorer.texts_since(stage_start)
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
            return failed("an evaluation inside the stage failed", self._failed)
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
                return  # `finish` raises what failed; training continues to its end
            if actor is None:
                return
            wait = False
            if not self._asked:
                self.scorer.evaluators.keep()
            self._asked.add(step)
            output = self.folder.score_file(step).with_suffix("")
            self._running[actor.evaluate.remote(str(export), str(output), self.texts)] = actor

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
