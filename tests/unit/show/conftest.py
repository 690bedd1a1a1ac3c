"""The database of MLflow that the tests of the tracker copy, and the runs that those of the report show."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from continual.show.report import write_report
from tests.kits.page import Read
from tests.kits.runs import KEPT, LOST, make_run


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


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs, kept, lost and warm, and one that is in its second stage."""
    storage = tmp_path_factory.mktemp("storage")
    make_run(storage, "kept", KEPT)
    make_run(storage, "lost", LOST, "mitigation=[]", inside=False)
    make_run(storage, "warm", LOST, "mitigation.0.temperature=1.3")
    make_run(storage, "going", KEPT, stages=1)
    return storage


@pytest.fixture(scope="module")
def page(storage: Path) -> Read:
    return Read(write_report([storage / "kept"]))
