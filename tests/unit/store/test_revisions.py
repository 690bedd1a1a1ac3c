"""Whoever changes code behind stored results decides whether they change, too."""

import pytest

from continual.store import Store
from continual.store.revisions import REVISIONS
from tests.golden.revisions import SOURCES, _bare, code_of, read_known


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
