"""The files of an evaluator, and what it leaves in memory and holds there. Needs no Ray."""

import gc
import json

import pytest
import torch
from transformers import LlamaForCausalLM

from continual.evaluation import texts as scoring
from continual.evaluation.evaluator import Evaluator
from continual.evaluation.names import MeasuredText, since_stage
from continual.evaluation.texts import score_text
from tests.kits.sorting import SORT, settings


def models_alive():
    gc.collect()
    return sum(isinstance(thing, LlamaForCausalLM) for thing in gc.get_objects())


def test_evaluator_writes_whole_files_repeats_itself_and_keeps_no_model(folder, model, text, tmp_path, capfd):
    evaluator = Evaluator(settings(limit=40), [SORT, SORT], threads=1, dtype="float32")
    before = models_alive()
    capfd.readouterr()
    texts = {"text": MeasuredText(text[1])}
    first = evaluator.evaluate(str(folder), str(tmp_path / "scores" / "step-000050"), texts)
    assert capfd.readouterr().out == ""
    assert models_alive() == before
    again = evaluator.evaluate(str(folder), str(tmp_path / "scores" / "step-000100"), texts)
    assert models_alive() == before
    assert first["scores"] == again["scores"]
    assert first["settings"] == again["settings"]
    assert first["scores"]["text"] == score_text(model, "text", text[1])[0].as_json()
    files = sorted(path.name for path in (tmp_path / "scores").iterdir())
    stems = ("step-000050", "step-000100")
    assert files == sorted(f"{stem}{end}" for stem in stems for end in (".json", ".samples.jsonl"))
    assert json.loads((tmp_path / "scores" / "step-000050.json").read_text()) == first
    one, two = ((tmp_path / "scores" / f"{stem}.samples.jsonl").read_text() for stem in stems)
    assert one == two
    assert len(one.splitlines()) == 40 + 59
    assert first["settings"]["limit"] == 40
    assert first["settings"]["num_fewshot"] == {"sort": 0}
    assert first["versions"]["lm_eval"]
    assert first["versions"]["tasks"] == {"sort": 1.0}
    evaluator.evaluate_each(str(folder), {"text": str(tmp_path / "taken" / "scores")}, texts)
    assert not (tmp_path / "taken").exists(), "what was taken away before a restart is not made again"
    evaluator.evaluate_each(str(folder), {"text": str(tmp_path / "scores" / "step-000050")}, texts)
    assert json.loads((tmp_path / "scores" / "step-000050.json").read_text()) == first, "nor what is still there"


def test_an_evaluator_measures_drift_and_keeps_no_start_model(folder, start, model, text, tmp_path):
    evaluator = Evaluator(settings(), [], threads=1, dtype="float32")
    before = models_alive()
    texts = {"near": MeasuredText(text[1], str(start)), "text": MeasuredText(text[1])}
    found = evaluator.evaluate(str(folder), str(tmp_path / "scores"), texts)["scores"]
    assert models_alive() == before
    expected = score_text(model, "near", text[1], LlamaForCausalLM.from_pretrained(start).eval())[0]
    assert found["near"] == expected.as_json()
    assert found["near"]["drift"] > 0
    assert "drift" not in found["text"]


@pytest.fixture
def stage_start(start, tokenizer, tmp_path):
    """The folder of another model near the trained one."""
    other = LlamaForCausalLM.from_pretrained(start)
    torch.manual_seed(2)
    other.load_state_dict({name: w + 0.02 * torch.randn_like(w) for name, w in other.state_dict().items()})
    other.save_pretrained(tmp_path / "stage-start")
    tokenizer.save_pretrained(tmp_path / "stage-start")
    return tmp_path / "stage-start"


def test_an_evaluator_measures_drift_from_the_stages_start_with_two_models_at_a_time(
    folder, start, stage_start, model, text, tmp_path, monkeypatch
):
    evaluator = Evaluator(settings(), [], threads=1, dtype="float32")
    before, most = models_alive(), []
    measured = scoring.score_text

    def counting(*arguments):
        most.append(models_alive() - before)
        return measured(*arguments)

    monkeypatch.setattr(scoring, "score_text", counting)
    texts = {name: MeasuredText(text[1], str(start)) for name in ("near", "far")} | {"text": MeasuredText(text[1])}
    both = texts | since_stage(texts, str(stage_start))
    found = evaluator.evaluate(str(folder), str(tmp_path / "scores"), both)
    assert most == [2, 2, 2, 2, 2]
    assert models_alive() == before
    alone, expected = (
        measured(model, "near", text[1], LlamaForCausalLM.from_pretrained(of).eval())[0] for of in (start, stage_start)
    )
    assert list(found["scores"]) == ["near", "far", "text"]
    for name in ("near", "far"):
        drifted = {"drift_stage": expected.drift, "drift_stage_stderr": expected.drift_stderr}
        assert found["scores"][name] == alone.as_json() | drifted
    assert expected.drift != alone.drift
    assert found["settings"]["texts"] == dict.fromkeys(("near", "far", "text"), text[1].hash)
    lines = (tmp_path / "scores.samples.jsonl").read_text().splitlines()
    assert len(lines) == 3 * 59, "a document is there once for each text"
    [key] = [key for key, of in both.items() if of.of == "near"]
    evaluator.evaluate_each(str(folder), {key: str(tmp_path / "near")}, both)
    assert json.loads((tmp_path / "near.json").read_text())["scores"] == {"near": expected.as_json()}
    assert len((tmp_path / "near.samples.jsonl").read_text().splitlines()) == 59


def test_in_the_first_stage_an_evaluator_computes_the_drift_once(folder, start, text, tmp_path, monkeypatch):
    evaluator = Evaluator(settings(), [], threads=1, dtype="float32")
    asked, measured = [], scoring.score_text

    def counting(*arguments):
        asked.append(arguments[1])
        return measured(*arguments)

    monkeypatch.setattr(scoring, "score_text", counting)
    texts = {"near": MeasuredText(text[1], str(start))}
    both = texts | since_stage(texts, str(start))
    found = evaluator.evaluate(str(folder), str(tmp_path / "scores"), both)["scores"]["near"]
    assert asked == ["near"]
    assert found["drift"] == found["drift_stage"] > 0
    assert found["drift_stderr"] == found["drift_stage_stderr"] > 0
