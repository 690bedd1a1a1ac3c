"""Engines that sample nothing any more end the stage, in one sentence."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

from continual.errors import ContinualError

Item = TypeVar("Item")


def come_to_a_stop(seconds: float) -> ContinualError:
    """Return the error of engines that have answered nothing for so long."""
    fix = "look for the engine's errors in the log file, or raise `generate.still_seconds` if it is only slow"
    return ContinualError(f"the engine has sampled nothing for {seconds:g} s; {fix}")


def watched(items: Iterator[Item], seconds: float) -> Iterator[Item]:
    """Yield the items, which a thread reads; raise ContinualError if none comes for `seconds`.

    What the reading raises is raised here. Who takes no more items closes this generator, as the end of a `for` does,
    and the thread ends, and lets go of `items`, with the next one that comes.
    """
    read: queue.SimpleQueue[tuple[Item] | BaseException | None] = queue.SimpleQueue()
    enough = threading.Event()
    # Handed over in a list that the thread empties: what an abandoned iterator holds is freed when nobody refers to it.
    handed = [items]
    del items

    def read_all() -> None:
        try:
            for item in handed.pop():
                if enough.is_set():
                    return
                read.put((item,))
            read.put(None)
        except BaseException as error:
            read.put(error)

    threading.Thread(target=read_all, name="samples", daemon=True).start()
    try:
        while True:
            try:
                found = read.get(timeout=seconds)
            except queue.Empty:
                raise come_to_a_stop(seconds) from None
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            yield found[0]
    finally:
        enough.set()
