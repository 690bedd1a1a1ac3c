"""The evaluator actors of a sequence, which several threads share."""

import threading
from collections.abc import Callable
from typing import Any

from continual.errors import ContinualError


class Evaluators:
    """At most `most` actors at a time, made by `start()` when they are wanted. Any thread may take one.

    `once`: an actor ends with its first model. `frees`: an actor that nobody needs ends, because it holds GPUs.
    `runs(actor)`: whether an actor has started, rather than waits for what it reserves.
    """

    def __init__(
        self,
        start: Callable[[], Any],
        most: int,
        once: bool = False,
        frees: bool = False,
        runs: Callable[[Any], bool] = lambda actor: True,
    ):
        self._start, self._most, self._once, self._frees, self._runs = start, most, once, frees, runs
        self._idle: list[Any] = []
        self._taken: list[Any] = []
        self._keepers = 0
        self._closed: ContinualError | None = None
        self._change = threading.Condition()

    def begin(self) -> None:
        """Start an actor before one is wanted, unless it would hold GPUs meanwhile; does nothing if there is one."""
        with self._change:
            if not (self._frees or self._once or self._idle or self._taken or self._closed):
                self._idle.append(self._start())

    def take(self, wait: bool = True) -> Any:
        """Return an actor for one call. If all are taken, wait for one, or else return None.

        Raises ContinualError after `close`: the error that ended the evaluation, if it was one.
        """
        with self._change:
            while len(self._taken) == self._most and not self._closed:
                if not wait:
                    return None
                self._change.wait()
            if self._closed:
                raise self._closed
            actor = self._idle.pop() if self._idle else self._start()
            self._taken.append(actor)
            return actor

    def working(self) -> bool:
        """Return whether some actor that is taken has started: what waits for one then gets it some time."""
        with self._change:
            taken = list(self._taken)
        return any(map(self._runs, taken))

    def idle(self) -> Any:
        """Return an actor that nobody has taken, for a call in between, or None."""
        with self._change:
            return self._idle[-1] if self._idle else None

    def give_back(self, actor: Any, ended: bool = True) -> None:
        """Let others have an actor that was taken. `ended`: its call has returned; else the actor is ended."""
        with self._change:
            self._taken.remove(actor)
            if ended and not self._once and (self._keepers or not self._frees):
                self._idle.append(actor)
            else:
                _kill(actor)
            self._change.notify()

    def keep(self) -> None:
        """Keep idle actors until `let_go`: more models come soon."""
        with self._change:
            self._keepers += 1

    def let_go(self) -> None:
        with self._change:
            self._keepers -= 1
            if self._frees and not self._keepers:
                while self._idle:
                    _kill(self._idle.pop())

    def close(self, error: BaseException) -> None:
        """Start no more actors: the run ends with `error`, and once its cluster is gone Ray would start another one."""
        with self._change:
            if self._closed is None:
                ended = ContinualError("the evaluation was ended")
                self._closed = error if isinstance(error, ContinualError) else ended
            self._change.notify_all()


def _kill(actor: Any) -> None:
    import ray

    if ray.is_initialized():
        ray.kill(actor)
