"""The models that may continue the sequence after a stage, and what the ledger says of how they were found."""

from collections.abc import Iterable, Sequence

from continual.contract.mitigation import Candidate, Mitigation
from continual.contract.models import ModelRef
from continual.ledger.ledger import Events
from continual.run.services import StageContext


def candidates_of(ctx: StageContext, mitigations: Iterable[Mitigation], trained: ModelRef) -> list[Candidate]:
    """Return what the mitigations of a stage propose: the first continues the sequence, the others are only scored."""
    return [candidate for mitigation in mitigations for candidate in mitigation.after_training(ctx, trained)]


def record_walk(ledger: Events, ctx: StageContext, candidates: Sequence[Candidate]) -> None:
    """Write the walk that led to the model which continues into the ledger, unless an earlier start has."""
    walk = candidates[0].walk if candidates else None
    if walk is None:
        return
    facts = {"candidate": candidates[0].name, "walk": walk.as_json()}
    known = ledger.find("walked", stage=ctx.view.number) or {}
    if facts != {key: known.get(key) for key in facts}:
        ledger.add("walked", stage=ctx.view.number, name=ctx.view.name, **facts)
