"""The code behind every kind of artefact as of its last revision; `python -m tests.golden.revisions` writes it anew."""

import ast
import json
from pathlib import Path
from typing import Any

from continual.store import digest
from continual.store.revisions import REVISIONS
from tests.conftest import ROOT

FILE = Path(__file__).with_name("revisions.json")
SOURCES = {
    "columns": ("continual/scoring", "continual/models/forward.py", "baselines/easy_samples.py"),
    "fisher": ("continual/scoring/fisher.py", "continual/models/forward.py", "baselines/ewc.py"),
    "models": ("continual/models/start.py", "baselines/weight_average.py"),
    "pairs": ("baselines/instruction_synthesis.py", "baselines/instructions"),
    "replies": ("baselines/instructions/endpoint.py",),
    "rows": ("continual/data", "continual/contract/source.py", "continual/contract/example.py",
             "continual/contract/columns.py", "continual/contract/conversation.py", "continual/contract/reading.py",
             "continual/contract/selection.py",
             "continual/models/template.py", "continual/models/ends.py", "continual/sampling/write.py",
             "baselines/task_replay.py"),
    "samples": ("continual/sampling", "continual/models/ends.py"),
    "scores": ("continual/evaluation", "continual/models/forward.py", "continual/models/ends.py",
               "continual/models/template.py"),
}  # fmt: skip
"""Files and folders whose code decides the content of a kind."""


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
