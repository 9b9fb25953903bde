"""Providers that cannot be told to call one tool at a time: their answers have one call for whom asks for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_providers_spoken import OTHERS, TOOL, Wire, complete_chat, place, request_body, spoken, streamed

from groundplan.gateway.upstream.providers import supported_fields

TOLD = frozenset(api for api in OTHERS if "parallel_tool_calls" in supported_fields(api))


def twice(answer: Any, name: str) -> Any:
    """Every list in an answer that has a call with that name in it has it twice."""
    if isinstance(answer, list):
        made = [twice(each, name) for each in answer]
        calls = [each for each in made if isinstance(each, dict) and name in each]
        return [*made, *({**each, **({"id": "second"} if "id" in each else {})} for each in calls)]
    return {key: twice(each, name) for key, each in answer.items()} if isinstance(answer, dict) else answer


async def test_each_provider_is_held_to_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"bedrock": "toolUse", "vertexai": "functionCall"}
    plain = Wire._answer
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.tool = True
        for api in OTHERS:

            def doubled(self: Wire, path: str, body: dict[str, Any], api: str = api) -> tuple[bytes, Any]:
                kind, found = plain(self, path, body)
                return kind, twice(found, names.get(api, "function"))

            monkeypatch.setattr(Wire, "_answer", doubled)
            where = place(api, wire, tmp_path)
            for more, most in (({}, 2), ({"parallel_tool_calls": True}, 2), ({"parallel_tool_calls": False}, 1)):
                answer = await complete_chat(providers, where, request_body(api, tools=[TOOL], **more))
                calls = answer.choices[0].message.tool_calls or []
                assert len(calls) == (2 if api in TOLD else most), (api, more)
                assert calls[0].type == "function" and calls[0].function.name == "look"
                said = wire.body.get("parallel_tool_calls")
                assert said is (more.get("parallel_tool_calls") if api in TOLD else None), (api, more)
        wire.tool = False
        assert await streamed(providers, where, request_body(api, parallel_tool_calls=False, stream=True))
