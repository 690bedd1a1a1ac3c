"""The project that the tests of sweeps work in."""

from pathlib import Path

import pytest
import yaml

from tests.kits.project import sequence, write_project
from tests.kits.sweep import TASKS


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    base = sequence(evaluate=TASKS)
    for stage, task in zip(base["stages"], "ab", strict=True):
        stage["tasks"] = [task]
    (tmp_path / "seq.yaml").write_text(yaml.safe_dump(base))
    return tmp_path
