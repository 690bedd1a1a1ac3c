"""`continual COMMAND` is `python -m continual.COMMAND`: the same arguments, output and exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from continual import __version__
from continual.cli import list as lists
from continual.cli import report, run, tune
from continual.cli.main import COMMANDS, dispatch
from continual.contract.registry import MITIGATIONS


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_command_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            dispatch([command, "--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: continual {command} ")


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dispatch(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for command, text in COMMANDS.items():
        assert f"  {command}" in shown
        assert text in shown


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dispatch(["--version"])
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("arguments", [[], ["train"], ["list"], ["list", "nothing"], ["run"], ["report"]])
def test_wrong_usage_has_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dispatch(arguments)
    assert ended.value.code == 2
    assert "usage: continual" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "main"),
    [
        (["run", "no.yaml", "seed=1", "--plan"], run.main),
        (["tune", "no.yaml"], tune.main),
        (["report", "nowhere"], report.main),
    ],
)
def test_a_command_does_what_its_module_does(
    arguments: list[str], main: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no")
    assert main(arguments[1:]) == 2  # type: ignore[operator]
    assert capsys.readouterr().err == error


def test_the_list_of_mitigations_has_both_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["list", "mitigations"]) == 0
    shown = capsys.readouterr().out
    assert run.main(["--list", "mitigations"]) == 0
    assert capsys.readouterr().out == shown
    assert shown.strip() == lists.list_mitigations()
    for kind in MITIGATIONS.names():
        assert f"\n{kind}\n" in f"\n{shown}"


def test_the_script_ends_with_the_exit_code() -> None:
    code = "from continual.cli.main import main; main()"
    root = Path(run.__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code, "run", "no.yaml"],
        capture_output=True, text=True, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr == "error: no.yaml: there is no such file; give the path of a sequence's YAML\n"


@pytest.mark.parametrize("limit", ["nan", "inf", "-inf", "much"])
def test_a_limit_that_nothing_exceeds_is_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(["seq.yaml", f"--max-forgetting={limit}"])
    assert ended.value.code == 2
    assert f"'{limit}' is not a finite number" in capsys.readouterr().err
