"""Requests of the Responses API, of which `record_as_chat_responses` compares what vLLM makes."""

from __future__ import annotations

from typing import Any

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "description": "In a city.", "parameters": PARAMETERS}
CLOCK = {"type": "function", "name": "clock", "parameters": None, "strict": False}
STRICT = {**WEATHER, "strict": True}
CHOICES: dict[str, Any] = {
    "type": "function",
    "name": "choices",
    "description": "All that a schema may hold.",
    "parameters": {
        "type": "object",
        "$defs": {"one": {"enum": ["a", None, 1, 1.5, True]}},
        "properties": {
            "b": {"$ref": "#/$defs/one"},
            "a": {
                "anyOf": [{"type": "null"}, {"type": "array", "items": {}}],
                "default": None,
                "title": "ö€",
            },
        },
        "required": ["b", "a"],
        "additionalProperties": False,
    },
    "strict": True,
}
SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "name": "answer",
    "schema": {**CHOICES["parameters"], "description": None},
}
NAMED = {"type": "function", "name": "weather"}
CALENDAR: dict[str, Any] = {
    "type": "function",
    "name": "calendar",
    "description": None,
    "strict": None,
    "parameters": {},
}
SPACE = {"type": "namespace", "name": "space", "description": "All tools.", "tools": [WEATHER, CLOCK]}
QUESTION = {"role": "user", "content": "How is the weather?"}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
TEXT: dict[str, Any] = {"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": None}
ANSWER = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [TEXT]}
NULLS: dict[str, Any] = {"async": None, "caller": None, "namespace": None}


def thought(*texts: str, **more: Any) -> dict[str, Any]:
    """A reasoning item."""
    content = [{"type": "reasoning_text", "text": text} for text in texts]
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content, **more}


REQUESTS: dict[str, dict[str, Any]] = {
    "text": {"input": "Hello"},
    "empty text": {"input": "", "instructions": ""},
    "instructions": {"input": "Hello", "instructions": "Be kind."},
    "one message": {"input": [QUESTION]},
    "roles": {
        "instructions": "Be kind.",
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "input_text", "text": "Be right."}]},
            {"type": "message", **QUESTION, "id": "m", "status": "completed"},
        ],
    },
    "turns": {"input": [QUESTION, {"role": "assistant", "content": "Wet."}, QUESTION]},
    "turns as they came": {"input": [QUESTION, {**ANSWER, "phase": None}, QUESTION]},
    "an answer without id": {
        "input": [
            QUESTION,
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}],
            },
            QUESTION,
        ]
    },
    "an answer that was cut": {"input": [QUESTION, {**ANSWER, "status": "incomplete"}, QUESTION]},
    "an answer at the end": {"input": [QUESTION, ANSWER]},
    "parts": {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": t} for t in ("a", "", "ö€😀")]}]
    },
    "images": {
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": PIXEL},
                    {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "high"},
                ],
            }
        ]
    },
    "tools": {"input": "Hello", "tools": [WEATHER, CLOCK, CALENDAR]},
    "tools by choice": {"input": "Hello", "tools": [WEATHER], "tool_choice": "auto"},
    "tools not to be called": {"input": "Hello", "tools": [WEATHER], "tool_choice": "none"},
    "no tools": {"input": "Hello", "tools": [], "tool_choice": "auto", "parallel_tool_calls": None},
    "a grammar for one call at a time": {"input": "Hello", "tools": [WEATHER], "parallel_tool_calls": False},
    "a strict tool's grammar": {"input": "Hello", "tools": [STRICT]},
    "strict and other tools' grammar": {
        "input": "Hello",
        "tools": [CHOICES, CLOCK, CALENDAR, STRICT, WEATHER],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
    },
    "a strict tool's grammar for one call": {
        "input": "Hello",
        "tools": [CHOICES, CLOCK],
        "parallel_tool_calls": False,
    },
    "a strict tool that takes nothing, a grammar": {"input": "Hello", "tools": [{**CLOCK, "strict": True}]},
    "strict tools not to be called": {"input": "Hello", "tools": [STRICT, CHOICES], "tool_choice": "none"},
    "the grammar of a demanded call": {
        "input": "Hello",
        "tools": [WEATHER, CLOCK, CALENDAR],
        "tool_choice": "required",
    },
    "the grammar of one demanded call": {
        "input": "Hello",
        "tools": [CHOICES, WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    },
    "a named tool's grammar": {"input": "Hello", "tools": [CLOCK, WEATHER], "tool_choice": NAMED},
    "a named strict tool's grammar": {
        "input": "Hello",
        "tools": [STRICT, CHOICES],
        "tool_choice": {"name": "choices", "type": "function"},
        "parallel_tool_calls": False,
    },
    "a named tool that takes nothing, a grammar": {
        "input": "Hello",
        "tools": [CLOCK],
        "tool_choice": {**NAMED, "name": "clock"},
    },
    "a namespace": {"input": "Hello", "tools": [CLOCK, SPACE, WEATHER]},
    "a namespace and a web search": {
        "input": "Hello",
        "tools": [{"type": "web_search", "external_web_access": True}, SPACE, {"type": "web_search"}],
    },
    "a web search not to be called": {
        "input": "Hello",
        "tools": [WEATHER, {"type": "web_search", "search_context_size": "low"}],
        "tool_choice": "none",
    },
    "a strict tool's grammar in a namespace": {
        "input": "Hello",
        "tools": [CLOCK, {**SPACE, "tools": [STRICT]}, {"type": "web_search"}],
    },
    "the grammar of a demanded call in a namespace": {
        "input": "Hello",
        "tools": [SPACE, {"type": "web_search"}],
        "tool_choice": "required",
    },
    "the grammar of a named tool in a namespace": {
        "input": "Hello",
        "tools": [SPACE],
        "tool_choice": {"type": "function", "name": "space__clock"},
    },
    "an empty namespace": {"input": "Hello", "tools": [{**SPACE, "tools": []}, WEATHER]},
    "a call in a namespace": {
        "input": [
            QUESTION,
            {**CALL, "namespace": "space"},
            {
                **OUTPUT,
                "output": [{"type": "input_text", "text": "rain"}, {"type": "input_text", "text": "wet"}],
            },
            {**CALL, "namespace": ""},
            {**OUTPUT, "output": [{"type": "input_text", "text": ""}]},
        ],
        "tools": [SPACE],
    },
    "any JSON": {"input": "Hello", "text": {"format": {"type": "json_object"}}},
    "JSON by a schema": {
        "input": "Hello",
        "text": {"format": {**SCHEMA, "description": "d", "strict": True}, "verbosity": "high"},
    },
    "JSON by an empty schema": {"input": "Hello", "text": {"format": {**SCHEMA, "schema": {}}}},
    "JSON and tools": {"input": "Hello", "tools": [WEATHER], "text": {"format": SCHEMA}},
    "JSON and one call": {
        "input": "Hello",
        "tools": [WEATHER],
        "parallel_tool_calls": False,
        "text": {"format": SCHEMA},
    },
    "JSON and tools not to be called": {
        "input": "Hello",
        "tools": [STRICT],
        "tool_choice": "none",
        "text": {"format": {**SCHEMA, "description": None, "strict": None}},
    },
    "JSON or a strict tool's grammar": {"input": "Hello", "tools": [STRICT], "text": {"format": SCHEMA}},
    "any JSON or a strict tool's grammar": {
        "input": "Hello",
        "tools": [STRICT, CLOCK],
        "text": {"format": {"type": "json_object"}},
        "parallel_tool_calls": False,
    },
    "JSON, but the grammar of a demanded call": {
        "input": "Hello",
        "tools": [WEATHER],
        "tool_choice": "required",
        "text": {"format": SCHEMA, "verbosity": "low"},
    },
    "template arguments": {
        "input": "Hello",
        "chat_template_kwargs": {"enable_thinking": False, "documents": [{"title": "c"}], "x": {"y": [1.5]}},
    },
    "template arguments and effort": {
        "input": "Hello",
        "reasoning": {"effort": "high"},
        "chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "low"},
    },
    "other template arguments and effort": {
        "input": "Hello",
        "reasoning": {"effort": "none"},
        "chat_template_kwargs": {"x": 1, "documents": None, "enable_thinking": None},
    },
    "other template arguments and no effort": {
        "input": "Hello",
        "reasoning": {"effort": "none"},
        "chat_template_kwargs": {"thinking": False},
    },
    "template arguments without use": {
        "input": "Hello",
        "reasoning": {"effort": None},
        "tools": [WEATHER],
        "chat_template_kwargs": {
            "add_generation_prompt": False,
            "continue_final_message": True,
            "reasoning_effort": "auto",
            "documents": "auto",
            "tools": [],
        },
    },
    "no template arguments": {"input": "Hello", "chat_template_kwargs": {}},
    "template arguments that are null": {"input": "Hello", "chat_template_kwargs": None},
    "unknown to vLLM": {
        "input": "Hello",
        "client_metadata": {"thread": "t"},
        "stream_options": {"include_obfuscation": False},
    },
    "unknown to vLLM and null": {"input": "Hello", "client_metadata": None, "stream_options": None},
    "unknown to vLLM and empty": {"input": "Hello", "client_metadata": {}, "stream_options": {}},
    "calls": {
        "tools": [WEATHER],
        "input": [QUESTION, CALL, {**CALL, "call_id": "c2"}, OUTPUT, {**OUTPUT, "call_id": "c2"}],
    },
    "calls as they came": {
        "tools": [WEATHER],
        "input": [
            QUESTION,
            thought("Hm.", status="completed", encrypted_content=None),
            ANSWER,
            {**CALL, **NULLS, "id": "fc_1", "status": "completed"},
            {**OUTPUT, "id": None, "status": None},
        ],
    },
    "a call behind text": {"input": [QUESTION, {"role": "assistant", "content": ""}, CALL, OUTPUT]},
    "a call alone": {"input": [CALL, OUTPUT]},
    "a call that is no JSON": {"input": [QUESTION, {**CALL, "arguments": "{"}, OUTPUT, QUESTION]},
    "thoughts": {
        "input": [
            QUESTION,
            thought("One.", "Two."),
            ANSWER,
            thought("Three."),
            ANSWER,
            {"role": "assistant", "content": "Four."},
            thought("Five."),
            thought(),
            QUESTION,
        ]
    },
    "a summary of thoughts": {
        "input": [
            QUESTION,
            thought(summary=[{"type": "summary_text", "text": "In short."}]),
            ANSWER,
            {"type": "reasoning", "summary": [], "encrypted_content": ""},
            {"type": "reasoning", "summary": [], "content": None, "status": None},
        ]
    },
    "sampling": {
        "input": "Hello",
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.1,
        "seed": 7,
        "stop": ["END", "\n\n"],
        "max_output_tokens": 20,
    },
    "greedy": {"input": "Hello", "temperature": 0, "top_p": 0.5, "top_k": 5, "stop": "END"},
    "whole numbers": {"input": "Hello", "temperature": 1, "top_p": 1, "presence_penalty": 0, "min_p": 0},
    "hardly any temperature": {"input": "Hello", "temperature": 0.001, "stop": "", "seed": -1},
    "no sampling": {
        "input": "Hello",
        "temperature": None,
        "top_p": None,
        "stop": None,
        "seed": None,
        "max_output_tokens": None,
        "top_k": None,
    },
    "effort": {"input": "Hello", "reasoning": {"effort": "high", "summary": "auto"}},
    "no effort": {"input": "Hello", "reasoning": {"effort": "none", "generate_summary": None}},
    "no reasoning": {"input": "Hello", "reasoning": {}},
    "without effect": {
        "input": "Hello",
        "metadata": {"a": "b"},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
        "max_tool_calls": 3,
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "background": False,
        "truncation": "disabled",
        "top_logprobs": 0,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "previous_response_id": None,
        "conversation": None,
        "prompt": None,
        "logit_bias": None,
    },
    "nulls": {
        "input": "Hello",
        "store": None,
        "include": None,
        "metadata": None,
        "reasoning": None,
        "text": None,
        "top_logprobs": None,
        "instructions": None,
        "user": None,
        "max_tool_calls": None,
    },
}
