"""Malformed inputs of all kinds: each is a plan, or one sentence of at most 300 characters and code 2, in 3 s.

`CONTINUAL_FUZZ=1000` makes so many instead of 200; `CONTINUAL_FUZZ_SEED` begins elsewhere.
"""

import contextlib
import io
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continual.config.overrides import apply_override
from continual.config.yaml_text import parse_yaml
from continual.errors import ConfigurationError
from tests.kits.fuzz import Fuzz
from tests.kits.project import write_project

CASES = int(os.environ.get("CONTINUAL_FUZZ", "200"))
SEED = int(os.environ.get("CONTINUAL_FUZZ_SEED", "0"))
LONGEST, SECONDS = 300, 3.0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_project(tmp_path)
    return tmp_path


def outcome(command: str, arguments: list[str]) -> tuple[str, str]:
    """Return `plan`, `sentence` or `usage` of a command line, or how it ended wrongly; and its last words."""
    out, err = io.StringIO(), io.StringIO()
    begun = time.process_time()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code: int | str | None = import_module(f"continual.cli.{command}").main(arguments)
    except SystemExit as exit_:
        code = "usage" if exit_.code == 2 else f"exit {exit_.code}"
    except BaseException as error:
        return f"raised {type(error).__name__}", str(error)[:300]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    seconds = time.process_time() - begun
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("plan: ")]
    said = lines[-1] if lines else ""
    if seconds > SECONDS:
        return f"took {seconds:.1f} s", said[:300]
    if code == "usage":
        return "usage", said
    if code == 2:
        if len(lines) != 1 or not said.startswith("error: "):
            return f"{len(lines)} lines", "\n".join(lines)[:600]
        return ("sentence" if len(said) - len("error: ") <= LONGEST else f"{len(said)} characters"), said
    return ("plan" if code == 0 and out.getvalue() and not lines else f"code {code}"), said


def test_every_input_is_a_plan_or_a_sentence(project: Path) -> None:
    outcome("run", ["seq.yaml", "--plan"])  # imports count for nothing
    fuzz, wrong, counts = Fuzz(SEED, project), [], dict.fromkeys(("plan", "sentence", "usage"), 0)
    for number in range(CASES):
        command, arguments = fuzz.case()
        how, said = outcome(command, arguments)
        if how in counts:
            counts[how] += 1
            continue
        wrong.append(f"{number}: {command} {str(arguments)[:300]}: {how}: {said}")
        if keep := os.environ.get("CONTINUAL_FUZZ_KEEP"):
            for file in ("seq.yaml", "sweep.yaml"):
                if (project / file).is_file():
                    (Path(keep) / f"{number}-{file}").write_bytes((project / file).read_bytes())
    print(f"{CASES} inputs: {counts}, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
    assert counts["plan"] > CASES / 20, counts
    assert counts["sentence"] > CASES / 4, counts


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=200))
def test_any_text_is_a_value_or_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        parse_yaml(text)
    with contextlib.suppress(ConfigurationError):
        apply_override({"a": {"b": [1]}, "c": None}, text)
