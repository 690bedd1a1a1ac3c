"""What decides a set of samples, and how a sample's number becomes its prompt and seed."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SampleSettings:
    """Settings of a sample set; together with the model's hash they are its address.

    `starts`: prompts as token ids, used in turn (sample i begins with starts[i mod len]), so several share equally.
    `count`: samples. `tokens`: largest length of a sample in tokens, prompt included. `stop`: token ids that end a
    sample (and stay in it); empty when the sample runs on. `top_p` 1 and `top_k` 0 are off. `seed` seeds the set.
    """

    starts: tuple[tuple[int, ...], ...]
    count: int
    tokens: int
    stop: tuple[int, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def prompt(self, number: int) -> list[int]:
        return list(self.starts[number % len(self.starts)])

    def seed_of(self, number: int) -> int:
        """A seed of its own for every sample: consecutive from a hashed offset, below 2^31."""
        offset = int.from_bytes(hashlib.sha256(f"sample {self.seed}".encode()).digest()[:4], "big")
        return (offset + number) % (1 << 31)

    def identity(self) -> dict[str, Any]:
        return asdict(self)
