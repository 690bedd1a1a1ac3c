"""Engines in actors: each takes sample numbers and gives answers as they end; one that dies is started again."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from continual.errors import ContinualError, describe
from continual.sampling.watchdog import come_to_a_stop

RESTARTS = 2
"""How often engines are started again, all of them together."""


class Replicas:
    """Actors made by `start()`, whose method `sample(numbers)` yields lists of (number, answer) in any order.

    They start at once and stay until `close`, so that several calls of `sample` share their start. Engines that answer
    nothing for `still_seconds` have come to a stop.
    """

    def __init__(self, start: Callable[[], Any], count: int, still_seconds: float):
        self._start, self._still_seconds = start, still_seconds
        self._actors = [start() for _ in range(count)]
        self._restarts = 0

    def sample(self, numbers: list[int]) -> Iterator[tuple[int, Any]]:
        """Yield (number, answer) for all numbers, which the engines share equally.

        Raises ContinualError if an engine cannot start, dies more than RESTARTS times, or if all have come to a stop.
        """
        import ray

        shares = [numbers[place :: len(self._actors)] for place in range(len(self._actors))]
        left = {place: dict.fromkeys(share) for place, share in enumerate(shares) if share}
        streams: dict[Any, int] = {self._ask(place, left[place]): place for place in left}
        while streams:
            ready, _ = ray.wait(list(streams), num_returns=1, timeout=self._still_seconds)
            if not ready:
                raise come_to_a_stop(self._still_seconds)
            stream: Any = ready[0]
            place = streams[stream]
            try:
                answers = ray.get(next(stream))
            except StopIteration:
                del streams[stream]
                continue
            except ray.exceptions.RayError as error:
                del streams[stream]
                self._replace(place, error)
                streams[self._ask(place, left[place])] = place
                continue
            for number, answer in answers:
                del left[place][number]
                yield number, answer

    def close(self) -> None:
        """End the engines."""
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def _ask(self, place: int, numbers: dict[int, None]) -> Any:
        return self._actors[place].sample.remote(list(numbers))

    def _replace(self, place: int, error: Exception) -> None:
        """Start an engine in place of one that has ended; raise ContinualError if that would not help."""
        import ray

        if getattr(error, "actor_init_failed", False):
            raise ContinualError(f"the engine does not start: {describe(error)}") from error
        if self._restarts == RESTARTS:
            raise ContinualError(f"an engine ended for the third time: {describe(error)}") from error
        self._restarts += 1
        print(f"an engine ended ({describe(error)}); it starts again ({self._restarts} of {RESTARTS})", file=sys.stderr)
        ray.kill(self._actors[place])
        self._actors[place] = self._start()
