"""Read all documents of a source in Ray tasks, in their order, with the code that the check before a run uses."""

import copy
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from continual.contract.reading import read_part
from continual.contract.selection import Selection
from continual.contract.source import Source
from continual.errors import ConfigurationError

if TYPE_CHECKING:
    import ray.data

READ_CPUS = 0.5
"""CPUs of a Ray task that reads documents."""
MOST_TASKS = 256
"""Tasks that share the parts of a source."""


def read_all(source: Source) -> "ray.data.Dataset":
    """Return the documents of a source that are asked for, part by part.

    Columns: `place`; `item`, the example as JSON text, "" if there is none; `problem`, why it cannot be used, as JSON
    text; and in a row of its own behind each part `end`, what the reading met of the documents asked for, as JSON text.
    """
    import ray.data

    parts = [{"part": part} for part in source.parts()]
    blocks = ray.data.from_items(parts, override_num_blocks=min(len(parts), MOST_TASKS))
    return blocks.flat_map(partial(rows, source, source.selection()), num_cpus=READ_CPUS)


def rows(source: Source, asked_for: Selection, part: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the rows of one part (see `read_all`). A problem that ends the part is in the last one."""
    selection = copy.deepcopy(asked_for)
    fatal: ConfigurationError | None = None
    try:
        documents = (found for found in read_part(source, part["part"], selection) if found is not None)
        # Not one document further than the limit: what stands behind it may be damaged.
        for found in islice(documents, source.limit):
            item = json.dumps(found.example.as_json()) if found.example else ""
            yield row(found.place, item, as_text(found.problem) if found.problem else "")
    except ConfigurationError as error:
        # An exception raised here would leave the task without its type: Ray Data keeps only its text.
        fatal = error
    yield row(end=json.dumps(selection.facts()), problem=as_text(fatal) if fatal else "")


def row(place: str = "", item: str = "", problem: str = "", end: str = "") -> dict[str, str]:
    """Return a row of `read_all`."""
    return {"place": place, "item": item, "problem": problem, "end": end}


def as_text(error: ConfigurationError) -> str:
    """Return a problem as JSON text; `ConfigurationError(*json.loads(text))` is the problem again."""
    return json.dumps([error.key, error.problem, error.fix])
