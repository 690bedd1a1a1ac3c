"""The identity of code that is not ours: every file that decides a result is in it, and what decides nothing is not."""

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from continual.config.schema import ModelSource
from continual.data.sources.python import PythonSource
from continual.errors import ConfigurationError
from continual.models.start import built_inputs
from continual.store import code, digest, literals

FILES = {
    "own_rows.py": "from own_helper import words\nimport own_package.deep as deep\nimport importlib\n"
    "late = importlib.import_module('own_late')\ndef rows(**arguments): yield {'text': words}\n",
    "own_helper.py": "import own_second\nwords = 'a'\n",
    "own_second.py": "number = 1\n",
    "own_late.py": "number = 1\n",
    "own_unused.py": "number = 1\n",
    "own_package/__init__.py": "from . import beside\n",
    "own_package/beside.py": "number = 1\n",
    "own_package/deep.py": "from .sub import thing\n",
    "own_package/sub/__init__.py": "from ..far import thing\n",
    "own_package/far.py": "thing = 1\n",
    "data/words.txt": "one two",
    "data/more/words.txt": "three",
    "single.txt": "four",
    "tokens/tokenizer.json": "{}",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return laid_out(tmp_path / "project", monkeypatch)


def laid_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    enter(folder, monkeypatch)
    return folder


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *(path for path in sys.path if "project" not in path)])
    sys.path_importer_cache.clear()


def of_source(**options: Any) -> str:
    arguments = {"folder": "data", "deep": [{"file": "single.txt"}], "count": 3, "kind": "nothing here", "by": "/"}
    source = PythonSource(function="own_rows:rows", arguments=arguments).model_copy(update=options)
    return digest(json.loads(json.dumps(source.identity())))


def of_builder(**options: Any) -> str:
    arguments = {"folder": "data", "deep": [{"file": "single.txt"}]}
    source = ModelSource(type="python", build="own_rows:rows", tokenizer="own_rows:rows", arguments=arguments)
    return digest(built_inputs(source.model_copy(update=options), 0))


both = pytest.mark.parametrize("address", [of_source, of_builder])


@both
@pytest.mark.parametrize(
    "name",
    [
        "own_rows.py", "own_helper.py", "own_second.py", "own_late.py", "own_package/__init__.py",
        "own_package/beside.py", "own_package/deep.py", "own_package/sub/__init__.py", "own_package/far.py",
        "data/words.txt", "data/more/words.txt", "single.txt",
    ],
)  # fmt: skip
def test_one_byte_of_what_decides_changes_the_address(project: Path, address: Callable[..., str], name: str) -> None:
    before, file = address(), project / name
    state = file.stat()
    text = file.read_text()
    file.write_text(text[:-1] + ("#" if text[-1] != "#" else "\n"))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_size == state.st_size
    assert address() != before
    file.write_text(text)
    assert address() == before


@both
def test_a_renamed_or_a_new_file_of_a_folder_changes_the_address(project: Path, address: Callable[..., str]) -> None:
    before = address()
    (project / "data" / "words.txt").rename(project / "data" / "other.txt")
    renamed = address()
    (project / "data" / "new.txt").write_text("")
    assert len({before, renamed, address()}) == 3


@both
def test_a_version_is_part_of_the_address_and_none_is_not(project: Path, address: Callable[..., str]) -> None:
    assert len({address(), address(version=1), address(version="2026-11-29"), address(version="1")}) == 4
    assert "version" not in PythonSource(function="own_rows:rows").model_dump()
    assert "version" not in ModelSource(type="pretrained", source="x").model_dump()


@both
def test_what_decides_nothing_is_not_in_the_address(
    project: Path, address: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = address()
    (project / "own_unused.py").write_text("number = 2\n")
    (project / "data" / "__pycache__").mkdir()
    (project / "data" / "__pycache__" / "words.pyc").write_text("compiled")
    (project / "data" / "runs" / "store" / "rows").mkdir(parents=True)
    (project / "data" / "runs" / "store" / "rows" / "shard").write_text("a run's own storage")
    assert address() == before
    elsewhere = laid_out(tmp_path / "elsewhere" / "project", monkeypatch)
    assert Path.cwd() == elsewhere
    assert address() == before


NAMED = {
    "keyword": ("own_unused.py", "import importlib\nX = importlib.import_module(name='own_unused')\n"),
    "alias": ("own_unused.py", "from importlib import import_module as im\nX = im('own_unused')\n"),
    "constant": ("own_unused.py", "import importlib\nNAME = 'own_unused'\nX = importlib.import_module(NAME)\n"),
    "resolved": ("own_unused.py", "import pkgutil\nX = pkgutil.resolve_name('own_unused:number')\n"),
    "run": ("own_unused.py", "import runpy\nX = runpy.run_module('own_unused')\n"),
    "run path": ("own_unused.py", "import runpy\nX = runpy.run_path('own_unused.py')\n"),
    "location": ("own_unused.py", "import importlib.util as u\nX = u.spec_from_file_location('h', 'own_unused.py')\n"),
    "executed": ("own_unused.py", "exec(open('own_unused.py').read())\n"),
    "imported by it": ("own_second.py", "import runpy\nX = runpy.run_path('own_helper.py')\n"),
    "default": ("single.txt", "def late(path='single.txt'): return open(path)\n"),
    "global": ("data/words.txt", "PATH = 'data/words.txt'\n"),
    "joined": ("data/words.txt", "import os\nHERE = os.path.join(os.getcwd(), 'data/words.txt')\n"),
    "folder of modules": ("lib/own_inner.py", "import sys\nsys.path.insert(0, 'lib')\nimport own_inner\n"),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("module", ["own_rows.py", "own_helper.py"])
def test_what_a_text_in_the_code_names_decides(project: Path, name: str, module: str) -> None:
    file, text = NAMED[name]
    (project / "lib").mkdir()
    (project / "lib" / "own_inner.py").write_text("number = 1\n")
    texts = {"own_rows.py": "import own_helper\ndef rows(**_): yield {}\n", "own_helper.py": "import own_second\n"}
    if name == "imported by it":
        texts["own_rows.py"] = "def rows(**_): yield {}\n"
        module = "own_rows.py"
    for other, begin in texts.items():
        (project / other).write_text(begin + (text if other == module else ""))
    source = PythonSource(function="own_rows:rows")
    before = digest(source.identity())
    content = (project / file).read_text()
    (project / file).write_text(content + "#")
    assert digest(source.identity()) != before
    (project / file).write_text(content)
    assert digest(source.identity()) == before


@pytest.mark.parametrize(
    "text",
    ['"""Reads single.txt, not."""\n', "def rows(**_):\n    'single.txt'\n    yield {}\n", "# single.txt\n",
     "import sys\nX = f'{sys.path}single.txt'\n", "X = 'numpy'\n", "X = 'json'\n", "X = ['.', '/', '', '\\0']\n",
     "X = 'mlflow.db'\n", "X = '/proc/self/status'\n", "X = 'own_rows.py'\n", "X = 'data'\n"],
)  # fmt: skip
def test_texts_that_name_no_input_keep_the_address(project: Path, text: str) -> None:
    (project / "mlflow.db").write_text("what runs do")
    (project / "own_rows.py").write_text(text)
    assert code.module_code(project / "own_rows.py", "own_rows") == {}


def test_texts_of_installed_modules_and_of_ours_name_nothing(project: Path) -> None:
    for folder in ("site-packages", "baselines"):
        file = project / folder / "own.py"
        file.parent.mkdir()
        file.write_text("X = 'single.txt'\nimport own_second\n")
        name = "own" if folder == "site-packages" else "baselines.own"
        assert "files" not in code.module_code(file, name)


def test_a_named_file_too_large_to_hash_counts_by_its_size(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(literals, "MOST_BYTES", 3)
    (project / "own_rows.py").write_text("X = 'single.txt'\n")
    assert code.module_code(project / "own_rows.py", "own_rows") == {"files": [["single.txt", "4 bytes"]]}
    monkeypatch.setattr(literals, "MOST_TEXTS", 0)
    assert code.module_code(project / "own_rows.py", "own_rows") == {}


def test_absolute_and_relative_paths_of_one_file_are_one(project: Path) -> None:
    shown = [code.with_content("k", value) for value in ("single.txt", str(project / "single.txt"))]
    assert shown[0] == shown[1]
    assert shown[0]["content"] == [code.hash_file(project / "single.txt")]
    assert len(code.with_content("k", "data/*.txt")["content"]) == 1


def test_the_ending_of_a_file_decides_how_it_is_read(project: Path) -> None:
    (project / "single.csv").write_text(FILES["single.txt"])
    assert code.with_content("k", "single.txt") != code.with_content("k", "single.csv")


def test_installed_packages_count_by_their_version(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "own_helper.py").write_text("import numpy as np\nimport json, os.path\nwords = 'a'\n")
    found = code.module_code(project / "own_rows.py", "own_rows")
    assert found["packages"] == {"numpy": code.version("numpy")}
    assert "own_helper" in found["imports"]
    monkeypatch.setattr(code, "version", lambda name: "another")
    assert code.module_code(project / "own_rows.py", "own_rows")["packages"] == {"numpy": "another"}


def test_a_module_that_imports_nothing_keeps_its_former_address(project: Path) -> None:
    (project / "own_rows.py").write_text("import json\ndef rows(): yield {}\n")
    source = PythonSource(function="own_rows:rows", arguments={"n": 1})
    assert source.identity() == {**source.model_dump(), "module": code.hash_file(project / "own_rows.py")}


def test_modules_that_import_each_other_and_broken_ones_end(project: Path) -> None:
    (project / "own_second.py").write_text("import own_helper, own_rows\n")
    (project / "own_late.py").write_text("def broken(:\n")
    found = code.module_code(project / "own_rows.py", "own_rows")["imports"]
    assert found["own_late"] == code.hash_file(project / "own_late.py")


@both
def test_a_folder_that_is_too_large_needs_a_version(
    project: Path, address: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "MOST_FILES", 1)
    with pytest.raises(ConfigurationError, match=r"arguments.folder: .* has more than 1 files .* `version`"):
        address()
    assert address(version=1) != address(version=2)


def test_owners_of_modules_are_those_that_python_names() -> None:
    code._owners.cache_clear()  # another test may have changed the path since, which finds the same ones more often
    found = {name: {owner.metadata["Name"] for owner in owners} for name, owners in code._owners().items()}
    assert found == {name: set(owners) for name, owners in packages_distributions().items()}
