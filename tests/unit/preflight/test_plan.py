"""The plan: exact where stored or done, estimated elsewhere, readable, without starting anything."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config.load import load_sequence
from continual.contract.registry import SOURCES
from continual.errors import ConfigurationError
from continual.ledger.ledger import FORMAT
from continual.preflight.check import check
from continual.preflight.estimate import count_documents, epoch_steps
from continual.preflight.plan import Plan, make_plan
from continual.preflight.render import render
from continual.store.revisions import REVISIONS
from tests.kits.project import write_lines, write_project
from tests.kits.sources import OUTSIDE
from tests.kits.sweep import summary

DOCUMENT = 6
"""Tokens of a document of the project: BOS, two of the question, two of the answer, end of text."""


def rows(count: int = 30) -> Iterator[dict[str, str]]:
    for _ in range(count):
        yield {"text": "w1 w2 w3"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    return tmp_path


def plan(*overrides: str) -> Plan:
    return make_plan(load_sequence("seq.yaml", list(overrides)))


def write_json(path: Path, *values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(value) for value in values))


def test_a_new_run_is_estimated(project: Path) -> None:
    found = plan()
    one, two = found.stages
    per_row = 32 // DOCUMENT
    assert found.status == "new"
    assert (one.state, two.state) == ("", "")
    assert one.rows == -(-100 // per_row) == 20
    assert "rows" in one.estimated
    assert (one.steps, two.steps) == (10, -(-2 * 20 // 8))
    assert "steps" in two.estimated
    assert "steps" not in one.estimated
    assert (one.train_tokens, one.replay_tokens) == (10 * 256, 10 * 64)
    # The default context_free: one sample per replay row (two a step) and eight held out, a row of 32 tokens each.
    assert one.sample_tokens == (2 * 10 + 8) * 32
    assert two.sample_tokens == (2 * 5 + 8) * 32
    assert not (project / "runs").exists()


def test_what_evaluates_is_told_unless_it_is_one_usual_process(project: Path) -> None:
    always = "nothing; at the start, after every stage"
    assert plan().facts["evaluation"] == always
    assert plan("evaluate.replicas=2").facts["evaluation"] == f"{always}; hf, 2 processes with CPUs"
    vllm = ("evaluate.backend=vllm", "evaluate.gpus=0.5")
    assert plan(*vllm).facts["evaluation"] == f"{always}; vllm, 1 process with 0.5 GPU"


def test_rows_that_are_read_again_are_told_before_a_start(project: Path) -> None:
    """Two replay rows in each of 10 steps, of 12 samples of which 4 are held out: at most 8 rows."""
    found = plan("mitigation=[{type: context_free, samples: 12, held_out: 4}]")
    assert found.stages[0].passes == {"context_free": 20 / 8}
    assert "mitigation.0: stage 1 replays 20 rows, at most 8 there: each 2.5 times" in found.warnings
    assert plan("mitigation=[{type: context_free}]").stages[0].passes == {}
    text = "{type: jsonl, path: qa.jsonl, prompt: question, completion: answer}"
    replayed = plan(f"mitigation=[{{type: pretraining_subset, data: {text}, held_out: 0}}]")
    assert replayed.stages[0].passes == {"pretraining_subset": 20 / 20}
    assert not any("replays" in warning for warning in replayed.warnings)
    buffered = plan("mitigation=[{type: task_replay, buffer_rows: 3}]")
    assert buffered.stages[0].passes == {}, "it does nothing in the first stage"
    assert buffered.stages[1].passes == {"task_replay": 10 / 3}


def test_passes_of_a_prepared_stage_are_exact(project: Path) -> None:
    write_json(
        project / "runs" / "tiny" / "ledger.jsonl",
        {"event": "run", "id": "x", "format": FORMAT},
        {"event": "prepared", "stage": 1, "samples": [], "steps": 10, "passes": {"context_free": {"rows": 5}}},
        {"event": "a line that is whole for the newline before it"},
    )
    found = plan("mitigation=[{type: context_free, samples: 12, held_out: 4}]")
    assert found.stages[0].passes == {"context_free": 4.0}
    assert "mitigation.0: stage 1 replays 20 rows, 5 there: each 4.0 times" in found.warnings


def test_a_plan_says_what_works_while_a_stage_trains_and_why(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = "mitigation=[{type: context_free, teacher: cached}]"
    assert plan(cached).facts["sampling"] == (
        "transformers, 1 engine with 1 CPU; before a stage trains "
        "(to train, sample and score at one time takes 4 CPUs of 2)"
    )
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert plan(cached).facts["sampling"] == (
        "transformers, 1 engine with 1 CPU, one scorer with 1 CPU; while a stage trains "
        "(training, sampling and scoring fit at one time)"
    )
    assert "1 worker with 1 CPU;" in plan(cached).facts["training"], "engine, scorer and reading leave one of four"


@given(epochs=st.floats(0.01, 20), rows=st.integers(1, 10**6), batch_rows=st.integers(1, 512))
def test_epochs_become_as_many_steps_as_are_needed_and_no_more(epochs: float, rows: int, batch_rows: int) -> None:
    steps = epoch_steps(epochs, rows, batch_rows)
    assert steps * batch_rows >= epochs * rows * (1 - 1e-12)
    assert steps == 1 or (steps - 1) * batch_rows < epochs * rows


def test_stored_rows_are_exact(project: Path) -> None:
    source = load_sequence("seq.yaml").sequence.stages[0].data
    for name, tokens, count in (("a", 32, 23), ("b", 64, 11)):
        inputs = {"source": source.identity(), "row_tokens": tokens}
        stored = {"inputs": inputs, "revision": REVISIONS["rows"], "counts": {"rows": count}}
        write_json(project / f"runs/store/rows/{name}/manifest.json", stored)
        # Made by rules that have changed since: they say nothing of what would be made now.
        older = {"inputs": inputs, "revision": REVISIONS["rows"] - 1, "counts": {"rows": 5}}
        write_json(project / f"runs/store/rows/{name}-older/manifest.json", older)
    one, two = plan().stages
    assert (one.rows, two.rows, one.estimated, two.estimated) == (23, 23, [], [])
    assert two.steps == -(-2 * 23 // 8)
    write_lines(project / "qa.jsonl", [{"question": "w1", "answer": "w2"}])
    assert "rows" in plan().stages[0].estimated


def test_what_a_run_has_done_is_read_from_its_folder(project: Path) -> None:
    run = project / "runs" / "tiny"
    write_json(project / "runs/store/rows/r1/manifest.json", {"inputs": {}, "counts": {"rows": 17}})
    write_json(project / "runs/store/samples/s1/manifest.json", {"counts": {"tokens": 777}})
    write_json(
        run / "ledger.jsonl",
        {"event": "run", "id": "x", "format": FORMAT},
        {"event": "prepared", "stage": 1, "samples": ["s1"], "steps": 10},
        {"event": "stage_done", "stage": 1, "name": "one", "model": "m", "hash": "h", "rows": "r1", "steps": 10},
        {"event": "prepared", "stage": 2, "samples": ["missing"], "steps": 5},
    )
    with (run / "ledger.jsonl").open("a") as file:
        file.write('\n{"event": "cut o')
    found = plan()
    one, two = found.stages
    assert found.status == "begun"
    assert (one.state, two.state) == ("done", "begun")
    assert (one.rows, one.sample_tokens, one.estimated) == (17, 777, [])
    for step in (100, 90, 200):
        (run / "stages" / "2-two" / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    assert plan().stages[1].state == "step 200"
    write_json(run / "summary.json", summary({}))
    assert plan().status == "done"


def test_sources_of_every_kind_are_counted(project: Path) -> None:
    (project / "b.jsonl.gz").write_bytes(gzip.compress(b'{"t": "a"}\n' * 50))
    (project / "c.txt").write_text("w1 w2\n" * 64)

    def count(**source: Any) -> int | None:
        return count_documents(SOURCES.build(source))

    assert count(type="jsonl", path="qa.jsonl", text="question") == 100
    assert count(type="jsonl", path="qa.jsonl", text="question", limit=7) == 7
    assert count(type="jsonl", path="b.jsonl.gz", text="t") == 50
    assert count(type="text", path="c.txt") == 1
    assert count(type="python", function=f"{__name__}:rows", arguments={"count": 12}) == 12
    assert count(type="hub", path="owner/name", text="t") is None
    text = plan("stages.0.data={type: text, path: c.txt}", "stages.1.data={type: text, path: c.txt, end_token: false}")
    assert [stage.rows for stage in text.stages] == [5, 5]


def test_large_files_are_scaled_from_their_beginning(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continual.data.sources.files.COUNT_BYTES", 4 << 20)
    line = b'{"t": "' + b"w1 " * 30 + b'"}\n'
    (project / "big.jsonl").write_bytes(line * 40_000)
    found = count_documents(SOURCES.build({"type": "jsonl", "path": "big.jsonl", "text": "t"}))
    assert found is not None
    assert abs(found - 40_000) < 400


def test_documents_that_do_not_fit_are_warned_about(project: Path) -> None:
    write_lines(project / "qa.jsonl", [{"question": "w1 " * 40, "answer": "w2"}, {"question": "w1", "answer": "w2"}])
    found = plan()
    assert found.stages[0].rows == 1
    assert any("1 of 2 sampled documents are longer than a row" in warning for warning in found.warnings)
    cut = plan("stages.0.data.overlong=cut", "stages.1.data.overlong=cut")
    assert cut.stages[0].rows == 2
    assert cut.warnings == []


def test_a_plan_is_json_and_renders(project: Path) -> None:
    found = plan("mitigation.0.from_stage=2")
    assert Plan(**{**json.loads(json.dumps(asdict(found))), "stages": found.stages}) == found
    text = render(found)
    lines = text.splitlines()
    assert lines[0] == "tiny (seq.yaml): new"
    assert max(map(len, lines)) <= 160
    table = {line.split()[0]: line.split() for line in lines if line.startswith("  ") and line.split()}
    assert table["1"] == ["1", "one", "~20", "10", "2,560", "0", "0", "(context_free)"]
    assert table["2"] == ["2", "two", "~20", "~5", "~1,280", "~320", "~576", "context_free"]
    assert table["to"] == ["to", "do", "~15", "~3,840", "~320", "~576"]
    assert "2 CPUs, 0 GPUs" in text
    assert f"{project}/runs/store" in text
    assert "~ estimated" in text


def test_a_cluster_is_not_asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert "the Ray cluster at auto" in render(plan())


def test_a_hub_model_leaves_estimates_open(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(project))
    found = plan("model.source=owner/name", "mitigation=[]")
    assert found.stages[0].rows is None
    assert found.stages[1].steps is None
    assert " ? " in render(found)


def test_the_plan_loads_neither_torch_nor_ray_and_the_whole_check_no_ray(project: Path) -> None:
    script = (
        "import sys; from continual.config.load import load_sequence; from continual.preflight.check import check\n"
        "from continual.preflight.plan import make_plan\n"
        "from continual.preflight.render import render\n"
        "loaded = load_sequence('seq.yaml'); print(render(make_plan(loaded)))\n"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))\n"
        "check(loaded); print(sorted({'ray', 'vllm', 'deepspeed'} & set(sys.modules)))"
    )
    env = {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert ran.stdout.splitlines()[-2:] == ["[]", "[]"]
    assert "context_free" in ran.stdout


def test_an_outside_source_is_checked_and_planned(project: Path) -> None:
    (project / "count.txt").write_text("40")
    loaded = load_sequence("seq.yaml", [f"stages.0.data={{type: '{OUTSIDE}', file: count.txt, text: text}}"])
    check(loaded)
    stage = make_plan(loaded).stages[0]
    assert stage.rows == -(-40 // (32 // 4))
    assert stage.estimated == ["rows"]


def test_an_outside_source_with_a_wrong_field_is_refused(project: Path) -> None:
    (project / "count.txt").write_text("40")
    loaded = load_sequence("seq.yaml", [f"stages.0.data={{type: '{OUTSIDE}', file: count.txt, text: txt}}"])
    with pytest.raises(
        ConfigurationError, match=r"stages.0.data.text: number 0: no field `txt`; did you mean `text`\?"
    ):
        check(loaded)


def test_stored_rows_of_an_outside_source_are_exact(project: Path) -> None:
    (project / "count.txt").write_text("40")
    override = f"stages.0.data={{type: '{OUTSIDE}', file: count.txt, text: text}}"
    source = load_sequence("seq.yaml", [override]).sequence.stages[0].data
    inputs = {"source": source.identity(), "row_tokens": 32}
    stored = {"inputs": inputs, "revision": REVISIONS["rows"], "counts": {"rows": 9}}
    write_json(project / "runs/store/rows/a/manifest.json", stored)
    assert plan(override).stages[0].rows == 9
