"""Whoever changes code behind stored results decides whether they change, too."""

import re
from collections.abc import Iterable

import pytest

from continual.run.reuse import CODE
from continual.store import Store
from continual.store.revisions import REVISIONS
from tests.conftest import ROOT
from tests.golden.reach import reached
from tests.golden.revisions import CANNOT, ENTRIES, SOURCES, _bare, code_of, read_known


@pytest.mark.parametrize("kind", sorted(REVISIONS))
def test_changed_code_has_a_decision(kind: str) -> None:
    known = read_known()[kind]
    decided = (
        f"the code behind stored `{kind}` changed: if equal inputs give another result now, raise their number in "
        "continual/store/revisions.py; then, in any case, run `python -m tests.golden.revisions`"
    )
    assert (known["revision"], known["code"]) == (REVISIONS[kind], code_of(kind)), decided


def test_every_kind_names_its_code() -> None:
    assert set(SOURCES) == set(REVISIONS)


def test_another_revision_is_another_address(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    before = {kind: store.artefact(kind, {"a": 1}).hash for kind in ("rows", "scores", "of another package")}
    monkeypatch.setitem(REVISIONS, "rows", REVISIONS["rows"] + 1)
    after = {kind: store.artefact(kind, {"a": 1}).hash for kind in before}
    assert [kind for kind in before if before[kind] != after[kind]] == ["rows"]


def test_words_do_not_count_and_code_does() -> None:
    assert _bare('"""A."""\n\ndef f():\n    """B."""\n    return 1  # c\n') == _bare("def f():\n    return (1)\n")
    assert _bare("def f():\n    return 1\n") != _bare("def f():\n    return 2\n")


def _under(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


@pytest.mark.parametrize("kind", sorted(ENTRIES))
def test_whatever_a_kind_is_made_by_is_part_of_its_revision(kind: str) -> None:
    covered = SOURCES.get(kind) or tuple(f"continual/{name}" for name in CODE)  # a stage's address has hashes of it
    found = reached(ENTRIES[kind], without=lambda name: _under(name, CANNOT))
    left = sorted(name for name in found if not _under(name, covered))
    decide = f"add what can change stored `{kind}` to its code, and what cannot, with the reason, to CANNOT"
    assert not left, f"{decide} (tests/golden/revisions.py)"


@pytest.mark.parametrize("kind", sorted(REVISIONS))
def test_code_that_names_a_kind_is_where_its_imports_are_followed_from(kind: str) -> None:
    """The room `run` asks for addresses in order to look, and makes nothing."""
    found = reached(ENTRIES[kind], without=lambda name: _under(name, CANNOT))
    for path in sorted([*ROOT.glob("continual/**/*.py"), *ROOT.glob("baselines/**/*.py")]):
        name, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        asked = re.search(rf'(?:store|self)\.artefact\("{kind}"', text)
        if asked and not _under(name, ("continual/testing", "continual/run")):
            assert name in found


def test_every_place_that_the_lists_name_is_there() -> None:
    named = {place for places in [*SOURCES.values(), *ENTRIES.values(), CANNOT] for place in places}
    assert not sorted(place for place in named if not (ROOT / place).exists())
    assert not [name for name in CODE if not (ROOT / "continual" / name).exists()]


def test_the_files_that_were_once_forgotten_are_covered() -> None:
    for kind, name in (("scores", "continual/models/load.py"), ("scores", "continual/forgetting/score.py"),
                       ("scores", "continual/config/task_files.py"), ("rows", "continual/contract/requests.py"),
                       ("samples", "continual/contract/requests.py")):  # fmt: skip
        assert _under(name, SOURCES[kind])
    assert {"contract/loss.py", "contract/stream.py", "data/rows.py"} <= set(CODE)


def test_imports_are_followed_through_what_packages_pass_on() -> None:
    found = reached(["continual/scoring/fisher.py"], without=lambda name: name.startswith("continual/store"))
    assert "continual/models/load.py" in found
    assert not {"continual/models/__init__.py", "continual/models/start.py", "continual/scoring/score.py"} & found
