"""An agent that remembers from one conversation to the next.

    python examples/agent_memory.py --store memory

With OPENAI_API_KEY set it talks to that service, or to the one that OPENAI_BASE_URL names: a local
Ollama or llama.cpp will do. Without, to a scripted model on this machine.
"""

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
from scripted_model import scripted_model

from arrowembed.tools import EmbeddingTool, ToolRegistry, run_tool_calls

INSTRUCTIONS = (
    "You have a memory that outlasts conversations. Remember what the user tells you of "
    "themselves. Before you answer a question about the user, search."
)

CONVERSATIONS = [
    "My cat is called Miez and sleeps all day.",
    "I am allergic to peanuts.",
    "What must not be in my food?",
    "What is the name of my pet?",
]
"""The first message of each; none knows of the others."""

MOST_TURNS = 8


def converse(client: openai.OpenAI, model: str, registry: ToolRegistry, text: str) -> str:
    """One conversation: the model calls tools until it has an answer."""
    messages: list[Any] = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": text},
    ]
    tools: list[Any] = registry.get_schemas("openai")
    print(f"user:  {text}")
    for _ in range(MOST_TURNS):
        completion = client.chat.completions.create(model=model, messages=messages, tools=tools)
        answers = run_tool_calls(completion, registry)
        if not answers:
            return completion.choices[0].message.content or ""
        show(answers)
        messages += answers
    return "(no answer after so many turns)"


def show(turn: list[dict[str, Any]]) -> None:
    """Prints what the model asked of the tools and what it was told."""
    asked, *answers = turn
    for call, answer in zip(asked["tool_calls"], answers, strict=True):
        print(f"       {call['function']['name']} {call['function']['arguments']}")
        print(f"       -> {answer['content'][:150]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="embedding model")
    parser.add_argument("--store", type=Path, help="folder of the memory; by default a new one")
    parser.add_argument("--chat-model", default="gpt-5-mini", help="chat model of the service")
    options = parser.parse_args()

    with ExitStack() as stack:
        folder = options.store or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "store"
        memory = stack.enter_context(EmbeddingTool(options.model, folder))
        registry = ToolRegistry()
        registry.register(memory)
        if os.environ.get("OPENAI_API_KEY"):
            client = stack.enter_context(openai.OpenAI())
        else:
            address = stack.enter_context(scripted_model())
            client = stack.enter_context(openai.OpenAI(base_url=address, api_key="none"))
        for text in CONVERSATIONS:
            print(f"agent: {converse(client, options.chat_model, registry, text)}\n")
        for name, usage in registry.metrics().items():
            print(f"{name}: {usage['calls']} calls, {1000 * usage['seconds']:.0f} ms")


if __name__ == "__main__":
    main()
