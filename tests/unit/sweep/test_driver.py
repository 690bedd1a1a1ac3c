"""The reports of a trial's driver."""

import pytest

from continual.errors import ContinualError, Interrupted
from continual.sweep.driver import Pipes


def test_an_interrupted_trial_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[dict[str, str]] = []
    pipes = object.__new__(Pipes)
    monkeypatch.setattr(pipes, "write", reports.append)
    pipes.fail(Interrupted("interrupted"))
    assert reports == []
    pipes.fail(ContinualError("broken"))
    assert reports == [{"error": "broken"}]
