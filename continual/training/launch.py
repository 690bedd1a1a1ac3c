"""Train the stages of a run with Ray Train from the driver, and watch them."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from continual.config.schema import Train
from continual.errors import ContinualError, describe, with_fix
from continual.ledger.events import is_record
from continual.ledger.lines import Tail
from continual.store import folder_damage
from continual.training.checkpoints import newest_valid
from continual.training.group import Group
from continual.training.job import TrainJob

POLL_SECONDS = 0.5
STILL_SECONDS = 180.0
"""Ctrl-C waits for the workers while their checkpoint grows, and this long while it does not: it is hashed, too."""
IDLE_SECONDS = 60.0
"""Workers that have waited so long for the next stage end: somebody may wait for what they hold, and to start others
costs less time than has passed."""
END_SECONDS = 30.0
"""How long the end of a run waits for Ray Train to take its workers down."""

Watch = Callable[[list[dict[str, Any]]], None]


def exported(job: TrainJob) -> bool:
    """Return whether the stage's model has been exported and is whole."""
    return job.export.is_dir() and folder_damage(job.export) is None


class Workers(AbstractContextManager["Workers"]):
    """The workers that train the stages of a run, one after another: a Ray Train run that outlives a stage.

    They start with `begin` or the first stage, and again if they were ended: at the end of a stage after which they
    need not stay, when they have waited for IDLE_SECONDS, or by failures. `folder` is for what Ray Train itself writes;
    `cpus` is what each worker reserves.
    """

    def __init__(self, folder: Path, cpus: float):
        self._folder, self._cpus = folder, cpus
        self._group: Group | None = None
        self._idle: threading.Timer | None = None
        self._lock = threading.Lock()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the workers that wait; after an error the end of the cluster takes them along."""
        self._rest()
        if kind is None and self._group is not None:
            self.finish()
            # Ray ends a process of which one thread still uses it while another closes the connection.
            self._group.ended.wait(END_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def begin(self, train: Train) -> None:
        """Start the workers before there is a job for them."""
        self._group = Group(train, train.max_failures, self._folder, self._cpus)
        self._wait()

    def finish(self) -> None:
        """Let the workers end, as there are no more jobs for them; does not wait for it."""
        self._rest()
        if self._group is not None and self._group.alive:
            self._group.close()

    def train(
        self, job: TrainJob, watch: Watch, stopping: Callable[[BaseException], None] = lambda why: None,
        stay: bool = False,
    ) -> None:  # fmt: skip
        """Train until `job.export` exists. `watch` gets the records that are new, about twice a second.

        With `stay` the workers then wait for the next stage. On KeyboardInterrupt, and on a ContinualError that `watch`
        raises, `stopping` is called at once with it, and the workers finish their step and publish a checkpoint before
        the caller gets it; a KeyboardInterrupt ends that wait.
        Raises ContinualError with the workers' sentence if they had one.
        """
        files = job.files
        job.folder.mkdir(parents=True, exist_ok=True)
        for leftover in (files.stop, files.failed, files.unscored):
            leftover.unlink(missing_ok=True)
        failures = job.train.max_failures
        with contextlib.closing(Tail(files.metrics, is_record)) as records:
            while not (group := self._trained(job, failures, records, watch, stopping)).done:
                if group.error is None:
                    break
                # Ray Train has counted the failures of earlier stages, too.
                used = 1 + group.restarts() if group.failed_itself else failures + 1
                if used > failures or files.failed.is_file():
                    raise _failure(job, group.error) from group.error
                failures -= used
            watch(list(records.read()))
        if not exported(job):
            raise ContinualError(f"training ended without a whole model in {job.export}; run the same command again")
        if stay:
            self._wait()
        else:
            group.close()

    def _trained(
        self, job: TrainJob, failures: int, records: Tail, watch: Watch, stopping: Callable[[BaseException], None]
    ) -> Group:
        """Give the job to the workers, wait until it is done or they have ended, and return their group."""
        self._rest()
        if self._group is None or not self._group.alive:
            self._group = Group(job.train, failures, self._folder, self._cpus)
        over = self._group.give(job)
        try:
            while not over.wait(POLL_SECONDS):
                watch(list(records.read()))
        except (KeyboardInterrupt, ContinualError) as why:
            job.files.stop.touch()
            stopping(why)
            with contextlib.suppress(KeyboardInterrupt):
                wait_for_checkpoint([job.checkpoints], over)
            raise
        return self._group

    def _wait(self) -> None:
        """Let the workers wait for a job, but not longer than IDLE_SECONDS."""
        self._idle = threading.Timer(IDLE_SECONDS, self._retire)
        self._idle.daemon = True
        self._idle.start()

    def _rest(self) -> None:
        """Let the workers that wait stay for the job that comes now."""
        with self._lock:
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None

    def _retire(self) -> None:
        with self._lock:
            if self._idle is not None and self._group is not None:
                self._group.close()


def _failure(job: TrainJob, error: BaseException) -> ContinualError:
    failed = job.files.failed
    text = failed.read_text(encoding="utf-8", errors="replace") if failed.is_file() else describe(error)
    step, _ = newest_valid(job.checkpoints)
    return ContinualError(with_fix(f"training failed after step {step}: {text}"))


def wait_for_checkpoint(folders: Collection[Path], ended: threading.Event) -> None:
    """Wait until the workers have ended, or what they write below `folders` has not grown for STILL_SECONDS."""
    size, since = -1, time.monotonic()
    while not ended.wait(POLL_SECONDS):
        now = sum(map(_size, folders))
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > STILL_SECONDS:
            return


def _size(folder: Path) -> int:
    """Return the bytes below a folder; a file that is renamed meanwhile may count or not."""
    total = 0
    for parent, _, names in os.walk(folder):  # unlike `rglob`, it goes on when a folder disappears
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total
