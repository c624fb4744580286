"""A tiny Llama with random weights and a real tokenizer, made on this machine: real vLLM without a download.

For tests and for `heron demo --engine vllm` on machines without a GPU. The answers are word salad, but the
engine, its API, tokens, cache and metrics are the real ones. The seed is fixed, so two makings on one machine
(and so two sites) give the same answers.

`make` needs torch, transformers and tokenizers, which Heron's own environment lacks; so `ensure` runs this
file with the interpreter beside the `vllm` command. Hence only the standard library at the top.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE = "v1"
"""Names the cached model; change it with anything below that changes the model."""

VOCABULARY = 2048
SPECIAL_TOKENS = ("<|begin|>", "<|end|>", "<|pad|>")
MIN_POSITIONS, MAX_POSITIONS = 64, 131_072
SEED = 1
INITIAL_SPREAD = 0.3
"""Standard deviation of the weights. Large, so that logits lie far apart and greedy decoding does not hang on
rounding: then prefill and decode agree on the next token, as they do in a trained model."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '[' + message['role'] + '] ' + message['content'] }}"
    "{% if not (loop.last and continue_final_message | default(false)) %}{{ '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)

MAKE_TIMEOUT_SECONDS = 300.0
"""Importing torch takes ten seconds on two busy cores; the rest is nothing."""


class TinyModelError(Exception):
    """The model could not be made; the message holds the other interpreter's last lines."""


def cache_dir(environment: dict[str, str] | os._Environ[str]) -> Path:
    """Where Heron keeps what it can make again."""
    base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "heron"


def ensure(vllm_command: Path, cache: Path, *, max_positions: int = 2048) -> Path:
    """Return the model's directory below `cache`, making it first where it is not there yet.

    `max_positions` is the longest prompt plus answer, in tokens. Safe against interruption and against a
    second maker: the directory appears by one rename.

    Raises:
        TinyModelError: no interpreter beside `vllm_command`, or the making failed.
    """
    target = cache / "models" / f"tiny-llama-{RECIPE}-{max_positions}"
    return made(vllm_command, target, Path(__file__), "--max-positions", str(max_positions))


def made(vllm_command: Path, target: Path, maker: Path, *arguments: str) -> Path:
    """Return `target`. Where it is not there, `maker` is run first, by the interpreter beside `vllm_command`,
    with a directory to fill and `arguments`.

    Raises:
        TinyModelError: there is none, or the making failed.
    """
    if target.is_dir():
        return target
    python = vllm_command.resolve().parent / "python"
    if not python.exists():
        raise TinyModelError(f"{python}: no such interpreter; it must stand beside {vllm_command}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        done = subprocess.run(
            [str(python), "-I", str(maker), str(partial), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MAKE_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise TinyModelError(f"{python} could not make the model in {partial}: {done.stderr[-2000:]}")
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():  # else another maker was faster, and theirs is the same
                raise
    except subprocess.TimeoutExpired:
        raise TinyModelError(f"{python} took more than {MAKE_TIMEOUT_SECONDS:.0f} s") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def make(directory: Path, *, max_positions: int) -> None:
    """Write model, tokenizer, chat template and generation defaults into `directory`."""
    if not MIN_POSITIONS <= max_positions <= MAX_POSITIONS:
        raise ValueError(f"max_positions = {max_positions}: allowed are {MIN_POSITIONS} to {MAX_POSITIONS}")
    make_tokenizer(directory)
    _make_weights(directory, max_positions)


def make_tokenizer(directory: Path) -> None:
    # The language reference that Python carries: half a megabyte of English on every machine.
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    begin, end, pad = SPECIAL_TOKENS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([topics[name] for name in sorted(topics)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad)
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)


def _make_weights(directory: Path, max_positions: int) -> None:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=max_positions,
            initializer_range=INITIAL_SPREAD,
            tie_word_embeddings=False,
            **ids,
        )
    )
    model.save_pretrained(directory)
    GenerationConfig(do_sample=True, temperature=1.0, **ids).save_pretrained(directory)


def main(arguments: list[str]) -> int:
    """Run by `ensure` with the other interpreter."""
    parser = argparse.ArgumentParser(description="Make a tiny Llama with random weights for tests.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--max-positions", type=int, default=2048)
    options = parser.parse_args(arguments)
    make(options.directory, max_positions=options.max_positions)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
