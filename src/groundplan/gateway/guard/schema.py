"""Whether an answer is JSON that fits a declared schema. The library is loaded with the first answer to check."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

FENCE = "```"


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    from jsonschema.validators import validator_for  # noqa: PLC0415 -- heavy, and only for workloads with a schema

    declared = json.loads(schema)
    return validator_for(declared)(declared)


def schema_error(schema: str, text: str) -> str:
    """Where the text violates the schema, in words; empty if it fits. A Markdown fence around it is ignored."""
    try:
        value = json.loads(_without_fence(text))
    except (ValueError, RecursionError):
        return "it is no JSON"
    error = next(iter(_validator(schema).iter_errors(value)), None)
    if error is None:
        return ""
    place = "/".join(str(part) for part in error.absolute_path) or "the whole"
    return f"{place[:80]}: {error.validator}"


def _without_fence(text: str) -> str:
    plain = text.strip()
    if plain.startswith(FENCE) and plain.endswith(FENCE) and len(plain) > 2 * len(FENCE):
        plain = plain[len(FENCE) : -len(FENCE)].removeprefix("json")
    return plain
