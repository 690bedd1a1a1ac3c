"""An instruction synthesis on tiny chat models, with an engine that says what a script says."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from baselines.instruction_synthesis import InstructionSynthesis
from continual.config.schema import Sequence
from continual.contract.models import ModelRef
from continual.models import model_hash
from continual.models.load import load_tokenizer
from continual.preflight.stages import stage_view
from continual.run.services import StageContext
from continual.sampling.engine import Engine as BaseEngine
from continual.sampling.engine_vllm import VllmEngine
from continual.sampling.settings import SampleSettings
from continual.show.terminal import Terminal
from continual.store import Artefact, Store
from tests.kits.baselines import packed, stored

ROW, INSTRUCTIONS = 96, 6
ASKED = ["Name a tree", "Count to ten", "Say hello", "Name a tree", "  name a TREE", "Sing"]
"""The third but last is a duplicate, the one after it a near duplicate."""
Script = Callable[[str, str, int], str | None]
"""(model folder's name, text of the prompt, number of the sample) to what the model says; None: it finds no end."""


class Engine(VllmEngine):
    """Stands in for vLLM: says what a script says. `asked` gathers (folder, prompt ids)."""

    session = BaseEngine.session

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
    made, used = method(ctx).prepare(ctx), dict(ctx.used)
    pairs = method(ctx).pairs(ctx, (method(ctx).count(ctx.view),))
    ctx.used = used
    return {**made, "pairs": pairs}


def pairs_of(made: dict[str, Artefact]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made["pairs"].path / "pairs.jsonl").read_text().splitlines()]
