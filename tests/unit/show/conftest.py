"""The database of MLflow that the tests of the tracker copy."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that two drivers created at the same moment; the tests copy it, for creating one takes seconds."""
    folder = tmp_path_factory.mktemp("database")
    code = (
        "import sys; from pathlib import Path; from tests.kits.tracking import Written\n"
        "run = Written(Path(sys.argv[1])); run.start(sys.argv[3])\n"
        "sys.exit(run.track(sys.argv[2], 'shared').close(120))"
    )
    uri = f"sqlite:///{folder}/new/mlflow.db"
    names = ("one", "two")
    drivers = [subprocess.Popen([sys.executable, "-c", code, str(folder / name), uri, name]) for name in names]
    assert [driver.wait(150) for driver in drivers] == [0, 0]
    return folder / "new" / "mlflow.db"


@pytest.fixture
def uri(database: Path, tmp_path: Path) -> str:
    shutil.copy(database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"
