"""Numbers that a change of the code must not change unnoticed. `python -m tests.golden` computes them anew."""

import json
from pathlib import Path
from typing import Any

LOSSES = Path(__file__).with_name("losses.json")


def losses_of(record: list[list[float]]) -> dict[str, list[float]]:
    """Return the global mean losses of a strategy's steps, in nats per token."""
    return {"nll": [step[0] for step in record], "kl": [step[1] for step in record]}


def read_losses() -> dict[str, Any]:
    return json.loads(LOSSES.read_text())
