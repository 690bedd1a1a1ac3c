"""Tiny chat models, and sampling in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from continual.contract.registry import ENGINES
from tests.kits.instructions import chat_folder
from tests.kits.sources import in_process, sample_in_process, tokenized
from tests.kits.synthesis import Engine, Script


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chat models with different tokenizers and templates, and one without a template."""
    root = tmp_path_factory.mktemp("models")
    chat_folder(root / "base", 1)
    chat_folder(root / "other", 2, turn="[{}]", end="[stop]")
    bare = chat_folder(root / "bare", 3)
    for path in bare.glob("chat_template*"):
        path.unlink()
    chat_folder(root / "short", 4, positions=64)
    return root


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], Engine]:
    """Sampling and tokenising in this process."""
    monkeypatch.setattr("continual.data.prepare._tokenized", tokenized)
    monkeypatch.setattr("continual.data.prepare.in_cluster", in_process)
    sample_in_process(monkeypatch)

    def install(script: Script) -> Engine:
        engine = Engine(script)
        monkeypatch.setattr(ENGINES, "load", lambda name: lambda: engine)
        return engine

    return install
