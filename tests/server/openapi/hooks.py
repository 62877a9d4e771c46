"""Leaves out requests that a model refuses and no schema can describe."""

import os

import schemathesis
from schemathesis import GenerationMode

VOCABULARY = int(os.environ["VOCABULARY"])
DIMENSION = int(os.environ["DIMENSION"])
MOST_HITS = 1000
PROMPTS = (None, "query", "passage")
LONGEST = 40
"""Characters, of which each may be a token."""


@schemathesis.hook
def filter_case(context, case):
    """Whether a request is sent."""
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return True
    body = case.body if isinstance(case.body, dict) else {}
    if case.operation.path == "/search":
        return _can_be_searched(body)
    parts = [body, dict(case.query or {}), body.get("parameters")]
    if not all(_has_prompt(part) and _has_ranges(part) for part in parts if isinstance(part, dict)):
        return False
    if any(_largest(body.get(field)) >= VOCABULARY for field in ("input", "inputs", "ids")):
        return False
    return body.get("truncate") is True or _longest(body) <= LONGEST


def _can_be_searched(fields):
    """Vectors are as long as the store's, and filters have a form of their own."""
    if fields.get("store") not in (None, "store") or fields.get("filter"):
        return False
    if len(fields.get("vector", range(DIMENSION))) != DIMENSION:
        return False
    return fields.get("k", 10) <= MOST_HITS and fields.get("offset", 0) <= MOST_HITS


def _has_prompt(fields):
    return fields.get("prompt_name") in PROMPTS


def _has_ranges(fields):
    """Ranges have as many numbers as vectors have, and integers of eight bits need them."""
    return fields.get("ranges") is None and fields.get("precision") not in ("int8", "uint8")


def _largest(value):
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int | float) else 0


def _longest(value):
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = list(value.values())
    return max(map(_longest, value), default=0) if isinstance(value, list) else 0
