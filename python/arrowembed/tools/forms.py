"""One schema in the forms that models and their programs want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools.strict import strict

if TYPE_CHECKING:
    from arrowembed.tools.definition import Tool

Form: TypeAlias = Literal["json_schema", "openai", "openai_responses", "anthropic", "mcp"]
FORMS: tuple[Form, ...] = get_args(Form)

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def in_form(tool: Tool, form: Form) -> dict[str, Any]:
    """What a model is told of a tool.

    Raises:
        InvalidArgumentError: There is no such form.
    """
    schema = tool.parameters.schema()
    told = {"name": tool.name, "description": tool.description}
    match form:
        case "json_schema":
            return {
                "$schema": DIALECT,
                "title": tool.name,
                "description": tool.description,
                **schema,
            }
        case "openai":
            function = {**told, "parameters": strict(schema), "strict": True}
            return {"type": "function", "function": function}
        case "openai_responses":
            return {"type": "function", **told, "parameters": strict(schema), "strict": True}
        case "anthropic":
            return {**told, "input_schema": schema}
        case "mcp":
            return {
                "name": tool.name,
                "title": tool.title,
                "description": tool.description,
                "inputSchema": schema,
                "outputSchema": structured_schema(tool),
                "annotations": hints(tool),
            }
    raise InvalidArgumentError(f"form {form!r}; known are {', '.join(FORMS)}")


def hints(tool: Tool) -> dict[str, Any]:
    """What MCP tells a host of how a tool behaves."""
    reads = tool.traits.scope == "read"
    return {
        "title": tool.title,
        "readOnlyHint": reads,
        "destructiveHint": not reads and tool.traits.destructive,
        "idempotentHint": reads or tool.traits.idempotent,
        "openWorldHint": tool.traits.open_world,
    }


def structured_schema(tool: Tool) -> dict[str, Any]:
    """Schema of a tool's result as an object, which it always is in MCP.

    Another result is the value of "result"; `structured` makes the object.
    """
    schema = tool.returns.schema()
    if tool.returns.are_objects:
        return schema
    definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    return {
        "type": "object",
        "properties": {"result": schema},
        "required": ["result"],
        **definitions,
    }


def structured(tool: Tool, result: Any) -> dict[str, Any]:
    """A tool's result as the object that `structured_schema` describes."""
    return result if tool.returns.are_objects else {"result": result}
