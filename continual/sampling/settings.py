"""What decides a set of samples, and how a sample's number becomes its prompt and seed."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any


def sample_seed(seed: int, number: int) -> int:
    """Return the seed of sample `number` of a set: consecutive from a hashed offset, below 2^31."""
    offset = int.from_bytes(hashlib.sha256(f"sample {seed}".encode()).digest()[:4], "big")
    return (offset + number) % (1 << 31)


LISTED = 16
"""Prompts that an address lists."""


@dataclass(frozen=True)
class SampleSettings:
    """Settings of a sample set; together with the model's hash they are its address. Any number can be sampled.

    `starts`: prompts as token ids, used in turn (sample i begins with starts[i mod len]), so several share equally.
    `tokens`: largest length of a sample in tokens, prompt included. `stop`: token ids that end a sample (and stay in
    it); empty when the sample runs on. `top_p` 1 and `top_k` 0 are off. `seed` seeds the set. `new_tokens`: largest
    number of sampled tokens, where it is the same for long and short prompts.
    """

    starts: tuple[tuple[int, ...], ...]
    tokens: int
    stop: tuple[int, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    new_tokens: int | None = None

    def prompt(self, number: int) -> list[int]:
        return list(self.starts[number % len(self.starts)])

    def room(self, prompt: list[int]) -> int:
        """Return how many tokens may be sampled after a prompt."""
        return self.new_tokens or self.tokens - len(prompt)

    def seed_of(self, number: int) -> int:
        """Return the seed of one sample (see `sample_seed`)."""
        return sample_seed(self.seed, number)

    def identity(self) -> dict[str, Any]:
        """Return what decides the samples, JSON-able: of many prompts, or with `new_tokens`, a digest."""
        found = asdict(replace(self, starts=()))
        # With `new_tokens` the engine's context is wide enough for all prompts and does not change a sample.
        del found["starts"], found["new_tokens" if self.new_tokens is None else "tokens"]
        if self.new_tokens is None and len(self.starts) <= LISTED:
            return found | {"starts": self.starts}
        prompts = hashlib.sha256()
        for prompt in self.starts:
            prompts.update(json.dumps(prompt).encode())
        return found | {"prompts": prompts.hexdigest()}
