"""Read all documents of a source in Ray tasks, in their order, with the code that the check before a run uses."""

import copy
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from continual.contract.reading import read_part
from continual.contract.selection import Selection
from continual.contract.source import Source
from continual.data.context import set_context
from continual.errors import ConfigurationError

if TYPE_CHECKING:
    import ray.data

READ_CPUS = 0.5
"""CPUs of a Ray task that reads documents."""
MOST_TASKS = 256
"""Tasks that share the parts of a source."""
BLOCK_BYTES = 1 << 20
"""Documents that go on together, while their part is read on: about so many bytes of JSON."""
TABLE_DOCUMENTS = 256
"""Documents that a task hands to Ray Data at a time, which joins them to blocks."""
COLUMNS = ("place", "item", "problem", "end")
SCHEMA = pa.schema([(name, pa.large_string()) for name in COLUMNS])


def read_all(source: Source) -> "ray.data.Dataset":
    """Return the documents of a source that are asked for, part by part, in blocks of about BLOCK_BYTES.

    Columns, all JSON text, "" for nothing: `place`; `item`, the example; `problem`, why it cannot be used; and `end`,
    what was read of the documents asked for, in an extra row behind each part.
    """
    import ray.data

    set_context()
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    parts = [{"part": part} for part in source.parts()]
    with ray.data.DataContext.current(context):
        listed = ray.data.from_items(parts, override_num_blocks=min(len(parts), MOST_TASKS))
        return listed.map_batches(partial(tables, source, source.selection()), batch_size=1, num_cpus=READ_CPUS)


def tables(source: Source, asked_for: Selection, batch: dict[str, Any]) -> Iterator[pa.Table]:
    """Yield the rows of the parts of a batch (see `read_all`), a table as soon as it is full or its part ends."""
    for part in batch["part"]:
        found = rows(source, asked_for, str(part))
        while chunk := list(islice(found, TABLE_DOCUMENTS)):
            yield pa.table(dict(zip(COLUMNS, zip(*chunk, strict=True), strict=True)), SCHEMA)


def rows(source: Source, asked_for: Selection, part: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of one part, with the values of COLUMNS. A problem that ends the part is in the last one."""
    selection = copy.deepcopy(asked_for)
    fatal: ConfigurationError | None = None
    try:
        documents = (found for found in read_part(source, part, selection) if found is not None)
        # Not one document further than the limit: what stands behind it may be damaged.
        for found in islice(documents, source.limit):
            item = json.dumps(found.example.as_json()) if found.example else ""
            yield json.dumps(found.place), item, as_text(found.problem) if found.problem else "", ""
    except ConfigurationError as error:
        # An exception raised here would leave the task without its type: Ray Data keeps only its text.
        fatal = error
    yield "", "", as_text(fatal) if fatal else "", json.dumps(selection.facts())


def as_text(error: ConfigurationError) -> str:
    """Return a problem as JSON text; `ConfigurationError(*json.loads(text))` is the problem again."""
    return json.dumps([error.key, error.problem, error.fix])
