"""The code behind every kind of artefact as of its last revision; `python -m tests.golden.revisions` writes it anew."""

import ast
import json
from pathlib import Path
from typing import Any

from continual.store import digest
from continual.store.revisions import REVISIONS
from tests.conftest import ROOT

FILE = Path(__file__).with_name("revisions.json")
MODEL = ("continual/models/load.py", "continual/models/architecture.py", "continual/models/dtypes.py",
         "continual/models/files.py")  # fmt: skip
ROWS = ("continual/data/rows.py", "continual/data/packing.py")
READ = tuple(f"continual/contract/{name}.py" for name in (
    "source", "example", "columns", "conversation", "reading", "selection",
))  # fmt: skip
SAMPLES = ("continual/sampling", "continual/contract/requests.py", "continual/models/ends.py",
           "continual/models/template.py")  # fmt: skip
SOURCES: dict[str, tuple[str, ...]] = {
    "columns": ("continual/scoring", "continual/models/forward.py", "continual/data/remote.py",
                "baselines/easy_samples.py", *MODEL, *ROWS),
    "fisher": ("continual/scoring/fisher.py", "continual/models/forward.py", "baselines/ewc.py",
               "continual/contract/requests.py", *MODEL, *ROWS),
    "models": ("continual/models/start.py", "continual/models/save.py", "baselines/weight_average.py",
               "baselines/merge.py", *MODEL),
    "pairs": ("baselines/instruction_synthesis.py", "baselines/instructions", *SAMPLES, *MODEL),
    "replies": ("baselines/instructions/endpoint.py", "baselines/instructions/generators.py",
                "continual/contract/requests.py", "continual/sampling/settings.py", "continual/models/template.py",
                *MODEL),
    "representations": ("continual/scoring/representations.py", "continual/scoring/hidden.py",
                        "continual/models/forward.py", "continual/models/template.py", "continual/data", *READ, *MODEL),
    "rows": ("continual/data", *READ, "baselines/task_replay.py", "baselines/chosen.py",
             "baselines/pretraining_subset.py", *SAMPLES, *MODEL),
    "samples": (*SAMPLES, *MODEL, *ROWS, "continual/data/remote.py"),
    "scores": ("continual/evaluation", "continual/data/documents.py", "continual/sampling/vllm_start.py",
               "continual/models/forward.py", "continual/models/ends.py", "continual/models/template.py",
               "continual/forgetting/score.py", "continual/config/task_files.py",
               *MODEL, *ROWS),
}  # fmt: skip
"""Files and folders whose code decides the content of a kind."""
SOURCE_TYPES = tuple(
    f"continual/data/sources/{name}.py" for name in ("csv", "hub", "jsonl", "parquet", "python", "text")
)
ENTRIES: dict[str, tuple[str, ...]] = {
    "columns": ("continual/scoring/score.py", "continual/scoring/columns.py", "baselines/easy_samples.py"),
    "fisher": ("continual/scoring/fisher.py", "baselines/ewc.py"),
    "models": ("continual/models/start.py", "baselines/weight_average.py", "baselines/merge.py"),
    "pairs": ("baselines/instruction_synthesis.py",),
    "replies": ("baselines/instructions/endpoint.py",),
    "representations": ("continual/scoring/representations.py",),
    "rows": ("continual/data/prepare.py", "continual/sampling/sample.py", "baselines/task_replay.py",
             "baselines/pretraining_subset.py", *SOURCE_TYPES),
    "samples": ("continual/sampling/sample.py", "continual/sampling/start.py", "continual/sampling/engine_vllm.py",
                "continual/sampling/engine_transformers.py"),
    "scores": ("continual/evaluation/service.py", "continual/evaluation/evaluator.py"),
    "stages": ("continual/training/worker.py", "continual/training/launch.py", "continual/training/schedule.py",
               "continual/training/losses/kinds.py", "continual/training/strategies/deepspeed.py"),
}  # fmt: skip
"""The modules that make a kind, those named by entry points among them: what they import may decide its content."""
CANNOT = {
    "continual/errors": "words of sentences, and what is hidden of secrets",
    "continual/store": "keeps bytes as they are; another form of them raises its FORMAT",
    "continual/config/schema.py": "options, whose values are in the addresses",
    "continual/config": "reads, completes and refuses configurations, whose values are in the addresses",
    "continual/data/context.py": "what is shown and raised; those that need an order ask for it in code that counts",
    "continual/contract/announce.py": "says what is called",
    "continual/contract/base.py": "refuses options that are unknown",
    "continual/contract/context.py": "an interface",
    "continual/contract/mitigation.py": "an interface; what a mitigation asks for is in the addresses",
    "continual/contract/models.py": "names of things",
    "continual/contract/registry.py": "finds classes by name",
    "continual/contract/replay.py": "an interface; what a mitigation asks for is in the addresses",
    "continual/contract/view.py": "names of things; what a mitigation makes of them is in the addresses",
    "continual/models/bounded.py": "ends templates that loop before a run, and none in a run",
    "continual/models/settings.py": "refuses models, and changes none",
    "continual/models/misfit.py": "refuses models, and changes none",
    "continual/models/numbers.py": "refuses models, and changes none",
    "continual/models/check.py": "refuses models, and changes none",
    "continual/models/attention.py": "chooses what stages are trained with, and their addresses have it",
    "continual/models/by_document.py": "what stages are trained with; scores and columns are not computed with it",
    "continual/models/dropout.py": "says whether training draws",
    "continual/models/imports.py": "waits for another thread's import",
    "continual/models/quiet.py": "keeps transformers off the terminal",
    "baselines/l2_start.py": "says where penalties cannot be added; a stage's address has its code",
    "continual/ledger": "names of files, and their lines",
}
"""What no kind depends on, and why."""


def code_of(kind: str) -> str:
    """Return the hash of the code that makes a kind; comments, docstrings and line breaks do not count."""
    paths = [path for source in SOURCES[kind] for path in _files(ROOT / source)]
    return digest([[str(path.relative_to(ROOT)), _bare(path.read_text(encoding="utf-8"))] for path in paths])


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _bare(text: str) -> str:
    """Return the syntax tree of a module without its docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body: list[Any] = getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []
        body[:] = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return ast.dump(tree)


def read_known() -> dict[str, Any]:
    """Return {kind: {"revision": number, "code": hash}} as last written."""
    return json.loads(FILE.read_text())


def main() -> None:
    known = {kind: {"revision": revision, "code": code_of(kind)} for kind, revision in sorted(REVISIONS.items())}
    FILE.write_text(json.dumps(known, indent=1) + "\n")
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
