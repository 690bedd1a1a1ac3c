"""A reader that has enough, such as `head`, ends a command without a traceback."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
from continual.errors.process import exit_code_of, leave
leave(exit_code_of(lambda: [print("x" * 100) for _ in range(10_000)] and None))
"""


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -c '{SCRIPT}' | head -1; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert ran.stderr == ""
    assert ran.stdout == "x" * 100 + "\n"
    assert ran.returncode == 141
