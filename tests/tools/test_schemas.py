"""The schemas of tools, in all forms: valid, and as those who read them want them."""

import json
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import mcp_types
import pytest
from anthropic.types import ToolParam
from openai.types.chat import ChatCompletionToolParam
from openai.types.responses import FunctionToolParam
from pydantic import Field, TypeAdapter

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools import EmbeddingTool, Tool, tool
from arrowembed.tools.forms import FORMS, structured

ACTIONS = ["embed", "similarity", "search", "remember", "forget"]


class Unit(Enum):
    celsius = "celsius"
    kelvin = "kelvin"


@dataclass
class Place:
    """Where."""

    city: str
    heights: list[float] | None = None


@tool(scope="read", title="Weather", idempotent=True)
def forecast(
    place: Place,
    days: Annotated[int, Field(ge=1, le=9)],
    unit: Unit = Unit.celsius,
    from_: Literal["today", "tomorrow"] = "today",
    options: dict[str, int] | None = None,
) -> list[float]:
    """Tells how warm it
    will be.

    It does not
    know.

    Args:
        place: The city, and
            heights in metres.
        days: How many.
        unit: Of the temperatures.
        from_: Which day is the first.
    """
    return [float(days)]


def all_tools(embedding):
    return [*embedding.tools(), embedding.combined(), Tool(forecast)]


def parameters(form, schema):
    match form:
        case "json_schema":
            return schema
        case "openai":
            return schema["function"]["parameters"]
        case "openai_responses":
            return schema["parameters"]
        case "anthropic":
            return schema["input_schema"]
        case "mcp":
            return schema["inputSchema"]


@pytest.mark.parametrize("form", FORMS)
def test_every_schema_is_json_schema_2020_12(embedding, form):
    for offered in all_tools(embedding):
        schema = json.loads(json.dumps(offered.get_schema(form)))
        jsonschema.Draft202012Validator.check_schema(parameters(form, schema))
        if form == "mcp":
            jsonschema.Draft202012Validator.check_schema(schema["outputSchema"])


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("openai", ChatCompletionToolParam),
        ("openai_responses", FunctionToolParam),
        ("anthropic", ToolParam),
        ("mcp", mcp_types.Tool),
    ],
)
def test_every_form_is_what_its_readers_know(embedding, form, kind):
    for offered in all_tools(embedding):
        TypeAdapter(kind).validate_python(offered.get_schema(form))


def test_the_tools_of_a_store_need_one(embedding, model):
    assert [tool["title"] for tool in embedding.get_schema()] == ACTIONS
    assert [tool["title"] for tool in EmbeddingTool(model).get_schema()] == ACTIONS[:2]


def test_types_and_docstring_make_the_schema():
    schema = Tool(forecast).get_schema()
    assert schema["description"] == "Tells how warm it will be.\n\nIt does not know."
    assert schema["required"] == ["place", "days"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert list(properties) == ["place", "days", "unit", "from", "options"]
    assert properties["place"]["description"] == "The city, and heights in metres."
    assert properties["days"] == {
        "description": "How many.",
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
    }
    assert properties["from"]["enum"] == ["today", "tomorrow"]
    assert properties["from"]["default"] == "today"
    assert "description" not in properties["options"]


def strict_problems(schema, root=True):
    """What OpenAI's rules for strict schemas say against one."""
    allowed = {
        *("type", "properties", "required", "additionalProperties", "description", "enum", "anyOf"),
        *("items", "$defs", "$ref", "pattern", "minimum", "maximum", "exclusiveMinimum"),
        *("exclusiveMaximum", "multipleOf", "minItems", "maxItems"),
    }
    yield from schema.keys() - allowed
    if "$ref" in schema and len(schema) > 1:
        yield "a reference does not stand alone"
    if root and schema.get("type") != "object":
        yield "the root is no object"
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            yield "an object is open"
        if sorted(schema.get("required", ())) != sorted(schema.get("properties", {"?": 0})):
            yield "not all properties are required"
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    for part in [
        *inner,
        *schema.get("anyOf", ()),
        *([schema["items"]] if "items" in schema else ()),
    ]:
        yield from strict_problems(part, root=False)


@pytest.mark.parametrize("form", ["openai", "openai_responses"])
def test_openai_may_be_strict(embedding, form):
    for offered in all_tools(embedding):
        schema = offered.get_schema(form)
        assert (schema.get("function") or schema)["strict"] is True
        assert list(strict_problems(parameters(form, schema))) == []


def test_in_strict_schemas_what_may_be_left_out_may_be_null():
    properties = parameters("openai", Tool(forecast).get_schema("openai"))["properties"]
    assert properties["from"] == {
        "anyOf": [{"enum": ["today", "tomorrow"], "type": "string"}, {"type": "null"}],
        "description": "Which day is the first.",
    }
    assert "null" not in json.dumps(properties["days"])
    # No object is open in strict mode, so that this one is text.
    assert properties["options"]["anyOf"][0]["type"] == "string"


def test_what_strict_schemas_cannot_say_is_said_in_text():
    def strange(
        *,
        pair: tuple[int, str],
        anything: Any,
        list_of_maps: list[dict[str, int]],
        one: Literal["a"],
        at: Annotated[Place, Field(description="Where.")],
        multiple: Annotated[float, Field(multiple_of=0.5)] = 1,
    ) -> list[Any]:
        """Takes strange things."""
        return [pair, anything, list_of_maps, one, at, multiple]

    made = Tool(strange)
    schema = parameters("openai", made.get_schema("openai"))
    assert list(strict_problems(schema)) == []
    assert schema["properties"]["pair"]["type"] == "string"
    assert schema["properties"]["list_of_maps"]["items"]["type"] == "string"
    arguments = {
        "pair": '[1, "b"]',
        "anything": 3,
        "list_of_maps": ['{"a": 1}'],
        "one": "a",
        "at": {"city": "Ulm", "heights": None},
        "multiple": None,
    }
    jsonschema.validate(arguments, schema)
    place = {"city": "Ulm", "heights": None}
    assert made.call(arguments)["result"] == [[1, "b"], 3, [{"a": 1}], "a", place, 1.0]


def test_the_combined_tool_knows_the_parameters_of_each_action(embedding):
    (schema,) = embedding.get_schema(combined=True)
    assert schema["title"] == "embedding"
    assert schema["required"] == ["action", "params"]
    assert schema["properties"]["action"]["enum"] == ACTIONS
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"action": "embed", "params": {"texts": ["a"]}})
    assert not validator.is_valid({"action": "embed", "params": {"text": ["a"]}})


def test_what_a_tool_does_to_the_world(embedding):
    hints = {tool["name"]: tool["annotations"] for tool in embedding.get_schema("mcp")}
    reads = {name for name, hint in hints.items() if hint["readOnlyHint"]}
    assert reads == {"embed", "similarity", "search"}
    assert {name for name, hint in hints.items() if hint["destructiveHint"]} == {
        "remember",
        "forget",
    }
    assert not any(hint["openWorldHint"] for hint in hints.values())

    def anything() -> None:
        """Nobody knows what it does."""

    worst = Tool(anything).get_schema("mcp")["annotations"]
    assert worst == {
        "title": "Anything",
        "readOnlyHint": False,
        "destructiveHint": True,
        "idempotentHint": False,
        "openWorldHint": True,
    }


def test_results_in_mcp_are_objects():
    forecasts = Tool(forecast)
    schema = forecasts.get_schema("mcp")["outputSchema"]
    assert schema["type"] == "object"
    jsonschema.validate(structured(forecasts, [1.0]), schema)


def no_docstring(a: int) -> int:
    return a


def no_type(a) -> int:
    """It has one."""


def any_number(*values: int) -> int:
    """It has one."""


def by_position(a: int, /) -> int:
    """It has one."""


def no_json(a: "threading.Lock") -> int:  # noqa: F821
    """It has one."""


class Strange:
    """No type that JSON has."""


def strange(a: Strange) -> int:
    """It has one."""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_docstring, "has no docstring"),
        (no_type, "parameter a has no type"),
        (any_number, "values cannot be passed by its name"),
        (by_position, "a cannot be passed by its name"),
        (no_json, "its annotations cannot be read: name 'threading' is not defined"),
        (strange, "Strange"),
    ],
)
def test_what_cannot_be_a_tool_says_why(registry, function, message):
    with pytest.raises(InvalidArgumentError, match=message):
        registry.register(function)
    assert len(registry) == 0


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"name": "no spaces"}, "letters, digits"),
        ({"name": "x" * 65}, "1 to 64"),
        ({"scope": "execute"}, "known are read, write"),
        ({"timeout": 0}, "above 0"),
    ],
)
def test_traits_are_checked(traits, message):
    with pytest.raises(InvalidArgumentError, match=message):
        Tool(forecast, **traits)


def test_an_unknown_form_names_the_known():
    with pytest.raises(InvalidArgumentError, match="json_schema, openai"):
        Tool(forecast).get_schema("gemini")


def test_results_of_dataclasses_are_objects_with_their_definitions():
    def nearest() -> Place:
        """Gives a place."""
        return Place("Ulm")

    def all_places() -> list[Place]:
        """Gives places."""
        return [Place("Ulm")]

    for function in (nearest, all_places):
        made = Tool(function)
        schema = made.get_schema("mcp")["outputSchema"]
        assert schema["type"] == "object"
        jsonschema.validate(structured(made, made.call()["result"]), schema)
    assert structured(Tool(nearest), {"city": "Ulm"}) == {"city": "Ulm"}
