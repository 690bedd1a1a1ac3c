"""A tiny random Llama for a large vocabulary."""

from transformers import LlamaConfig, LlamaForCausalLM


def build(vocabulary: int = 151680) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=256, tie_word_embeddings=True,
        )
    )  # fmt: skip
