"""Questions from the folder of shared data; lm-eval loads this file by its path."""

import gzip
import json
from typing import Any

from benchmarks.stories.lm_eval.documents import shared


def load(file: str, **_: Any) -> dict[str, Any]:
    """Return the rows of a file below `data/eval` as the split `validation`."""
    import datasets

    path = shared() / "data" / "eval" / file
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return {"validation": datasets.Dataset.from_list([json.loads(line) for line in lines])}
