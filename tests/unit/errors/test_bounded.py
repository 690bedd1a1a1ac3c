"""A path that names much too much is refused at once, whatever names it: a folder, a pattern, links in a circle."""

import glob
import os
from pathlib import Path

import pytest

from continual.config.task_files import TaskFiles
from continual.config.yaml_text import read_yaml
from continual.data.sources.hub import HubSource
from continual.data.sources.jsonl import JsonlSource
from continual.errors import ConfigurationError, bounded
from continual.errors.bounded import check_size, matches
from continual.store.code import with_content
from continual.training.strategies.deepspeed_json import read_json


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 3 x 4 files below others, where 10 entries are too many."""
    monkeypatch.setattr(bounded, "MOST_ENTRIES", 10)
    monkeypatch.setattr(bounded, "MOST_LOOKED_AT", 10)
    monkeypatch.setattr(check_size, "__defaults__", (10,))
    monkeypatch.setattr("continual.config.task_files.MOST_FILES", 10)
    for folder in "abc":
        (tmp_path / folder).mkdir()
        for number in range(4):
            (tmp_path / folder / f"{number}.jsonl").write_text('{"text": "w1"}\n')
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "**/*.jsonl", "*/*", "*/9.jsonl"])
def test_a_source_of_too_many_files_is_refused(large: Path, pattern: str) -> None:
    source = JsonlSource(path=str(large / pattern), text="text")
    with pytest.raises(ConfigurationError, match=r"path: .* holds more than 10 files and folders; name a folder that"):
        source.parts()


@pytest.mark.parametrize("pattern", ["a", "a/*", "a/**", "?", "*", "[a]/0.jsonl", "a/0.jsonl"])
def test_what_looks_at_few_files_is_read(large: Path, pattern: str) -> None:
    path = str(large / pattern)
    assert matches(path, "path") == glob.glob(path, recursive=True)  # noqa: PTH207
    if pattern.startswith("a"):
        assert JsonlSource(path=path, text="text").parts()


def test_other_keys_that_name_folders_are_bounded_too(large: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"evaluate\.include_path: .* more than 10"):
        TaskFiles(str(large))
    with pytest.raises(ConfigurationError, match=r"path: .* more than 10"):
        HubSource(path=str(large), text="text").watched()
    with pytest.raises(ConfigurationError, match=r"arguments\.files: .* more than 10"):
        with_content("arguments", {"files": f"{large}/**/*.jsonl"})


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"link{number}").symlink_to(".")
    with pytest.raises(ConfigurationError, match="holds more than 50,000 files and folders"):
        matches(str(tmp_path / "**" / "*.jsonl"), "path")


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert TaskFiles(str(tmp_path)).own == {}
    for name in (str(tmp_path / "pipe.yaml"), "/dev/zero"):
        with pytest.raises(ConfigurationError, match=r"train\.deepspeed: there is no file"):
            read_json(name)
    with pytest.raises(ConfigurationError, match="the file has more than 16 MiB"):
        read_yaml(Path("/dev/zero"), "/dev/zero")
