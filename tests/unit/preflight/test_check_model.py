"""The check before the start loads the model as the run does: what the run would refuse is refused there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from continual.config.load import load_sequence
from continual.contract.mitigation import Mitigation
from continual.contract.view import StageView
from continual.errors import ConfigurationError
from continual.preflight.check import check
from tests.kits.project import write_model
from tests.kits.sweep import summary

HERE = __name__
Change = Callable[[Path], Any]


def weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    def make(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})

    return make


def config(**changes: Any) -> Change:
    def make(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return make


class Asking(Mitigation):
    """A mitigation that samples from another model."""

    type: str
    model: str

    def check(self, view: StageView, others: list[Mitigation]) -> str | None:
        return None if view.facts(self.model).positions else "the model has no positions; take another"


CASES = {
    "no head": (weights(lambda x: {k: v for k, v in x.items() if k != "lm_head.weight"}), "lack `lm_head.weight`"),
    "compiled": (weights(lambda x: {f"_orig_mod.{k}": v for k, v in x.items()}), "torch.compile"),
    "a layer more": (config(num_hidden_layers=2), "num_hidden_layers: 1"),
    "not finite": (weights(lambda x: {k: v * np.float32("nan") for k, v in x.items()}), "not finite"),
    "no causal class": (config(model_type="llava", architectures=["LlavaForConditionalGeneration"]), "no causal"),
    "own code": (config(auto_map={"AutoModelForCausalLM": "own.Own"}), "auto_map"),
    "adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_that_the_run_would_refuse_is_refused(project: Path, name: str) -> None:
    make, words = CASES[name]
    make(project / "model")
    with pytest.raises(ConfigurationError, match=words) as raised:
        check(load_sequence("seq.yaml"))
    assert raised.value.exit_code == 2
    assert str(raised.value).startswith("seq.yaml: model.source: ")


def test_a_cached_hub_model_is_loaded_like_a_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(project / "hub"))
    cached = project / "hub" / "models--owner--model"
    write_model(cached / "snapshots" / "abc")
    config(num_hidden_layers=2)(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    with pytest.raises(ConfigurationError, match="num_hidden_layers: 1"):
        check(load_sequence("seq.yaml", ["model.source=owner/model"]))


def test_notes_about_the_model_are_passed_on(project: Path) -> None:
    config(architectures=["LLaMAForCausalLM"])(project / "model")
    assert any("is loaded as LlamaForCausalLM" in note for note in check(load_sequence("seq.yaml")))


def test_the_models_of_mitigations_are_loaded_too(project: Path) -> None:
    write_model(project / "other")
    asking = [f'mitigation=[{{type: "{HERE}:Asking", model: other}}]']
    check(load_sequence("seq.yaml", asking))
    config(num_hidden_layers=2)(project / "other")
    with pytest.raises(ConfigurationError, match="num_hidden_layers: 1") as raised:
        check(load_sequence("seq.yaml", asking))
    assert raised.value.key == "mitigation.0"


def test_an_unchanged_model_is_checked_once_in_a_process(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from continual.models import check as models_check

    loaded: list[str] = []
    real = models_check.load_model

    def counted(folder: str, *rest: Any) -> Any:
        loaded.append(folder)
        return real(folder, *rest)

    monkeypatch.setattr(models_check, "load_model", counted)
    for _ in range(3):
        check(load_sequence("seq.yaml"))
    times = len(loaded)
    assert times > 0
    config(rms_norm_eps=1e-5)(project / "model")
    check(load_sequence("seq.yaml"))
    assert len(loaded) == 2 * times


def test_a_finished_run_is_answered_without_loading_the_model(project: Path) -> None:
    loaded = load_sequence("seq.yaml")
    config(num_hidden_layers=2)(project / "model")
    loaded.run_folder.mkdir(parents=True)
    (loaded.run_folder / "summary.json").write_text(json.dumps(summary({})))
    check(loaded)
    with pytest.raises(ConfigurationError, match="num_hidden_layers: 1"):
        check(loaded, fresh=True)
    (loaded.run_folder / "summary.json").write_text(json.dumps(summary({}, status="failed")))
    with pytest.raises(ConfigurationError, match="num_hidden_layers: 1"):
        check(loaded)


def test_the_check_changes_no_file(project: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    check(load_sequence("seq.yaml"))
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*") if "__pycache__" not in str(path)} == before
