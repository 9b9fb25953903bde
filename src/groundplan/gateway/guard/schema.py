"""Whether an answer is JSON that fits a declared schema. Its library is loaded when the first one is asked about."""

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


def misfit(schema: str, text: str) -> str:
    """Where the text does not fit, in words; empty where it fits. A fence of Markdown around it is passed over."""
    try:
        value = json.loads(_bare(text))
    except (ValueError, RecursionError):
        return "it is no JSON"
    error = next(iter(_validator(schema).iter_errors(value)), None)
    if error is None:
        return ""
    place = "/".join(str(part) for part in error.absolute_path) or "the whole"
    return f"{place[:80]}: {error.validator}"


def _bare(text: str) -> str:
    plain = text.strip()
    if plain.startswith(FENCE) and plain.endswith(FENCE) and len(plain) > 2 * len(FENCE):
        plain = plain[len(FENCE) : -len(FENCE)].removeprefix("json")
    return plain
