"""A mistake in the file is told at once, without torch or ray."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from continual.preflight.check import check
from continual.config.load import load_sequence
from continual.errors import ConfigurationError
try:
    check(load_sequence(sys.argv[1], sys.argv[2:]))
    message = "fine"
except ConfigurationError as error:
    message = str(error)
print(message)
print(sorted({"torch", "ray", "transformers", "lm_eval"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learnin_rate=1", "did you mean `learning_rate`?"),
        ("stages.0.data.path=nothing.jsonl", "there is no file"),
        ("evaluate.old_tasks=[arc_esay]", "did you mean `arc_easy`?"),
    ],
)
def test_answers_at_once_without_torch_or_ray(project: Path, override: str, words: str) -> None:
    root = Path(__file__).resolve().parents[3]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, "seq.yaml", override],
        capture_output=True, text=True, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}, check=True,
    )  # fmt: skip
    message, loaded = ran.stdout.strip().splitlines()
    assert words in message
    assert loaded == "[]"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time: other tests on the machine do not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3.0
