"""Instruction synthesis: what is asked, how scores are read, which answer is kept, what is counted, endpoints."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.instruction_synthesis import InstructionSynthesis
from baselines.instructions import endpoint as endpoints
from baselines.instructions.committee import best, judge_prompt, mean_score, parse_score
from baselines.instructions.duplicates import first_of_each, shingles
from continual.config.load import load_sequence
from continual.config.schema import Sequence
from continual.contract.models import ModelRef
from continual.contract.registry import ENGINES
from continual.contract.requests import SampleRequest
from continual.data.rows import RowReader
from continual.data.tokenize import Tokenize
from continual.errors import ConfigurationError, ContinualError
from continual.models import model_hash
from continual.models.load import load_tokenizer
from continual.preflight.check import check
from continual.preflight.stages import stage_view
from continual.run.services import StageContext
from continual.run.stage import build_job
from continual.sampling import SampleSettings, template_start
from continual.sampling.engine_vllm import VllmEngine
from continual.sampling.start import end_tokens
from continual.show.terminal import Terminal
from continual.store import Artefact, Store
from tests.kits.baselines import packed, stored
from tests.kits.instructions import chat_folder, chat_tokenizer, said, serving
from tests.kits.sources import in_process

ROW, INSTRUCTIONS = 96, 6
ASKED = ["Name a tree", "Count to ten", "Say hello", "Name a tree", "  name a TREE", "Sing"]
"""The third but last is a duplicate, the one after it a near duplicate."""
Script = Callable[[str, str, int], str | None]
"""(model folder's name, text of the prompt, number of the sample) to what the model says; None: it finds no end."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chat models with different tokenizers and templates, and one without a template."""
    root = tmp_path_factory.mktemp("models")
    chat_folder(root / "base", 1)
    chat_folder(root / "other", 2, turn="[{}]", end="[stop]")
    bare = chat_folder(root / "bare", 3)
    for path in bare.glob("chat_template*"):
        path.unlink()
    chat_folder(root / "short", 4, positions=64)
    return root


class Engine(VllmEngine):
    """Stands in for vLLM: says what a script says. `asked` gathers (folder, prompt ids)."""

    def __init__(self, script: Script):
        self.script = script
        self.asked: list[tuple[str, list[int]]] = []

    def generate(
        self, path: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Any
    ) -> Iterator[tuple[int, np.ndarray | None]]:
        tokenizer = load_tokenizer(path)
        for number in numbers:
            prompt = settings.prompt(number)
            self.asked.append((Path(path).name, prompt))
            text = self.script(Path(path).name, tokenizer.decode(prompt), number)
            ids = tokenizer("on and on" if text is None else text, add_special_tokens=False)["input_ids"]
            assert len(ids) <= settings.room(prompt)
            yield number, np.asarray([*ids, max(settings.stop)] if text is not None else ids, np.int32)


def judged(text: str) -> tuple[str, str] | None:
    """Instruction and answer of a judge's prompt, None for another prompt."""
    parts = text.split("<<<\n")
    if len(parts) != 3:
        return None
    return parts[1].split("\n>>>")[0], parts[2].split("\n>>>")[0]


def usual(folder: str, text: str, number: int) -> str | None:
    """Answers `<folder> <n>`; `other` scores the n-th answer n mod 5 + 1, `base` says nothing that can be read."""
    if text == "<|user|>":
        return ASKED[number % len(ASKED)]
    if found := judged(text):
        return f"Fine.\nScore: {int(found[1].split()[1]) % 5 + 1}" if folder == "other" else "I like it. Score: high"
    return f"{folder} {number}"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], Engine]:
    """Sampling and tokenising in this process."""

    def pieces(source: Any, model: str, row_tokens: int) -> Iterator[dict[str, Any]]:
        lines = np.array(Path(source.path).read_text().splitlines(), dtype=object)
        yield Tokenize(model, source, row_tokens)({"item": lines})

    monkeypatch.setattr("continual.data.prepare._pieces", pieces)
    monkeypatch.setattr("continual.data.prepare.in_cluster", in_process)
    monkeypatch.setattr("continual.sampling.sample.in_cluster", in_process)

    def install(script: Script) -> Engine:
        engine = Engine(script)
        monkeypatch.setattr(ENGINES, "load", lambda name: lambda: engine)
        return engine

    return install


def sequence(folders: Path, storage: Path, train: dict[str, Any] | None = None, **options: Any) -> Sequence:
    entry = {"type": "instruction_synthesis", "instructions": INSTRUCTIONS, "answers": 2, "ratio": 0.5,
             "instruction_tokens": 20, "answer_tokens": 40, "judge_tokens": 60, "seed": 5,
             "generators": [{"type": "local", "source": "self"}, {"type": "local", "source": str(folders / "other")}],
             **options}  # fmt: skip
    return Sequence.model_validate(
        {
            "name": "chat",
            "storage": str(storage),
            "model": {"type": "pretrained", "source": str(folders / "base")},
            "stages": [{"name": "talk", "data": {"type": "jsonl", "path": "x", "messages": "m"}, "steps": 4}],
            "mitigation": [entry],
            "train": {"batch_tokens": 4 * ROW, "row_tokens": ROW, **(train or {})},
        }
    )


def context(folders: Path, storage: Path, **options: Any) -> StageContext:
    store = Store(storage / "store")
    base = ModelRef(str(folders / "base"), model_hash(folders / "base"))
    task = store.artefact("rows", {"test": "task"})
    asked = sequence(folders, storage, **options)
    return StageContext(
        sequence=asked,
        view=stage_view(asked, 1),
        store=store,
        terminal=Terminal(storage / "log.txt", io.StringIO()),
        start=base,
        stage_start=base,
        earlier=[],
        rows=task if task.complete else stored(store, "task", packed(0, 30)),
    )


def method(ctx: StageContext) -> InstructionSynthesis:
    [one] = ctx.sequence.mitigation
    assert isinstance(one, InstructionSynthesis)
    return one


def prepared(ctx: StageContext) -> dict[str, Artefact]:
    """The rows to replay and the pairs that they hold; asking for the pairs again records no samples."""
    made, used = method(ctx).prepare(ctx), list(ctx.used)
    pairs = method(ctx).pairs(ctx)
    ctx.used = used
    return {**made, "pairs": pairs}


def pairs_of(made: dict[str, Artefact]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made["pairs"].path / "pairs.jsonl").read_text().splitlines()]


# What the contract gives.


def test_prompts_have_the_same_room_and_a_short_address() -> None:
    prompts = ((1, 2, 3), (4,))
    settings = SampleSettings(prompts, 4, 13, stop=(9,), new_tokens=10)
    assert [settings.room(settings.prompt(n)) for n in (0, 1)] == [10, 10]
    assert [SampleSettings(prompts, 4, 13).room(settings.prompt(n)) for n in (0, 1)] == [10, 12]
    assert "new_tokens" not in SampleSettings(prompts, 4, 13).identity()
    known = settings.identity()
    assert known["stop"] == (9,)
    assert known["new_tokens"] == 10
    assert "starts" not in known
    assert known == SampleSettings(prompts, 4, 99, stop=(9,), new_tokens=10).identity()
    for other in (((1, 2), (3, 4)), ((4,), (1, 2, 3)), ((1, 2, 3), (5,))):
        assert SampleSettings(other, 4, 13, stop=(9,), new_tokens=10).identity() != known


def test_a_turn_ends_at_the_mark_behind_its_words() -> None:
    tokenizer = chat_tokenizer(0)
    ends = {token: tokenizer.convert_tokens_to_ids(token) for token in ("</s>", "<|end|>", "<|assistant|>")}
    assert end_tokens(tokenizer, {}, chat=True) == tuple(sorted((ends["</s>"], ends["<|end|>"])))
    assert end_tokens(tokenizer, {}, chat=False) == (ends["</s>"],)
    # As Mistral's: what follows the user's words opens the answer, and plain words that follow are no mark.
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{{ '<|assistant|>' if m.role == 'user' else 'Next:' }}{% endfor %}"
    )
    assert end_tokens(tokenizer, {}, chat=True) == tuple(sorted((ends["</s>"], ends["<|assistant|>"])))


def test_prompts_that_do_not_fit_the_model_are_told(folders: Path, tmp_path: Path, here: Any) -> None:
    engine, ctx = here(usual), context(folders, tmp_path)
    short = ModelRef(str(folders / "short"), "short")
    with pytest.raises(ConfigurationError, match=r"a prompt and 60 sampled tokens are 65 tokens, and .*short holds 64"):
        ctx.generate(SampleRequest(short, 2, "prompts", prompts=[[2], [2, 5, 5, 5, 4]], new_tokens=60))
    assert engine.asked == []


# Scores.


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good.\nScore: 4", 4), ("Score: 1\n\n", 1), ("**Score: 5**", 5), ("score:3.", 3), ("x\nScore: 4/5", 4),
        ("Score: 2.0", 2), ("Score: 0", None), ("Score: 6", None), ("Score: 45", None), ("Score: 3.5", None),
        ("Score: 4\nThat is all.", None), ("I would say Score: 4", None), ("4", None), ("", None), ("Score: <n>", None),
    ],
)  # fmt: skip
def test_a_score_is_the_last_line(text: str, score: int | None) -> None:
    assert parse_score(text) == score


def test_a_judge_sees_request_and_answer_and_nothing_of_who_answered() -> None:
    asked = judge_prompt("Braces {answer}?", "{0} {instruction}")
    assert judged(asked) == ("Braces {answer}?", "{0} {instruction}")
    assert "Score: <n>" in asked


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=3, max_size=3), max_size=9))
def test_the_best_mean_is_kept_and_what_cannot_be_read_is_no_zero(scores: list[list[int | None]]) -> None:
    means = [mean_score(given) for given in scores]
    rational = [(sum(filter(None, g)), len(g) - g.count(None)) for g in scores]
    chosen = best(means)
    if not any(judges for _, judges in rational):
        assert chosen is None
        return
    assert chosen is not None
    assert rational[chosen][1] > 0
    total, judges = rational[chosen]
    for place, (other, of) in enumerate(rational):
        # Exact: compared crosswise in whole numbers. The first of equal ones wins.
        if of:
            assert total * of > other * judges or (total * of == other * judges and place >= chosen)
        else:
            assert means[place] is None


# Duplicates.


def test_of_equal_and_nearly_equal_texts_the_first_is_kept() -> None:
    long = "Please write a short story about a fox that lives near the old mill and steals bread"
    texts = [long, "Something else", long, long.upper(), f"{long} again", "something ELSE", "Anything"]
    kept, exact, near = first_of_each(texts)
    assert kept == [0, 1, 6]
    assert exact == 1
    assert near == 3


@given(st.lists(st.text(alphabet="abc ", max_size=30), max_size=25))
def test_every_text_is_kept_or_counted(texts: list[str]) -> None:
    kept, exact, near = first_of_each(texts)
    assert len(kept) + exact + near == len(texts)
    assert exact == len(texts) - len(set(texts))
    assert (kept, exact, near) == first_of_each(texts)
    for place in range(len(texts)):
        assert first_of_each(texts[:place])[0] == [k for k in kept if k < place]


def test_what_is_kept_differs_by_exact_similarity() -> None:
    words = np.random.default_rng(0)
    base = ["".join(words.choice(list("abcdefghij"), 60)) for _ in range(40)]
    texts = [text[:n] + "".join(words.choice(list("klmno"), 60 - n)) for text in base for n in (60, 58, 30)]
    kept, exact, near = first_of_each(texts)
    chosen = set(kept)
    for at in range(0, len(texts), 3):
        one, close, far = (set(shingles(text)) for text in texts[at : at + 3])
        assert len(one & close) / len(one | close) > 0.9
        assert len(one & far) / len(one | far) < 0.5
        assert at in chosen
        assert at + 1 not in chosen
        assert at + 2 in chosen
    assert exact == 0
    assert near == 40


# The whole way.


def test_instructions_come_from_the_bare_template(folders: Path, tmp_path: Path, here: Any) -> None:
    engine = here(usual)
    ctx = context(folders, tmp_path)
    prepared(ctx)
    prompts = [prompt for _, prompt in engine.asked[:INSTRUCTIONS]]
    assert prompts == [template_start(load_tokenizer(str(folders / "base")))[0]] * INSTRUCTIONS
    assert load_tokenizer(str(folders / "base")).decode(prompts[0]) == "<|user|>"
    # Everybody is asked through a template of his own, in ids of his own.
    asked = {name: load_tokenizer(str(folders / name)).decode(p) for name, p in engine.asked[INSTRUCTIONS:]}
    assert asked["base"].startswith("<|user|>")
    assert asked["base"].endswith("<|end|><|assistant|>")
    assert asked["other"].startswith("[user]")
    assert asked["other"].endswith("[stop][assistant]")


def test_one_answer_is_kept_per_instruction_and_all_is_counted(folders: Path, tmp_path: Path, here: Any) -> None:
    here(usual)
    ctx = context(folders, tmp_path)
    made = prepared(ctx)
    pairs, manifest = pairs_of(made), made["pairs"].manifest()
    kept = ["Name a tree", "Count to ten", "Say hello", "Sing"]
    assert [pair["messages"][0]["content"] for pair in pairs] == kept
    for place, pair in enumerate(pairs):
        # Four instructions are left, so answer i is for instruction i mod 4; `other` alone is read.
        scores = {f"{name} {n}": n % 5 + 1 for name in ("base", "other") for n in (place, place + 4)}
        assert pair["score"] == max(scores.values())
        assert pair["messages"][1]["content"] == next(a for a, s in scores.items() if s == pair["score"])
    expected = {"sampled": 6, "failed": 0, "cut": 0, "empty": 0, "duplicates": 1, "near_duplicates": 1,
                "instructions": 4, "candidates": 16, "judgements": 32, "failed_judgements": 0, "unparsable": 16,
                "unscored": 0, "unanswered": 0, "kept": 4, "unparsable_by": [16, 0]}  # fmt: skip
    assert {key: manifest[key] for key in expected} == expected
    assert manifest["kept_by"] == [sum(p["generator"] == n for p in pairs) for n in range(2)]


def test_loss_is_on_answer_and_end_only(folders: Path, tmp_path: Path, here: Any) -> None:
    here(usual)
    ctx = context(folders, tmp_path)
    made = prepared(ctx)
    tokenizer, reader = load_tokenizer(str(folders / "base")), RowReader(made["rows"])
    rows = reader.take(np.arange(len(reader)))
    trained = tokenizer.decode(rows["ids"][rows["weights"] > 0])
    assert trained == "".join(pair["messages"][1]["content"] + "<|end|>" for pair in pairs_of(made))
    assert tokenizer.decode(rows["ids"][0]).startswith("<|user|>Name a tree<|end|><|assistant|>")


def test_what_is_cut_empty_or_without_a_score_is_dropped_and_counted(folders: Path, tmp_path: Path, here: Any) -> None:
    def script(folder: str, text: str, number: int) -> str | None:
        if text == "<|user|>":
            return [None, "", "Good one", "Bad one", "Mute one", "Late one"][number]
        if found := judged(text):
            return {"Good one": "Score: 4", "Bad one": "Score: 2", "Mute one": "?"}[found[0]]
        return None if "Late" in text or number >= 4 else "" if "Bad" in text and folder == "base" else "answer"

    here(script)
    ctx = context(folders, tmp_path, min_score=3)
    made = prepared(ctx)
    [pair] = pairs_of(made)
    assert pair["messages"][0]["content"] == "Good one"
    assert pair["score"] == 4.0
    # Four instructions, two generators, two answers: the second of each and both to the late one have no end.
    expected = {
        "cut": 1,
        "empty": 1,
        "instructions": 4,
        "cut_answers": 10,
        "empty_answers": 1,
        "candidates": 5,
        "judgements": 10,
        "unparsable": 4,
        "unscored": 2,
        "unanswered": 2,
        "below_min_score": 1,
        "kept": 1,
    }
    assert {key: made["pairs"].manifest()[key] for key in expected} == expected


def test_nothing_left_is_told_with_the_counts(folders: Path, tmp_path: Path, here: Any) -> None:
    here(lambda folder, text, number: usual("base", text, number))
    ctx = context(folders, tmp_path)
    with pytest.raises(ConfigurationError, match=r"mitigation \(instruction_synthesis\).*unparsable 32"):
        prepared(ctx)


def test_the_same_settings_give_the_same_pairs_and_nothing_is_made_twice(
    folders: Path, tmp_path: Path, here: Any
) -> None:
    engine = here(usual)
    first = context(folders, tmp_path / "a")
    made = prepared(first)
    count = len(engine.asked)
    used = list(first.used)
    assert prepared(first) == made
    assert len(engine.asked) == count
    assert len(used) == 5
    assert first.used == used * 2
    second = context(folders, tmp_path / "b")
    again = prepared(second)
    assert [again[key].hash for key in again] == [made[key].hash for key in made]
    assert pairs_of(again) == pairs_of(made)
    assert again["pairs"].manifest()["content"] == made["pairs"].manifest()["content"]
    other = context(folders, tmp_path / "b", seed=6)
    assert prepared(other)["pairs"].hash != made["pairs"].hash


def test_a_kill_loses_nothing_that_was_finished(folders: Path, tmp_path: Path, here: Any) -> None:
    class Killed(BaseException):
        pass

    def script(folder: str, text: str, number: int) -> str | None:
        if folder == "other" and judged(text):
            raise Killed
        return usual(folder, text, number)

    engine = here(script)
    ctx = context(folders, tmp_path)
    with pytest.raises(Killed):
        prepared(ctx)
    before = len(engine.asked)
    engine = here(usual)
    made = prepared(ctx)
    # 6 instructions, 16 answers and the first judge's 16 scores were there.
    assert before == 6 + 16 + 16 + 1
    assert len(engine.asked) == 16
    assert {name for name, _ in engine.asked} == {"other"}
    assert len(pairs_of(made)) == 4


def test_parts_change_nothing(folders: Path, tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_text(folder: str, text: str, number: int) -> str | None:
        if judged(text):
            return f"Score: {len(text) % 5 + 1}"
        return usual(folder, text, number) if text == "<|user|>" else f"{folder} says {text[8:13]}"

    here(by_text)
    whole, parts = (context(folders, tmp_path / name) for name in "ab")
    expected = prepared(whole)
    monkeypatch.setattr("baselines.instructions.rounds.PART", 3)
    made = prepared(parts)
    assert pairs_of(made) == pairs_of(expected)
    counted = [one["pairs"].manifest() for one in (made, expected)]
    assert counted[0]["judgements"] == counted[1]["judgements"] == 32


def test_a_prompt_that_a_model_cannot_hold_is_counted(folders: Path, tmp_path: Path, here: Any) -> None:
    here(lambda folder, text, number: usual("other" if folder == "base" else folder, text, number))
    short = {"type": "local", "source": str(folders / "short")}
    ctx = context(folders, tmp_path, generators=[{"type": "local", "source": "self"}, short])
    made = prepared(ctx)
    # 64 positions hold short questions with 40 tokens of answer, but no judge's prompt.
    assert made["pairs"].manifest()["failed_judgements"] == made["pairs"].manifest()["candidates"]
    assert made["pairs"].manifest()["unparsable"] == 0
    assert len(pairs_of(made)) == 4


@pytest.mark.parametrize("loss", ["nll", "kl"])
def test_the_mix_honours_the_share(folders: Path, tmp_path: Path, here: Any, loss: str) -> None:
    here(usual)
    ctx = context(folders, tmp_path, loss=loss, held_out=1, weight=0.3, name="mine")
    job, _, _ = build_job(ctx, tmp_path / "stage", 1)
    task, replay = job.streams
    assert replay.rows_per_step == 0.5 * task.rows_per_step
    assert replay.coefficient == 0.3
    assert replay.name == "mine"
    assert replay.loss.name == loss
    assert replay.held_out == (1 if loss == "kl" else 0)
    assert replay.teacher == (ctx.stage_start if loss == "kl" else None)


# Refusals.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generators": []}, "`generators` is empty; list at least one"),
        ({"generators": [{"type": "local", "source": "self"}] * 2}, "listed twice"),
        ({"instruction_tokens": 60}, "an instruction of 60 and an answer of 40 tokens do not fit a row of 96 tokens"),
        ({"generators": [{"type": "local", "source": "/no/such/model"}]}, "generators.0: there is no folder"),
        ({"generators": [{"type": "local", "source": "bare"}]}, "`.*bare` has no chat template"),
        ({"generators": [{"type": "local", "source": "short"}]}, "has 64 positions for 120 tokens"),
        (
            {"generators": [{"type": "openai", "url": "http://x/v1", "model": "m", "api_key_env": "NO_SUCH_KEY"}]},
            "generators.0: the environment variable NO_SUCH_KEY with the key of http://x/v1 is not set; export it",
        ),
    ],
)
def test_refusals(folders: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    for generator in options.get("generators", []):
        if generator.get("source") in ("bare", "short"):
            generator["source"] = str(folders / generator["source"])
    found = sequence(folders, tmp_path, **options)
    refused = found.mitigation[0].check(stage_view(found, 1), [])
    assert refused is not None
    assert re.search(said, refused), refused


def test_a_model_without_a_chat_template_is_refused(folders: Path, tmp_path: Path) -> None:
    found = sequence(folders, tmp_path)
    bare = found.model_copy(update={"model": found.model.model_copy(update={"source": str(folders / "bare")})})
    assert "no chat template to make up instructions" in str(found.mitigation[0].check(stage_view(bare, 1), []))
    assert found.mitigation[0].check(stage_view(found, 1), []) is None


@pytest.mark.parametrize(
    ("generator", "said"),
    [
        ("{type: local}", "a local generator needs `source`"),
        ("{type: openai, url: 'host:8000', model: m}", "the URL is e.g. http://host:8000/v1"),
        ("{type: local, sorce: self}", r"generators\.0\.sorce: there is no such key; did you mean `source`"),
    ],
)
def test_a_wrong_generator_is_told_with_its_place(folders: Path, tmp_path: Path, generator: str, said: str) -> None:
    path = write_yaml(folders, tmp_path, generator)
    with pytest.raises(ConfigurationError, match=said):
        load_sequence(path)


def write_yaml(folders: Path, folder: Path, generator: str) -> Path:
    (folder / "x.jsonl").write_text(json.dumps({"p": "a", "c": "b"}) + "\n")
    path = folder / "seq.yaml"
    path.write_text(
        f"name: a\nmodel: {{type: pretrained, source: '{folders / 'base'}'}}\n"
        "stages: [{name: one, data: {type: jsonl, path: x.jsonl, prompt: p, completion: c}, steps: 2}]\n"
        f"mitigation: [{{type: instruction_synthesis, generators: [{generator}]}}]\n"
        "train: {batch_tokens: 512, row_tokens: 128}\n"
    )
    return path


def test_a_local_generator_lies_beside_the_yaml_and_self_is_no_folder(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "other").symlink_to(folders / "other")
    path = write_yaml(folders, tmp_path, "{type: local, source: ./other}, {type: local, source: self}")
    loaded = load_sequence(path)
    [one] = loaded.sequence.mitigation
    assert [generator["source"] for generator in one.model_dump()["generators"]] == [str(tmp_path / "other"), "self"]
    assert loaded.identity["mitigation"][0]["generators"][0]["source"] == "other"
    check(loaded)


def test_the_plan_counts_what_local_models_may_make(folders: Path, tmp_path: Path) -> None:
    remote = {"type": "openai", "url": "http://x/v1", "model": "m"}
    found = sequence(folders, tmp_path, generators=[{"type": "local", "source": "self"}, remote])
    # 6 instructions of 20; by the one local model 12 answers of 40 and scores of 24 candidates with 60.
    assert found.mitigation[0].sampled_tokens(stage_view(found, 1)) == 6 * 20 + 12 * 40 + 24 * 60


# Endpoints.


def remote(url: str, **options: Any) -> dict[str, Any]:
    return {"type": "openai", "url": url, "model": "m", "retries": 2, "concurrency": 3, **options}


def obliging(body: dict[str, Any], number: int) -> dict[str, Any]:
    found = judged(said(body))
    return {"content": ("Score: 5" if found[1].startswith("served") else "Score: 2") if found else "served"}


def test_an_endpoint_answers_and_judges(
    folders: Path, tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(usual)
    monkeypatch.setenv("THE_KEY", "secret")
    with serving(obliging) as server:
        generators = [{"type": "local", "source": "self"}, remote(server.url, api_key_env="THE_KEY")]
        ctx = context(folders, tmp_path, generators=generators)
        made = prepared(ctx)
        # One trial, 4 instructions x 2 answers, 16 candidates to judge.
        assert len(server.requests) == 1 + 8 + 16
        assert set(server.keys) == {"Bearer secret"}
        answers = server.requests[1:9]
        assert {body["max_tokens"] for body in answers} == {40}
        assert len({body["seed"] for body in answers}) == 8
        assert {said(body) for body in answers} == {"Name a tree", "Count to ten", "Say hello", "Sing"}
        assert {body["temperature"] for body in server.requests[9:]} == {0.3}
    assert {pair["messages"][1]["content"] for pair in pairs_of(made)} == {"served"}
    assert {pair["score"] for pair in pairs_of(made)} == {5.0}
    assert made["pairs"].manifest()["unparsable_by"] == [16, 0]
    assert not any("secret" in p.read_text(errors="ignore") for p in tmp_path.rglob("*") if p.is_file())
    # The server is gone, and not needed.
    assert prepared(ctx) == made
    tokens = [
        json.loads(p.read_text())["counts"]["tokens"] for p in (tmp_path / "store/replies").glob("*/manifest.json")
    ]
    assert sorted(tokens) == [7 * 8, 7 * 16]


def test_what_a_server_refuses_for_a_time_is_asked_again(folders: Path, tmp_path: Path, here: Any) -> None:
    here(usual)
    with serving(lambda body, number: 503 if number in (2, 3) else 429 if number == 4 else obliging(body, number)) as s:
        ctx = context(folders, tmp_path, generators=[remote(s.url)])
        made = prepared(ctx)
        assert len(s.requests) == 1 + 8 + 8 + 3
        assert len(pairs_of(made)) == 4


def test_a_server_that_stays_away_ends_the_run_and_what_it_said_stays(
    folders: Path, tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(usual)
    monkeypatch.setattr(endpoints, "SHARD", 4)
    with serving(lambda body, number: obliging(body, number) if number < 5 else 500) as server:
        ctx = context(folders, tmp_path, generators=[remote(server.url, retries=0, concurrency=1)])
        with pytest.raises(ContinualError, match=r"does not answer.*the same command resumes"):
            prepared(ctx)
        server.answer = obliging
        before = len(server.requests)
        prepared(ctx)
        # Of 8 answers the first 4 were there; a trial, 4 answers and 8 scores were not.
        # One may still have been on its way.
        assert len(server.requests) - before - (1 + 4 + 8) in (0, 1)


def test_requests_that_are_refused_are_counted_up_to_a_limit(folders: Path, tmp_path: Path, here: Any) -> None:
    here(usual)

    def picky(body: dict[str, Any], number: int) -> Any:
        return 400 if said(body) == "Say hello" else {"content": "x", "finish_reason": "length"} if number == 1 else (
            obliging(body, number))  # fmt: skip

    with serving(picky) as server:
        ctx = context(folders, tmp_path / "a", generators=[remote(server.url, concurrency=1)])
        with pytest.raises(ContinualError, match=r"refused 2 of 8 requests.*max_failed` \(0.01\).*no: 400"):
            prepared(ctx)
    with serving(picky) as server:
        ctx = context(folders, tmp_path / "b", generators=[remote(server.url, concurrency=1)])
        ctx.sequence = ctx.sequence.model_copy(
            update={"generate": ctx.sequence.generate.model_copy(update={"max_failed": 0.5})}
        )
        manifest = prepared(ctx)["pairs"].manifest()
        assert [manifest[k] for k in ("failed_answers", "cut_answers", "unanswered", "kept")] == [2, 1, 1, 3]


@pytest.mark.parametrize(
    ("status", "key", "expected"),
    [
        (401, "THE_KEY", "refuses the key in THE_KEY"),
        (403, None, "refuses requests without a key"),
        (404, None, "knows no `m`"),
        (400, None, r"refuses a request to `m` \(.*no: 400"),
        (500, None, r"does not answer \(.*no: 500"),
        (None, None, "cannot be reached .*; start the server or correct `url`"),
    ],
)
def test_an_endpoint_that_cannot_serve_is_told_before_anything_is_sampled(
    folders: Path, tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch,
    status: int | None, key: str | None, expected: str,
) -> None:  # fmt: skip
    engine = here(usual)
    monkeypatch.setenv("THE_KEY", "wrong")
    with serving(lambda body, number: status or 200) as server:
        url = server.url if status else "http://127.0.0.1:9/v1"
        generators = [{"type": "local", "source": "self"}, remote(url, api_key_env=key, retries=0)]
        ctx = context(folders, tmp_path, generators=generators)
        with pytest.raises(ConfigurationError, match=expected):
            prepared(ctx)
    assert engine.asked == []
