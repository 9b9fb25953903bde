"""The embedded model calls no tools: a request that offers some goes to another deployment, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.call_rig import call_rig
from tests.unit.raw_upstream import post

from groundplan.gateway.upstream.providers import EMBEDDED_URL

FUNCTION = {"name": "look", "parameters": {"type": "object", "properties": {}}}
CHAT: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 20}
RESPONSE: dict[str, Any] = {"model": "auto", "input": "a b"}
OFFERS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", {**CHAT, "tools": [{"type": "function", "function": FUNCTION}]}, "tools"),
    ("/v1/chat/completions", {**CHAT, "functions": [FUNCTION]}, "functions"),
    ("/v1/responses", {**RESPONSE, "tools": [{"type": "function", **FUNCTION}]}, "tools"),
    ("/v1/messages", {**CHAT, "tools": [{"name": "look", "input_schema": {"type": "object"}}]}, "tools"),
]


@pytest.mark.parametrize(("path", "body", "field"), OFFERS)
async def test_tools_are_refused_where_the_embedded_model_alone_may_answer(
    tmp_path: Path, path: str, body: dict[str, Any], field: str
) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        rig.change_deployment("one", url=EMBEDDED_URL)
        reply = await post(rig, path, body)
        assert (reply.status, reply.code) == (400, "field_untranslatable"), reply.body
        assert reply.json["error"]["field"] == field and "calls no tools" in reply.json["error"]["message"]
        assert rig.models["one"].counted == 0, "nothing was sent"


@pytest.mark.parametrize(("path", "body", "field"), OFFERS)
async def test_tools_go_to_a_deployment_that_calls_them(
    tmp_path: Path, path: str, body: dict[str, Any], field: str
) -> None:
    async with call_rig(tmp_path, ["one", "two"]) as rig:
        rig.change_deployment("one", url=EMBEDDED_URL)
        reply = await post(rig, path, body)
        assert reply.status == 200, (field, reply.body)
        assert reply.json["groundplan"]["deployment"] == "two"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tools": []},
        {"tools": None},
        {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "none"},
    ],
)
async def test_what_offers_no_tool_is_for_the_embedded_model(tmp_path: Path, more: dict[str, Any]) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        rig.change_deployment("one", url=EMBEDDED_URL)
        reply = await post(rig, "/v1/chat/completions", {**CHAT, **more})
    assert reply.status in (502, 503), "it passed the check, and no such model runs here"
