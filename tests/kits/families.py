"""Tiny random models of many families."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from tests.kits.models import SIZES

WIDE = {**SIZES, "head_dim": 8, "max_position_embeddings": 128}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
OLD = {"vocab_size": 50, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 128, "initializer_range": 0.2}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MIXED = {"layer_types": ["linear_attention", "full_attention"]}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
          "image_size": 28, "patch_size": 14}  # fmt: skip
TRAINED: dict[str, dict[str, Any]] = {
    "Llama": SIZES, "Qwen2": SIZES, "Qwen3": WIDE, "Gemma2": WIDE, "Mistral": SIZES, "Phi": SIZES, "Phi3": SIZES,
    "GPTNeoX": SIZES, "GPT2": OLD, "Granite": SIZES, "Olmo2": SIZES, "StableLm": SIZES, "Starcoder2": SIZES,
    "Mixtral": {**SIZES, **EXPERTS}, "Qwen3Moe": {**WIDE, **EXPERTS},
    "Gemma3Text": {**WIDE, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
}  # fmt: skip
"""Configurations of families that are trained, by the names of their configs."""
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "OPT": ({**SIZES, "ffn_dim": 64, "init_std": 0.2, "word_embed_proj_dim": 32}, "see each other"),
    "GptOss": ({**WIDE, **EXPERTS}, "see each other"),
    "Granite": ({**SIZES, "logits_scaling": 4.0}, "head of GraniteForCausalLM"),
    "Cohere": (SIZES, "head of CohereForCausalLM"),
    "Qwen3Next": ({**WIDE, **EXPERTS, **LINEAR, **MIXED}, "see each other"),
    "Qwen3_5Text": ({**WIDE, **LINEAR, **MIXED}, "see each other"),
    "Mamba": ({"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "no position ids"),
    "Rwkv": ({"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}, "no position"),
    "Bloom": ({"vocab_size": 50, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "no position ids"),
    "Lfm2": ({**SIZES, "layer_types": ["conv", "full_attention"]}, "see each other"),
    "BertGeneration": (WIDE, "see those after it"),
}  # fmt: skip
"""Configurations of families that are refused, and words of the reason."""


def family(name: str, **sizes: Any) -> PreTrainedModel:
    """Return a random model of a family, by the name of its config."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{name}Config")(**sizes))
    return model.eval()


def with_vision(tower_layers: int = 2) -> PreTrainedModel:
    """Return a tiny Gemma 3 with its vision tower."""
    torch.manual_seed(0)
    text = {**WIDE, "vocab_size": 64, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config={**VISION, "num_hidden_layers": tower_layers},
        mm_tokens_per_image=4,
        image_token_index=60,
        boi_token_index=61,
        eoi_token_index=62,
    )
    return transformers.Gemma3ForConditionalGeneration(config).eval()
