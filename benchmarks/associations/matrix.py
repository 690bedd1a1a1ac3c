"""`python -m benchmarks.associations.matrix`: Z of 24 tasks and 2,000 stories with a real model; resumable.

Runs associations.yaml with `continual.associate` and keeps its numbers, page and picture. Needs the shared models and
data, see tasks.py.
"""

import json
import os
import shutil
from pathlib import Path

from benchmarks import record, sweeps
from benchmarks.stories.lm_eval.documents import shared

HERE = Path(__file__).resolve().parent
NAME = "associations"
PAPER = (
    "Jin & Ren 2025, OLMo-7B, 85 tasks x 9,998 documents: R² by rank 1: 0.512, 2: 0.633, 3: 0.715, 4: 0.762, 5: 0.790"
)


def source() -> Path:
    """Return the folder of the model. Raises SystemExit if it is not there."""
    folder = shared().resolve() / "models" / "stories260k-hd32"
    if not folder.is_dir():
        raise SystemExit(f"there is no {folder}; CONTINUAL_SHARED names the folder that has models and data")
    os.environ["CONTINUAL_SHARED"] = str(shared().resolve())
    return folder


def main() -> None:
    options = sweeps.options(__doc__.splitlines()[0], HERE / "results")
    fixed = (f"storage={options.storage}", f"concurrency={options.jobs}", f"model.source={source()}")
    if code := sweeps.call("continual.associate", HERE / f"{NAME}.yaml", *fixed, *options.overrides):
        raise SystemExit(code)
    made = options.storage / NAME
    text = (made / f"{NAME}.md").read_text().partition("\n\n")[2].rpartition("\n\n![")[0]
    text = f"{text}\n\n{PAPER}."
    record.write(json.loads((made / f"{NAME}.json").read_text()), text, options.output, NAME)
    shutil.copy(made / f"{NAME}.png", options.output / f"{NAME}.png")


if __name__ == "__main__":
    main()
