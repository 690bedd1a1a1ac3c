"""Test documents for the YAML files beside this one.

lm-eval resolves `!function documents.test` against the YAML's folder, so this works from any directory, in Ray workers
and in the folder that `ray job submit` copies; a relative `data_files` would be looked for in the current directory.
tasks.py is run by its path for the same reason, and nothing is written to disk or fetched.
"""

import runpy
from pathlib import Path
from typing import Any

import datasets

TASKS = Path(__file__).resolve().parents[1] / "tasks.py"


def test(task: str, digits: int, **_: Any) -> dict[str, datasets.Dataset]:
    """The split `test` of a task: columns `prompt` (up to and with `=`) and `answer`. `_`: metadata of lm-eval."""
    tasks = runpy.run_path(str(TASKS))
    texts = [row["text"] for row in tasks["rows"](task, split="test", count=tasks["HELD_OUT"], digits=digits)]
    pairs = [text.split("=") for text in texts]
    return {"test": datasets.Dataset.from_list([{"prompt": f"{left}=", "answer": right} for left, right in pairs])}
