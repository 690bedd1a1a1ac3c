"""The four arithmetic tasks of the continual-learning experiment, as documents (Marek et al. 2026, 2605.26097).

With d digits a document reads `<task>` a `|` b `=` o, where a and b have d digits and o has d + 1, zero-padded:

    <add>123|456=0579        o = a + b
    <reversal>123|___=0321   o = 0, then the digits of a backwards
    <sort>312|___=0123       o = 0, then the digits of a in rising order
    <modadd>999|002=0001     o = (a + b) mod 10^d

The pipeline appends `<eos>`, which makes 3 d + 5 tokens per document (14 as published, for 3 digits).

Inputs are held out: which ones depends on the task and the digits alone, never on `seed`, and the first n of them are
the same whatever `held_out` is. No row of the split `train` has a held-out input; the split `test` has no other.
This file imports only the standard library, because lm-eval loads it by its path (see lm_eval/documents.py).
"""

import random
from collections.abc import Iterator

TASKS = ("add", "reversal", "sort", "modadd")
HELD_OUT = 256
"""Held-out inputs of every task, and test documents of every lm-eval task here."""


def answer(task: str, a: str, b: str) -> str:
    """The answer to inputs of d digits each, as d + 1 characters; `b` is ignored by reversal and sort."""
    width = len(a) + 1
    if task == "reversal":
        return "0" + a[::-1]
    if task == "sort":
        return "0" + "".join(sorted(a))
    total = int(a) + int(b)
    return str(total % 10 ** len(a) if task == "modadd" else total).zfill(width)


def document(task: str, number: int, digits: int) -> tuple[str, str]:
    """Prompt and answer of input `number`, which holds the digits of a, and for two inputs those of b after them."""
    if task in ("add", "modadd"):
        a, b = divmod(number, 10**digits)
        first, second = str(a).zfill(digits), str(b).zfill(digits)
    else:
        first, second = str(number).zfill(digits), "_" * digits
    return f"<{task}>{first}|{second}=", answer(task, first, second)


def inputs(task: str, digits: int) -> int:
    """How many different inputs a task has."""
    return int(10 ** (2 * digits if task in ("add", "modadd") else digits))


def held_out_inputs(task: str, digits: int, held_out: int) -> list[int]:
    """The first `held_out` inputs that training never sees, in a fixed order. ValueError if too many are asked for."""
    if task not in TASKS:
        raise ValueError(f"there is no task `{task}`; the tasks are {', '.join(TASKS)}")
    if digits < 1:
        raise ValueError(f"`digits` is {digits}; numbers need at least one digit")
    if not 0 <= held_out <= inputs(task, digits) // 2:
        raise ValueError(
            f"`held_out` is {held_out}, but {task} has {inputs(task, digits)} inputs; hold out half at most"
        )
    draw, found = random.Random(f"held out {task} {digits}"), dict[int, None]()
    while len(found) < held_out:
        found[draw.randrange(inputs(task, digits))] = None
    return list(found)


def rows(
    task: str,
    split: str = "train",
    count: int = 65536,
    seed: int = 0,
    digits: int = 3,
    held_out: int = HELD_OUT,
    prompts: bool = False,
) -> Iterator[dict[str, str]]:
    """`count` documents as {"text": ...}, or with `prompts` as {"prompt": ..., "completion": ...}.

    `train`: inputs drawn evenly and independently from those not held out. `test`: the first `count` held-out inputs,
    at most `held_out`. Raises ValueError for an unknown task or split, and where there are not so many inputs.
    """
    hidden = held_out_inputs(task, digits, held_out)
    if split == "test":
        for number in hidden[:count]:
            yield _written(document(task, number, digits), prompts)
        return
    if split != "train":
        raise ValueError(f"there is no split `{split}`; the splits are train and test")
    draw, never = random.Random(f"{seed} {task} {digits}"), set(hidden)
    for _ in range(count):
        number = draw.randrange(inputs(task, digits))
        while number in never:
            number = draw.randrange(inputs(task, digits))
        yield _written(document(task, number, digits), prompts)


def _written(parts: tuple[str, str], prompts: bool) -> dict[str, str]:
    return dict(zip(("prompt", "completion"), parts, strict=True)) if prompts else {"text": "".join(parts)}
