"""A LangChain agent with a memory.

    pip install langchain-core
    python examples/langchain_agent.py

The chat model is LangChain's own fake one, which says what it was told to say, so that this runs
without a key. With a real one, such as `ChatOpenAI(model=...)`, nothing else changes.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from arrowembed.tools import EmbeddingTool, ToolRegistry
from arrowembed.tools.adapters import langchain_tools

QUESTION = "Remember that my cat is called Miez. And what is my pet's name?"


class ScriptedModel(FakeMessagesListChatModel):
    """LangChain's fake model, which takes tools as others do."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Passes the tools on to nobody."""
        return self.bind(tools=[tool.name for tool in tools], **kwargs)


def scripted() -> BaseChatModel:
    """First a call to remember, then one to search, then an answer."""
    remember = ToolCall(name="remember", args={"texts": ["The user's cat is called Miez."]}, id="1")
    search = ToolCall(name="search", args={"query": "pet's name", "k": 1}, id="2")
    turns = [
        AIMessage("", tool_calls=[remember]),
        AIMessage("", tool_calls=[search]),
        AIMessage("Your pet is called Miez."),
    ]
    return ScriptedModel(responses=list(turns))


def answer(model: BaseChatModel, tools: list[BaseTool], question: str) -> str:
    """Lets the model call tools until it has an answer."""
    by_name = {tool.name: tool for tool in tools}
    thinking = model.bind_tools(tools)
    messages: list[AnyMessage] = [HumanMessage(question)]
    while True:
        said = thinking.invoke(messages)
        messages.append(said)
        if not said.tool_calls:
            return str(said.content)
        for call in said.tool_calls:
            result = by_name[call["name"]].invoke(call)
            print(f"{call['name']} {call['args']}\n-> {result.content}")
            messages.append(result)


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
        print(answer(scripted(), [*langchain_tools(registry)], QUESTION))


if __name__ == "__main__":
    main()
