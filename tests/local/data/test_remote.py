"""Work in the cluster: its counts arrive as they come, errors keep their type, and killed work begins again."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from continual.data.remote import in_cluster
from continual.errors import ConfigurationError

pytestmark = pytest.mark.slow


def counting(until: int) -> Iterator[tuple[int, int]]:
    for number in range(until):
        yield number, os.getpid()


def refusing() -> Iterator[int]:
    yield 1
    raise ConfigurationError("text", "no such field", "name another")


def failing() -> Iterator[int]:
    yield 1
    raise RuntimeError("no luck")


def killed_once(marker: Path) -> Iterator[int]:
    yield 1
    if not marker.exists():
        marker.touch()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    yield 2


def waiting() -> Iterator[int]:
    yield os.getpid()
    time.sleep(60)


def alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_counts_come_from_another_process(local_ray: None) -> None:
    counts = list(in_cluster(counting, 3))
    assert [number for number, _ in counts] == [0, 1, 2]
    assert {process for _, process in counts} != {os.getpid()}


def test_a_configuration_error_keeps_its_parts(local_ray: None) -> None:
    counts = in_cluster(refusing)
    assert next(counts) == 1
    with pytest.raises(ConfigurationError) as raised:
        next(counts)
    assert (raised.value.key, raised.value.problem, raised.value.fix) == ("text", "no such field", "name another")


def test_another_error_is_raised(local_ray: None) -> None:
    with pytest.raises(Exception, match="no luck"):
        list(in_cluster(failing))


def test_killed_work_begins_again(local_ray: None, tmp_path: Path) -> None:
    assert list(in_cluster(killed_once, tmp_path / "killed"))[-1] == 2


def test_work_that_nobody_waits_for_ends(local_ray: None) -> None:
    counts = in_cluster(waiting)
    process = next(counts)
    assert alive(process)
    counts.close()  # type: ignore[attr-defined]
    until = time.monotonic() + 30
    while alive(process) and time.monotonic() < until:
        time.sleep(0.2)
    assert not alive(process)
