"""Schemas for OpenAI's strict mode, in which models cannot but keep to them.

There, every property is required, so that those which may be left out may be null instead. No
object is open and no list has members of many types, so that those which are become JSON text.
Tools take both.
"""

from __future__ import annotations

from typing import Any

# All that strict mode takes. Arguments are checked against the rest all the same.
_TAKEN = frozenset(
    {
        *("$defs", "$ref", "additionalProperties", "anyOf", "description", "enum", "items", "type"),
        *("exclusiveMaximum", "exclusiveMinimum", "maxItems", "maximum", "minItems", "minimum"),
        *("multipleOf", "pattern", "properties", "required"),
    }
)
_TURNED = frozenset({"const", "oneOf"})
"""Keywords that become others."""

_AS_TEXT = "Written as JSON text."
_SCALARS = [{"type": name} for name in ("string", "number", "boolean", "null")]


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema as strict mode takes it."""
    inside = {"object": "properties", "array": "items"}.get(schema.get("type", ""))
    if inside is not None and inside not in schema:
        text = " ".join(part for part in (schema.get("description"), _AS_TEXT) if part)
        return {"type": "string", "description": text}
    if not schema.keys() & {"type", "enum", "const", "anyOf", "oneOf", "$ref"}:
        # Anything; strict mode wants to know of what type.
        schema = {**schema, "anyOf": _SCALARS}
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _TAKEN | _TURNED:
            made |= _keyword(key, value, alone=len(schema) == 1)
    if "properties" in schema:
        required = schema.get("required", [])
        made["properties"] = {
            name: inner if name in required else _nullable(inner)
            for name, inner in made["properties"].items()
        }
        made["required"] = list(made["properties"])
        made["additionalProperties"] = False
    return made


def _keyword(key: str, value: Any, *, alone: bool) -> dict[str, Any]:
    """One keyword of a schema."""
    match key:
        case "properties" | "$defs":
            return {key: {name: strict(inner) for name, inner in value.items()}}
        case "anyOf" | "oneOf":
            return {"anyOf": [strict(inner) for inner in value]}
        case "items":
            return {key: strict(value)}
        case "const":
            return {"enum": [value]}
        case "$ref" if not alone:
            return {"anyOf": [{key: value}]}  # a reference has nothing beside it
    return {key: value}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The same or null."""
    null = {"type": "null"}
    if "anyOf" in schema:
        choices = schema["anyOf"]
        return schema if null in choices else {**schema, "anyOf": [*choices, null]}
    description = {"description": schema["description"]} if "description" in schema else {}
    inner = {key: value for key, value in schema.items() if key != "description"}
    return {"anyOf": [inner, null], **description}
