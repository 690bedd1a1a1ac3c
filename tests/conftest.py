"""Fixtures shared by all layers. Tests that use outside models and data find them through CONTINUAL_SHARED."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell starts its background jobs with Ctrl-C ignored, and drivers would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("CONTINUAL_SHARED", ROOT.parent / "shared"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n`, a file's tests stay together, and so do all that compare with the tiny run: it is made once."""
    for item in items:
        together = "tiny" if "tiny" in getattr(item, "fixturenames", ()) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real small models and data; tests that need it say so when it is not there."""
    if not (SHARED / "models" / "stories260k-hd32").is_dir():
        pytest.skip(f"no real models in {SHARED}; set CONTINUAL_SHARED")
    return SHARED


@pytest.fixture(scope="session")
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260k-hd32"


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A local Ray of our own, with the repository's modules importable in its workers."""
    import ray

    from continual.cluster import LOCAL_SYSTEM

    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
        _system_config=dict(LOCAL_SYSTEM),
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage in which the tiny sequence has run once, undisturbed; shared by all tests that compare with it."""
    from tests.e2e import command

    storage = tmp_path_factory.mktemp("tiny")
    finished = command.run(storage)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    (storage / "stdout.txt").write_text(finished.stdout)
    return storage
