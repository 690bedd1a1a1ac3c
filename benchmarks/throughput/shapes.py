"""Shapes of the models in the measurements: Llamas with random weights, which are as fast as trained ones."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

SHAPES: dict[str, dict[str, Any]] = {
    # The shape of stories260k.
    "260k": {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
        "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True,
    },
    "23M": {
        "vocab_size": 32_000, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8,
        "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": False,
    },
    "131k": {
        "vocab_size": 131_072, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
        "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""By name; `131k` is the smallest one with the vocabulary of a large model."""
CONTEXT = 512


def llama(shape: dict[str, Any], seed: int = 0) -> "LlamaForCausalLM":
    """Return a model of that shape, the same one for the same seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{"max_position_embeddings": CONTEXT, **shape}))
