"""Every YAML of the repository and of the manual is read by what reads a user's."""

import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from continual.associations.spec import load_associate
from continual.config.load import load_sequence
from continual.preflight.check import check
from continual.sweep.spec import load_ablation
from tests.conftest import ROOT
from tests.kits.pages import PAGES, Block, blocks
from tests.kits.project import sequence, write_lines, write_model

BLOCKS = [block for page in PAGES for block in blocks(page, "yaml")]
MODULES = [block for page in PAGES for block in blocks(page, "python")]
OTHERS = ("lm_eval/", ".pre-commit-config.yaml")
"""What is neither a sequence nor a sweep: lm-eval's tasks, and other tools' files."""


def listed() -> list[str]:
    """The YAML files that git knows; where there is no git, none."""
    command = ["git", "ls-files", "*.yaml", "*.yml"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [file for file in finished.stdout.split() if not any(other in file for other in OTHERS)]


def kind(text: str) -> str:
    keys = yaml.safe_load(text)
    if "stages" in keys:
        return "sequence"
    return "associations" if "upstream" in keys else "sweep" if "sequence" in keys else "unknown"


def load(file: str | Path, found: str) -> None:
    """Read a file of one of these kinds as its command does."""
    if found == "sequence":
        load_sequence(file)
    elif found == "associations":
        load_associate(file)
    else:
        load_sequence(load_ablation(file).base)


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the README's sequence, which the manual's sweeps change, and the modules that the manual writes."""
    [readme] = blocks(ROOT / "README.md", "yaml")
    (tmp_path / "seq.yaml").write_text(readme.text)
    for block in MODULES:
        (tmp_path / block.text.splitlines()[0].removeprefix("# ")).write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", listed())
def test_a_file_of_the_repository_is_read(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = kind((ROOT / file).read_text())
    assert found != "unknown", f"{file} is neither a sequence nor about one; if it is no such file, list it"
    load(file, found)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_of_the_manual_is_read(block: Block, folder: Path) -> None:
    file = folder / "block.yaml"
    whole: dict[str, Any] = yaml.safe_load(block.text)
    if block.comment == "fragment of a sequence":
        whole = sequence(**whole)
    elif block.comment == "fragment of a sweep":
        whole = {"name": "a-sweep", "sequence": "seq.yaml", **whole}
    file.write_text(yaml.safe_dump(whole, sort_keys=False) if block.comment else block.text)
    load(file, kind(file.read_text()) if "sequence" in whole else "sequence")


def test_the_readmes_sequence_passes_all_checks_once_its_files_exist(folder: Path) -> None:
    template = "{% for turn in messages %}{{ turn['role'] }} {{ turn['content'] }} {% endfor %}"
    write_model(folder / "model", chat_template=template)
    turns = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
    write_lines(folder / "tickets.jsonl", [{"messages": turns}] * 4)
    (folder / "medical").mkdir()
    pa.parquet.write_table(pa.table({"question": ["w1"], "answer": ["w2"]}), folder / "medical/part.parquet")
    (folder / "my_lm_eval_tasks").mkdir()
    for task in ("tickets", "my_medical_task"):
        data = "dataset_path: json\ntest_split: test\ndataset_kwargs: {data_files: {test: tickets.jsonl}}\n"
        (folder / f"my_lm_eval_tasks/{task}.yaml").write_text(f"task: {task}\n{data}")
    small = ["train.workers=1", "train.gpus_per_worker=0", "train.row_tokens=64", "train.batch_tokens=1024"]
    local = ["model.source=model", "generate.replicas=1", "generate.gpus_per_replica=0"]
    loaded = load_sequence("seq.yaml", [*small, *local])
    assert loaded.sequence.evaluate.include_path == str(folder / "my_lm_eval_tasks")
    check(loaded)
