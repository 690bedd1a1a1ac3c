"""What a sweep would run is counted before it starts."""

from pathlib import Path

from continual.sweep.preview import Parts, preview_text
from continual.sweep.trials import (
    make_trials,
)
from tests.kits.sweep import load


def test_what_trials_share_is_counted_before_the_start(project: Path) -> None:
    space = {"mitigation.0.temperature": {"grid": [0.7, 1.0]}, "mitigation.0.loss": {"grid": ["nll", "kl"]}}
    source = load(project, "mitigation.0.samples=16", "mitigation.0.from_stage=2", space=space)
    trials = make_trials(source)
    parts = Parts()
    for trial in trials.made.values():
        parts.add(trial.loaded.sequence)
    # Both losses rehearse the same samples. Stage 1 has no mitigation: one training per seed for four trials each.
    assert (len(trials.made), len(parts.samples), parts.sample_uses) == (8, 4, 8)
    assert len(parts.trained) == 2 + 8
    assert sum(parts.samples.values()) == 4 * 16 * 32
    # 100 documents of 6 tokens, 5 in a row of 32 tokens: 20 rows, 2 epochs, 8 rows a step.
    steps = 2 * 10 + 8 * 5
    assert parts.training() == f"~{steps} steps, ~{steps * 256:,} tokens"
    text = preview_text(source, trials.made, {next(iter(trials.made)): "done"})
    assert "8 = 2 temperature x 2 loss x 2 seeds, 1 at the same time" in text
    assert "4 sets for 8 uses" in text
    assert f"10 stages for 16: {parts.training()}" in text
    assert text.count("  done") == 1
    assert text.count("  new") == 7
