"""A real model moved to real text: the plain arm forgets, replay keeps, and the new text is learned as well."""

from pathlib import Path

import pytest

from benchmarks.stories.compare import line, run

pytestmark = pytest.mark.slow
SHORT = (
    "stages.0.steps=40", "train.batch_tokens=2048", "mitigation.0.samples=328", "train.checkpoint_every=40",
    "evaluate.limit=200",
)  # fmt: skip
"""Steps of the benchmark's 150, half its batch, and so many samples less: each is used once, and some are held out."""


def test_replay_keeps_what_plain_fine_tuning_loses(
    stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {arm: run(arm, tmp_path, 0, *SHORT) for arm in ("plain", "kl")}
    with capsys.disabled():
        print("\n" + "\n".join(line(arm, summary) for arm, summary in found.items()))
    lost = {arm: summary["forgetting_by_task"]["tinystories"] for arm, summary in found.items()}
    new = {arm: -summary["matrix"][1]["scores"]["shakespeare"]["score"] for arm, summary in found.items()}
    assert lost["plain"] >= 0.3
    assert lost["kl"] <= lost["plain"] / 4
    assert abs(new["kl"] - new["plain"]) <= 0.1
    assert found["kl"]["matrix"][0] == found["plain"]["matrix"][0]
