"""lm-eval and texts on a real small model, against decodes and losses written down naively. Needs no Ray."""

import gc
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.arithmetic.model import build
from benchmarks.arithmetic.tasks import HELD_OUT, rows
from benchmarks.arithmetic.tokenizer import VOCABULARY
from benchmarks.arithmetic.tokenizer import build as build_tokenizer
from continual.config.schema import Evaluate
from continual.errors import ConfigurationError, ContinualError
from continual.evaluation.evaluator import Evaluator
from continual.evaluation.harness import Harness
from continual.evaluation.names import MeasuredText
from continual.evaluation.texts import score_text
from continual.store import Store

LM_EVAL = str(Path(__file__).resolve().parents[3] / "benchmarks" / "arithmetic" / "lm_eval")
EOS = VOCABULARY.index("<eos>")
SORT = {"name": "sort", "metric": None, "filter": None}


def encode(text):
    return build_tokenizer()[0].encode(text).ids


@pytest.fixture(scope="module")
def tokenizer():
    built, special = build_tokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=built, **special)


@pytest.fixture(scope="module")
def model():
    """Trained on sorting, but not to the end: some answers are right and some are not."""
    torch.manual_seed(0)
    model = build(hidden=64, heads=2, intermediate=128)
    documents = torch.tensor([encode(row["text"] + "<eos>") for row in rows("sort", count=64 * 120)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in documents.split(64):
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@torch.no_grad()
def greedy(model, prompt, tokens):
    """The text of the most likely continuation up to the end token, by one full forward pass per token."""
    ids = encode(prompt)
    start = len(ids)
    while len(ids) < start + tokens and ids[-1] != EOS:
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return "".join(VOCABULARY[i] for i in ids[start:] if i not in (0, EOS))


def settings(**changes):
    return Evaluate(**{"include_path": LM_EVAL, **changes}).model_dump()


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


def rows_artefact(root, documents, width):
    """Documents (ids, number of leading tokens without loss) packed in order, one table per four rows."""
    packed: list[list[tuple[int, list[int], int]]] = [[]]
    for number, (ids, masked) in enumerate(documents):
        if sum(len(d[1]) for d in packed[-1]) + len(ids) > width:
            packed.append([])
        packed[-1].append((number, ids, masked))
    columns = {name: np.zeros((len(packed), width), kind) for name, kind in COLUMNS.items()}
    columns["documents"][:] = -1
    for at, row in enumerate(packed):
        place = 0
        for number, ids, masked in row:
            span = slice(place, place + len(ids))
            columns["ids"][at, span], columns["positions"][at, span] = ids, range(len(ids))
            columns["weights"][at, span] = [0.0 if i < max(1, masked) else 0.5 for i in range(len(ids))]
            columns["documents"][at, span] = number
            place += len(ids)
        columns["positions"][at, place:] = range(width - place)
    store = Store(root)
    inputs = {"test": str(root)}
    artefact = store.artefact("rows", inputs)
    with store.write(artefact, inputs) as writer:
        assert writer is not None
        for shard, start in enumerate(range(0, len(packed), 4)):
            flat = {n: pa.array(c[start : start + 4].reshape(-1)) for n, c in columns.items()}
            writer.put(shard, pa.table({n: pa.FixedSizeListArray.from_arrays(f, width) for n, f in flat.items()}))
        writer.finish()
    return artefact


COLUMNS = {"ids": np.int32, "positions": np.int32, "weights": np.float32, "documents": np.int32}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """60 documents of 6 to 33 tokens, some with a masked beginning, one with no loss at all."""
    draw = np.random.default_rng(0)
    documents = []
    for number, row in enumerate(rows("sort", "train", 60, seed=9)):
        ids = encode(row["text"] + "<eos>") if number % 3 else draw.integers(1, 19, draw.integers(6, 34)).tolist()
        documents.append((ids, len(ids) if number == 10 else number % 5))
    return documents, rows_artefact(tmp_path_factory.mktemp("store"), documents, 40)


def naive_nats(model, documents):
    """(nats, tokens) of every document on its own, token by token, in float64."""
    exact = LlamaForCausalLM(model.config).double()
    exact.load_state_dict(model.state_dict())
    found = []
    for ids, masked in documents:
        places = range(max(1, masked), len(ids))
        with torch.no_grad():
            logs = exact(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        found.append((-sum(float(logs[at - 1, ids[at]]) for at in places), len(places)))
    return found


def test_text_loss_equals_a_naive_float64_loop_over_single_documents(model, text, monkeypatch):
    documents, artefact = text
    naive = naive_nats(model, documents)
    nats, tokens = sum(n for n, _ in naive), sum(t for _, t in naive)
    score, records = score_text(model, "text", artefact)
    assert score.score == pytest.approx(-nats / tokens, rel=1e-5)
    assert (score.tokens, score.n, score.unit) == (tokens, 59, "nats/token")
    assert [r["document"] for r in records] == [i for i in range(60) if i != 10]
    for record in records:
        expected, count = naive[record["document"]]
        assert record["tokens"] == count
        assert record["nats_per_token"] == pytest.approx(expected / count, abs=2e-5)
    monkeypatch.setattr("continual.models.forward.LOGIT_BYTES", 1)  # a row at a time
    assert score_text(model, "text", artefact)[0].score == pytest.approx(score.score, rel=1e-6)


def test_text_standard_error_equals_a_bootstrap_over_documents(model, text):
    naive = np.array([pair for pair in naive_nats(model, text[0]) if pair[1]])
    draw = np.random.default_rng(1)
    ratios = [np.divide(*naive[draw.integers(0, len(naive), len(naive))].sum(0)) for _ in range(4000)]
    assert score_text(model, "text", text[1])[0].stderr == pytest.approx(np.std(ratios), rel=0.1)


@pytest.fixture(scope="module")
def start(model, tokenizer, tmp_path_factory):
    """The folder of a model near the trained one."""
    near = LlamaForCausalLM(model.config)
    torch.manual_seed(1)
    near.load_state_dict({name: w + 0.02 * torch.randn_like(w) for name, w in model.state_dict().items()})
    path = tmp_path_factory.mktemp("start")
    near.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def naive_drift(model, start, documents):
    """(KL(start || model), tokens) of every document on its own, token by token, in float64."""
    q, p = (LlamaForCausalLM(each.config).double() for each in (model, start))
    q.load_state_dict(model.state_dict())
    p.load_state_dict(start.state_dict())
    found = []
    for ids, masked in documents:
        places = range(max(1, masked), len(ids))
        with torch.no_grad():
            log_q, log_p = (
                each(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1) for each in (q, p)
            )
        divergences = (log_p.exp() * (log_p - log_q)).sum(-1)
        found.append((sum(float(divergences[at - 1]) for at in places), len(places)))
    return found


def test_drift_equals_a_naive_float64_loop_over_single_documents(model, start, text, monkeypatch):
    documents, artefact = text
    other = LlamaForCausalLM.from_pretrained(start).eval()
    naive = naive_drift(model, other, documents)
    score, records = score_text(model, "text", artefact, other)
    expected = sum(kl for kl, _ in naive) / sum(tokens for _, tokens in naive)
    assert 1e-4 < expected < 1
    assert score.drift == pytest.approx(expected, rel=1e-5)
    for record in records:
        kl, count = naive[record["document"]]
        assert record["drift"] == pytest.approx(kl / count, rel=1e-4)
    pairs, draw = np.array([pair for pair in naive if pair[1]]), np.random.default_rng(1)
    ratios = [np.divide(*pairs[draw.integers(0, len(pairs), len(pairs))].sum(0)) for _ in range(4000)]
    assert score.drift_stderr == pytest.approx(np.std(ratios), rel=0.1)
    alone, _ = score_text(model, "text", artefact)
    assert (score.score, score.stderr, alone.drift) == (alone.score, alone.stderr, None)
    assert not torch.is_inference_mode_enabled()
    itself, _ = score_text(model, "text", artefact, model)
    assert (itself.drift, itself.drift_stderr) == (0.0, 0.0)
    monkeypatch.setattr("continual.models.forward.LOGIT_BYTES", 1)  # a row at a time
    assert score_text(model, "text", artefact, other)[0].drift == pytest.approx(expected, rel=1e-5)


def test_text_without_any_loss_is_an_error(model, tmp_path):
    ids = encode("<sort>312|___=0123")
    with pytest.raises(ContinualError, match="the text `empty` has no token to score"):
        score_text(model, "empty", rows_artefact(tmp_path / "a", [(ids, len(ids))], 20))
    one, _ = score_text(model, "one", rows_artefact(tmp_path / "b", [(ids, 0)], 20))
    assert one.stderr is None
    assert one.n == 1


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


def test_what_lm_eval_cannot_do_is_told(model, tokenizer, own_tasks):
    with pytest.raises(ContinualError, match="lm-eval failed on nothing_like_it: KeyError"):
        harness = Harness(settings(include_path=own_tasks), [{"name": "shots"}])
        harness.tasks[0]["name"] = "nothing_like_it"
        harness.run(model, tokenizer)
    with pytest.raises(ConfigurationError, match=r"`choices` has no metric `f1`.*acc .*acc_norm"):
        Harness(settings(include_path=own_tasks, limit=2), [{"name": "choices", "metric": "f1"}]).run(model, tokenizer)
