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
        import torch

        started = time.perf_counter()
        scores, records, facts = self._score(model_path)
        gc.collect()
        torch.cuda.empty_cache()
        result = {
            "scores": scores_as_json(scores),
            "seconds": round(time.perf_counter() - started, 3),
            "versions": {**versions(PACKAGES), "tasks": facts.pop("task_versions", {})},
            "settings": {
                **{key: value for key, value in self.settings.items() if key not in ("old_tasks", "texts", "every")},
                **facts,
                "model": model_path,
                "texts": {name: rows.hash for name, rows in self.texts.items()},
                "threads": self.threads,
                "dtype": self.dtype,
                "device": self.device,
            },
        }
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_atomic(f"{output}.samples.jsonl", lines)
        write_atomic(f"{output}.json", json.dumps(result, indent=1, allow_nan=False))
        return result

    def _score(self, model_path: str) -> tuple[Scores, list[dict[str, Any]], dict[str, Any]]:
        """Return scores, records and facts of the tasks. Only this frame holds the model, so returning frees it."""
        from continual.evaluation.harness import quiet
        from continual.evaluation.texts import score_text

        with quiet():
            model = load_model(model_path, self.dtype, self.device)
        scores: Scores = {}
        records: list[dict[str, Any]] = []
        facts: dict[str, Any] = {}
        if self.harness:
            scores, records, facts = self.harness.run(model, load_tokenizer(model_path))
        for name, rows in self.texts.items():
            scores[name], documents = score_text(model, name, rows)
            records += documents
        return scores, records, facts
