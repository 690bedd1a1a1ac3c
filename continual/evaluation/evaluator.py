"""A process that scores one model after another: lm-eval tasks and texts. `ray.remote(Evaluator)` makes it an actor."""

import gc
import json
import time
from typing import Any

from continual.forgetting import Scores, scores_as_json
from continual.models import load_model, load_tokenizer
from continual.store import Artefact, write_atomic
from continual.store.artefact import versions

PACKAGES = ("continual", "lm_eval", "torch", "transformers", "tokenizers", "datasets")


class Evaluator:
    """An evaluator with the settings of one sequence. It keeps no model between calls; equal models score equally."""

    def __init__(
        self,
        evaluate: dict[str, Any],
        tasks: list[dict[str, Any]],
        texts: dict[str, Artefact],
        threads: int = 1,
        dtype: str = "float32",
    ):
        """`evaluate`: a dump of `config.schema.Evaluate`; `tasks`: dumps of `EvaluationTask` of stages and old tasks.

        `texts`: rows by the text's name; `threads`: of torch on the CPU; `dtype`: of the weights.
        """
        import torch

        from continual.evaluation.harness import Harness

        torch.set_num_threads(threads)
        self.threads, self.dtype, self.settings, self.texts = threads, dtype, evaluate, dict(texts)
        self.device = "cuda" if evaluate.get("gpus") and torch.cuda.is_available() else "cpu"
        self.harness = Harness(evaluate, tasks) if tasks else None

    def evaluate(self, model_path: str, output: str) -> dict[str, Any]:
        """Score the model folder `model_path`; return what is written to `<output>.json`.

        That is `scores` (by task or text, see `Score.as_json`), `seconds`, `versions`, `settings`.
        `<output>.samples.jsonl`, one record per document, is written first. Both appear whole or not at all.
        Raises ContinualError if lm-eval fails or a score is not finite.
        """
        tasks = [task["name"] for task in self.harness.tasks] if self.harness else []
        return self._measured(model_path, {output: [*tasks, *self.texts]})[output]

    def evaluate_each(self, model_path: str, outputs: dict[str, str]) -> None:
        """Write what `evaluate` writes for each of the named tasks and texts alone; the model is loaded once."""
        self._measured(model_path, {output: [name] for name, output in outputs.items()})

    def _measured(self, model_path: str, wanted: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
        """Score and write the names that are wanted by output."""
        import torch

        results = self._score(model_path, wanted)
        gc.collect()
        torch.cuda.empty_cache()
        return results

    def _score(self, model_path: str, wanted: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
        """Only this frame holds the model, so returning frees it."""
        from continual.evaluation.harness import quiet
        from continual.evaluation.texts import score_text

        started = time.perf_counter()
        with quiet():
            model = load_model(model_path, self.dtype, self.device)
        tokenizer = load_tokenizer(model_path) if self.harness else None
        results = {}
        for output, names in wanted.items():
            scores: Scores = {}
            records: list[dict[str, Any]] = []
            facts: dict[str, Any] = {"task_versions": {}, "num_fewshot": {}}
            if self.harness:
                scores, records, facts = self.harness.run(model, tokenizer, names)
            texts = {name: self.texts[name] for name in names if name in self.texts}
            for name, rows in texts.items():
                scores[name], documents = score_text(model, name, rows)
                records += documents
            hashes = {name: rows.hash for name, rows in texts.items()}
            results[output] = self._write(output, model_path, scores, records, facts, hashes, started)
            started = time.perf_counter()
        return results

    def _write(
        self, output: str, model_path: str, scores: Scores, records: list[dict[str, Any]],
        facts: dict[str, Any], texts: dict[str, str], started: float,
    ) -> dict[str, Any]:  # fmt: skip
        result = {
            "scores": scores_as_json(scores),
            "seconds": round(time.perf_counter() - started, 3),
            "versions": {**versions(PACKAGES), "tasks": facts["task_versions"]},
            "settings": {
                **{key: value for key, value in self.settings.items() if key not in ("old_tasks", "texts", "every")},
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
