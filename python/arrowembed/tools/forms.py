"""One schema in the forms that models and their programs want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from arrowembed.tools.definition import Tool

Form: TypeAlias = Literal["json_schema", "openai", "openai_responses", "anthropic", "mcp"]
FORMS: tuple[Form, ...] = get_args(Form)

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What OpenAI's strict mode does not take. Arguments are checked against all of it all the same.
_NOT_STRICT = frozenset(
    {
        *("default", "examples", "format", "title", "minLength", "maxLength", "uniqueItems"),
        *("minProperties", "maxProperties", "propertyNames", "patternProperties"),
    }
)
_AS_TEXT = "Written as JSON text."


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


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema for OpenAI's strict mode, in which models cannot but keep to it.

    There, every property is required, so that those which may be left out may be null instead, and
    no object is open, so that those which are become JSON text. Tools take both.
    """
    if _is_open_object(schema):
        text = " ".join(part for part in (schema.get("description"), _AS_TEXT) if part)
        return {"type": "string", "description": text}
    made: dict[str, Any] = {}
    for key, value in schema.items():
        match key:
            case _ if key in _NOT_STRICT:
                continue
            case "properties" | "$defs":
                made[key] = {name: strict(inner) for name, inner in value.items()}
            case "anyOf" | "oneOf":
                made["anyOf"] = [strict(inner) for inner in value]
            case "items" if isinstance(value, dict):
                made[key] = strict(value)
            case "const":
                made["enum"] = [value]
            case "discriminator" | "$schema":
                continue
            case _:
                made[key] = value
    if "properties" in schema:
        required = schema.get("required", [])
        made["properties"] = {
            name: inner if name in required else _nullable(inner)
            for name, inner in made["properties"].items()
        }
        made["required"] = list(made["properties"])
        made["additionalProperties"] = False
    return made


def _is_open_object(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "object" and "properties" not in schema


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The same or null."""
    if "anyOf" in schema:
        choices = schema["anyOf"]
        if {"type": "null"} in choices:
            return schema
        return {**schema, "anyOf": [*choices, {"type": "null"}]}
    description = {"description": schema["description"]} if "description" in schema else {}
    inner = {key: value for key, value in schema.items() if key != "description"}
    return {"anyOf": [inner, {"type": "null"}], **description}
