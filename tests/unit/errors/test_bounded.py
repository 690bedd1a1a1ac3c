"""A path that names much too much is refused at once, whatever names it: a folder, a pattern, links in a circle."""

import glob
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from continual.config.task_files import TaskFiles, read_task
from continual.config.yaml_text import parse_yaml, read_yaml
from continual.data.sources.hub import HubSource
from continual.data.sources.jsonl import JsonlSource
from continual.errors import ConfigurationError, bounded
from continual.errors.bounded import check_size, matches
from continual.errors.json_text import load_json, parse_json
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
    with pytest.raises(ConfigurationError, match="the file has more than 256 KiB"):
        read_yaml(Path("/dev/zero"), "/dev/zero")
    with pytest.raises(ConfigurationError, match=r"evaluate\.include_path: .*pipe\.yaml: it is not a file"):
        TaskFiles(str(tmp_path)).check_bounds()


def nested(first: str, item: str) -> str:
    """Nine levels, each of which uses the one before ten times."""
    levels = [f"{b}: &{b} {item % ', '.join([f'*{a}'] * 10)}\n" for a, b in pairwise("abcdefghij")]
    return f"a: &a {first}\n{''.join(levels)}"


YAMLS = {
    "anchors": (nested("[x]", "[%s]"), "more than 200,000 values"),
    "merged keys": (nested("{k: 1}", "{<<: [%s]}"), "more than 200,000 values"),
    "itself": ("x: &a [*a]\n", "contains itself"),
    "itself merged": ("x: &a {<<: *a}\n", "contains itself"),
    "depth": ("x: " + "[" * 300 + "]" * 300 + "\n", "more than 100 deep"),
    "depth by anchors": (
        "a0: &a0 [1]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(200)),
        "more than 100 deep",
    ),
}


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_is_bounded_for_sequences_and_tasks(tmp_path: Path, name: str) -> None:
    written, words = YAMLS[name]
    with pytest.raises(ConfigurationError, match=words):
        parse_yaml(written)
    (tmp_path / "t.yaml").write_text("task: t\n" + written)
    with pytest.raises(ConfigurationError, match=words):
        read_task(str(tmp_path / "t.yaml"))
    if name == "depth":
        return  # in a file that no task uses, lm-eval's parser ends by itself
    with pytest.raises(ConfigurationError, match=rf"evaluate\.include_path.*{words}"):
        TaskFiles(str(tmp_path)).check_bounds()


@pytest.mark.parametrize("line", ["include: /dev/zero", "include: [large]"])
def test_what_a_task_includes_is_bounded(tmp_path: Path, line: str) -> None:
    (tmp_path / "large").write_bytes(b"#" * (2 << 20))
    (tmp_path / "unused.yaml").write_text(f"task: t\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"cannot be read: it (is not a file|has more than)"):
        TaskFiles(str(tmp_path)).check_bounds()


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 500 + "]" * 500, '{"a": ' * 300 + "1" + "}" * 300, "9" * 600])
def test_json_of_others_is_bounded(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.json").write_text(f'{{"x": {text}}}')
    for read in (load_json, lambda path: parse_json(path.read_text())):
        with pytest.raises(ValueError, match=r"more than 100 deep|digits"):
            read(tmp_path / "d.json")
    with pytest.raises(ConfigurationError, match=r"train\.deepspeed: .* cannot be read"):
        read_json(str(tmp_path / "d.json"))


@pytest.mark.parametrize("value", [{"zero_optimization": None}, {"zero_optimization": {"offload_param": 3}}])
def test_a_block_of_deepspeed_that_is_none_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="is not a block of keys"):
        read_json(value)
    assert read_json({"zero_optimization": {"overlap_comm": True}}) == {"zero_optimization": {"overlap_comm": True}}
