"""Measure what the sequence would have lost if it continued with a model, with the figures of a run that goes on."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from continual.config.measured import Measured
from continual.contract.models import ModelRef
from continual.evaluation.outcomes import stored_outcomes
from continual.evaluation.service import Scorer
from continual.forgetting import ScoreLoss, last_figures, losses_of, read_matrix, scores_as_json
from continual.ledger.ledger import Events
from continual.show.progress import Step

Losses = Callable[[ModelRef, Callable[[], Step]], dict[str, ScoreLoss]]
"""Returns the losses of a model by figure, task and text; the other argument makes the line that shows its progress."""


def unmeasured(model: ModelRef, step: Callable[[], Step]) -> dict[str, ScoreLoss]:
    """Return the losses where nothing is measured: none."""
    return {}


@dataclass(frozen=True)
class StageLosses:
    """Evaluates models that may continue the sequence after a stage; what was evaluated is found in the store.

    `before()` is called first, and returns when the ledger has the scores of all earlier stages.
    """

    scorer: Scorer
    ledger: Events
    stage: int
    name: str
    before: Callable[[], object]

    def __call__(self, model: ModelRef, step: Callable[[], Step]) -> dict[str, ScoreLoss]:
        """Return what the summary would say of the losses after this stage, with the same errors."""
        self.before()
        begun = time.monotonic()
        with step() as line:

            def tell(done: int, total: int, now: str) -> None:
                line.waits(f"scoring {now}, {done} of {total} done" if now else "scoring")

            scores = scores_as_json(self.scorer.score(model, tell=tell))
            row = {"stage": self.stage, "name": self.name, "scores": scores}
            losses = self._losses({**row, "evaluations": self.scorer.evaluations(model)})
            line.note(
                ", ".join(f"{name} {loss.value:.4f}" for name, loss in losses.items()) or "nothing can be lost yet"
            )
        seconds = round(time.monotonic() - begun, 3)
        self.ledger.add("phase", phase="evaluate", stage=self.stage, seconds=seconds)
        return losses

    def _losses(self, row: dict[str, object]) -> dict[str, ScoreLoss]:
        # A row of this stage may be there: that of the model which an earlier start has chosen.
        rows = [*(event for event in self.ledger.all("scored") if event["stage"] < self.stage), row]
        measured = Measured.of(self.scorer.sequence)
        outcomes = stored_outcomes(rows, self.scorer.store.root)
        return losses_of(last_figures(read_matrix(rows), measured.stage_tasks, measured.old, outcomes))
