"""What a run keeps has its place: another kind of thing there is told before the run, not by a traceback in it."""

import os
from pathlib import Path

import pytest

from continual.cli.run import main
from continual.config.load import Loaded, load_sequence
from continual.errors import ConfigurationError
from continual.ledger.folder import RunFolder, StageFolder
from continual.preflight.check_places import check_places
from continual.store import Store

RUN = Path("runs/tiny")
STORE = [(path.relative_to(Path.cwd()), folder) for path, folder in Store("runs/store").entries()]
ENTRIES = [*RunFolder(RUN).entries(["one", "two"]), *STORE, (Path("runs/mlflow.db"), False),
           (Path("runs/mlflow.db.lock"), False)]  # fmt: skip
NAMES = {str(path): folder for path, folder in ENTRIES}


def loaded(*overrides: str) -> Loaded:
    return load_sequence("seq.yaml", list(overrides))


def put(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")


def test_every_name_of_a_run_is_known() -> None:
    named = {path for owner in (RunFolder(RUN), StageFolder(RUN / "stages" / "1-one")) for path in vars(owner).values()}
    assert named <= {path for path, _ in ENTRIES}
    assert {"runs/tiny/log.txt", "runs/tiny/mlflow", "runs/tiny/stages", "runs/store/rows", "runs/store/stages",
            "runs/tiny/stages/2-two/checkpoints"} <= NAMES.keys()  # fmt: skip


def test_a_run_that_is_as_runs_are_has_its_place(project: Path) -> None:
    check_places(loaded())
    for path, folder in ENTRIES:
        if not path.exists():
            put(project / path, "folder" if folder else "file")
    before = sorted(project.rglob("*"))
    check_places(loaded())
    check_places(loaded(), fresh=True)
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize("other", ["swapped", "pipe", "link"])
@pytest.mark.parametrize("name", NAMES)
def test_another_kind_of_thing_is_refused(project: Path, name: str, other: str) -> None:
    kind = ("file" if NAMES[name] else "folder") if other == "swapped" else other
    put(project / name, kind)
    with pytest.raises(ConfigurationError) as error:
        check_places(loaded())
    said = str(error.value)
    assert len(said) < 300 + len(str(project))
    if other == "swapped":
        assert f"is a {kind}, " in said
    elif name != "runs":  # a link to nothing above all others is looked behind
        assert "is neither a file nor a folder, where " in said


@pytest.mark.parametrize(
    ("name", "kind", "fine"),
    [("tiny/log.txt", "folder", True), ("tiny/stages/1-one", "file", True), ("tiny/summary.json", "pipe", True),
     ("tiny", "file", False), ("tiny/lock", "folder", False), ("store", "file", False)],
)  # fmt: skip
def test_a_fresh_start_deletes_what_stands_in_a_runs_folder(project: Path, name: str, kind: str, fine: bool) -> None:
    put(project / "runs" / name, kind)
    if fine:
        check_places(loaded(), fresh=True)
    with pytest.raises(ConfigurationError):
        check_places(loaded(), fresh=fine is False)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sqlite:////proc/nope/m.db", "nothing can be written to /proc"),
        ("sqlite+pysqlite:////proc/nope/m.db", "nothing can be written to /proc"),
        ("sqlite:///{project}/qa.jsonl/m.db", "qa.jsonl is a file, not a folder"),
        ("sqlite:///{project}/model", "model is a folder, where a file is kept"),
    ],
)
def test_a_tracker_in_a_file_has_its_place(project: Path, uri: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"track.uri: .*{words}"):
        check_places(loaded(f"track.uri={uri.format(project=project)}"))
    check_places(loaded(f"track.uri={uri.format(project=project)}", "track.enabled=false"))
    check_places(loaded(f"track.uri=sqlite:///{project}/new/folder/m.db"))
    assert not (project / "new").exists()


@pytest.mark.parametrize("options", [["--plan"], []])
def test_plan_and_run_refuse_alike(project: Path, options: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    put(project / RUN / "log.txt", "folder")
    assert main(["seq.yaml", *options]) == 2
    said = capfd.readouterr().err
    assert "name: runs/tiny/log.txt is a folder, where a file is kept; " in said.replace(f"{project}/", "")
    assert "Traceback" not in said
