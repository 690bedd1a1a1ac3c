"""Models are loaded in one place, in eval mode and in the dtype that is asked for."""

import re
from pathlib import Path

import pytest
import torch

from continual.models import load_model
from tests.conftest import ROOT
from tests.kits.baselines import model_ref


@pytest.mark.parametrize("kind", ["Model", "Tokenizer"])
def test_one_place_loads(kind: str) -> None:
    call = re.compile(rf"Auto{kind}\w*\.from_pretrained\(")
    files = [path for room in ("continual", "baselines") for path in (ROOT / room).rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in files for _ in call.findall(path.read_text())] == [
        "continual/models/load.py"
    ]


def test_a_model_is_loaded_in_eval_mode_and_its_dtype(tmp_path: Path) -> None:
    folder = model_ref(tmp_path / "model", 0).path
    model = load_model(folder, "bfloat16")
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path / "short")
    assert load_model(str(tmp_path / "short"), "auto").dtype == torch.bfloat16
    assert load_model(str(tmp_path / "short"), "float32").dtype == torch.float32
