"""lm-eval on a real small model, against decodes and log-likelihoods written down naively. Needs no Ray."""

import json
import math

import numpy as np
import pytest
import torch

from benchmarks.arithmetic.tasks import HELD_OUT, rows
from benchmarks.arithmetic.tokenizer import VOCABULARY
from continual.errors import ConfigurationError, ContinualError
from continual.evaluation.harness import Harness
from tests.kits.sorting import SORT, encode, settings

EOS = VOCABULARY.index("<eos>")


@torch.no_grad()
def greedy(model, prompt, tokens):
    """The text of the most likely continuation up to the end token, by one full forward pass per token."""
    ids = encode(prompt)
    start = len(ids)
    while len(ids) < start + tokens and ids[-1] != EOS:
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return "".join(VOCABULARY[i] for i in ids[start:] if i not in (0, EOS))


def test_exact_match_equals_an_independent_greedy_decode(model, tokenizer):
    scores, records, facts = Harness(settings(), [SORT]).run(model, tokenizer)
    assert len(records) == HELD_OUT == scores["sort"].n
    right = 0
    for row, record in zip(rows("sort", "test", HELD_OUT), records, strict=True):
        prompt, answer = row["text"].split("=")
        said = greedy(model, prompt + "=", 8)
        assert (record["prompt"], record["target"], record["resps"]) == (prompt + "=", answer, [[said]])
        assert record["exact_match"] == float(said == answer)
        right += said == answer
    share = right / HELD_OUT
    assert 0.02 < share < 0.999, "the test needs a model that is neither good nor useless"
    assert scores["sort"].score == pytest.approx(share)
    assert scores["sort"].stderr == pytest.approx(math.sqrt(share * (1 - share) / (HELD_OUT - 1)))
    assert (scores["sort"].unit, scores["sort"].metric, scores["sort"].filter) == (
        "accuracy",
        "exact_match",
        "none",
    )
    assert facts == {"task_versions": {"sort": 1.0}, "num_fewshot": {"sort": 0}}


CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: {data}, test: {data}}}}}
test_split: test
fewshot_split: train
output_type: {kind}
doc_to_text: "{{{{prompt}}}}"
target_delimiter: ""
fewshot_delimiter: ""
{rest}
"""
TWO = 'doc_to_choice: "{{[good, bad]}}"\ndoc_to_target: 0'
GREEDY = "doc_to_target: good\ngeneration_kwargs: {until: ['<eos>'], max_gen_toks: 6}"


@pytest.fixture(scope="module")
def own_tasks(tmp_path_factory):
    """Tasks on local JSON: `pairs` (no context, as BLiMP), `choices` (two metrics), `shots` and `losses`."""
    path = tmp_path_factory.mktemp("tasks")
    documents = []
    for row in rows("sort", "test", 24):
        prompt, answer = row["text"].split("=")
        documents.append({"prompt": prompt + "=", "good": answer, "bad": answer[::-1], "whole": row["text"]})
    (path / "data.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    write = {
        "choices": ("multiple_choice", TWO + "\nmetric_list: [{metric: acc}, {metric: acc_norm}]"),
        "shots": ("generate_until", GREEDY + "\nnum_fewshot: 1\nmetric_list: [{metric: exact_match}]"),
        "losses": (
            "loglikelihood",
            "doc_to_target: good\nnum_fewshot: 0\nmetric_list: [{metric: perplexity}, {metric: acc}]",
        ),
    }
    for name, (kind, rest) in write.items():
        content = CHOICES.format(name=name, kind=kind, rest=rest, data=path / "data.jsonl")
        (path / f"{name}.yaml").write_text(content)
    pairs = (path / "choices.yaml").read_text().replace("task: choices", "task: pairs")
    (path / "pairs.yaml").write_text(
        pairs.replace('"{{prompt}}"', '""').replace("good, bad", "prompt+good, prompt+bad")
    )
    return str(path)


@torch.no_grad()
def log_likelihood(model, context, continuation):
    ids = context + continuation
    logs = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return sum(float(logs[at - 1, ids[at]]) for at in range(len(context), len(ids)))


def test_choices_without_context_start_from_the_end_token(model, tokenizer, own_tasks):
    """A tokenizer without a start token: lm-eval conditions on end-of-text, but only without context."""
    tasks = [{"name": name, "metric": "acc", "filter": None} for name in ("pairs", "choices")]
    scores, records, _ = Harness(settings(include_path=own_tasks, batch_size=7), tasks).run(model, tokenizer)
    assert len(records) == 48
    for record in records:
        doc = record["doc"]
        parts = (doc["good"], doc["bad"])
        context = encode(doc["prompt"])
        if record["task"] == "pairs":
            context, parts = [EOS], tuple(doc["prompt"] + part for part in parts)
        expected = [log_likelihood(model, context, encode(part)) for part in parts]
        assert [reply[0][0] for reply in record["resps"]] == pytest.approx(expected, abs=1e-3)
        assert record["acc"] == float(expected[0] >= expected[1])
    for name in ("pairs", "choices"):
        mean = np.mean([record["acc"] for record in records if record["task"] == name])
        assert scores[name].score == pytest.approx(mean)
        assert scores[name].metric == "acc"


def test_equals_simple_evaluate_with_few_shot_examples(model, tokenizer, own_tasks):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    names = ["choices", "shots", "losses"]
    tasks = [{"name": "choices"}, {"name": "shots"}, {"name": "losses", "metric": "perplexity"}]
    harness = Harness(settings(include_path=own_tasks, num_fewshot=2, limit=10), tasks)
    scores, records, facts = harness.run(model, tokenizer)
    # Each by itself, as here: batches that tasks share are padded otherwise, which changes the last digits.
    reference: dict[str, dict] = {"samples": {}, "results": {}, "n-shot": {}}
    for name in names:
        alone = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=64),
            tasks=[name],
            task_manager=TaskManager(include_path=own_tasks, include_defaults=False),
            num_fewshot=2,
            limit=10,
            bootstrap_iters=0,
            **dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), 1234),
        )
        for key in reference:
            reference[key][name] = alone[key][name]
    prompts = [s["arguments"][0][0] for name in names for s in reference["samples"][name]]
    assert [r["prompt"] for r in records] == prompts
    shots = {"choices": 2, "shots": 2, "losses": 0}  # a task's own number is replaced, unless it is 0
    assert all(r["prompt"].count("=") == shots[r["task"]] + 1 for r in records)
    assert scores["choices"].score == reference["results"]["choices"]["acc,none"]
    assert scores["shots"].score == reference["results"]["shots"]["exact_match,none"]
    assert scores["losses"].score == -reference["results"]["losses"]["perplexity,none"]
    assert scores["losses"].unit == "perplexity"
    assert scores["losses"].stderr is not None
    assert scores["losses"].stderr > 0
    assert facts["num_fewshot"] == reference["n-shot"] == shots


def test_a_task_scores_the_same_whatever_runs_beside_it(model, tokenizer, own_tasks):
    tasks = [{"name": "choices"}, {"name": "shots"}, {"name": "losses", "metric": "perplexity"}]
    options = settings(include_path=own_tasks, num_fewshot=2, limit=10)
    together = Harness(options, tasks).run(model, tokenizer)[0]
    for task in tasks:
        assert Harness(options, [task]).run(model, tokenizer)[0] == {task["name"]: together[task["name"]]}
    assert Harness(options, tasks[::-1]).run(model, tokenizer)[0] == together


def test_what_lm_eval_cannot_do_is_told(model, tokenizer, own_tasks):
    with pytest.raises(ContinualError, match="lm-eval failed on nothing_like_it: KeyError"):
        harness = Harness(settings(include_path=own_tasks), [{"name": "shots"}])
        harness.tasks[0]["name"] = "nothing_like_it"
        harness.run(model, tokenizer)
    with pytest.raises(ConfigurationError, match=r"`choices` has no metric `f1`.*acc .*acc_norm"):
        Harness(settings(include_path=own_tasks, limit=2), [{"name": "choices", "metric": "f1"}]).run(model, tokenizer)
