"""What is told of exceptions that the real Ray carries: tasks, actors, Ray Data, Ray Train."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from continual.data.context import set_context
from continual.data.remote import in_cluster
from continual.errors import ConfigurationError, describe, unwrap

pytestmark = pytest.mark.slow


def failing(batch: Any) -> Any:
    raise ValueError("first own line\nTo see more, read on")


def chained(batch: Any) -> Any:
    try:
        Path("/nowhere").read_text()
    except OSError as error:
        raise RuntimeError("wrapping") from error


def refusing(batch: Any) -> Any:
    raise ConfigurationError("stages.0.data", "qa.jsonl line 30: `answer` is null", "put text there")


def undecodable(batch: Any) -> Any:
    return b"a\xff".decode()


class Unborn:
    def __init__(self) -> None:
        raise RuntimeError("constructor\nCheck out the docs")

    def __call__(self, batch: Any) -> Any:
        return batch


def mapped(function: Callable[[Any], Any]) -> None:
    import ray.data

    ray.data.range(4).map_batches(function).materialize()


def mapped_inside(function: Callable[[Any], Any]) -> Iterator[int]:
    mapped(function)
    yield 1


def raised_by(action: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as raised:
        action()
    return raised.value


EXPECTED = [
    (failing, "ValueError: first own line"),
    (chained, "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere'"),
    (refusing, "stages.0.data: qa.jsonl line 30: `answer` is null; put text there"),
    (undecodable, "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
]


@pytest.mark.parametrize(("function", "sentence"), EXPECTED)
def test_ray_data(local_ray: None, function: Callable[[Any], Any], sentence: str) -> None:
    error = raised_by(lambda: mapped(function))
    assert describe(error) == sentence
    assert isinstance(unwrap(error), ConfigurationError) == (function is refusing)
    assert describe(raised_by(lambda: list(in_cluster(mapped_inside, function)))) == sentence


def in_a_task(batch: Any) -> Any:
    import ray.data

    context = ray.data.DataContext.get_current()
    return {"bars": [context.enable_progress_bars], "original": [context.raise_original_map_exception]}


def made_elsewhere() -> Iterator[Any]:
    import ray.data

    set_context()
    yield ray.data.range(1).map_batches(in_a_task).take_all()


def test_settings_travel_with_a_data_set(local_ray: None) -> None:
    """A cluster's processes have none of the driver's variables."""
    assert list(in_cluster(made_elsewhere)) == [[{"bars": False, "original": True}]]


def test_an_actor_that_is_not_born(local_ray: None) -> None:
    import ray

    unborn: Any = ray.remote(Unborn).remote()
    assert describe(raised_by(lambda: ray.get(unborn.__call__.remote(1)))) == "RuntimeError: constructor"


def test_a_killed_actor(local_ray: None) -> None:
    import ray

    class Killed:
        def die(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    killed: Any = ray.remote(Killed).remote()
    told = describe(raised_by(lambda: ray.get(killed.die.remote())))
    assert told.startswith("a process of the run (Killed, process ")
    assert told.endswith(") was killed, or the machine ran out of memory")


@pytest.mark.parametrize("killed", [False, True])
def test_ray_train(local_ray: None, tmp_path: Path, killed: bool) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def loop() -> None:
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("in the loop\nTo fix it, do this")

    config = RunConfig(storage_path=str(tmp_path), failure_config=FailureConfig(max_failures=0))
    trainer = TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=1), run_config=config)
    # Call fit() in another thread: in the main thread it sets a SIGINT handler and never removes it.
    with ThreadPoolExecutor(1) as thread:
        told = describe(raised_by(lambda: thread.submit(trainer.fit).result()))
    assert ("process " in told and told.endswith("ran out of memory")) if killed else told == "ValueError: in the loop"
