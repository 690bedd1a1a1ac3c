"""Evaluator actors: never more than there may be, whichever threads ask, and none that holds what others need."""

import threading
from itertools import count
from typing import Any

import pytest

from continual.errors import ContinualError
from continual.evaluation import actors
from continual.evaluation.actors import Evaluators


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    killed = list[int]()
    monkeypatch.setattr(actors, "_kill", killed.append)
    return killed


def made(most: int, **options: Any) -> Evaluators:
    return Evaluators(count().__next__, most, **options)


def test_idle_actors_are_used_again(ended: list[int]) -> None:
    evaluators = made(2)
    assert [evaluators.take(), evaluators.take(), evaluators.take(wait=False)] == [0, 1, None]
    evaluators.give_back(1)
    assert evaluators.take() == 1
    evaluators.give_back(0)
    evaluators.give_back(1, ended=False)
    assert [evaluators.take(), evaluators.take()] == [0, 2]
    assert ended == [1]


def test_one_that_has_begun_is_taken_first(ended: list[int]) -> None:
    evaluators = made(2)
    evaluators.begin()
    evaluators.begin()
    assert evaluators.take() == 0
    evaluators.begin()
    assert evaluators._idle == []
    assert [evaluators.take(), evaluators.take(wait=False)] == [1, None]


@pytest.mark.parametrize("holds", ["once", "frees"])
def test_none_begins_before_it_is_wanted_where_it_would_hold_gpus(ended: list[int], holds: str) -> None:
    evaluators = made(1, **{holds: True})
    evaluators.begin()
    assert evaluators._idle == []


def test_an_actor_for_one_model_ends_with_it(ended: list[int]) -> None:
    evaluators = made(1, once=True)
    evaluators.keep()
    for number in range(3):
        assert evaluators.take() == number
        evaluators.give_back(number)
    assert ended == [0, 1, 2]


def test_actors_that_hold_gpus_stay_while_more_models_come(ended: list[int]) -> None:
    evaluators = made(2, frees=True)
    evaluators.give_back(evaluators.take())
    assert ended == [0]
    evaluators.keep()
    taken = [evaluators.take(), evaluators.take()]
    for actor in taken:
        evaluators.give_back(actor)
    assert ended == [0]
    assert evaluators.take() == 2
    evaluators.let_go()
    assert ended == [0, 1]
    evaluators.give_back(2)
    assert ended == [0, 1, 2]


def test_threads_wait_for_one_another_and_share_the_actors(ended: list[int]) -> None:
    evaluators, lock = made(3), threading.Lock()
    running = most = 0
    used, shared = set[int](), list[int]()

    def work() -> None:
        nonlocal running, most
        for _ in range(50):
            actor: Any = evaluators.take()
            with lock:
                shared.extend(used & {actor})
                used.add(actor)
                running += 1
                most = max(most, running)
            with lock:
                running -= 1
                used.remove(actor)
            evaluators.give_back(actor)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert (most <= 3, shared) == (True, [])
    assert sorted([evaluators.take(wait=False), evaluators.take(wait=False), evaluators.take(wait=False)]) == [0, 1, 2]


def test_a_thread_that_waits_is_told_of_the_end(ended: list[int]) -> None:
    evaluators = made(1)
    evaluators.take()
    errors = list[Exception]()

    def wait() -> None:
        try:
            evaluators.take()
        except ContinualError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    evaluators.close(KeyboardInterrupt())
    thread.join(30)
    assert [str(error) for error in errors] == ["the evaluation was ended"]
