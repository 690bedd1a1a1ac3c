"""Fixtures shared by all layers. Tests that use outside models and data find them through CONTINUAL_SHARED."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell starts its background jobs with Ctrl-C ignored, and drivers would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine misses any deadline; what a property takes says nothing about whether it holds.
hypothesis.settings.register_profile("continual", deadline=None)
hypothesis.settings.load_profile("continual")
ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("CONTINUAL_SHARED", ROOT.parent / "shared"))


# Files with tests that compare with the tiny run.
TINY = {
    "tests/e2e/test_doors.py", "tests/e2e/test_report.py", "tests/e2e/test_run.py",
    "tests/faults/test_driver_killed.py", "tests/faults/test_interrupted.py", "tests/faults/test_moved.py",
    "tests/faults/test_tracker_down.py",
}  # fmt: skip


class Together(LoadScopeScheduling):
    """Under `-n`, a file's tests run in one process, and so do all that compare with the tiny run: it is made once.

    `--dist loadgroup` with markers would say the same, but does nothing in xdist 3.8 under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tiny" if file in TINY else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """On a machine that is too slow for all tests, those that have not begun by then are skipped, and say so."""
    if time.time() > float(os.environ.get("CONTINUAL_TEST_UNTIL", "inf")):
        pytest.skip("not begun: the time of CONTINUAL_TEST_UNTIL has come")


@pytest.fixture(autouse=True)
def same_interrupt() -> Iterator[None]:
    """Fail a test that changes the handler of Ctrl-C and does not restore it: later tests would use that handler."""
    before = signal.getsignal(signal.SIGINT)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is before, f"the test left a SIGINT handler: {after}"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real small models and data; tests that need it say so when it is not there."""
    if not (SHARED / "models" / "stories260k-hd32").is_dir():
        pytest.skip(f"no real models in {SHARED}; set CONTINUAL_SHARED")
    return SHARED


@pytest.fixture(scope="session")
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260k-hd32"


REHEARSED: dict[str, float] = {"rehearsed_cpu": 8, "rehearsed_gpu": 4}
"""Stand for the CPUs and GPUs of clusters on which a plan is rehearsed, without their processes."""


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A local Ray of our own, with the repository's modules importable in its workers."""
    import ray

    from continual.run.cluster import LOCAL_SYSTEM
    from continual.run.environment import job_environment, set_defaults

    set_defaults(local=True)
    ray.init(
        address="local",
        num_cpus=2,
        resources=REHEARSED,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=job_environment(),
        _system_config=dict(LOCAL_SYSTEM),
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage in which the tiny sequence has run once, undisturbed; shared by all tests that compare with it."""
    from tests.e2e import doors

    storage = tmp_path_factory.mktemp("tiny")
    code, output = doors.run(storage)
    assert code == 0, output[-6000:]
    (storage / "stdout.txt").write_text(output)
    return storage
