"""Work that writes artefacts in the cluster, so that no data passes through the driver."""

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from continual.errors import ContinualError, Interrupted, unwrap

P = ParamSpec("P")
T = TypeVar("T")
RESTARTS = 2
"""How often work begins again after its process was killed."""
LOOK_SECONDS = 0.5


def in_cluster(work: Callable[P, Iterator[T]], *arguments: P.args, **options: P.kwargs) -> Iterator[T]:
    """Run a generator function in a process of the cluster, and yield its counts here as they come.

    The process reserves no CPU: it waits for Ray Data's tasks most of the time. If it is killed, the work begins again,
    so it must skip what is stored, or store the same again. A ContinualError keeps its type.
    """
    return in_cluster_until(None, work, *arguments, **options)


def in_cluster_until(
    stop: threading.Event | None, work: Callable[P, Iterator[T]], *arguments: P.args, **options: P.kwargs
) -> Iterator[T]:
    """Do what `in_cluster` does until another thread sets `stop`: the work is ended then, and Interrupted raised."""
    return in_cluster_with(0.0, 0.0, stop, work, *arguments, **options)


def in_cluster_with(
    cpus: float,
    gpus: float,
    stop: threading.Event | None,
    work: Callable[P, Iterator[T]],
    *arguments: P.args,
    **options: P.kwargs,
) -> Iterator[T]:
    """Do what `in_cluster_until` does in a process that reserves CPUs and GPUs."""
    import ray

    task: Any = ray.remote(_run).options(
        name=work.__name__, num_cpus=cpus, num_gpus=gpus or None, max_retries=0, num_returns="streaming"
    )
    for restarts in range(RESTARTS, -1, -1):
        stream = task.remote(work, arguments, options)
        try:
            for reference in _references(stream, stop):
                yield ray.get(reference)
            return
        except ray.exceptions.RayTaskError as error:
            if isinstance(inner := unwrap(error), ContinualError):
                raise inner from error
            raise
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ):
            if not restarts:
                raise
            again = f"the process of `{work.__name__}` was killed, or its machine ran out of memory: it begins again"
            print(f"{again} ({RESTARTS - restarts + 1} of {RESTARTS})", file=sys.stderr)
        except BaseException:
            # Nobody waits for the rest. A polite request gets lost if the work has just begun (ray 2.60).
            ray.cancel(stream, force=True)
            raise


def _references(stream: Any, stop: threading.Event | None) -> Iterator[Any]:
    """Yield what a task yields; raise Interrupted when `stop` is set."""
    import ray

    if stop is None:
        yield from stream
        return
    while True:
        while not ray.wait([stream], timeout=LOOK_SECONDS)[0] and not stop.is_set():
            pass
        if stop.is_set():
            raise Interrupted
        try:
            yield next(stream)
        except StopIteration:
            return


def _run(work: Callable[..., Iterator[T]], arguments: tuple[Any, ...], options: dict[str, Any]) -> Iterator[T]:
    yield from work(*arguments, **options)
