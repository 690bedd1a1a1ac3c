"""The report's page: its numbers are the summary's, nothing is fetched, what is missing is said in a sentence."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from continual.cli.report import main
from continual.evaluation.actors import Evaluators
from continual.ledger.folder import RunFolder
from continual.show.report import write_report
from continual.show.report.figures import Figures
from continual.show.report.gather import gather, over_steps
from continual.show.report.series import differing, names, shown
from continual.show.report.trade_off import EARLIER, OLD, trade_offs
from tests.conftest import ROOT
from tests.kits.page import Read
from tests.kits.runs import HOSTILE, KEPT, LOST, N, make_run


def at(summary: Any, pointer: str) -> Any:
    """A JSON pointer (RFC 6901), resolved."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        summary = summary[int(part) if isinstance(summary, list) else part]
    return summary


def test_every_number_is_the_summarys(storage: Path, page: Read) -> None:
    summary = json.loads((storage / "kept" / "summary.json").read_text())
    found = {key: value for (run, key), value in page.numbers.items() if run == "kept" and key.startswith("/")}
    for key, (value, text) in found.items():
        assert value == at(summary, key), key
        # What is read is the same number, rounded.
        assert float(text.replace(",", "")) == pytest.approx(value, abs=6e-4 if abs(value) < 100 else 0.006)
    wanted = {f"/{key}" for key in ("average_score", "forgetting", "backward_transfer", "forward_transfer",
                                    "learning_accuracy", "generated_tokens", "reused_tokens", "trained_tokens",
                                    "task_tokens")}  # fmt: skip
    wanted |= {f"/stderr/{key}" for key in ("average_score", "forgetting", "backward_transfer")}
    wanted |= {f"/seconds/{phase}" for phase in ("train", "evaluate")}
    wanted |= {
        f"/matrix/{row}/scores/{task}/{kind}"
        for row in range(3) for task in ("reversal", "sort") for kind in ("score", "stderr")
    }  # fmt: skip
    assert set(found) >= wanted
    assert found["/forgetting"][0] == 1.0 - 0.875
    assert found["/trained_tokens"][0] == 24 * 200 + 24 * 300
    assert re.search(r"forgetting old\S* –", page.text)


def test_what_the_report_computes_itself_is_right(page: Read) -> None:
    waited = 2 * sum(0.01 * step for step in range(1, 25)) / (48 * 0.25)
    assert page.numbers["kept", "data_wait_fraction"] == (pytest.approx(waited), f"{100 * waited:.1f} %")
    assert page.numbers["kept", "seconds"][0] == pytest.approx(6.25 * 3 + 1.5 * 3)


def test_the_page_is_whole_by_itself(storage: Path, page: Read) -> None:
    text = (storage / "kept" / "report.html").read_text()
    assert len(text) < 6e6
    assert text.startswith("<!DOCTYPE html>")
    assert "default-src 'none'" in text
    for _, values in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert str(values.get(name, "#")).startswith(("data:", "#")), values
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", text)
    assert "kept" in re.findall("<title>(.*?)</title>", text)[0]
    assert len(page.all("h1")) == 1
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("main")) == 1
    sections = {values["id"] for values in page.all("h2")}
    assert {values["href"][1:] for values in page.all("a")} == sections
    assert len(sections) == 11


def test_every_figure_has_a_text_and_a_png(storage: Path, page: Read) -> None:
    pictures = sorted(path.name for path in (storage / "kept" / "report").iterdir())
    assert pictures == ["drift.png", "loss.png", "matrix.png", "score-over-stages-accuracy.png",
                        "score-over-steps-accuracy.png", "seconds.png", "weight.png"]  # fmt: skip
    assert all((storage / "kept" / "report" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    images = page.all("img")
    assert len(images) == len(pictures)
    assert all(len(image["alt"]) > 40 for image in images)
    assert any("context_free ends at 0.048" in image["alt"] for image in images)  # drift: 0.002 x 24


def test_a_second_report_is_the_same_to_the_byte(storage: Path, tmp_path: Path) -> None:
    pages = [write_report([storage / "kept"], tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_scores_over_steps_lie_where_they_were_measured(storage: Path) -> None:
    run = gather(storage / "kept")
    assert over_steps(run, "reversal") == ([0, 12, 24, 36, 48], [0.0, 0.5, 1.0, 0.4375, 0.875])
    assert over_steps(gather(storage / "lost"), "sort") == ([0, 24, 48], [0.0, 0.015625, 0.9375])


def test_samples_are_shown_with_their_log_probability_and_as_text(page: Read) -> None:
    values = [cell["data-log-probability"] for cell in page.all("td") if "data-log-probability" in cell]
    assert [float(value) for value in values] == [-1.5 - number for number in range(50)]
    assert HOSTILE in "".join(page.texts)  # as text: a parser that took it for markup would have split it
    assert len(page.all("script")) == 1
    assert "60 samples, 180 tokens, 5 distinct; engine vllm, temperature 1.0" in page.text


def test_passes_over_the_rows_of_every_stage_are_shown(storage: Path, tmp_path: Path) -> None:
    page = Read(write_report([storage / "kept"], tmp_path / "kept.html"))
    for place in (0, 1):
        path = f"/passes/{place}/streams/task"
        assert page.numbers["kept", f"{path}/passes"] == (1.5, "1.50")
        assert page.numbers["kept", f"{path}/rows_read"] == (384.0, "384")


def test_configuration_and_versions_are_there(page: Read) -> None:
    assert "learning_rate: 0.001" in page.text
    assert "torch 2.13.0" in page.text
    assert "abcdefabcdef" in page.text


def test_what_a_run_does_not_have_has_no_section(storage: Path, tmp_path: Path, page: Read) -> None:
    def sections(page: Read) -> list[str]:
        return [values["aria-labelledby"] for values in page.all("section")]

    with_everything = ["figures", "scores", "stages", "steps", "losses", "drift", "weights", "cost", "samples"]
    assert sections(page) == [*with_everything, "configuration", "versions"]
    page = Read(write_report([storage / "lost"], tmp_path / "lost.html"))
    assert sections(page) == ["figures", "scores", "stages", "losses", "cost", "configuration", "versions"]
    assert [link["href"][1:] for link in page.all("a")] == sections(page)
    assert sorted(path.stem for path in (tmp_path / "lost").iterdir()) == [
        "loss", "matrix", "score-over-stages-accuracy", "seconds",
    ]  # fmt: skip


def test_an_unfinished_run_has_a_page(storage: Path, tmp_path: Path) -> None:
    page = Read(write_report([storage / "going"], tmp_path / "going.html"))
    assert "going is not finished : it has 2 of 2 stages begun" in page.text
    assert page.numbers["going", "/matrix/1/scores/reversal/score"] == (1.0, "1.000")
    assert ("going", "/forgetting") not in page.numbers
    assert ("going", "/seconds/train") in page.numbers


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    _, folder = make_run(tmp_path, "begun", KEPT, stages=0)
    (folder / "ledger.jsonl").write_text('{"event": "run", "time": 1.0, "id": "0"}\n')
    page = Read(write_report([folder]))
    for sentence in ("begun is not finished", "Nothing was scored."):
        assert sentence in page.text
    assert "samples" not in [values["aria-labelledby"] for values in page.all("section")]
    assert page.all("img") == []


def test_samples_whose_model_is_gone_are_not_shown(tmp_path: Path) -> None:
    _, folder = make_run(tmp_path, "kept", KEPT)
    for path in (tmp_path / "store" / "shown").rglob("manifest.json"):
        path.unlink()
    assert "The model that made these samples is gone" in Read(write_report([folder])).text


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error
    assert "not a run's folder" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_where_the_page_is(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(storage / "kept"), str(storage / "lost")]) == 0
    assert capsys.readouterr().out == "report: report.html\n"
    assert (tmp_path / "report.html").is_file()
    assert main([str(storage / "kept"), "--output", str(tmp_path / "missing" / "page.html")]) == 0


def test_pages_are_written_without_torch_and_ray(storage: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from continual.cli.report import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'ray', 'mlflow'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, str(storage / "kept"), "--output", str(tmp_path / "page.html")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


# Several runs -----------------------------------------------------------------------------------------------------


def test_the_one_key_in_which_runs_differ_names_them(storage: Path, tmp_path: Path) -> None:
    kept, lost, warm = (gather(storage / name) for name in ("kept", "lost", "warm"))
    assert names([kept, lost]) == ["mitigation: context_free", "mitigation: none"]
    assert names([kept, warm]) == ["mitigation.0.temperature: 1.0", "mitigation.0.temperature: 1.3"]
    assert names([kept, lost, warm]) == ["kept", "lost", "warm"]  # two with the same types
    _, other = make_run(tmp_path, "other", LOST, "mitigation.0.temperature=1.3", "seed=4")
    assert names([kept, gather(other)]) == ["kept", "other"]
    _, again = make_run(tmp_path, "kept", KEPT)
    assert names([kept, gather(again)]) == [str(storage / "kept"), str(again)]
    text = Read(write_report([storage / "kept", storage / "warm"], tmp_path / "two.html")).text
    assert "The runs differ in mitigation.0.temperature alone" in text


def test_differences_are_found_wherever_they_are() -> None:
    base = {"seed": 0, "name": "a", "train": {"rate": 1.0, "workers": 1}, "stages": [{"steps": 5}], "l": [1]}
    other = {"seed": 0, "name": "b", "train": {"rate": 2.0, "workers": 1}, "stages": [{"steps": 6}], "l": [1, 2]}
    assert differing([base, other]) == {"train.rate": [1.0, 2.0], "stages.0.steps": [5, 6], "l": [[1], [1, 2]]}
    assert differing([{"a": {"b": 1}}, {"a": None}]) == {"a": [{"b": 1}, None]}
    assert shown([{"type": "lora"}, {"type": "ewc", "name": "old"}]) == "lora + old"
    values: list[Any] = [[], True, None, "x", 0.5]
    assert [shown(value) for value in values] == ["none", "true", "null", "x", "0.5"]


def test_old_against_new(storage: Path, tmp_path: Path) -> None:
    runs = [gather(storage / name) for name in ("kept", "lost", "going")]
    points = trade_offs(runs)
    assert set(points) == {EARLIER}
    assert points[EARLIER][2] is None
    kept, lost = points[EARLIER][:2]
    assert kept is not None
    assert lost is not None
    assert (kept.new.score, kept.old.score, lost.new.score, lost.old.score) == (0.875, 0.875, 0.96875, 0.125)
    # New counts every stage's task, right after its own stage: 1 and 0.75, 1 and 0.9375.
    assert kept.new.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / (N - 1)) / 2)
    page = Read(write_report([storage / name for name in ("kept", "lost", "going")], tmp_path / "three.html"))
    assert page.numbers["lost", "new"] == (0.96875, "0.969")
    assert page.numbers["lost", "old"] == (0.125, "0.125")
    assert (tmp_path / "three" / "old-against-new-earlier-stages-tasks.png").is_file()
    for run in ("kept", "lost"):
        summary = json.loads((storage / run / "summary.json").read_text())
        for (of, key), (value, _) in page.numbers.items():
            assert of != run or not key.startswith("/") or value == at(summary, key)


def test_old_abilities_are_a_mean_of_one_unit(storage: Path) -> None:
    run = gather(storage / "kept")
    run.config["evaluate"]["old_tasks"] = [{"name": "x"}, {"name": "y"}]
    scores = run.summary["matrix"][-1]["scores"]
    scores |= {"x": {"score": 0.5, "stderr": 0.3, "n": 9}, "y": {"score": 0.7, "stderr": 0.4, "n": 9}}
    run.summary["unit"] |= {"x": "accuracy", "y": "accuracy"}
    [point] = trade_offs([run])[OLD]
    assert point is not None
    assert point.old.score == pytest.approx(0.6)
    assert point.old.stderr == pytest.approx(0.25)
    run.summary["unit"]["y"] = "nats"
    assert OLD not in trade_offs([run])


def test_every_figure_has_a_name_of_its_own(tmp_path: Path) -> None:
    figures = Figures([], [], tmp_path)
    names = [figures.name(label) for label in ("sort", "sort-2", "Sort", "x: 1", "x: 1.2", "x: -1", "x 1", "sort")]
    assert len(set(names)) == len(names)
    assert names[:2] == ["sort", "sort-2"]


# At the end of a run ----------------------------------------------------------------------------------------------


NONE = Evaluators(lambda: None, most=1)
"""Evaluators of which none has started."""


class Lines:
    """The terminal's part that the report uses."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def step(self, title: str, waits_for: str = "") -> Any:
        from contextlib import nullcontext

        return nullcontext(SimpleNamespace(note=self.lines.append))


def test_a_report_that_fails_fails_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from continual.run.drive import add_report

    terminal = Lines()
    run: Any = SimpleNamespace(
        folder=RunFolder(tmp_path),
        terminal=terminal,
        sequence=SimpleNamespace(generate=SimpleNamespace(gpus_per_replica=0.0)),
        evaluators=NONE,
    )
    add_report(run)
    [line] = terminal.lines
    assert "its report failed" in line
    assert "not a run's folder" in line
    assert f"python -m continual.report {tmp_path}" in line
    assert "Traceback" in capsys.readouterr().err  # for the log


def test_a_run_gets_its_report(tmp_path: Path) -> None:
    from continual.run.drive import add_report

    loaded, folder = make_run(tmp_path, "kept", KEPT)
    terminal = Lines()
    run: Any = SimpleNamespace(folder=RunFolder(folder), terminal=terminal, sequence=loaded.sequence, evaluators=NONE)
    add_report(run)
    assert terminal.lines == [str(folder / "report.html")]
    assert (folder / "report.html").is_file()


def test_log_probabilities_are_the_models_own(tmp_path: Path) -> None:
    """Against one forward pass per sample, without padding, through float64 softmax."""
    import pyarrow as pa
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from continual.show.report.samples import make_shown, read_shown
    from continual.store import Store

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=2, max_position_embeddings=64)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "model")
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(32)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "model")
    starts = [[2], [2, 7, 9], [3]]
    bodies = [[4, 5, 6, 8], [10, 11], list(range(12, 24))]
    store = Store(tmp_path / "store")
    samples = store.artefact("samples", {})
    with store.write(samples, {}) as writer:
        assert writer is not None
        writer.put(0, pa.table({"number": [0, 1, 2], "start": starts, "tokens": bodies}))
        writer.finish()
    assert read_shown(samples) == []
    make_shown(samples, str(tmp_path / "model"), "float32")
    for line, start, body in zip(read_shown(samples), starts, bodies, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([start + body])).logits[0].double()
        log_p = logits.log_softmax(-1)
        expected = sum(float(log_p[len(start) + i - 1, token]) for i, token in enumerate(body))
        assert line["log_probability"] == pytest.approx(expected, abs=1e-4)
        assert line["text"] == " ".join(f"w{token}" for token in body)
        assert line["tokens"] == len(body)
        assert line["start"] == " ".join(f"w{token}" for token in start)
