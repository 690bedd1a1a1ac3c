"""The only place that loads models and tokenizers. Imports torch and transformers when called."""

from functools import lru_cache
from typing import Any


def load_model(folder: str, dtype: str, device: Any = "cpu") -> Any:
    """Load a causal language model in eval mode with its parameters in `dtype`, "auto" for the dtype of its files."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)


@lru_cache(maxsize=4)
def load_tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
