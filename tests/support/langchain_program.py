"""What a LangChain user does, as a program of its own: `python -I langchain_program.py URL`; prints JSON."""

import asyncio
import json
import sys

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


def get_weather(city: str) -> str:
    """The weather."""
    return city


SCHEMA = {
    "title": "x",
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
url = f"{sys.argv[1]}/v1"
model = ChatOpenAI(base_url=url, api_key="anything", model="tiny", max_retries=0, temperature=0, max_tokens=9)


async def streamed() -> list[str]:
    return [chunk.content async for chunk in model.astream("hi")]


called = model.bind_tools([get_weather]).invoke("weather?")
structured = model.with_structured_output(SCHEMA, method="json_schema").invoke("weather?")
image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
picture = model.invoke([HumanMessage([{"type": "text", "text": "what"}, image])])
responses = ChatOpenAI(base_url=url, api_key="anything", model="tiny", max_retries=0, use_responses_api=True)
embeddings = OpenAIEmbeddings(
    base_url=url, api_key="anything", model="tiny", check_embedding_ctx_length=False, max_retries=0
)
sys.stdout.write(
    json.dumps(
        {
            "whole": model.invoke("hi").content,
            "streamed": "".join(asyncio.run(streamed())),
            "tool": called.tool_calls[0]["args"],
            "structured": structured,
            "picture": bool(picture.content),
            "responses": responses.invoke("hi").text,
            "embedding": embeddings.embed_query("hi"),
        }
    )
)
