"""The driver's side of the process that cleans up after it (`continual.run.aftermath`), and the watch on Ray's head."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from continual.errors import ContinualError, with_fix
from continual.errors.process import fail
from continual.run.processes import HEAD, head_ended

POLL_SECONDS = 0.5
END_SECONDS = 15.0


class Guard:
    """`with Guard(log, folder, uri):` has a process beside this one, whatever ends this one.

    Enter it before the terminal is redirected: it says its sentence where this process would. `folder` is the run's,
    `uri` its tracker or "" for none.
    """

    def __init__(self, log: Path, folder: Path, uri: str):
        self._facts = {"log": str(log), "folder": str(folder), "uri": uri}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "continual.run.aftermath", str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        self.tell(**self._facts)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End what is left of the cluster; its logs stay after a failure alone."""
        self.tell(ended=kind is None or issubclass(kind, KeyboardInterrupt))
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                self._process.wait(END_SECONDS)

    def tell(self, **facts: Any) -> None:
        """Tell the other process something that it may need."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError), self._lock:
                self._process.stdin.write(json.dumps(facts).encode() + b"\n")
                self._process.stdin.flush()


@contextmanager
def own_sessions(guard: Guard) -> Iterator[None]:
    """Let Ray start its head's processes in sessions of their own, and tell the guard their numbers.

    Otherwise they get what is sent to the driver's process group (SIGTERM by `timeout` or a batch system, SIGHUP by a
    terminal), end at once, and take the driver along before it has written a checkpoint.
    """
    from ray._private import services

    plain = services.ConsolePopen

    class Leader(plain):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **options, start_new_session=True)
            guard.tell(leader=self.pid)

    setattr(services, "ConsolePopen", Leader)  # noqa: B010 (a class, which mypy would not let us replace)
    try:
        yield
    finally:
        setattr(services, "ConsolePopen", plain)  # noqa: B010


class Head:
    """Watches the head's processes of a local cluster: when one ends, the driver fails with a sentence at once.

    Ray would end the driver without one, after up to a minute.
    """

    def __init__(self, processes: dict[str, Any], guard: Guard):
        self._guard = guard
        self._polls: dict[str, Callable[[], int | None]] = {}
        self._pids: dict[str, int] = {}
        for kind in HEAD:
            for info in processes.get(kind, []):
                self._polls[kind], self._pids[kind] = info.process.poll, info.process.pid
        guard.tell(head=self._pids)
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="head", daemon=True).start()

    def death(self) -> str | None:
        """Return what has ended, as the beginning of a sentence; None while all live."""
        for kind, poll in self._polls.items():
            if poll() is not None:
                return head_ended(kind, self._pids[kind])
        return None

    def close(self) -> None:
        """Watch no longer."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            if (death := self.death()) and not self._over.is_set():
                self._guard.tell(cause=death)
                fail(ContinualError(with_fix(death)))
                return
