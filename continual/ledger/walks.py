"""The walks back after the stages of a run, as its ledger has them."""

from typing import Any

from continual.ledger.ledger import Events


def walks_of(ledger: Events) -> list[dict[str, Any]]:
    """Return the walk (`continual.contract.walk`) of every stage that has one, with the stage's number and name."""
    newest = {event["stage"]: event for event in ledger.all("walked")}
    keys = ("stage", "name", "candidate")
    return [{**{key: event[key] for key in keys}, **event["walk"]} for _, event in sorted(newest.items())]
