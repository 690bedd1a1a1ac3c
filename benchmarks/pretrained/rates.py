"""What plain fine-tuning learns and loses at each learning rate, on a seed that is in no other result."""

from collections.abc import Sequence
from typing import Any

from benchmarks.pretrained.results import NEW, TEXTS
from benchmarks.sweeps import Trial

RATE = "train.learning_rate"
OLD = "forgetting_old"
"""The mean loss over the texts, which are all that is old here."""


def collect(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return by rate the new loss after the last step, and what was lost of each text with its standard error."""
    rates = {}
    for trial in sorted(trials, key=lambda each: float(each.point[RATE])):
        summary = trial.run.summary
        lost, errors = summary["forgetting_by_task"], summary["stderr"]["forgetting_by_task"]
        rates[str(trial.point[RATE])] = {
            "new at the end": -trial.final(NEW),
            "new before": -float(summary["matrix"][0]["scores"][NEW]["score"]),
            "texts lost": [summary[OLD], summary["stderr"][OLD]],
            "lost": {text: [lost[text], errors[text]] for text in TEXTS},
        }
    return {"new": NEW, "seeds": sorted({trial.seed for trial in trials}), "rates": rates}


def table(results: dict[str, Any]) -> str:
    """Return the rates as a Markdown table."""
    head = ["learning rate", "new at the end", "texts", *TEXTS]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    before = next(iter(results["rates"].values()))["new before"]
    for rate, row in results["rates"].items():
        cells = [row["texts lost"], *(row["lost"][text] for text in TEXTS)]
        lost = [f"{-value:+.3f} ±{error:.3f}" for value, error in cells]
        lines.append("| " + " | ".join([rate, f"{row['new at the end']:.3f}", *lost]) + " |")
    seeds = ", ".join(map(str, results["seeds"]))
    said = (
        f"Plain fine-tuning, seed {seeds}: {NEW} in nats per answer token (before: {before:.3f}), "
        "and the change of texts in nats per token; below zero is lost. ± is the standard error, paired by document."
    )
    return "\n".join([*lines, "", said])
