"""All code of the user's is listed with what identifies it, and changes the address of what it makes."""

import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

import pytest

from continual.config.schema import Generate, ModelSource, Sequence
from continual.config.task_files import TaskFiles
from continual.data.prepare import rows_inputs
from continual.data.sources.python import PythonSource
from continual.evaluation.identity import task_identity
from continual.models.start import built_inputs
from continual.preflight.user_code import notes_of_code, user_code
from continual.sampling.sample import sampler_identity
from continual.store import digest
from continual.store.code import definition_code
from continual.testing import toys

HELPER = "ours_helper"
MODULES = {
    "ours_helper": "import ours_second\nvalue = 1\n",
    "ours_second": "value = 1\n",
    "ours_rows": "import ours_helper\ndef rows(): yield {'text': 'a'}\n",
    "ours_model": "import ours_helper\ndef build(): ...\n",
    "ours_tokens": "import ours_helper\ndef build(): ...\n",
    "ours_method": "import ours_helper\nfrom typing import Literal\nfrom continual.api import Mitigation\n"
    "class Own(Mitigation):\n    type: Literal['ours_method:Own']\n",
    "ours_loss": "import ours_helper\nfrom continual.api import LOSSES\nclass Own(LOSSES.load('nll')): ...\n",
    "ours_schedule": "import ours_helper\ndef own(progress): return 1.0\n",
    "ours_engine": "import ours_helper\nfrom continual.contract.registry import ENGINES\n"
    "class Own(ENGINES.load('transformers')): ...\n",
    "ours_source": "import ours_helper\nfrom typing import Literal\n"
    "from continual.data.sources.python import PythonSource\n"
    "class Own(PythonSource):\n    type: Literal['ours_source:Own']\n",
}  # fmt: skip
TASK = "task: own_task\ndataset_path: json\noutput_type: generate_until\nprocess_results: !function ours_score.score\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text(TASK)
    (tmp_path / "tasks" / "ours_score.py").write_text("import ours_beside\ndef score(*_): return {}\n")
    (tmp_path / "tasks" / "ours_beside.py").write_text("value = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def sequence(version: Any = None) -> Sequence:
    rows = {"type": "python", "function": "ours_rows:rows", "version": version}
    model = {"type": "python", "build": "ours_model:build", "tokenizer": "ours_tokens:build", "version": version}
    return Sequence.model_validate(
        {
            "name": "own",
            "model": model,
            "stages": [
                {"name": "one", "data": rows, "steps": 1, "tasks": ["own_task"]},
                {"name": "two", "data": {**rows, "type": "ours_source:Own"}, "steps": 1},
            ],
            "mitigation": [
                {"type": "ours_method:Own"},
                {"type": "context_free", "loss": "ours_loss:Own", "ratio": 0.5, "samples": 8},
            ],
            "train": {"batch_tokens": 128, "row_tokens": 32, "schedule": "ours_schedule:own"},
            "generate": {"engine": "ours_engine:Own"},
            "evaluate": {"include_path": "tasks", "texts": [{"name": "words", "data": rows}]},
        }
    )  # fmt: skip


KINDS = {
    "ours_model:build", "ours_tokens:build", "ours_rows:rows", "ours_source:Own", "ours_method:Own", "ours_loss:Own",
    "ours_schedule:own", "ours_engine:Own", "!function ours_score.score",
}  # fmt: skip


def test_every_kind_is_listed_with_its_helper(project: Path) -> None:
    listed = {code.reference: code for code in user_code(sequence())}
    assert set(listed) == KINDS
    for reference, code in listed.items():
        helpers = {"ours_beside"} if "score" in reference else {HELPER, "ours_second"}
        assert helpers <= set(code.modules), reference
        note = code.note()
        assert reference in note
        assert "is known by its module" in note
        assert len(note) <= 300
    assert "`version`" in listed["ours_rows:rows"].note()
    assert "metadata.version" in listed["!function ours_score.score"].note()


def test_files_that_code_names_are_listed(project: Path) -> None:
    (project / "words.txt").write_text("a")
    (project / "ours_rows.py").write_text("def rows(path='words.txt'): yield {'text': open(path).read()}\n")
    [code] = (code for code in user_code(sequence()) if code.reference == "ours_rows:rows")
    assert code.files == ("words.txt",)
    assert "its module, the modules and files that it imports or names (words.txt) and the files" in code.note()


def test_what_has_a_version_needs_no_note(project: Path) -> None:
    noted = " ".join(notes_of_code(sequence(version=3)))
    assert "ours_rows" not in noted
    assert "ours_model" not in noted
    assert "ours_loss" in noted


def test_code_of_this_project_is_not_listed(tmp_path: Path) -> None:
    assert user_code(toys.sequence(tmp_path, [{"type": "context_free", "ratio": 0.5, "loss": "kl"}])) == []


def definition(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return definition_code(getattr(import_module(module), attribute))


def built() -> Any:
    return built_inputs(ModelSource(type="python", build="ours_model:build", tokenizer="ours_tokens:build"), 0)


def own_rows() -> Any:
    source = import_module("ours_source").Own(type="ours_source:Own", function="ours_rows:rows")
    return rows_inputs(source, toys.models()[0].path, 32)


ADDRESSES: dict[str, Callable[[], Any]] = {
    "ours_rows": lambda: PythonSource(function="ours_rows:rows").identity(),
    "ours_model": built,
    "ours_tokens": built,
    "ours_source": own_rows,
    "ours_method": lambda: definition("ours_method:Own"),
    "ours_loss": lambda: definition("ours_loss:Own"),
    "ours_schedule": lambda: definition("ours_schedule:own"),
    "ours_engine": lambda: sampler_identity("float32", Generate(engine="ours_engine:Own")),
    "tasks/ours_score": lambda: task_identity("own_task", TaskFiles("tasks")),
}


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "vllm", "engine_arguments": {"speculative_config": {"model": "draft"}}},
        {"engine": "vllm", "engine_arguments": {"chat_template": "draft/words"}},
        {"engine": "ours_engine:Own", "engine_arguments": {"bias": ["draft/words"]}},
    ],
)
def test_files_that_the_engine_is_given_decide_its_samples(project: Path, options: dict[str, Any]) -> None:
    (project / "draft").mkdir()
    (project / "draft" / "words").write_text("a")
    before = digest(sampler_identity("float32", Generate(**options)))
    (project / "draft" / "words").write_text("b")
    assert digest(sampler_identity("float32", Generate(**options))) != before
    (project / "draft" / "words").write_text("a")
    assert digest(sampler_identity("float32", Generate(**options))) == before


def test_an_endpoint_without_a_version_is_noted(tmp_path: Path) -> None:
    served = {"type": "openai", "url": "http://name:secret@host/v1", "model": "judge"}
    generators = [served, {**served, "model": "other", "version": 2}, {"type": "local", "source": "self"}]
    entry = {"type": "instruction_synthesis", "generators": generators, "instructions": 8}
    [note] = notes_of_code(toys.sequence(tmp_path, [entry]))
    assert note.startswith("replies of `judge` are known by its name and the URL alone")
    assert "`version`" in note
    assert "secret" not in note


@pytest.mark.parametrize("name", ADDRESSES)
def test_one_byte_of_each_kind_and_of_its_helper_changes_the_address(project: Path, name: str) -> None:
    address = ADDRESSES[name]
    before = digest(address())
    for module in (name, "tasks/ours_beside" if "/" in name else "ours_second"):
        file = project / f"{module}.py"
        text, state = file.read_text(), file.stat()
        file.write_text(text[:-1] + "#")
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert digest(address()) != before, module
        file.write_text(text)
        os.utime(file, (1, 1))
        assert digest(address()) == before, module
