"""Records what vLLM makes of Responses requests and of deltas, and of the chats they are asked for as.

Run by hand, when vLLM's version or the translation changes (a minute; it writes
`recorded/as_chat_responses.json`), by Heron's python with the python of an environment that has vLLM:

    PYTHONPATH=tests:. python tests/support/record_as_chat_responses.py ~/.cache/heron/vllm-…/bin/python

It calls itself with the second one, and fails loudly where vLLM does not take a chat and its request for the
same: prompt, sampling, templates' arguments, tools. Of each stream it keeps the two APIs' events.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded" / "as_chat_responses.json"
AGENTS = RECORDED.with_name("agents_responses.json")
"""What real agents sent, but for the words."""
CHAT_ID, CREATED = "chatcmpl-0a1b", 1_764_000_000


def main(arguments: list[str]) -> int:
    """Ask for the chats, let vLLM judge, keep the answers."""
    if arguments == ["--judge"]:
        judge()
        return 0
    from router.policy.responses_as_chat import responses_as_chat
    from support.responses_cases import REQUESTS
    from support.responses_streams import STREAMS

    def translated(body: dict[str, Any]) -> dict[str, Any]:
        whole = {"model": "tiny", "stream": True, **body}
        made = responses_as_chat(whole)
        assert made is not None, f"not translated: {body}"
        return {"input": whole, "chat": made.fields}

    agents = json.loads(AGENTS.read_text())
    requests = REQUESTS | {one["name"]: one["body"] for one in agents}
    case = {
        "requests": [{"name": name, **translated(body)} for name, body in requests.items()],
        "streams": [{**stream, **translated(stream["body"])} for stream in STREAMS],
    }
    (python,) = arguments
    environment = {**os.environ, "VLLM_TARGET_DEVICE": "cpu", "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [python, __file__, "--judge"],
        input=json.dumps(case),
        text=True,
        capture_output=True,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        return 1
    RECORDED.write_text(json.dumps(json.loads(done.stdout), ensure_ascii=False, indent=1) + "\n")
    return 0


# ---- by vLLM's python ----


def judge() -> None:
    """Compare each request with its chat, and write their events to stdout."""
    out, sys.stdout = sys.stdout, sys.stderr
    case = json.load(sys.stdin)
    requests = [{name: one[name] for name in ("name", "input", "chat")} for one in case["requests"]]
    with tempfile.TemporaryDirectory() as directory:
        streams = asyncio.run(judge_all(case["requests"], case["streams"], Path(directory)))
    json.dump({"requests": requests, "streams": streams}, out)


def same(what: str, name: str, native: Any, chat: Any) -> None:
    """Fail loudly where they differ."""
    assert native == chat, f"{name}: {what} differs\n  native: {native!r}\n  chat:   {chat!r}"


async def judge_all(
    requests: list[dict[str, Any]], streams: list[dict[str, Any]], directory: Path
) -> list[dict[str, Any]]:
    """Every request with every kind of renderer; then the streams."""
    renderers = list(make_renderers(directory))
    for one in requests + streams:
        name = one["name"]
        compare_requests(name, *read(one))
        for tool_parser, online in renderers:
            if "image" not in name:  # the model sees none
                await compare_rendered(name, online, one, tool_parser)
    (adjusting, *_) = (online for tool_parser, online in renderers if tool_parser == "hermes")
    kept = ("name", "input", "chat")
    both = [(one, await both_streams(one, adjusting)) for one in streams]
    return [
        {**{name: one[name] for name in kept}, "chunks": chat, "events": native}
        for one, (native, chat) in both
    ]


def read(one: dict[str, Any]) -> tuple[Any, Any]:
    """vLLM's own of both; it changes what it is given."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    return (
        ResponsesRequest.model_validate(copy.deepcopy(one["input"])),
        ChatCompletionRequest.model_validate(copy.deepcopy(one["chat"])),
    )


def compare_requests(name: str, native: Any, chat: Any) -> None:
    """All that needs no renderer."""
    from types import SimpleNamespace

    from vllm.entrypoints.openai.responses.utils import construct_input_messages, construct_tool_dicts
    from vllm.parser.utils import count_history_tool_calls

    messages = construct_input_messages(request_instructions=native.instructions, request_input=native.input)
    for content_format in ("string", "openai"):
        same(
            f"conversation ({content_format})",
            name,
            conversation(messages, content_format),
            conversation(chat.messages, content_format),
        )
    tools = None if chat.tools is None else [tool.model_dump() for tool in chat.tools]
    for is_excluded in (False, True):
        shown = None if is_excluded and chat.tool_choice == "none" else tools
        native_tools = construct_tool_dicts(native.tools, native.tool_choice, is_excluded)
        # In order too: a template may write them as they are.
        same("tools", name, json.dumps(native_tools), json.dumps(shown))
    params = [one.build_chat_params(None, "auto") for one in (native, chat)]
    same("chat params", name, *(dataclasses.replace(one, tool_choice=choice(one)) for one in params))
    model = SimpleNamespace(max_model_len=4096)
    same("tokenization", name, *(tokenization(one.build_tok_params(model)) for one in (native, chat)))
    same("tool_choice", name, choice(native), choice(chat))
    for what in ("include_reasoning", "parallel_tool_calls", "stream", "model", "priority"):
        native_value, chat_value = getattr(native, what), getattr(chat, what)
        same(what, name, native_value, chat_value)
    same("past calls", name, count_history_tool_calls(native), count_history_tool_calls(chat))
    limit = chat.max_completion_tokens if chat.max_completion_tokens is not None else chat.max_tokens
    same("limit", name, native.max_output_tokens, limit)
    compare_sampling(name, native, chat)


def choice(request: Any) -> Any:
    """Of tools; a chat nests a tool's name."""
    chosen = request.tool_choice
    if chosen is None or isinstance(chosen, str):
        return chosen
    assert chosen.type == "function"
    return [chosen.function.name if hasattr(chosen, "function") else chosen.name]


def compare_sampling(name: str, native: Any, chat: Any) -> None:
    """With an engine's defaults and without."""
    defaults = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05}
    for known in ({}, defaults, {"presence_penalty": 0.1, "frequency_penalty": 0.2}):
        limit = min(300, native.max_output_tokens or 300)
        one, other = native.to_sampling_params(limit, known), chat.to_sampling_params(limit, known)
        assert not one.extra_args
        one.extra_args = None  # {} there
        same("sampling", name, one, other)
        same("sampling as text", name, repr(one), repr(other))


def tokenization(params: Any) -> dict[str, Any]:
    """But for what errors call the limits."""
    return {key: value for key, value in vars(params).items() if not key.endswith("_param")}


def conversation(messages: list[Any], content_format: str) -> tuple[Any, Any]:
    """What a template gets, and the images."""
    from types import SimpleNamespace

    from vllm.renderers.chat_utils import _parse_chat_message_content, _postprocess_messages

    images: list[Any] = []
    parser = SimpleNamespace(
        model_config=SimpleNamespace(enable_prompt_embeds=False),
        parse_image=lambda *image: images.append(image),
        mm_placeholder_storage=dict,
    )
    tracker = SimpleNamespace(create_parser=lambda **_: parser)
    parsed: list[Any] = []
    for message in messages:
        parsed += _parse_chat_message_content(message, tracker, content_format, interleave_strings=False)
    _postprocess_messages(parsed)
    return parsed, images


TEMPLATE = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{{ [reasoning_effort | default('-'), enable_thinking | default('-'), documents | default('-')] }}"
    "{% for message in messages %}"
    "{{ [message.keys() | list, message.role, message.content, message.reasoning, message.tool_call_id] }}"
    "{% for call in message.tool_calls or [] %}"
    "{{ [call.id, call.type, call.function.name, call.function.arguments] }}"
    "{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""Shows all that a template can be given, but in which order a call's name and arguments stand: vLLM puts a
chat's arguments first, and no chat can say otherwise."""


def make_renderers(directory: Path) -> Any:
    """vLLM's, of a model with a tokenizer of bytes that puts its own beginning before each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, PreTrainedTokenizerFast
    from vllm.config import ModelConfig, VllmConfig
    from vllm.renderers import renderer_from_config
    from vllm.renderers.online_renderer import OnlineRenderer

    special = ["<|begin|>", "<|end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"]
    alphabet = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1])
    fast.chat_template = TEMPLATE
    fast.save_pretrained(directory)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    llama = LlamaConfig(vocab_size=len(alphabet), max_position_embeddings=8192, **sizes)
    llama.architectures = ["LlamaForCausalLM"]
    llama.save_pretrained(directory)
    model = ModelConfig(model=str(directory), tokenizer=str(directory), enforce_eager=True, dtype="float32")
    renderer = renderer_from_config(VllmConfig(model_config=model))
    for content_format in ("string", "openai"):
        for tool_parser, reasoning_parser in (
            (None, None),
            ("hermes", "qwen3"),
            ("qwen3_coder", "qwen3"),
            ("xlam", None),
        ):
            yield (
                tool_parser,
                OnlineRenderer(
                    model,
                    renderer,
                    request_logger=None,
                    chat_template=None,
                    chat_template_content_format=content_format,
                    enable_auto_tools=tool_parser is not None,
                    tool_parser=tool_parser,
                    reasoning_parser=reasoning_parser,
                    default_chat_template_kwargs={"documents": [{"title": "a", "text": "b"}]},
                ),
            )


async def compare_rendered(name: str, online: Any, one: dict[str, Any], tool_parser: str | None) -> None:
    """The tokens of both prompts; then what parsers made of both requests, their grammars too."""
    native, chat = read(one)
    if chat.tools and chat.tool_choice != "none" and tool_parser is None:
        return  # without a parser vLLM refuses such a chat, and serves such a request
    rendered = await online.render_responses(native)
    _, inputs = await online.render_chat(chat)
    same("prompt", name, rendered.engine_input["prompt_token_ids"], inputs[0]["prompt_token_ids"])
    compare_sampling(name, native, chat)
    sampling = native.to_sampling_params(300, {}).structured_outputs
    has_tag = sampling is not None and sampling.structural_tag is not None
    has_grammar = "grammar" in name if tool_parser in ("hermes", "qwen3_coder") else False
    assert has_tag == has_grammar, f"{name}: a structural tag with {tool_parser}: {has_tag}"


# ---- streams ----


async def both_streams(one: dict[str, Any], adjusting: Any) -> tuple[list[str], list[str]]:
    """What vLLM's two servers write of the same deltas, with parsers that give just these.

    `adjusting` is a renderer, whose own parser changes the requests as it does in a server.
    """
    from types import SimpleNamespace

    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.responses.api_router import _convert_stream_to_sse_events
    from vllm.entrypoints.openai.responses.context import SimpleContext
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    number_ids()
    native, chat = read(one)
    await adjusting.render_responses(native)
    await adjusting.render_chat(chat)
    native.request_id = "resp_0"
    off = {
        "enable_log_outputs": False,
        "enable_per_request_metrics": False,
        "request_logger": None,
        "enable_force_include_usage": False,
    }
    responses = OpenAIServingResponses.__new__(OpenAIServingResponses)
    vars(responses).update(off, use_harmony=False, enable_store=False, tool_server=None)
    native.store = False
    context = SimpleContext(response_parser=ScriptedParser(one))

    async def contexts() -> Any:
        for output in outputs(one):
            context.append_output(output)
            yield context

    stream = responses.responses_stream_generator(
        native,
        native.to_sampling_params(native.max_output_tokens, {}),
        contexts(),
        context,
        native.model,
        None,
        SimpleNamespace(),
        created_time=CREATED,
    )
    events = [event async for event in _convert_stream_to_sse_events(stream)]

    chats = OpenAIServingChat.__new__(OpenAIServingChat)
    vars(chats).update(
        off,
        response_role="assistant",
        parser_cls=ScriptedParser,
        system_fingerprint="fp",
        enable_prompt_tokens_details=True,
        _include_reasoning_tokens_details=True,
        _make_parser=lambda *_: ScriptedParser(one),
    )
    chat.return_token_ids = True

    async def results() -> Any:
        for output in outputs(one):
            yield output

    chunks = chats.chat_completion_stream_generator(
        chat, results(), CHAT_ID, chat.model, [], object(), SimpleNamespace()
    )
    moment = re.compile(r'"created":\d+')
    return events, [moment.sub(f'"created":{CREATED}', chunk) async for chunk in chunks]


def number_ids() -> None:
    """Ids that are the same at each recording."""
    from vllm.entrypoints.openai.responses import streaming_events

    numbers = itertools.count()
    streaming_events.random_uuid = lambda: str(next(numbers))
    streaming_events.make_tool_call_id = lambda: f"chatcmpl-tool-{next(numbers)}"


def outputs(one: dict[str, Any]) -> Any:
    """The engine's, one per delta."""
    from vllm.outputs import CompletionOutput, RequestOutput

    last = len(one["deltas"]) - 1
    for n in range(last + 1):
        output = CompletionOutput(
            index=0, text="x", token_ids=[7 + n], cumulative_logprob=None, logprobs=None
        )
        if n == last:
            output.finish_reason, output.stop_reason = one.get("finish", "stop"), one.get("stop_reason")
        yield RequestOutput(
            request_id="r",
            prompt=None,
            prompt_token_ids=[1] * 15,
            prompt_logprobs=None,
            outputs=[output],
            finished=n == last,
            num_cached_tokens=one.get("cached"),
            num_cache_creation_tokens=one.get("created"),
        )


class ScriptedParser:
    """Gives its deltas one after the other."""

    reasoning_parser = None

    def __init__(self, one: dict[str, Any]) -> None:
        self._deltas = iter(one["deltas"])
        self._reasoning_tokens = one.get("reasoning_tokens", 0)

    def parse_delta(self, **_: Any) -> Any:
        """The next one."""
        from vllm.entrypoints.generate.base.protocol import DeltaMessage

        delta = next(self._deltas)
        return None if delta is None else DeltaMessage.model_validate(copy.deepcopy(delta))

    def count_reasoning_tokens(self, _: Any) -> int:
        """As the script says."""
        return int(self._reasoning_tokens)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
