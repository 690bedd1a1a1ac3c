"""Instruction synthesis: what is asked, how scores are read, which answer is kept, what is counted, endpoints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual.contract.models import ModelRef
from continual.contract.requests import SampleRequest
from continual.data.rows import RowReader
from continual.errors import ConfigurationError
from continual.models.load import load_tokenizer
from continual.run.stage import build_job
from continual.sampling.settings import SampleSettings
from continual.sampling.start import end_tokens, template_start
from tests.kits.instructions import chat_tokenizer
from tests.kits.synthesis import INSTRUCTIONS, context, judged, method, pairs_of, prepared, usual


def test_prompts_have_the_same_room_and_a_short_address() -> None:
    prompts = ((1, 2, 3), (4,))
    settings = SampleSettings(prompts, 13, stop=(9,), new_tokens=10)
    assert [settings.room(settings.prompt(n)) for n in (0, 1)] == [10, 10]
    assert [SampleSettings(prompts, 13).room(settings.prompt(n)) for n in (0, 1)] == [10, 12]
    assert "new_tokens" not in SampleSettings(prompts, 13).identity()
    known = settings.identity()
    assert known["stop"] == (9,)
    assert known["new_tokens"] == 10
    assert "starts" not in known
    assert known == SampleSettings(prompts, 99, stop=(9,), new_tokens=10).identity()
    for other in (((1, 2), (3, 4)), ((4,), (1, 2, 3)), ((1, 2, 3), (5,))):
        assert SampleSettings(other, 13, stop=(9,), new_tokens=10).identity() != known


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
        assert scores[pair["messages"][1]["content"]] == pair["score"]
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
    used = dict(first.used)
    assert prepared(first) == made
    assert len(engine.asked) == count
    assert len(used) == 5
    assert first.used == used
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


def test_rounds_follow_until_the_pairs_fill_the_rows_and_ask_nothing_twice(
    folders: Path, tmp_path: Path, here: Any
) -> None:
    """Two steps of 4 rows are to be filled, of pairs that are much shorter than a row."""
    asked: list[tuple[str, str, int]] = []

    def script(folder: str, text: str, number: int) -> str | None:
        asked.append((folder, text, number))
        letters = np.random.default_rng(number).choice(list("abcdefghijklmnopqrstuvwxyz"), 8)
        return "".join(letters.tolist()) if text == "<|user|>" else usual(folder, text, number)

    here(script)
    ctx = context(folders, tmp_path, instructions=None, ratio=1.0)
    ctx.view = replace(ctx.view, steps=2)
    rows = method(ctx).rows(ctx)
    needed = 2 * ctx.view.batch_rows
    assert rows.manifest()["counts"]["rows"] >= needed
    first = [number for folder, text, number in asked if text == "<|user|>"]
    assert first == list(range(len(first)))
    assert len(first) > needed
    # An answer's number counts within its round, so the question tells it apart.
    answers = [(folder, text, number) for folder, text, number in asked if text != "<|user|>" and judged(text) is None]
    assert len(set(answers)) == len(answers) == len(first) * 2 * 2
    found = len(asked)
    again = context(folders, tmp_path, instructions=None, ratio=1.0)
    again.view = replace(again.view, steps=2)
    assert method(again).rows(again) == rows
    assert len(asked) == found
    assert again.used == ctx.used


@pytest.mark.parametrize("loss", ["nll", "kl"])
def test_the_mix_honours_the_share(folders: Path, tmp_path: Path, here: Any, loss: str) -> None:
    here(usual)
    ctx = context(folders, tmp_path, loss=loss, held_out=1, weight=0.3, name="mine")
    job = build_job(ctx, tmp_path / "stage", 1)
    task, replay = job.streams
    assert replay.rows_per_step == 0.5 * task.rows_per_step
    assert replay.coefficient == 0.3
    assert replay.name == "mine"
    assert replay.loss.name == loss
    # All pairs fit one row, and no more than half of the rows are held out.
    assert (replay.rows.manifest()["counts"]["rows"], replay.held_out, replay.shuffle) == (1, 0, True)
    assert replay.teacher == (ctx.stage_start if loss == "kl" else None)
