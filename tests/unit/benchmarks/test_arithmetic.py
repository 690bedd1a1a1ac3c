"""The arithmetic benchmark: answers, layout, held-out inputs, tokenizer, model size, configurations."""

import itertools
import re
import runpy
from pathlib import Path

import pytest
import yaml

from benchmarks.arithmetic.tasks import HELD_OUT, TASKS, held_out_inputs, inputs, rows
from benchmarks.arithmetic.tokenizer import VOCABULARY, build

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "arithmetic"
PUBLISHED = [
    "<pad>", "<add>", "<reversal>", "<sort>", "<modadd>", "|", "=", "_", "<eos>",
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9",
]  # fmt: skip


def texts(task, split="train", count=400, **options):
    return [row["text"] for row in rows(task, split, count, **options)]


def prompts(documents):
    return {text.split("=")[0] for text in documents}


@pytest.mark.parametrize(("task", "digits"), itertools.product(TASKS, (2, 3, 4)))
def test_layout_and_answers(task, digits):
    """Answers are recomputed from the text alone, in another way."""
    b_character = r"\d" if task in ("add", "modadd") else "_"
    pattern = rf"<{task}>(\d{{{digits}}})\|({b_character}{{{digits}}})=(\d{{{digits + 1}}})"
    for split in ("train", "test"):
        for text in texts(task, split, digits=digits, held_out=16):
            found = re.fullmatch(pattern, text)
            assert found, text
            a, b, o = found.groups()
            expected = {
                "add": lambda a, b: int(a) + int(b),
                "modadd": lambda a, b: (int(a) + int(b)) % 10**digits,
                "reversal": lambda a, b: int("".join(reversed(a))),
                "sort": lambda a, b: sum(int(d) * 10**i for i, d in enumerate(sorted(a, reverse=True))),
            }[task](a, b)
            assert int(o) == expected


def test_published_rows_have_fourteen_tokens():
    tokenizer, _ = build()
    assert {len(tokenizer.encode(t + "<eos>").ids) for task in TASKS for t in texts(task, count=20)} == {14}
    assert {len(tokenizer.encode(t + "<eos>").ids) for task in TASKS for t in texts(task, count=20, digits=4)} == {17}


@pytest.mark.parametrize(("task", "digits"), itertools.product(TASKS, (3, 4)))
def test_no_test_input_is_in_training_whatever_the_seed(task, digits):
    test = prompts(texts(task, "test", HELD_OUT, digits=digits))
    assert len(test) == HELD_OUT
    for seed in range(3):
        assert not test & prompts(texts(task, count=4000, seed=seed, digits=digits))


def test_every_other_input_of_a_small_task_is_trained_on():
    test, train = prompts(texts("reversal", "test", HELD_OUT)), prompts(texts("reversal", count=12000))
    assert len(train) == 1000 - HELD_OUT
    assert len(test | train) == 1000


def test_held_out_inputs_are_nested_so_that_a_smaller_test_set_is_safe():
    assert held_out_inputs("sort", 4, 300)[:100] == held_out_inputs("sort", 4, 100)
    assert len(texts("sort", "test", 1000, digits=4)) == HELD_OUT


def test_rows_repeat_with_their_seed_and_differ_without():
    assert texts("add", seed=1) == texts("add", seed=1) != texts("add", seed=2)
    assert texts("add", "test", seed=1) == texts("add", "test", seed=2)
    assert texts("add", count=10) == texts("add", count=400)[:10]


def test_inputs_are_drawn_evenly():
    counts = [0] * 10
    for text in texts("reversal", count=20000, held_out=0):
        counts[int(text[len("<reversal>")])] += 1
    assert all(abs(count - 2000) < 5 * (2000 * 0.9) ** 0.5 for count in counts)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"task": "mul"}, "no task `mul`"),
        ({"task": "add", "split": "valid"}, "no split `valid`"),
        ({"task": "add", "digits": 0}, "at least one digit"),
        ({"task": "sort", "digits": 2}, "hold out half at most"),
        ({"task": "sort", "held_out": -1}, "hold out half at most"),
    ],
)
def test_bad_arguments(options, problem):
    with pytest.raises(ValueError, match=problem):
        list(rows(**{"count": 1, **options}))


def test_tokenizer_ids_and_round_trip():
    tokenizer, special = build()
    assert list(VOCABULARY) == PUBLISHED
    assert tokenizer.get_vocab() == {t: i for i, t in enumerate(PUBLISHED)}
    assert special == {"eos_token": "<eos>", "pad_token": "<pad>"}
    assert tokenizer.encode("<reversal>123|___=0321<eos>").ids == [2, 10, 11, 12, 5, 7, 7, 7, 6, 9, 12, 11, 10, 8]
    for task in TASKS:
        for text in texts(task, count=20):
            assert tokenizer.decode(tokenizer.encode(text + "<eos>").ids, skip_special_tokens=False) == text + "<eos>"
    with pytest.raises(Exception, match="UNK"):
        tokenizer.encode("<sort>12x|___=0123")


def test_model_is_small_untied_and_fit_for_vllm():
    from benchmarks.arithmetic.model import build as build_model

    model = build_model()
    size = sum(p.numel() for p in model.parameters())
    assert 350_000 < size < 450_000
    assert model.config.head_dim
    assert model.config.head_dim % 32 == 0
    assert not model.config.tie_word_embeddings
    assert (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id) == (0, None, 8)
    published = build_model(hidden=256, heads=8, intermediate=1024)
    assert published.config.head_dim == 32


def test_lm_eval_documents_are_the_held_out_inputs():
    """As lm-eval calls it: with metadata among the arguments, the file run by its path."""
    documents = runpy.run_path(str(FOLDER / "lm_eval" / "documents.py"))["test"]
    found = documents(task="sort", digits=4, version=1.0, config_source="x")["test"]
    assert found.column_names == ["prompt", "answer"]
    assert len(found) == HELD_OUT
    assert [row["prompt"] + row["answer"] for row in found] == texts("sort", "test", HELD_OUT, digits=4)


def test_every_task_has_its_lm_eval_file_for_three_and_four_digits():
    found = {}
    for path in (FOLDER / "lm_eval").glob("[!_]*.yaml"):
        content = yaml.safe_load(path.read_text())
        assert content["task"] == path.stem
        found[path.stem] = content["dataset_kwargs"]
    expected = {f"{task}{'' if d == 3 else d}": {"task": task, "digits": d} for task in TASKS for d in (3, 4)}
    assert found == expected


@pytest.mark.parametrize("name", ["demo.yaml", "published.yaml"])
def test_configurations_hold_together(name):
    """The layout that they rely on: documents fill rows exactly, samples are as long as they are."""
    content = yaml.safe_load((FOLDER / name).read_text())
    train = content["train"]
    for stage in content["stages"]:
        arguments = stage["data"]["arguments"]
        digits = arguments.get("digits", 3)
        length = 3 * digits + 5
        assert train["row_tokens"] % length == 0
        assert train["batch_tokens"] % train["row_tokens"] == 0
        assert stage["start_token"] == f"<{arguments['task']}>"
        assert stage["tasks"] == [arguments["task"] + ("" if digits == 3 else str(digits))]
        assert all(m["sample_tokens"] == length for m in content["mitigation"])
        assert inputs(arguments["task"], digits) >= 2 * HELD_OUT
