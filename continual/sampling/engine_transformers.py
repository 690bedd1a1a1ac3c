"""Sampling with `transformers`: the same distribution, for models and machines that vLLM does not serve.

A block of `generate.batch_size` samples is one batch under the seed of its first sample, so what is sampled again, or
later than the rest, is equal.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from continual.config.schema import Generate
from continual.data.context import set_context
from continual.models.load import load_model
from continual.sampling.engine import Engine, Sample
from continual.sampling.settings import SampleSettings


class TransformersEngine(Engine):
    """`transformers` in an actor per replica."""

    packages: ClassVar[tuple[str, ...]] = ("transformers", "torch")

    def block(self, config: Generate) -> int:
        return config.batch_size

    def generate(
        self, model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate
    ) -> Iterator[Sample]:
        import ray.data

        set_context()
        batches: dict[int, list[int]] = {}
        for number in numbers:
            batches.setdefault(number // self.block(config), []).append(number)
        # Ray Data emits only whole blocks. With one batch in each block, finished shards survive an interruption.
        requests = ray.data.from_items(
            [{"numbers": batch} for batch in batches.values()], override_num_blocks=len(batches)
        )
        sampled = requests.map_batches(
            _SampleBatch,
            fn_constructor_args=(model, dtype, settings, config.gpus_per_replica > 0),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=config.replicas),
            num_cpus=config.cpus_per_replica,
            num_gpus=config.gpus_per_replica or None,
        )
        for row in sampled.iter_rows():
            yield int(row["number"]), np.asarray(row["tokens"], np.int32)


class _SampleBatch:
    """Batches of sample numbers to tokens; runs in a Ray Data actor that holds the model."""

    def __init__(self, model: str, dtype: str, settings: SampleSettings, gpu: bool):
        from transformers import GenerationConfig

        self.settings, self.device = settings, "cuda" if gpu else "cpu"
        self.model = load_model(model, dtype, self.device)
        # The model's own may hold a repetition penalty or another filter, which would silently change the distribution.
        self.model.generation_config = GenerationConfig()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        numbers = [int(number) for part in batch["numbers"] for number in part]
        sampled: dict[int, np.ndarray] = {}
        for prompt in {tuple(self.settings.prompt(number)) for number in numbers}:
            same = sorted(number for number in numbers if tuple(self.settings.prompt(number)) == prompt)
            sampled |= dict(zip(same, self._sample(list(prompt), same), strict=True))
        return {"number": numbers, "tokens": [sampled[number] for number in numbers]}

    def _sample(self, prompt: list[int], numbers: list[int]) -> list[np.ndarray]:
        import torch

        settings, stop = self.settings, list(self.settings.stop)
        torch.manual_seed(settings.seed_of(numbers[0]))
        prompts = torch.tensor([prompt] * len(numbers), device=self.device)
        out = self.model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_new_tokens=settings.room(prompt),
            eos_token_id=stop or None,
            pad_token_id=0,
        )[:, len(prompt) :].cpu()
        samples = []
        for row in out.tolist():
            ends = [place for place, token in enumerate(row) if token in stop]
            samples.append(np.asarray(row[: ends[0] + 1] if ends else row, np.int32))
        return samples
