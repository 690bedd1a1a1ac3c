"""One group of workers: a Ray Train run in a thread of the driver, and the actor that hands it its jobs."""

import os
import threading
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from continual.config.schema import Train
from continual.errors.syntax import ALONE
from continual.training.handover import Handover
from continual.training.job import TrainJob

CLEANER, DATASETS = "PlacementGroupCleanerCallback", "DatasetsCallback"


class Group:
    """Workers that train every job that they are given. They start at once; `close` lets them end after the last one.

    `done` says whether the last job is. `ended` is set when the workers have ended; `error` is why, if it was not in
    order.
    """

    def __init__(self, train: Train, failures: int, folder: Path, cpus: float):
        """`failures`: how many failures of workers they survive by starting again; `cpus`: what a worker reserves."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # A soft strategy may put an actor without CPUs anywhere (ray 2.60), and a node that dies would take it along.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._handover: Any = ray.remote(Handover).options(num_cpus=0, scheduling_strategy=here).remote(train.workers)
        self.done = False
        self.error: BaseException | None = None
        # Use events: a join() that Ctrl-C interrupts marks a running thread as finished (Python 3.11).
        self.ended, self._closed, self._over = threading.Event(), False, threading.Event()
        # In a thread of its own: in the main thread fit() would install a SIGINT handler and leave it behind.
        # It also imports torch, which takes seconds.
        trainer = partial(_trainer, train, failures, folder, cpus, self._handover)
        threading.Thread(target=self._fit, args=(trainer,), name="workers", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the workers would take another job."""
        return not self._closed and not self.ended.is_set()

    @property
    def failed_itself(self) -> bool:
        """Whether the group has ended because its workers failed too often, rather than the cluster around them."""
        from ray.train import WorkerGroupError

        return isinstance(self.error, WorkerGroupError)

    def give(self, job: TrainJob) -> threading.Event:
        """Hand over a job; return an event that is set when it is done, or when the workers have ended."""
        import ray

        over, self.done = threading.Event(), False
        number = ray.get(self._handover.give.remote(ray.cloudpickle.dumps(job)))

        def finished(answer: Any) -> None:
            if answer.exception() is None:  # if the actor has died the workers end, too
                self.done = True
                over.set()

        self._handover.finished.remote(number).future().add_done_callback(finished)
        self._over = over
        if self.ended.is_set():
            over.set()
        return over

    def restarts(self) -> int:
        """Return how often the workers have started again since the last job was given."""
        import ray

        return int(ray.get(self._handover.restarts.remote()))

    def close(self) -> None:
        """Let the workers end when they have done what they were given."""
        self._closed = True
        self._handover.close.remote()

    def _fit(self, trainer: Callable[[], Any]) -> None:
        try:
            made = trainer()
            if not self._closed:  # closed before they started: there was nothing to train
                made.fit()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()
            self._over.set()


def _train(config: dict[str, Any]) -> None:
    """Do what `train_worker` does, which the driver need not import: it takes seconds."""
    from continual.training.worker import train_worker

    train_worker(config)


def _trainer(train: Train, failures: int, folder: Path, cpus: float, handover: Any) -> Any:
    with ALONE:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            """Leave out two processes that Ray Train starts beside the workers (ray 2.60), and that nothing needs.

            One splits data sets among the workers; here each worker has its own. The other asks Ray's dashboard whether
            the controller lives, to clean up after it. It is left out in a local cluster, which has no dashboard and
            would log a warning every second, and which ends with the driver anyway.
            """
            callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
            left_out = {DATASETS} if os.environ.get("RAY_ADDRESS") else {DATASETS, CLEANER}
            return [each for each in callbacks if type(each).__name__ not in left_out]

    gpu = train.gpus_per_worker > 0
    resources = {"CPU": cpus} | ({"GPU": train.gpus_per_worker} if gpu else {})
    return Trainer(
        _train,
        train_loop_config={"handover": handover},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=train.workers, use_gpu=gpu, resources_per_worker=resources),
        # A new name every time: an old one would resume Ray Train's state; we keep our own checkpoints.
        run_config=RunConfig(
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=failures),
        ),
    )
