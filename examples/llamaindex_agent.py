"""A LlamaIndex agent with a memory.

    pip install llama-index-core
    python examples/llamaindex_agent.py

The language model is LlamaIndex's own mock, which says what it was told to say, so that this runs
without a key. With a real one, such as `OpenAI(model=...)`, nothing else changes.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM

from arrowembed.tools import EmbeddingTool, ToolRegistry
from arrowembed.tools.adapters import llama_index_tools

QUESTION = "Remember that my cat is called Miez. And what is my pet's name?"


def scripted() -> FunctionCallingLLM:
    """First a call to remember, then one to search, then an answer."""
    remember = {"texts": ["The user's cat is called Miez."]}
    search = {"query": "pet's name", "k": 1}
    turns: Iterator[ChatMessage] = iter(
        [
            calling("remember", remember),
            calling("search", search),
            ChatMessage(role="assistant", content="Your pet is called Miez."),
        ]
    )

    def say(_messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
        return next(turns)

    return MockFunctionCallingLLM(response_generator=say)


def calling(name: str, arguments: dict[str, Any]) -> ChatMessage:
    """The model's message with a call of a tool."""
    block = ToolCallBlock(tool_call_id=name, tool_name=name, tool_kwargs=arguments)
    return ChatMessage(role="assistant", blocks=[block])


async def answer(model: FunctionCallingLLM, registry: ToolRegistry, question: str) -> str:
    """Runs the agent and prints the calls that it makes."""
    agent = FunctionAgent(tools=[*llama_index_tools(registry)], llm=model, streaming=False)
    running = agent.run(question)
    async for event in running.stream_events():
        if isinstance(event, ToolCallResult):
            print(f"{event.tool_name} {event.tool_kwargs}\n-> {event.tool_output.content}")
    return str(await running)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="embedding model")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddingTool(options.model, Path(folder) / "store") as embedding,
    ):
        registry = ToolRegistry()
        registry.register(embedding)
        print(asyncio.run(answer(scripted(), registry, QUESTION)))


if __name__ == "__main__":
    main()
