"""The files of an evaluator, and what it leaves in memory. Needs no Ray."""

import gc
import json

from transformers import LlamaForCausalLM

from continual.evaluation.evaluator import Evaluator
from continual.evaluation.names import MeasuredText
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
