"""References to the user's Python: checked without running it, loaded, called."""

from pathlib import Path

import pytest

from continual.config.references import call, find_function, load_function, module_file
from continual.contract.announce import listen
from continual.errors import ConfigurationError

MODULE = """
import json as reader
from collections import OrderedDict

raise RuntimeError("the module was run")

try:
    import nothing as optional
except ImportError:
    optional = None

def rows():
    yield {}

def _private():
    pass

count = 3
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_tasks.py").write_text(MODULE)
    (tmp_path / "own_star.py").write_text("from os.path import *\n")
    (tmp_path / "own_broken.py").write_text("def rows(:\n")
    (tmp_path / "own_needs.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "own_folder").mkdir()


@pytest.mark.parametrize("name", ["rows", "optional", "reader", "OrderedDict", "count"])
def test_a_name_is_found_without_running_the_module(name: str) -> None:
    find_function("key", f"own_tasks:{name}")


def test_a_star_import_may_bring_any_name() -> None:
    find_function("key", "own_star:join")


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("own_tasks:row", "did you mean `own_tasks:rows`"),
        ("own_tasks:privat", "has no function `privat`; name one of its functions"),
        ("own_task:rows", "there is no module `own_task`"),
        ("own_tasks.more:rows", r"`own_tasks\.more` cannot be imported \(the module was run\)"),
        ("own_broken:rows", "cannot be read"),
        ("own_folder:rows", "there is no module `own_folder`"),
        (":rows", "cannot be imported"),
    ],
)
def test_what_is_missing_is_named(reference: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as raised:
        find_function("key", reference)
    assert raised.value.key == "key"


def test_a_module_that_needs_another_one_says_so() -> None:
    find_function("key", "own_needs:not_installed_anywhere")
    with pytest.raises(ConfigurationError, match="`own_needs` needs the module `not_installed_anywhere`"):
        load_function("key", "own_needs:rows")


def test_the_file_of_a_module(tmp_path: Path) -> None:
    assert module_file("own_tasks:rows") == str(tmp_path / "own_tasks.py")
    with pytest.raises(ConfigurationError, match="there is no module `own_task`"):
        module_file("own_task:rows")


def test_a_call_with_other_arguments_lists_the_parameters() -> None:
    Path("own_paths.py").write_text("from os.path import basename\n")
    assert call("key", "own_paths:basename", {"p": "a/b"}) == "b"
    with pytest.raises(ConfigurationError, match="it takes p"):
        call("key", "own_paths:basename", {"path": "a/b"})


@pytest.mark.parametrize("reference", ["os:listdir", "builtins:input", "os.path:basename", "sys:exit", "json:dumps"])
def test_functions_of_python_itself_are_not_called(reference: str) -> None:
    for use in (load_function, find_function):
        with pytest.raises(ConfigurationError, match="belongs to Python itself"):
            use("key", reference)


def test_own_code_is_announced_before_it_is_imported_or_called(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "own_loud.py").write_text(
        f"print('loud', file=open({str(tmp_path / 'ran')!r}, 'w'))\ndef rows(): return 1\n"
    )
    ran: list[bool] = []

    def listener(doing: str) -> None:
        said.append(doing)
        ran.append((tmp_path / "ran").exists())

    listen(listener)
    try:
        assert call("stages.0.data", "own_loud:rows", {}) == 1
    finally:
        listen(None)
    assert said == ["imports own_loud (stages.0.data)", "calls own_loud:rows (stages.0.data)"]
    assert ran == [False, True]
