"""Engines in actors share the numbers, are started again when they die, and say why they cannot go on."""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from continual.errors import ContinualError
from continual.sampling.replicas import RESTARTS, Replicas

pytestmark = pytest.mark.slow


class Actor:
    """Answers with squares, some at a time; dies after `lives` answers where `log` has fewer starts than `deaths`."""

    def __init__(self, log: Path, lives: int = 0, deaths: int = 0, broken: bool = False, still: bool = False):
        if broken:
            raise ValueError("no such architecture")
        with log.open("a") as file:
            file.write("start\n")
        self.dies = len(log.read_text().splitlines()) <= deaths
        self.lives, self.log, self.still = lives, log, still

    def sample(self, numbers: list[int]) -> Iterator[list[tuple[int, Any]]]:
        for place in range(0, len(numbers), 3):
            if self.dies and place >= self.lives:
                os._exit(1)
            if self.still and place:
                time.sleep(60)
            yield [(number, number**2) for number in reversed(numbers[place : place + 3])]


def made(log: Path, count: int = 1, still_seconds: float = 60.0, **options: Any) -> Replicas:
    actor: Any = ray.remote(num_cpus=0)(Actor)
    return Replicas(partial(actor.remote, log, **options), count, still_seconds)


def test_every_number_is_answered_once_over_several_rounds(local_ray: None, tmp_path: Path) -> None:
    engines = made(tmp_path / "log", count=3)
    for numbers in (range(100), range(100, 107), range(107, 108)):
        assert sorted(engines.sample(list(numbers))) == [(number, number**2) for number in numbers]
    engines.close()
    assert (tmp_path / "log").read_text() == "start\n" * 3


@pytest.mark.parametrize("lives", [0, 30])
def test_an_engine_that_dies_is_started_again_for_what_is_left(local_ray: None, tmp_path: Path, lives: int) -> None:
    engines = made(tmp_path / "log", lives=lives, deaths=RESTARTS)
    assert sorted(engines.sample(list(range(50)))) == [(number, number**2) for number in range(50)]
    engines.close()
    # Answers that an engine gave just before it died may be lost, and are asked for again.
    starts = (tmp_path / "log").read_text().count("start")
    assert starts == 1 + RESTARTS if lives == 0 else 2 <= starts <= 1 + RESTARTS


def test_an_engine_that_always_dies_is_an_error(local_ray: None, tmp_path: Path) -> None:
    engines = made(tmp_path / "log", lives=6, deaths=99)
    with pytest.raises(ContinualError, match="an engine ended for the third time: ") as told:
        list(engines.sample(list(range(50))))
    assert "was killed, or the machine ran out" in str(told.value)
    engines.close()


def test_an_engine_that_cannot_start_says_why_at_once(local_ray: None, tmp_path: Path) -> None:
    engines = made(tmp_path / "log", broken=True)
    with pytest.raises(ContinualError, match="the engine does not start: ValueError: no such architecture"):
        list(engines.sample([1, 2]))
    engines.close()


def test_an_engine_that_has_come_to_a_stop_ends_the_sampling(local_ray: None, tmp_path: Path) -> None:
    engines = made(tmp_path / "log", still_seconds=15.0, still=True)
    answers = engines.sample(list(range(9)))
    assert [next(answers) for _ in range(3)] == [(2, 4), (1, 1), (0, 0)]
    with pytest.raises(ContinualError, match=r"has sampled nothing for 15 s; .* `generate\.still_seconds`"):
        next(answers)
    engines.close()
