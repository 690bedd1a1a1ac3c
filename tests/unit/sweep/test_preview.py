"""What a sweep would run is counted before it starts."""

from pathlib import Path

from continual.sweep.preview import make_preview, render_preview
from continual.sweep.trials import (
    make_trials,
)
from tests.kits.sweep import load


def test_what_trials_share_is_counted_before_the_start(project: Path) -> None:
    space = {"mitigation.0.temperature": {"grid": [0.7, 1.0]}, "mitigation.0.loss": {"grid": ["nll", "kl"]}}
    source = load(project, "mitigation.0.samples=16", "mitigation.0.from_stage=2", space=space)
    trials = make_trials(source)
    plan = make_preview(trials.made.values())
    # Both losses rehearse the same samples. Stage 1 has no mitigation: one training per seed for four trials each.
    assert (plan.trials, plan.sample_sets, plan.all_sample_sets) == (8, 4, 8)
    assert (plan.stages, plan.all_stages) == (2 + 8, 16)
    assert plan.sample_tokens == 4 * 16 * 32
    # 100 documents of 6 tokens, 5 in a row of 32 tokens: 20 rows, 2 epochs, 8 rows a step.
    assert plan.steps == 2 * 10 + 8 * 5
    assert plan.task_tokens == plan.steps * 256
    assert plan.about
    text = render_preview(source, trials.made, plan, {next(iter(trials.made)): "done"})
    assert "8 = 2 temperature x 2 loss x 2 seeds, 1 at the same time" in text
    assert "4 sets for 8 uses" in text
    assert text.count("  done") == 1
    assert text.count("  new") == 7
