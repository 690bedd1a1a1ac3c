"""vLLM scores what transformers scores: the same prompts, limits and ends of answers, equal numbers within errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from transformers import AutoTokenizer

from continual.config.schema import Evaluate, Sequence
from continual.contract.models import ModelRef
from continual.data.prepare import prepare_rows
from continual.data.sources.text import TextSource
from continual.evaluation.evaluator import Evaluator
from continual.evaluation.names import MeasuredText
from continual.evaluation.service import Scorer, evaluators_of
from continual.evaluation.texts import score_text
from continual.forgetting import Scores
from continual.models import load_model, model_hash
from continual.store import Store

pytestmark = pytest.mark.slow
NAMES = ("Lily", "Tom", "Anna", "Ben", "Sue", "Max", "Mia", "Sam")
BEGINNINGS = (
    "Once upon a time, there was a little girl named {}. She loved to",
    "One day, {} went to the park with",
    "{} had a big red ball. {} liked to play with it. One day, the ball",
    "It was a sunny day and {} wanted to",
)
COMMON = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
target_delimiter: ""
num_fewshot: 0
"""
TASKS = {
    "story": """
output_type: generate_until
doc_to_text: begin
doc_to_target: good
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 300}
metric_list: [{metric: exact_match}]
""",
    "choice": """
output_type: multiple_choice
doc_to_text: begin
doc_to_choice: "{{[good, bad]}}"
doc_to_target: 0
metric_list: [{metric: acc}]
""",
    "word": """
output_type: loglikelihood
doc_to_text: begin
doc_to_target: good
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "whole": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: begin
metric_list: [{metric: word_perplexity}]
""",
}
METRICS = {"word": "perplexity"}
ENDED = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}.{% else %} {% endif %}{% endfor %}"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks on 32 beginnings of stories: one that generates, and three of log-likelihoods."""
    folder = tmp_path_factory.mktemp("tasks")
    begins = [begin.format(*[name] * begin.count("{}")) for name in NAMES for begin in BEGINNINGS]
    documents = [{"begin": begin, "good": " play outside.", "bad": " outside table."} for begin in begins]
    (folder / "data.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    for name, rest in TASKS.items():
        (folder / f"{name}.yaml").write_text(COMMON.format(name=name, data=folder / "data.jsonl") + rest)
    (folder / "text.txt").write_text("\n".join(begins))
    return folder


@pytest.fixture(scope="module")
def model(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """A real model whose stories end where the next one begins, with a chat template that ends answers by a word."""
    folder = tmp_path_factory.mktemp("models") / "stories"
    shutil.copytree(stories, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = ENDED
    tokenizer.save_pretrained(folder)
    return ModelRef(str(folder), model_hash(folder))


Scored = tuple[Scores, dict[str, list[dict[str, Any]]]]


def scored(store: Store, tasks: Path, model: ModelRef, names: list[str], **evaluate: Any) -> Scored:
    """Return the scores, and the records of the documents by task."""
    data = {"type": "text", "path": str(tasks / "text.txt")}
    measured = [{"name": name, "metric": METRICS.get(name)} for name in names]
    sequence = Sequence.model_validate({
        "name": "n", "model": {"type": "pretrained", "source": model.path},
        "stages": [{"name": "s", "steps": 1, "data": data, "tasks": measured}],
        "evaluate": {"include_path": str(tasks), **evaluate},
    })  # fmt: skip
    rows = prepare_rows(store, TextSource.model_validate(data), model.path, 64)
    scorer = Scorer(store, sequence, {"text": rows}, evaluators_of(sequence, 1))
    scores = scorer.score(model)
    records = {}
    for path in (store.root / "scores").glob("*/scores.samples.jsonl"):
        inputs = json.loads((path.parent / "inputs.json").read_text())
        if inputs.get("backend", "hf") == evaluate.get("backend", "hf") and "task" in inputs:
            records[inputs["task"]["name"]] = [json.loads(line) for line in path.read_text().splitlines()]
    return scores, records


def resps(records: list[dict[str, Any]]) -> list[Any]:
    return [record["resps"] for record in records]


def flat(values: Any) -> list[float]:
    """Return all log-likelihoods of nested lists, and 1.0 or 0.0 for whether an answer is the likeliest one."""
    return [number for value in values for number in flat(value)] if isinstance(values, list) else [float(values)]


def test_both_backends_give_the_same_answers_likelihoods_and_scores(
    local_ray: None, tasks: Path, model: ModelRef, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    hf, theirs = scored(store, tasks, model, list(TASKS))
    vllm, ours = scored(store, tasks, model, list(TASKS), backend="vllm")
    assert list(hf) == list(vllm) == [*TASKS, "text"]
    assert vllm["text"] == hf["text"]
    for name in TASKS:
        assert [record["prompt"] for record in ours[name]] == [record["prompt"] for record in theirs[name]]
        assert vllm[name].score == pytest.approx(hf[name].score, rel=1e-3), name
        assert (vllm[name].unit, vllm[name].n) == (hf[name].unit, hf[name].n)
    for name in ("choice", "word", "whole"):
        found, expected = flat(resps(ours[name])), flat(resps(theirs[name]))
        assert len(expected) >= len(NAMES) * len(BEGINNINGS)
        assert found == pytest.approx(expected, abs=2e-3), name
    said, answers = resps(ours["story"]), resps(theirs["story"])
    assert said == answers
    assert len({len(answer[0][0]) for answer in answers}) > 4, "some stories should end by themselves"


class Measured(Evaluator):
    """Tells how much memory its process has, in MiB."""

    def resident(self) -> float:
        return psutil.Process().memory_info().rss / 2**20


def test_a_process_on_cpus_scores_model_after_model_with_vllm_and_frees_their_memory(
    local_ray: None, tasks: Path, model: ModelRef, tmp_path: Path
) -> None:
    rows = prepare_rows(Store(tmp_path), TextSource(type="text", path=str(tasks / "text.txt")), model.path, 64)
    evaluate = Evaluate(include_path=str(tasks), backend="vllm", limit=4).model_dump()
    texts = {"text": MeasuredText(rows)}
    actor: Any = ray.remote(num_cpus=0)(Measured)
    evaluator = actor.remote(evaluate, [{"name": "story"}])
    found, memory = [], []
    for number in range(3):
        output = tmp_path / f"scores-{number}"
        found.append(ray.get(evaluator.evaluate.remote(model.path, str(output), texts))["scores"])
        found[-1]["records"] = output.with_suffix(".samples.jsonl").read_text()
        memory.append(ray.get(evaluator.resident.remote()))
    ray.kill(evaluator)
    assert found[1:] == found[:1] * 2
    alone = score_text(load_model(model.path, "float32", "cpu"), "text", rows)[0]
    assert found[2]["text"] == alone.as_json()
    # The cache of an engine has 1024 MiB.
    assert memory[2] - memory[0] < 512, memory


def test_replicas_score_a_model_and_those_beside_it_equally(
    local_ray: None, tasks: Path, model: ModelRef, tmp_path: Path
) -> None:
    one, records = scored(Store(tmp_path / "one"), tasks, model, list(TASKS))
    two, same = scored(Store(tmp_path / "two"), tasks, model, list(TASKS), replicas=2)
    assert (two, same) == (one, records)


def test_answers_end_at_the_templates_word_with_both_backends(
    local_ray: None, tasks: Path, model: ModelRef, tmp_path: Path
) -> None:
    both = [
        scored(Store(tmp_path), tasks, model, ["story"], apply_chat_template=True, **backend)[1]["story"]
        for backend in ({}, {"backend": "vllm"})
    ]
    assert resps(both[0]) == resps(both[1])
    assert [record["prompt"] for record in both[0]] == [record["prompt"] for record in both[1]]
    answers = [record["resps"][0][0] for record in both[0]]
    assert not any("." in answer for answer in answers)
    assert any(answers)
