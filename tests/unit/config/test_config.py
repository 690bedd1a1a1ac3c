"""Loading: YAML as it looks, overrides, paths, what counts as a change."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.config.compare import NOT_COMPARED, compared, config_fingerprint, differences
from continual.config.load import Loaded, load_sequence
from continual.config.overrides import apply_override
from continual.config.yaml_text import MOST_BYTES, parse_yaml
from continual.errors import ConfigurationError
from tests.kits.project import sequence, write_project, write_yaml


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_JOB_CONFIG_JSON_ENV_VAR", "CONTINUAL_STORAGE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    write_project(folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1.0e-5", 1e-5), ("1E3", 1000.0), ("-2.5", -2.5), (".5", 0.5), ("5.", 5.0), ("16_384", 16384),
        ("010", 10), ("true", True), ("no", "no"), ("on", "on"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"),
        ("null", None), ("~", None), ("", None), ("e5", "e5"), ("1e", "1e"), ("'1'", "1"), ("[1, a]", [1, "a"]),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2}", {"a": {"b": 1}, "c": {"b": 2}}),
    ],
)  # fmt: skip
def test_yaml_is_what_it_looks_like(text: str, value: Any) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


LARGE = {
    "a list": "a:\n" + "- 1\n" * 60_000,
    "a list in one line": "a: [" + "1," * 125_000 + "1]",
    "a mapping": "".join(f"k{number}: 1\n" for number in range(24_000)),
    "a text": 'a: "' + "x " * 125_000 + '"',
    "comments": "#\n" * 125_000 + "a: 1",
    "nested lists": "[" * 250_000,
    "nested mappings": "{a: " * 60_000,
    "lists within lists": "- " * 125_000,
    "keys within keys": "? " * 125_000,
}


@pytest.mark.parametrize("case", LARGE)
def test_the_largest_file_is_read_in_a_moment(case: str) -> None:
    text = LARGE[case]
    assert len(text) < MOST_BYTES
    begun = time.process_time()
    if case in ("nested lists", "nested mappings", "lists within lists", "keys within keys"):
        with pytest.raises(ConfigurationError, match="nest"):
            parse_yaml(text)
    else:
        assert parse_yaml(text)
    assert time.process_time() - begun < 2.5


def test_an_anchor_is_copied_and_not_shared() -> None:
    raw = parse_yaml("a: &x {b: 1}\nc: *x")
    apply_override(raw, "a.b=2")
    assert raw == {"a": {"b": 2}, "c": {"b": 1}}


def test_learning_rates_are_numbers_in_file_and_override(project: Path) -> None:
    for text in ("1e-5", "1.0e-5", "0.00001"):
        assert load_sequence("seq.yaml", [f"train.learning_rate={text}"]).sequence.train.learning_rate == 1e-5
        changed_file = yaml.safe_dump(sequence()).replace("row_tokens: 32", f"row_tokens: 32\n  learning_rate: {text}")
        write_yaml(project, changed_file)
        assert load_sequence("seq.yaml").sequence.train.learning_rate == 1e-5


def test_overrides_of_sections_lists_and_entries(project: Path) -> None:
    loaded = load_sequence(
        "seq.yaml",
        ["mitigation.0.weight=3", "stages.1={name: two, steps: 7, data: {type: text, path: x.txt}}",
         "evaluate.seed=5", "model.arguments.width=64", "stages.0.data.limit=2"],
    ).sequence  # fmt: skip
    assert loaded.mitigation[0].model_dump()["weight"] == 3.0
    assert loaded.stages[1].steps == 7
    assert loaded.evaluate.seed == 5
    assert loaded.model.arguments == {"width": 64}
    assert loaded.stages[0].data.limit == 2
    assert load_sequence("seq.yaml", ["mitigation=[]"]).sequence.mitigation == []


def test_the_last_override_of_a_key_counts(project: Path) -> None:
    assert load_sequence("seq.yaml", ["seed=1", "seed=2"]).sequence.seed == 2


words = st.text("abcdefghij_", min_size=1, max_size=8)
scalars = st.one_of(
    st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(), words
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))


@settings(max_examples=150, deadline=None)
@given(path=st.lists(words, min_size=1, max_size=4), value=values)
def test_an_override_sets_exactly_its_value(path: list[str], value: Any) -> None:
    raw: dict[str, Any] = {}
    override = apply_override(raw, f"{'.'.join(path)}={json.dumps(value)}")
    at: Any = raw
    for part in path:
        at = at[part]
    assert at == value
    assert override.path == tuple(path)


@settings(max_examples=100, deadline=None)
@given(items=st.lists(st.integers(0, 9), min_size=1, max_size=5), at=st.integers(0, 8))
def test_positions_outside_a_list_are_refused(items: list[int], at: int) -> None:
    raw = {"items": list(items)}
    if at < len(items):
        apply_override(raw, f"items.{at}=77")
        assert raw["items"] == [*items[:at], 77, *items[at + 1 :]]
    else:
        with pytest.raises(ConfigurationError, match="is not a position"):
            apply_override(raw, f"items.{at}=77")


def test_paths_of_the_yaml_start_at_its_folder_and_overrides_in_the_current_one(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    loaded = load_sequence("../project/seq.yaml", ["stages.1.data.path=own.jsonl", "evaluate.include_path=tasks"])
    config = loaded.sequence
    assert config.stages[0].data.model_dump()["path"] == str(project / "qa.jsonl")
    assert config.stages[1].data.model_dump()["path"] == str(elsewhere / "own.jsonl")
    assert config.model.source == str(project / "model")
    assert config.storage == str(project / "runs")
    assert config.evaluate.include_path == str(elsewhere / "tasks")
    assert load_sequence("../project/seq.yaml", ["storage=out"]).sequence.storage == str(elsewhere / "out")
    assert loaded.run_folder == project / "runs" / "tiny"


def test_hub_ids_uris_and_absolute_paths_stay(project: Path) -> None:
    overrides = ["model.source=owner/name", "storage=/data/runs", "stages.0.data.path=/data/*.jsonl"]
    config = load_sequence("seq.yaml", overrides).sequence
    assert (config.model.source, config.storage) == ("owner/name", "/data/runs")
    assert config.stages[0].data.model_dump()["path"] == "/data/*.jsonl"
    assert load_sequence("seq.yaml", ["storage=s3://bucket/x"]).sequence.storage == "s3://bucket/x"
    assert load_sequence("seq.yaml", ["storage=${HOME}/x"]).sequence.storage == str(project / "${HOME}/x")


def test_arguments_of_the_users_functions_are_left_alone(project: Path) -> None:
    arguments = "{type: python, function: 'a:b', arguments: {type: jsonl, path: x.jsonl}}"
    config = load_sequence("seq.yaml", [f"stages.0.data={arguments}"]).sequence
    assert config.stages[0].data.model_dump()["arguments"] == {"type": "jsonl", "path": "x.jsonl"}


def test_storage_inside_a_ray_job(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigurationError, match="set CONTINUAL_STORAGE"):
        load_sequence("seq.yaml")
    monkeypatch.setenv("CONTINUAL_STORAGE", "relative")
    with pytest.raises(ConfigurationError, match="set CONTINUAL_STORAGE"):
        load_sequence("seq.yaml")
    monkeypatch.setenv("CONTINUAL_STORAGE", "/shared")
    assert load_sequence("seq.yaml").sequence.storage == "/shared/runs"
    assert load_sequence("seq.yaml", ["storage=/own"]).sequence.storage == "/own"


def test_a_copied_project_and_an_edited_comment_change_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_sequence("seq.yaml", ["stages.1.data.path=qa.jsonl"])
    copy_of = project.parent / "copy"
    copy_of.mkdir()
    write_project(copy_of)
    (copy_of / "seq.yaml").write_text("# edited\n" + (copy_of / "seq.yaml").read_text())
    monkeypatch.chdir(copy_of)
    after = load_sequence("seq.yaml", ["stages.1.data.path=qa.jsonl"])
    assert before.resolved != after.resolved
    assert before.identity == after.identity
    assert differences(before.identity, after.identity) == []
    assert config_fingerprint(before.identity) == config_fingerprint(after.identity)


def test_the_resolved_configuration_is_the_same_sequence_from_anywhere(project: Path, tmp_path: Path) -> None:
    loaded = load_sequence("seq.yaml", ["train.learning_rate=1e-5"])
    assert json.loads(json.dumps(loaded.resolved)) == loaded.resolved
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(loaded.resolved))
    assert load_sequence(path).sequence == loaded.sequence


def changed(project: Path, *overrides: str) -> list[str]:
    return differences(load_sequence("seq.yaml").identity, load_sequence("seq.yaml", list(overrides)).identity)


def test_differences_name_the_keys(project: Path) -> None:
    assert changed(project) == []
    assert changed(project, "train.learning_rate=1", "mitigation.0.weight=2", "stages.1.epochs=3") == [
        "stages.1.epochs", "mitigation.0.weight", "train.learning_rate",
    ]  # fmt: skip
    assert changed(project, "mitigation=[]") == ["mitigation.0"]
    assert changed(project, "train.strategy=fsdp") == ["train.strategy"]
    assert differences({"a": 1}, {"a": True}) == ["a"]
    assert differences({"a": {}}, {"b": {}}) == ["a", "b"]


def test_what_is_not_compared_may_change(project: Path) -> None:
    values = {
        "name": "other", "storage": "/x", "track": "{enabled: false}", "train.cpus_per_worker": 0.5,
        "train.max_failures": 7, "train.checkpoint_every": 3, "train.keep_checkpoints": 5, "train.micro_rows": 2,
        "train.log_every": 2,
        "train.loss_chunk_tokens": 3, "generate.replicas": 2, "generate.gpus_per_replica": 1,
        "generate.cpus_per_replica": 2, "generate.batch_size": 3, "generate.max_failed": 0.5,
        "generate.still_seconds": 60,
        "evaluate.batch_size": 3, "evaluate.gpus": 1, "generate.shard_samples": 3, "generate.delivery": "store",
        "generate.ahead": 2, "evaluate.replicas": 2, "evaluate.overlap": True,
        "evaluate.max_forgetting": 0.5,
        "train.activation_checkpointing": True, "train.workers": 2,
    }  # fmt: skip
    assert set(values) == set(NOT_COMPARED)
    assert changed(project, *(f"{key}={value}" for key, value in values.items())) == []


def test_every_key_that_is_not_compared_exists(project: Path) -> None:
    resolved = load_sequence("seq.yaml").resolved
    for key in NOT_COMPARED:
        section, _, name = key.partition(".")
        assert section in resolved
        assert not name or name in resolved[section]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_differences_are_empty_exactly_for_equal_fingerprints(data: st.DataObject) -> None:
    one = data.draw(st.dictionaries(words, values, max_size=4))
    other = copy.deepcopy(one) if data.draw(st.booleans()) else data.draw(st.dictionaries(words, values, max_size=4))
    same = json.dumps(compared(one), sort_keys=True) == json.dumps(compared(other), sort_keys=True)
    assert (config_fingerprint(one) == config_fingerprint(other)) == same
    if same:
        assert differences(one, other) == []
    if differences(one, other):
        assert not same


def test_loaded_is_a_small_value(project: Path) -> None:
    loaded = load_sequence("seq.yaml")
    assert isinstance(loaded, Loaded)
    assert loaded.file == "seq.yaml"
    assert loaded.path == project / "seq.yaml"
