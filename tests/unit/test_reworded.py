"""A conversation that began at another provider: the ids of its calls become such as the next one takes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from groundplan.gateway.upstream.reworded import reworded

OPENAI, CLAUDE, KIMI, MISTRAL = (
    "call_PTLP8xhu3uwZk4l3nlnrrJha",
    "toolu_01A09q90qw90lq91781",
    "functions.look:0",
    "D681PevKs",
)


def told(api: str, *names: str) -> list[str]:
    """The ids that a provider is told of parallel calls with these ids; each result bears that of its call."""
    function = {"name": "look", "arguments": "{}"}
    asked: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [{"id": name, "type": "function", "function": function} for name in names]},
        *({"role": "tool", "tool_call_id": name, "content": "here"} for name in reversed(names)),
    ]
    said, *results = reworded(api, {"messages": asked})["messages"]
    ids = [call["id"] for call in said["tool_calls"]]
    assert [result["tool_call_id"] for result in results] == ids[::-1]
    return ids


@pytest.mark.parametrize(
    ("api", "taken"),
    [
        ("mistral", {MISTRAL}), ("anthropic", {OPENAI, CLAUDE, MISTRAL}), ("bedrock", {OPENAI, CLAUDE, MISTRAL}),
        ("azure", {OPENAI, CLAUDE, KIMI, MISTRAL}), ("cohere", {OPENAI, CLAUDE, KIMI, MISTRAL}),
    ],
)  # fmt: skip
def test_ids_of_calls_are_such_as_the_provider_takes(api: str, taken: set[str]) -> None:
    given = [OPENAI, CLAUDE, KIMI, MISTRAL]
    ids = told(api, *given)
    assert {name for name, own in zip(given, ids, strict=True) if name == own} == taken
    assert len(set(ids)) == 4 and ids == told(api, *given), "always the same, for caches at the provider"
    assert all(re.fullmatch("[A-Za-z0-9]{9}", own) for own in set(ids) - taken)
