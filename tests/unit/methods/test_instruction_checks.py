"""What an instruction synthesis refuses before a start, and what its plan counts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from continual.config.load import load_sequence
from continual.errors import ConfigurationError
from continual.preflight.check import check
from continual.preflight.stages import stage_view
from tests.kits.synthesis import sequence


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generators": []}, "`generators` is empty; list at least one"),
        ({"generators": [{"type": "local", "source": "self"}] * 2}, "listed twice"),
        ({"instruction_tokens": 60}, "an instruction of 60 and an answer of 40 tokens do not fit a row of 96 tokens"),
        ({"generators": [{"type": "local", "source": "/no/such/model"}]}, "generators.0: there is no folder"),
        ({"generators": [{"type": "local", "source": "bare"}]}, "`.*bare` has no chat template"),
        ({"generators": [{"type": "local", "source": "short"}]}, "has 64 positions for 120 tokens"),
        (
            {"generators": [{"type": "openai", "url": "http://x/v1", "model": "m", "api_key_env": "NO_SUCH_KEY"}]},
            "generators.0: the environment variable NO_SUCH_KEY with the key of http://x/v1 is not set; export it",
        ),
    ],
)
def test_refusals(folders: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    for generator in options.get("generators", []):
        if generator.get("source") in ("bare", "short"):
            generator["source"] = str(folders / generator["source"])
    found = sequence(folders, tmp_path, **options)
    refused = found.mitigation[0].check(stage_view(found, 1), [])
    assert refused is not None
    assert re.search(said, refused), refused


def test_a_model_without_a_chat_template_is_refused(folders: Path, tmp_path: Path) -> None:
    found = sequence(folders, tmp_path)
    bare = found.model_copy(update={"model": found.model.model_copy(update={"source": str(folders / "bare")})})
    assert "no chat template to make up instructions" in str(found.mitigation[0].check(stage_view(bare, 1), []))
    assert found.mitigation[0].check(stage_view(found, 1), []) is None


@pytest.mark.parametrize(
    ("generator", "said"),
    [
        ("{type: local}", "a local generator needs `source`"),
        ("{type: openai, url: 'host:8000', model: m}", "the URL is e.g. http://host:8000/v1"),
        ("{type: local, sorce: self}", r"generators\.0\.sorce: there is no such key; did you mean `source`"),
    ],
)
def test_a_wrong_generator_is_told_with_its_place(folders: Path, tmp_path: Path, generator: str, said: str) -> None:
    path = write_yaml(folders, tmp_path, generator)
    with pytest.raises(ConfigurationError, match=said):
        load_sequence(path)


def write_yaml(folders: Path, folder: Path, generator: str) -> Path:
    (folder / "x.jsonl").write_text(json.dumps({"p": "a", "c": "b"}) + "\n")
    path = folder / "seq.yaml"
    path.write_text(
        f"name: a\nmodel: {{type: pretrained, source: '{folders / 'base'}'}}\n"
        "stages: [{name: one, data: {type: jsonl, path: x.jsonl, prompt: p, completion: c}, steps: 2}]\n"
        f"mitigation: [{{type: instruction_synthesis, generators: [{generator}]}}]\n"
        "train: {batch_tokens: 512, row_tokens: 128}\n"
    )
    return path


def test_a_local_generator_lies_beside_the_yaml_and_self_is_no_folder(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "other").symlink_to(folders / "other")
    path = write_yaml(folders, tmp_path, "{type: local, source: ./other}, {type: local, source: self}")
    loaded = load_sequence(path)
    [one] = loaded.sequence.mitigation
    assert [generator["source"] for generator in one.model_dump()["generators"]] == [str(tmp_path / "other"), "self"]
    assert loaded.identity["mitigation"][0]["generators"][0]["source"] == "other"
    check(loaded)


def test_the_plan_counts_what_local_models_may_make(folders: Path, tmp_path: Path) -> None:
    remote = {"type": "openai", "url": "http://x/v1", "model": "m"}
    found = sequence(folders, tmp_path, generators=[{"type": "local", "source": "self"}, remote])
    # 6 instructions of 20; by the one local model 12 answers of 40 and scores of 24 candidates with 60.
    assert found.mitigation[0].sampled_tokens(stage_view(found, 1)) == 6 * 20 + 12 * 40 + 24 * 60
