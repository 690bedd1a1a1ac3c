"""Whether an evaluating process has begun, as Ray tells it, and what a training that waits for it does."""

import time
from typing import Any

import pytest
import ray

from continual.evaluation.actors import Evaluators
from continual.evaluation.service import runs

pytestmark = pytest.mark.usefixtures("local_ray")


class Process:
    def answer(self) -> bool:
        return True


def evaluators(**options: Any) -> Evaluators:
    return Evaluators(lambda: ray.remote(Process).options(**options).remote(), 1, frees=True, runs=runs)


def test_a_process_counts_from_when_it_is_made_until_it_is_given_back() -> None:
    given = evaluators(num_cpus=0)
    assert not given.working()
    actor = given.take()
    assert ray.get(actor.answer.remote())
    assert given.working()
    given.give_back(actor)
    assert not given.working()


def test_a_process_whose_resources_are_taken_has_not_begun() -> None:
    given = evaluators(num_cpus=0, resources={"nowhere": 1})
    actor = given.take()
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert not given.working()
        time.sleep(0.2)
    given.give_back(actor, ended=False)
