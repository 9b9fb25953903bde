"""Responses and older completions that are given again: in which form, to whom, and which never are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.gateway_stack import Reply, parse_reply
from tests.unit.call_rig import Rig, call_rig, wait_until

from groundplan.blueprint.model import Cache, Keep
from groundplan.gateway.caching.replay_forms import COMPLETIONS_REPLAY_FORMS, RESPONSES_REPLAY_FORMS

CACHE = Cache(seconds=60, max_bytes=1 << 20, scope="workload")
RESPONSES, COMPLETIONS = "/v1/responses", "/v1/completions"


async def post(rig: Rig, path: str, **more: Any) -> Reply:
    data = json.dumps({"model": "auto", **more}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    head = f"POST {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
    try:
        return parse_reply(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()


def cache_rig(folder: Path, **more: Any) -> Any:
    return call_rig(folder, ["one"], workloads={"assistant": {"cache": CACHE, **more}})


def delta_events(body: bytes) -> list[Any]:
    found = [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: {")]
    return [event for event in found if event["type"].endswith(".delta")]


async def test_a_response_is_replayed_whole_and_as_a_stream(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        first, second = [await post(rig, RESPONSES, input="Where?") for _ in range(2)]
        assert rig.models["one"].counted == 1
        assert second.json["output"] == first.json["output"] and second.json["status"] == "completed"
        assert (first.json["groundplan"]["cache"], second.json["groundplan"]["cache"]) == ("none", "exact")
        streams = [await post(rig, RESPONSES, input="Where?", stream=True) for _ in range(2)]
        assert rig.models["one"].counted == 2
        assert [e["delta"] for e in delta_events(streams[0].body)] == [
            e["delta"] for e in delta_events(streams[1].body)
        ]
        assert b"event: response.completed" in streams[1].body and b'"cache":"exact"' in streams[1].body


async def test_a_replayed_response_echoes_its_own_callers_parameters(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        for who in ("ana", "ben"):
            answer = await post(rig, RESPONSES, input="Where?", user=who, metadata={"of": who})
            assert (answer.json["user"], answer.json["metadata"]) == (who, {"of": who})
        assert rig.models["one"].counted == 2


async def test_a_truncated_response_is_not_replayed(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        rig.play("one", tokens=20)
        for _ in range(2):
            assert (await post(rig, RESPONSES, input="Where?", max_output_tokens=3)).json["status"] == "incomplete"
        assert rig.models["one"].counted == 2


async def test_a_stored_response_is_not_served_from_the_cache(tmp_path: Path) -> None:
    async with cache_rig(tmp_path, keep=Keep(content="full", seconds=60)) as rig:
        for store, counted in ((False, 1), (False, 1), (True, 2), (None, 3)):
            await post(rig, RESPONSES, input="Where?", store=store)
            assert rig.models["one"].counted == counted


@pytest.mark.parametrize("path", [RESPONSES, COMPLETIONS])
async def test_one_of_many_identical_calls_asks_the_model(tmp_path: Path, path: str) -> None:
    async with cache_rig(tmp_path) as rig:
        rig.play("one", latency_ms=150, tokens=5)
        body = {"input": "Where?"} if path == RESPONSES else {"prompt": "Where?"}
        replies = await asyncio.gather(*(post(rig, path, **body) for _ in range(6)))
        assert rig.models["one"].counted == 1
        assert sorted(reply.json["groundplan"]["cache"] for reply in replies) == ["exact"] * 5 + ["none"]


async def test_no_call_waits_for_an_answer_that_cannot_be_converted_to_its_form(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        one = rig.hold("one")
        forms = (True, False, True, False)
        calls = [asyncio.create_task(post(rig, COMPLETIONS, prompt="Where?", stream=form)) for form in forms]
        await wait_until(lambda: rig.gateway.running_calls == 4 and rig.models["one"].counted == 2)
        for _ in range(2):
            one.release()
        replies = [await call for call in calls]
        assert sorted(b'"cache":"exact"' in reply.body for reply in replies) == [False, False, True, True]
        assert rig.models["one"].counted == 2, "each form was asked for once"


async def test_completions_are_replayed(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        rig.play("one", tokens=5)
        first, second = [await post(rig, COMPLETIONS, prompt="a", user=str(n)) for n in range(2)]
        assert second.json["choices"] == first.json["choices"] and rig.models["one"].counted == 1
        streams = [await post(rig, COMPLETIONS, prompt="a", stream=True) for _ in range(2)]
        assert rig.models["one"].counted == 2 and streams[1].body.endswith(b"data: [DONE]\n\n")
        assert streams[0].body.count(b'"text":') == streams[1].body.count(b'"text":') > 1
        rig.play("one", tokens=30)
        for _ in range(2):
            assert (await post(rig, COMPLETIONS, prompt="b")).json["choices"][0]["finish_reason"] == "length"
        assert rig.models["one"].counted == 4


def test_a_native_stream_is_replayed_as_a_whole_answer_too() -> None:
    whole = {"id": "resp_1", "status": "completed", "output": []}
    events = [json.dumps({"type": f"response.{kind}", "response": whole}).encode() for kind in ("created", "completed")]
    assert RESPONSES_REPLAY_FORMS.is_complete_stream(events, 1) and not RESPONSES_REPLAY_FORMS.is_complete_stream(
        events[:1], 1
    )
    found = RESPONSES_REPLAY_FORMS.to_whole(events)
    assert found is not None and msgspec.json.decode(found) == whole
    assert RESPONSES_REPLAY_FORMS.to_whole(events[:1]) is RESPONSES_REPLAY_FORMS.to_whole([b"x"]) is None
    cut = events[1].replace(b'"status": "completed"', b'"status": "incomplete"')  # as vLLM ends what was cut
    assert not RESPONSES_REPLAY_FORMS.is_complete_stream([events[0], cut], 1)
    assert not RESPONSES_REPLAY_FORMS.is_complete(
        b'{"status":"incomplete"}', 1
    ) and not RESPONSES_REPLAY_FORMS.is_complete(b"[", 1)
    assert not COMPLETIONS_REPLAY_FORMS.is_complete(
        b'{"choices":[]}', 1
    ) and not COMPLETIONS_REPLAY_FORMS.is_complete_stream([b"x"], 1)


@pytest.mark.parametrize("instructions", [None, "Be brief."])
async def test_the_workloads_prompt_is_in_no_form_of_a_replayed_answer(
    tmp_path: Path, instructions: str | None
) -> None:
    own = {"serves": ["responses"]}
    workloads = {"assistant": {"cache": CACHE, "system_prompt": "You are ours."}}
    async with call_rig(tmp_path, ["one"], more={"one": own}, workloads=workloads) as rig:
        more = {"input": "Where?"} | ({} if instructions is None else {"instructions": instructions})
        first, second = [await post(rig, RESPONSES, **more, stream=True) for _ in range(2)]
        whole = await post(rig, RESPONSES, **more)
        assert rig.models["one"].counted == 1 and b'"cache":"exact"' in second.body
        assert b"You are ours." not in first.body + second.body + whole.body
        assert whole.json["instructions"] == instructions and whole.json["groundplan"]["cache"] == "exact"
        told = [json.loads(line[6:]) for line in second.body.decode().split("\n") if line.startswith("data: {")]
        assert {e["response"]["instructions"] for e in told if "response" in e} == {instructions}
