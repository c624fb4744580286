"""A model of Llama-3.1-8B's shape with random weights: speed and watts without a download.

Every matrix, the vocabulary and the KV cache have the real model's sizes, so a step moves the bytes and does
the operations of the real one; its answers are noise. The tokenizer is the tiny model's, filled up with
words that no text contains.

    python benchmarks/gpu/model.py DIRECTORY     # needs torch, transformers, tokenizers; 16 GB; a minute
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

SHAPE = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_theta": 500_000.0,
    "rms_norm_eps": 1e-5,
}
"""Of https://huggingface.co/meta-llama/Llama-3.1-8B (its config.json)."""
MAX_POSITIONS = 16_384
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SHARD = "4GB"


def make(directory: Path, device: str) -> None:
    """Write weights (bf16), tokenizer and configuration; the directory appears when it is whole."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    partial = Path(tempfile.mkdtemp(prefix=f"{directory.name}.", dir=directory.parent))
    _make_tokenizer(partial)
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        config = LlamaConfig(
            **SHAPE, max_position_embeddings=MAX_POSITIONS, tie_word_embeddings=False, dtype="bfloat16", **IDS
        )
        model = LlamaForCausalLM(config)
    model.save_pretrained(partial, max_shard_size=SHARD)
    GenerationConfig(do_sample=True, temperature=1.0, **IDS).save_pretrained(partial)
    partial.rename(directory)


def _make_tokenizer(directory: Path) -> None:
    """The tiny model's, with a vocabulary of the real size: each id has a text of its own."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from site_agent.drivers import tiny_model

    tiny_model.make_tokenizer(directory)
    values = json.loads((directory / "tokenizer.json").read_text())
    vocabulary = values["model"]["vocab"]
    first = max(vocabulary.values()) + 1
    vocabulary.update({f"Ġw{index}": index for index in range(first, SHAPE["vocab_size"])})
    begin, end, pad = tiny_model.SPECIAL_TOKENS
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(values)), bos_token=begin, eos_token=end, pad_token=pad
    )
    fast.chat_template = tiny_model.CHAT_TEMPLATE
    fast.save_pretrained(directory)


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute(), sys.argv[2] if len(sys.argv) > 2 else "cuda")
