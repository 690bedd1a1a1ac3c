"""A small Llama for the arithmetic tasks."""

from transformers import LlamaConfig, LlamaForCausalLM


def build(
    tokenizer_size: int = 19,
    hidden: int = 128,
    layers: int = 2,
    heads: int = 4,
    intermediate: int = 352,
    max_positions: int = 128,
) -> LlamaForCausalLM:
    """A randomly initialised model, 0.41M parameters by default; the caller seeds torch.

    Heads have 32 dimensions by default because vLLM on CPUs wants a multiple of 32. Embedding and head are untied, as
    published; RoPE's base is 10,000; weights start from N(0, 1 / hidden).
    Token ids are those of tokenizer.py: 0 pads, 8 ends, nothing starts.
    """
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer_size,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=intermediate,
            max_position_embeddings=max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=False,
            initializer_range=hidden**-0.5,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=8,
        )
    )
