"""What a LiteLLM user does, as a program of its own: `python -I litellm_program.py URL`; prints JSON."""

import asyncio
import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it asks the internet else
import litellm

litellm.telemetry = False
url = sys.argv[1]
openai = {"model": "openai/tiny", "api_base": f"{url}/v1", "api_key": "anything", "max_retries": 0}
messages = [{"role": "user", "content": "hi"}]
parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}


async def asynchronous() -> str:
    answer = await litellm.acompletion(**openai, messages=messages, max_tokens=9)
    return answer.choices[0].message.content


whole = litellm.completion(**openai, messages=messages, max_tokens=9)
chunks = litellm.completion(**openai, messages=messages, max_tokens=9, stream=True)
called = litellm.completion(**openai, messages=messages, tools=[tool])
anthropic = litellm.completion(
    model="anthropic/tiny", api_base=url, api_key="anything", messages=messages, max_tokens=6
)
vllm = litellm.completion(
    model="hosted_vllm/tiny", api_base=f"{url}/v1", api_key="anything", messages=messages, max_tokens=9
)
embedding = litellm.embedding(
    model="openai/tiny", api_base=f"{url}/v1", api_key="anything", input=["hi"], encoding_format="float"
)
try:
    litellm.completion(**{**openai, "model": "openai/other"}, messages=messages)
    error = ""
except litellm.NotFoundError as raised:
    error = str(raised)
sys.stdout.write(
    json.dumps(
        {
            "whole": whole.choices[0].message.content,
            "asynchronous": asyncio.run(asynchronous()),
            "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
            "tool": json.loads(called.choices[0].message.tool_calls[0].function.arguments),
            "anthropic": anthropic.choices[0].message.content,
            "hosted_vllm": vllm.choices[0].message.content,
            "embedding": embedding.data[0]["embedding"],
            "error": error,
        }
    )
)
