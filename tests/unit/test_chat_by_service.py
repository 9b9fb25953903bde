"""What the local translating service left out of a provider's answer is told with a chat answer: as it comes, from the
cache, where it is stored, and where another attempt goes on with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import deployment, parse_events
from tests.unit.call_rig import Rig
from tests.unit.raw_upstream import (
    DONE,
    ROLE,
    STREAM_HEAD,
    chunk,
    completion_body,
    encode_events,
    json_response,
    raw_upstream_rig,
)

from groundplan.blueprint.model import Cache
from groundplan.core.endpoints import announce
from groundplan.core.home import Home
from groundplan.gateway.call.ask import Ask, note_left_out
from groundplan.gateway.surfaces import completions
from groundplan.gateway.surfaces.chat import surface as chat
from groundplan.gateway.surfaces.chat.storing import STORED_CHAT
from groundplan.gateway.surfaces.responses import surface as responses
from groundplan.gateway.upstream.providers import SERVICE

TOLD = ["answer.citations"]
USAGE = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
WHOLE = json_response(completion_body(usage=USAGE, left_out=TOLD))
STREAM = STREAM_HEAD + encode_events(
    ROLE, chunk({"content": "Hi there"}), chunk({}, "stop", left_out=TOLD), chunk({}, usage=USAGE), DONE
)
CACHED = {"assistant": {"cache": Cache(seconds=60, max_bytes=1 << 20, scope="workload")}}


@asynccontextmanager
async def service_rig(folder: Path, answer: bytes, **settings: Any) -> AsyncIterator[Rig]:
    """A worker whose only deployment is called by a translating service that gives this answer."""
    async with raw_upstream_rig(folder, answer, **settings) as rig:
        ((place,), *_) = rig.plan("assistant").deployments_by_name.values()
        announce(Home(folder), SERVICE, place.url.removesuffix("/v1"), "a-token")
        rig.change_deployment("one", api="cohere")
        yield rig


async def ask_once(rig: Rig, *, stream: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The facts of a call, and its answer or its events without them."""
    reply = await rig.chat(stream=stream)
    assert reply.status == 200 and b"there" in reply.body, reply.body
    events = [each for each in parse_events(reply.body) if each != "[DONE]"] if stream else [reply.json]
    facts = [each.pop("groundplan") for each in events if "groundplan" in each]
    return facts[-1], events


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_told_in_chat(tmp_path: Path, stream: bool) -> None:
    async with service_rig(tmp_path, STREAM if stream else WHOLE) as rig:
        facts, events = await ask_once(rig, stream=stream)
    assert facts["left_out"] == TOLD and all("left_out" not in each for each in events)


@pytest.mark.parametrize(("stream", "again"), [(False, False), (False, True), (True, True)])
async def test_a_cached_chat_answer_tells_it_too(tmp_path: Path, stream: bool, again: bool) -> None:
    """Also a whole answer that is told again as a stream."""
    async with service_rig(tmp_path, STREAM if stream else WHOLE, workloads=CACHED) as rig:
        first, _ = await ask_once(rig, stream=stream)
        second, _ = await ask_once(rig, stream=again)
    assert [each["cache"] for each in (first, second)] == ["none", "exact"]
    assert [each["left_out"] for each in (first, second)] == [TOLD, TOLD]


def noted(ask: Ask) -> Ask:
    note_left_out(ask, TOLD)
    return ask


def test_a_chat_answer_that_is_stored_tells_it_too() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    ask = noted(chat.read(json.dumps(body).encode()))
    assert STORED_CHAT.extra_facts(ask, deployment("one", 1, api="cohere")) == {"left_out": TOLD}


def test_a_response_that_another_attempt_continues_tells_what_was_left_out_before() -> None:
    ask = noted(responses.read(b'{"model":"m","input":"x"}'))
    assert responses.continued(ask, []).left_out == set(TOLD)


def test_of_an_answer_in_its_own_api_nothing_is_left_out() -> None:
    """Whatever a chat answer lost that was tried before."""
    own = deployment("one", 1, serves=["responses", "completions"])
    ask = noted(completions.read(b'{"model":"m","prompt":"x"}'))
    assert completions.COMPLETIONS.extra_facts(ask, own) == {}
    ask = noted(responses.read(b'{"model":"m","input":"x","store":false}'))
    assert responses.RESPONSES.extra_facts(ask, own) == {}
