"""Which code a run was started from."""

import subprocess
from pathlib import Path
from typing import Any


def git_state(folder: str | Path) -> dict[str, Any]:
    """`commit` and `dirty` (changed tracked files) of the repository around a folder; {} where there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
