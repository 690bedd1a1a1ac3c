"""The texts say what is there: links, commands, files, rooms, methods; and the README stays short."""

import ast
import importlib.util
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from continual.cli import report, run, tune
from continual.contract.registry import MITIGATIONS
from docs import generate
from tests.conftest import ROOT
from tests.kits.pages import PAGES, anchors, blocks, code_spans, links, name, prose

PARSERS: dict[str, Callable[[list[str]], object]] = {
    "continual.run": run.parser().parse_intermixed_args,
    "continual.tune": tune.parser().parse_intermixed_args,
    "continual.report": report.parser().parse_args,
}
HAND_WRITTEN = ["README.md", "CONTRIBUTING.md", *(name(page) for page in PAGES if page.parent.name == "docs")]


def each(of: Callable[[Path], list[str]]) -> list[tuple[Path, str]]:
    return [(page, item) for page in PAGES for item in dict.fromkeys(of(page))]


def commands(page: Path) -> list[str]:
    """The command lines in the page's blocks and in its text, without what explains them."""
    lines = [line for block in blocks(page) if block.language != "python" for line in block.text.splitlines()]
    spans = [span for span in code_spans(page) if span.startswith(("python -m ", "make "))]
    found = [re.sub(r"\s+#.*", "", line).strip() for line in [*lines, *spans]]
    return [line for line in found if re.match(r"(?:[\w=.:]+ |ray job submit .*-- )?(?:python -m|make) ", line)]


def files(page: Path) -> list[str]:
    """Files of the repository, `path` or `path:name`, in the page's text."""
    return [
        span for span in code_spans(page) if re.match(r"(?:continual|baselines|benchmarks|tests|docs|docker)/", span)
    ]


def test_the_readme_is_read_in_ten_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 220


@pytest.mark.parametrize("page", HAND_WRITTEN)
def test_nothing_is_left_to_fill_in(page: str) -> None:
    assert not re.findall(r"\b[A-Z]+_(?:OUTPUT|HARDWARE|TABLE)\b|^TREE$|TODO|FIXME", (ROOT / page).read_text(), re.M)


@pytest.mark.parametrize("page", generate.PAGES)
def test_generated_blocks_are_up_to_date(page: str) -> None:
    text = (ROOT / page).read_text()
    assert generate.renewed(text) == text, f"{page} is not up to date; run `{generate.COMMAND}`"


@pytest.mark.parametrize("page", generate.PAGES)
def test_every_key_has_a_meaning(page: str) -> None:
    assert re.findall(r"^\|.*\| *\|$", (ROOT / page).read_text(), re.M) == [], "describe the keys in the schema"


@pytest.mark.parametrize("block", generate.BLOCKS)
def test_every_generated_block_is_in_a_page(block: str) -> None:
    pages = "".join((ROOT / page).read_text() for page in generate.PAGES)
    assert f"<!-- generated: {block} -->" in pages


def test_every_page_is_linked_from_the_readme() -> None:
    readme = ROOT / "README.md"
    assert {name(page) for page in PAGES} - {"README.md"} <= set(links(readme))


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_every_method_is_listed(page: str) -> None:
    assert set(re.findall(r"^\| `(\w+)` \| .* \| .* \|$", (ROOT / page).read_text(), re.M)) >= set(MITIGATIONS.names())


def test_every_method_has_a_section_with_its_options() -> None:
    sections = set(re.findall(r"^### `(\w+)`$", (ROOT / "docs/methods.md").read_text(), re.M))
    assert sections == set(MITIGATIONS.names())


@pytest.mark.parametrize(("page", "link"), each(links))
def test_a_link_leads_to_a_file(page: Path, link: str) -> None:
    target = link.partition("#")[0]
    assert (page.parent / target).exists() if target else page.exists()


@pytest.mark.parametrize(("page", "link"), [(page, link) for page, link in each(links) if "#" in link])
def test_a_link_leads_to_a_heading(page: Path, link: str) -> None:
    target, _, anchor = link.partition("#")
    assert anchor in anchors(page.parent / target if target else page)


@pytest.mark.parametrize(("page", "command"), each(commands))
def test_a_command_exists(page: Path, command: str) -> None:
    words = shlex.split(command)
    if "make" in words:
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert words[words.index("make") + 1] in targets
        return
    module, *arguments = words[words.index("-m") + 1 :]
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations:
        assert importlib.util.find_spec(f"{module}.__main__") is not None
    if module in PARSERS and arguments:
        PARSERS[module](arguments)


@pytest.mark.parametrize(("page", "file"), each(files))
def test_a_named_file_exists(page: Path, file: str) -> None:
    path, _, symbol = file.partition(":")
    assert (ROOT / path).exists()
    if symbol:
        assert symbol in set(defined((ROOT / path).read_text()))


def defined(source: str) -> Iterator[str]:
    """The functions, classes, methods and constants of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_every_room_has_a_line_in_the_design() -> None:
    table = prose(ROOT / "docs/design.md").partition("\n## Rooms\n")[2].partition("\n#")[0]
    rooms = {path.parent.name for path in (ROOT / "continual").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == rooms


def test_pre_commit_runs_the_tools_of_make_check() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"\$\(BIN\)/([\w-]+)", recipe)) <= set(re.findall(r"entry: \.venv/bin/([\w-]+)", hooks))
