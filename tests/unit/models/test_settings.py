"""Settings that would end a run behind its training are refused when the model is checked."""

import json
from pathlib import Path
from typing import Any

import pytest

from continual.errors import ConfigurationError
from continual.models.check import check_files
from continual.models.load import load_model
from tests.kits.weights import change_config, saved

GENERATION = "generation_config.json"


@pytest.mark.parametrize("ends", ["2", [[2]], {"a": 1}, 99999, -1, 2.0, True, [2, "3"]], ids=str)
def test_an_end_that_is_no_id_is_refused(tmp_path: Path, ends: Any) -> None:
    saved(tmp_path)
    (tmp_path / GENERATION).write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(ConfigurationError, match=rf"{GENERATION}: `eos_token_id: .*` is not an id of the vocabulary"):
        check_files(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "", "5"])
def test_broken_generation_settings_are_refused(tmp_path: Path, text: str) -> None:
    saved(tmp_path)
    (tmp_path / GENERATION).write_text(text)
    with pytest.raises(ConfigurationError, match=GENERATION):
        load_model(str(tmp_path), "float32", "meta")


@pytest.mark.parametrize("ends", [None, 2, [2, 3], []], ids=str)
def test_ids_are_accepted(tmp_path: Path, ends: Any) -> None:
    saved(tmp_path)
    (tmp_path / GENERATION).write_text(json.dumps({"eos_token_id": ends}))
    check_files(str(tmp_path))


def test_a_configuration_that_cannot_be_saved_again_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    change_config(tmp_path, output_attentions=True)
    with pytest.raises(ConfigurationError, match=r"config\.json could not be saved .*output_attentions"):
        check_files(str(tmp_path))


def test_generation_settings_that_transformers_refuses_are_named(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / GENERATION).write_text(json.dumps({"eos_token_id": 2, "early_stopping": "x"}))
    with pytest.raises(ConfigurationError, match=rf"{GENERATION}: .*early_stopping"):
        check_files(str(tmp_path))
