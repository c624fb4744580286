"""A tiny Llama that knows a few conversations by heart: reasoning, content and tool calls from real vLLM.

`site_agent/drivers/tiny_model.py` makes word salad, in which vLLM's parsers find nothing. This one, decoded
greedily, answers each of `CONVERSATIONS` word for word, in the formats of `VLLM_ARGUMENTS`' parsers. It is so
sure of every token that rounding changes none: given an answer's beginning, it writes the rest.

`_make` needs torch, transformers and tokenizers, which Heron's own environment lacks; so `ensure` runs this
file with the interpreter beside the `vllm` command. Hence only the standard library at the top.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VLLM_ARGUMENTS = (
    *("--reasoning-parser", "qwen3"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
"""What `vllm serve` needs beside the model to see reasoning and tool calls in the answers."""


@dataclass(frozen=True)
class Conversation:
    """One question and, with its markup, the answer that the model gives."""

    question: str
    answer: str


CONVERSATIONS = (
    Conversation(  # reasoning, content, one tool call
        "What is the weather in Tromsø?",
        "<think>\n"
        "The user asks for the weather in Tromsø, a city in the north. I do not know it by heart, but there "
        "is a tool for it. Three days should do 😀.\n"
        "</think>\n\n"
        "Let me look that up. "
        "<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Tromsø", "days": 3}}\n'
        "</tool_call>",
    ),
    Conversation(  # reasoning, content, two tool calls
        "Compare Oslo and Bergen.",
        "<think>\n"
        "Two cities, so I need two calls: first Oslo, then Bergen, each for one day.\n"
        "</think>\n\n"
        "I ask for both, voilà: "
        "<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Oslo", "days": 1}}\n'
        "</tool_call>\n"
        "<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Bergen", "days": 1}}\n'
        "</tool_call>",
    ),
    Conversation(  # reasoning, long content
        "How much is two and two?",
        "<think>\n"
        "This is a sum. Two and two is four; no tool is needed, not even in a café.\n"
        "</think>\n\n"
        "Two and two is four 😀. If you take two more, it is six. Naïve as it may seem, one can count on "
        "like this for ever, and the result is always even.",
    ),
    Conversation(  # content only; without the empty block it would all be reasoning
        "Say hello.",
        "<think>\n\n</think>\n\n"
        "Hello! It is good to see you here 😀. The wind is fresh today, the turbines are running, and the "
        "café at the harbour is open until late. Is there anything that I can do for you?",
    ),
    Conversation(  # a tool call and nothing else
        "Look it up silently.",
        "<tool_call>\n"
        '{"name": "note", "arguments": {"text": "Look up the wind at the coast, in the north and at the café '
        "by the harbour 😀; then write down the number of turbines that are running, the power that each of "
        'them gives, and the time at which the wind is said to turn."}}\n'
        "</tool_call>",
    ),
)


def _tool(name: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


TOOLS = [
    _tool(
        "get_weather",
        "The weather of the next days.",
        {"city": {"type": "string"}, "days": {"type": "integer"}},
    ),
    _tool("note", "Write something down.", {"text": {"type": "string"}}),
]
"""What requests offer, in OpenAI's form. The model's prompt does not have it."""

VOCABULARY = 2048
SPECIAL_TOKENS = ("<|begin|>", "<|end|>", "<|pad|>")
MARKUP_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Tokens of their own, but not special: they stay in the text."""
MAX_POSITIONS = 1024
SEED = 1

LEARNING_RATE, WARM_UP_STEPS = 1e-2, 20
MAX_STEPS, STEPS_BETWEEN_LOOKS = 400, 25
SOFTNESS = 2.0
"""Logits are divided by it while learning, and so end up that much further apart."""
WANTED_MARGIN, MIN_MARGIN = 14.0, 10.0
"""By how much a right token's logit must exceed the next best: while learning, and at last in bfloat16, which
rounds such logits by 0.1."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '[' + message['role'] + '] ' + (message['content'] or '') }}"
    "{% if not (loop.last and continue_final_message | default(false)) %}{{ '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)
"""Without the tools and earlier tool calls, and never opening `<think>`: the model does that."""


class NotLearnedError(Exception):
    """It does not know its answers well enough."""


def ensure(vllm_command: Path, cache: Path) -> Path:
    """Return the model's directory below `cache`, making it first where it is not there yet.

    Safe against interruption and against a second maker: the directory appears by one rename.

    Raises:
        TinyModelError: no interpreter beside `vllm_command`, or the making failed.
    """
    from site_agent.drivers import tiny_model  # not there for the interpreter that runs this file

    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return tiny_model.made(vllm_command, cache / "models" / f"talking-llama-{recipe}", Path(__file__))


def _make(directory: Path) -> str:
    """Write tokenizer, weights and generation defaults into `directory`; say how it went."""
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # these matrices are so small that more only wait for each other
    tokenizer = _make_tokenizer(directory)
    inputs, labels = _lessons(tokenizer)
    model = _new_model(len(tokenizer))
    steps = _learn(model, inputs, labels)
    model.to(torch.bfloat16)
    loss, margin = _examine(model, inputs, labels)
    said = f"{steps} steps, loss {loss:.1e}, least margin {margin:.1f}"
    if not margin >= MIN_MARGIN:
        raise NotLearnedError(f"not learned: {said}")
    model.save_pretrained(directory)
    return said


def _make_tokenizer(directory: Path) -> Any:
    # The language reference that Python carries: half a megabyte of English on every machine.
    from pydoc_data.topics import topics

    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
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
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in MARKUP_TOKENS])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad)
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)
    return fast


def _lessons(tokenizer: Any) -> tuple[Any, Any]:
    """(token ids, wanted next ids with -100 where any will do), a conversation a row."""
    import torch

    rows: list[tuple[list[int], list[int]]] = []
    for conversation in CONVERSATIONS:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": conversation.question}], tokenize=False, add_generation_prompt=True
        )
        prompt = tokenizer.encode(text, add_special_tokens=False)
        answer = [
            *tokenizer.encode(conversation.answer, add_special_tokens=False),
            tokenizer.eos_token_id,
        ]
        rows.append((prompt + answer[:-1], [-100] * (len(prompt) - 1) + answer))
    width = max(len(ids) for ids, _ in rows)

    def filled(ids: list[int], filler: int) -> list[int]:
        return ids + [filler] * (width - len(ids))

    inputs = torch.tensor([filled(ids, tokenizer.pad_token_id) for ids, _ in rows])
    return inputs, torch.tensor([filled(wanted, -100) for _, wanted in rows])


def _new_model(vocabulary: int) -> Any:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=False,
            **ids,
        )
    )
    model.generation_config = GenerationConfig(do_sample=False, **ids)
    return model


def _learn(model: Any, inputs: Any, labels: Any) -> int:
    """Until every token is as good as certain; the steps taken."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    wanted = labels.flatten()
    taught = wanted != -100
    for step in range(1, MAX_STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / WARM_UP_STEPS)
        hidden = model.model(inputs).last_hidden_state.flatten(0, 1)[taught]
        error = torch.nn.functional.cross_entropy(model.lm_head(hidden) / SOFTNESS, wanted[taught])
        optimizer.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % STEPS_BETWEEN_LOOKS == 0 and _examine(model, inputs, labels)[1] >= WANTED_MARGIN:
            return step
    return MAX_STEPS


def _examine(model: Any, inputs: Any, labels: Any) -> tuple[float, float]:
    """(mean loss, least excess of a right token's logit over the best other's)."""
    import torch

    taught = labels != -100
    wanted = labels[taught]
    with torch.inference_mode():
        logits = model(inputs).logits[taught].float()
    loss = torch.nn.functional.cross_entropy(logits, wanted)
    right = logits.gather(1, wanted.unsqueeze(1))
    others = logits.scatter(1, wanted.unsqueeze(1), float("-inf")).amax(1, keepdim=True)
    return float(loss), float((right - others).min())


if __name__ == "__main__":
    sys.stdout.write(_make(Path(sys.argv[1])) + "\n")
