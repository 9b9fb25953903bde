"""Guardrails on the way of a call, over real sockets: chat and the other surfaces, whole and streamed."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.integration.gateway_stack import parse_reply
from tests.unit.call_rig import FixedPolicy, Rig, Stream, call_rig, wait_until
from tests.unit.raw_upstream import json_response, raw_upstream_rig

from groundplan.blueprint import model as bp
from groundplan.core.errors import Denied
from groundplan.gateway.app import heed
from groundplan.gateway.call.attempts.attempt import Attempt
from groundplan.gateway.policy.gate import gate_of
from groundplan.gateway.surfaces.responses.sealed_store import StoredResponse
from groundplan.gateway.upstream.http1 import BUFFER_HIGH, Http1Connection
from groundplan.ledger.model import Reservation
from groundplan.testing.scripted_stream import TOOL_PIECES

EMAIL, KEY = "ana@acme.example", "sk-" + "proj-" + "abcdefghijklmnopqrstuvwx"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": f"I am {EMAIL}"}], "max_tokens": 400}


def guarded(**rules: Any) -> dict[str, dict[str, Any]]:
    # how long they take is told as well, and says how busy the machine is
    return {"assistant": {"guardrails": bp.Guardrails(**{"budget_ms": 10_000} | rules)}}


def error(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)["error"]
    return found


def upstream_body(rig: Rig) -> str:
    request = rig.models["one"].last
    assert request is not None
    return request.body.decode()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_model_gets_a_placeholder_and_the_caller_the_value(tmp_path: Path, stream: bool) -> None:
    async with call_rig(tmp_path, ("one",), workloads=guarded(input={"personal_data": "mask"})) as rig:
        rig.play("one", say="I wrote to <email_1>, not to <email_2>.")
        if stream:
            got = await rig.stream(**ASK)
            text, facts, done = got.text, got.facts, got.done
        else:
            answer = json.loads((await rig.chat(**ASK)).body)
            text, facts, done = answer["choices"][0]["message"]["content"], answer["groundplan"], True
        assert (text, done) == (f"I wrote to {EMAIL}, not to <email_2>.", True)
        assert EMAIL not in upstream_body(rig) and "<email_1>" in upstream_body(rig)
        assert facts["guardrails"] == [
            {"place": "input", "check": "personal_data", "done": "mask", "finds": 1, "shadow": False}
        ]
        await rig.books()


async def test_a_blocked_request_costs_nothing(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ("one",), workloads=guarded(input={"secrets": "block"})) as rig:
        reply = await rig.chat(messages=[{"role": "user", "content": f"use {KEY}"}])
        told = error(reply.body)
        assert (reply.status, told["code"]) == (403, "guardrail_secrets") and KEY not in reply.body.decode()
        assert rig.models["one"].counted == 0
        assert (await rig.books()).spent == {}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("rules", "say", "code"),
    [
        ({"output": {"secrets": "block"}}, f"the key is {KEY}, use it", "guardrail_secrets"),
        ({"deny_output": ["project falcon"]}, "it is called Project Falcon", "guardrail_deny"),
        ({"schema": '{"type": "object"}'}, "no object", "guardrail_schema"),
        ({"grounded": True}, "I just know it", "guardrail_grounded"),
        ({"max_output_bytes": 10}, "much more than ten bytes", "guardrail_max_size"),
        ({"output_languages": ["de"]}, "this is not the language that you and I have to use", "guardrail_languages"),
    ],
)
async def test_an_answer_refused_before_its_first_byte_is_an_error(
    tmp_path: Path, stream: bool, rules: dict[str, Any], say: str, code: str
) -> None:
    async with call_rig(tmp_path, workloads=guarded(**rules)) as rig:
        rig.play("one", say=say)
        reply = await rig.chat(**ASK, stream=stream)
        assert (reply.status, error(reply.body)["code"]) == (403, code)
        assert rig.models["two"].counted == 0, "nobody else is asked for what was refused"
        assert not rig.gateway.health.has_problems
        await rig.books()


async def test_a_partly_delivered_stream_that_is_blocked_ends_with_an_error_event(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=guarded(output={"secrets": "block"}, hold_bytes=64)) as rig:
        rig.play("one", say="good words " * 40 + f"and then {KEY} " + "more " * 60, chunk_ms=1)
        got = await rig.stream(**{**ASK, "max_tokens": 900})
        assert got.status == 200 and not got.done
        assert got.text.startswith("good words") and KEY[:6] not in got.raw.decode()
        assert [each["code"] for each in got.errors] == ["guardrail_secrets"]
        assert rig.models["two"].counted == 0
        await rig.books()


async def test_values_masked_in_the_answer_are_not_restored(tmp_path: Path) -> None:
    rules = guarded(output={"personal_data": "mask"}, links=["acme.example"])
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig:
        rig.play(
            "one",
            say="ask bob@other.example or see https://evil.test/x and https://acme.example/y " + "and so on " * 20,
        )
        got = await rig.stream(**ASK)
        assert got.text.startswith("ask [email] or see [link] and https://acme.example/y and so on") and got.done
        assert {(each["check"], each["finds"]) for each in got.facts["guardrails"]} == {
            ("personal_data", 1),
            ("links", 1),
        }


async def test_shadow_mode_passes_everything_and_reports_findings(tmp_path: Path) -> None:
    rules = guarded(
        input={"secrets": "block"}, output={"secrets": "block"}, schema='{"type": "object"}', shadow=True,
        max_output_bytes=3, tools=["other"],
    )  # fmt: skip
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig:
        rig.play("one", say=f"{KEY} it is")
        for stream in (False, True):
            reply = await rig.chat(messages=[{"role": "user", "content": KEY}], max_tokens=100, stream=stream)
            assert reply.status == 200
        facts = next(json.loads(line[6:]) for line in reply.body.split(b"\n") if b'"groundplan"' in line)["groundplan"]
        assert {(each["place"], each["check"]) for each in facts["guardrails"]} == {
            ("input", "secrets"), ("output", "secrets"), ("output", "schema"), ("output", "max_size"),
        }  # fmt: skip
        assert all(each["shadow"] for each in facts["guardrails"])
        rig.play("one", tool=True, say="hm")
        reply = await rig.chat(**ASK, tools=[{"type": "function", "function": {"name": "look"}}])
        assert (reply.status, reply.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"]) == (200, "look")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("why", ["declared", "rule", "killed"])
async def test_a_forbidden_function_call_is_not_delivered(tmp_path: Path, stream: bool, why: str) -> None:
    rules = guarded(tools=["other"]) if why == "declared" else {"assistant": {}}
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig:
        live: Any = rig.gateway.live
        if why == "killed":
            live.policy = replace(live.policy, kills=frozenset({"tool/look"}))
        elif why == "rule":
            text = 'forbid (principal, action == Action::"use_tool", resource) when { context.tool == "look" };'
            held = bp.PolicyRules(name="p", text=text, owner="", enforced=True)
            made = msgspec.structs.replace(live.catalog.blueprint, policies=[held])
            live.catalog = replace(live.catalog, blueprint=made, gate=gate_of(made))
        rig.play("one", tool=True, say="hm")
        offered = [{"type": "function", "function": {"name": "look"}}]
        reply = await rig.chat(**ASK, stream=stream, tools=offered)
        assert b"look" not in reply.body.replace(b"(look)", b"")
        assert (reply.status, error(reply.body)["code"]) == (403, "guardrail_tools")


@pytest.mark.parametrize("why", ["rule", "killed"])
@pytest.mark.parametrize("continued", [False, True])
async def test_a_forbidden_function_that_a_search_found_is_not_delivered(
    tmp_path: Path, continued: bool, why: str
) -> None:
    """A search among tools offers what it finds in an item of the input, which may be one of an earlier response."""
    tools: Any = [
        {"type": "namespace", "name": "files", "description": "", "tools": [{"type": "function", "name": "look"}]}
    ]
    found: Any = {
        "type": "tool_search_output",
        "execution": "client",
        "call_id": "c",
        "status": "completed",
        "tools": tools,
    }
    call = {"type": "function_call", "id": "fc", "call_id": "c2", "name": "look", "namespace": "files"}
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    answer: Any = {"id": "r", "object": "response", "status": "completed", "usage": usage}
    answer["output"] = [{**call, "arguments": "{}", "status": "completed"}]
    body: dict[str, Any] = {"model": "auto", "max_output_tokens": 300}
    question = {"type": "message", "role": "user", "content": "What is there?"}
    body |= {"input": "And?", "previous_response_id": "resp_1"} if continued else {"input": [question, found]}

    class Shelf:
        async def find(self, id: str, owner: object) -> StoredResponse:  # noqa: ARG002 -- the shelf's signature
            return StoredResponse({}, [], [question, found], "one")

    native = {"one": {"serves": ["responses"]}}
    async with raw_upstream_rig(tmp_path, json_response(json.dumps(answer).encode()), more=native) as rig:
        rig.gateway.stored_responses = Shelf()  # type: ignore[assignment]
        status, data = await post(rig, "/v1/responses", body)
        assert status == 200 and json.loads(data)["output"][0]["name"] == "look"
        live: Any = rig.gateway.live
        if why == "killed":
            live.policy = replace(live.policy, kills=frozenset({"tool/look"}))
        else:
            text = 'forbid (principal, action == Action::"use_tool", resource) when { context.tool == "look" };'
            held = bp.PolicyRules(name="p", text=text, owner="", enforced=True)
            made = msgspec.structs.replace(live.catalog.blueprint, policies=[held])
            live.catalog = replace(live.catalog, blueprint=made, gate=gate_of(made))
        status, data = await post(rig, "/v1/responses", body)
        assert (status, error(data)["code"]) == (403, "guardrail_tools")


async def test_an_allowed_function_call_is_delivered_complete(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ("one",), workloads=guarded(tools=["look"], output={"secrets": "block"})) as rig:
        rig.play("one", tool=True, say="hm")
        got = await rig.stream(**ASK)
        calls = [call for chunk in got.chunks for c in chunk["choices"] for call in c["delta"].get("tool_calls") or ()]
        assert "".join(call["function"].get("arguments") or "" for call in calls) == "".join(TOOL_PIECES)
        assert got.finish == ["tool_calls"] and got.done


async def post(rig: Rig, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """Send JSON to another surface."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
    raw = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    headers, _, rest = raw.partition(b"\r\n\r\n")
    return int(headers.split()[1]), _dechunked(rest) if b"chunked" in headers else rest


def _dechunked(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        out, data = out + data[:length], data[length + 2 :]
    return out


SURFACES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/messages", {"model": "auto", "max_tokens": 300, "messages": [{"role": "user", "content": f"I am {EMAIL}"}]}),
    ("/v1/responses", {"model": "auto", "max_output_tokens": 300, "input": f"I am {EMAIL}"}),
    ("/v1/completions", {"model": "auto", "max_tokens": 300, "prompt": f"I am {EMAIL}"}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), SURFACES, ids=["messages", "responses", "completions"])
async def test_other_surfaces_are_guarded_alike(tmp_path: Path, path: str, body: dict[str, Any], stream: bool) -> None:
    rules = guarded(input={"personal_data": "mask"}, output={"secrets": "mask"})
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig:
        rig.play("one", say=f"dear <email_1>, the key {KEY} is yours, and so on and on")
        status, answer = await post(rig, path, {**body, "stream": stream})
        assert status == 200, answer
        assert EMAIL not in upstream_body(rig)
        told = answer.decode()
        assert KEY not in told and "<email_1>" not in told and "[api_key]" in told
        if not stream:
            assert f"dear {EMAIL}, the key [api_key] is yours, and so on and on" in told
        else:
            pieces = [json.loads(line[6:]) for line in told.split("\n") if line.startswith("data: {")]
            whole = f"dear {EMAIL}, the key [api_key] is yours, and so on and on"
            assert whole == _text(pieces)
            kinds = [piece.get("type", "") for piece in pieces]
            for part, end in (
                ("content_block_delta", "content_block_stop"),
                ("response.output_text.delta", "response.output_text.done"),
            ):
                if part in kinds:
                    assert max(at for at, kind in enumerate(kinds) if kind == part) < kinds.index(end)
            assert all(piece["text"] == whole for piece in pieces if piece.get("type") == "response.output_text.done")


@pytest.mark.parametrize(("path", "body"), SURFACES[:2], ids=["messages", "responses"])
async def test_a_text_is_delivered_before_the_events_that_follow_it(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with call_rig(tmp_path, ("one",), workloads=guarded(output={"secrets": "mask"})) as rig:
        rig.play("one", say="a short text", tool=True)
        status, answer = await post(rig, path, {**body, "stream": True})
        told = [json.loads(line[6:]) for line in answer.decode().split("\n") if line.startswith("data: {")]
        kinds = [piece.get("type", "") for piece in told]
        assert status == 200 and _text(told) == "a short text"
        part, end = ("content_block_delta", "content_block_stop")
        if path.endswith("responses"):
            part, end = ("response.output_text.delta", "response.output_text.done")
        texts = [at for at, piece in enumerate(told) if piece.get("type") == part and "partial_json" not in str(piece)]
        assert max(texts) < kinds.index(end), kinds


def _text(events: list[dict[str, Any]]) -> str:
    found = ""
    for event in events:
        kind = event.get("type")
        if kind == "content_block_delta":
            found += event["delta"].get("text", "")
        elif kind == "response.output_text.delta":
            found += event["delta"]
        found += "".join(choice.get("text") or "" for choice in event.get("choices") or ())
    return found.strip()


async def test_a_continued_response_older_than_the_guardrails_is_guarded(tmp_path: Path) -> None:
    """It is put in front of what is sent, and stands in no body."""
    told = [{"type": "message", "role": "user", "content": f"I am {EMAIL}"}]

    class Shelf:
        async def find(self, id: str, key: object) -> StoredResponse:  # noqa: ARG002 -- the shelf's signature
            return StoredResponse({}, [], told, "one")

    body = {"model": "auto", "input": "Who am I?", "previous_response_id": "resp_1"}
    for action, status in (("mask", 200), ("block", 403)):
        async with call_rig(tmp_path / action, ("one",), workloads=guarded(input={"personal_data": action})) as rig:
            rig.gateway.stored_responses = Shelf()  # type: ignore[assignment]
            rig.play("one", say="You are <email_1>.")
            got, data = await post(rig, "/v1/responses", body)
            assert got == status, data
            if status == 200:
                assert (
                    EMAIL not in upstream_body(rig)
                    and "I am <email_1>" in upstream_body(rig)
                    and EMAIL in data.decode()
                )
            else:
                assert error(data)["code"] == "guardrail_personal_data" and rig.models["one"].counted == 0


async def test_embedding_inputs_are_guarded(tmp_path: Path) -> None:
    rules = guarded(input={"secrets": "block", "personal_data": "mask"})
    rules["assistant"]["embeddings"] = ["one"]
    async with call_rig(tmp_path, ("one",), workloads=rules, more={"one": {"kind": "embeddings"}}) as rig:
        assert (await post(rig, "/v1/embeddings", {"model": "auto", "input": [KEY]}))[0] == 403
        status, _ = await post(rig, "/v1/embeddings", {"model": "auto", "input": [f"to {EMAIL}"]})
        assert status == 200 and EMAIL not in upstream_body(rig)


@pytest.mark.parametrize(("says", "refuse_on", "fail_open", "status"), [
    ("Yes, it does.", "yes", False, 403), ("no", "yes", False, 200), ("no", "no", False, 403),
    ("hm", "yes", False, 403), ("hm", "yes", True, 200),
])  # fmt: skip
async def test_a_judge_is_a_call_of_its_own(
    tmp_path: Path, says: str, refuse_on: str, fail_open: bool, status: int
) -> None:
    judge = bp.Judge(deployment="two", question="Is it advice?", refuse_on=refuse_on)
    async with call_rig(tmp_path, workloads=guarded(judge=judge, fail_open=fail_open)) as rig:
        rig.play("one", say="Sell everything.")
        rig.play("two", say=says)
        reply = await rig.chat(model="one", max_tokens=100)
        assert reply.status == status
        if status == 403:
            assert error(reply.body)["code"] == ("guardrail_failed" if says == "hm" else "guardrail_judge")
        assert "Sell everything." in (rig.models["two"].last.body.decode() if rig.models["two"].last else "")
        assert len(await rig.settlements()) == 2, "the judge is metered as any call"
        made = [record for record in await rig.records() if isinstance(record, Reservation)]
        assert [each.purpose for each in made] == ["", "guardrail"], "and told apart from what it judges"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_judge_gets_the_placeholder_too(tmp_path: Path, stream: bool) -> None:
    judge = bp.Judge(deployment="two", question="Is it advice?", refuse_on="yes")
    async with call_rig(tmp_path, workloads=guarded(input={"personal_data": "mask"}, judge=judge)) as rig:
        rig.play("one", say="I wrote to <email_1>.")
        rig.play("two", say="no")
        reply = await rig.chat(model="one", stream=stream, **ASK)
        assert reply.status == 200 and EMAIL in reply.body.decode()
        request = rig.models["two"].last
        assert request is not None
        assert EMAIL not in request.body.decode() and "I wrote to <email_1>." in request.body.decode()


async def test_a_judge_is_called_although_the_callers_key_may_not_use_it(tmp_path: Path) -> None:
    """What a key may use is what its caller may name."""
    judge = bp.Judge(deployment="two", question="Is it advice?", refuse_on="yes")
    async with call_rig(tmp_path, workloads=guarded(judge=judge)) as rig:
        rig.play("two", say="no")
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy)
        narrow = {digest: replace(key, models=frozenset({"one"})) for digest, key in live.policy.keys.items()}
        live.policy = replace(live.policy, keys=narrow)
        assert (await rig.chat(max_tokens=100)).status == 200
        assert error((await rig.chat(model="two")).body)["code"] == "key_model"
        assert rig.models["two"].counted == 1


async def test_checks_that_exceed_their_time_budget_are_reported(tmp_path: Path) -> None:
    for budget, told in ((0, ["budget", "personal_data"]), (10_000, ["personal_data"])):
        rules = guarded(input={"personal_data": "mask"}, budget_ms=budget)
        async with call_rig(tmp_path / str(budget), ("one",), workloads=rules) as rig:
            answer = json.loads((await rig.chat(**ASK)).body)
            found = [each for each in answer["groundplan"]["guardrails"] if each["place"] == "input"]
            assert sorted(each["check"] for each in found) == told
            assert EMAIL not in upstream_body(rig), "and masked all the same"


class Desk:
    """Decides at once as it is told to."""

    def __init__(self, decide: Callable[[str], None]) -> None:
        self.decide = decide
        self.texts: list[str] = []

    async def hold(self, exchange: object, text: str) -> None:  # noqa: ARG002 -- the desk's signature
        self.texts.append(text)
        self.decide(text)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("release", [True, False])
async def test_nothing_is_delivered_before_a_reviewer_released_it(tmp_path: Path, stream: bool, release: bool) -> None:
    def decide(text: str) -> None:
        if not release:
            raise Denied("a reviewer refused the answer", code="review_refused", hint="Ask otherwise.")

    rules = guarded(input={"personal_data": "mask"})["assistant"]
    async with call_rig(tmp_path, ("one",), workloads={"assistant": {"review": bp.Review(), **rules}}) as rig:
        desk = Desk(decide)
        rig.gateway.reviews = desk  # type: ignore[assignment]
        rig.play("one", say="a careful answer to <email_1> that a person looks at first")
        reply = await rig.chat(**ASK, stream=stream)
        assert desk.texts == [f"a careful answer to {EMAIL} that a person looks at first"], "what the caller gets"
        if release:
            assert reply.status == 200 and b"groundplan" in reply.body
        else:
            assert (reply.status, error(reply.body)["code"]) == (403, "review_refused")
            assert b"careful" not in reply.body
        await rig.books()


async def test_a_streamed_answer_that_is_refused_as_a_whole_costs_what_it_used(tmp_path: Path) -> None:
    """As one that is not streamed: all of it was there, with what it used."""

    def refuse(_: str) -> None:
        raise Denied("a reviewer refused the answer", code="review_refused", hint="Ask otherwise.")

    async with call_rig(tmp_path, ("one",), workloads={"assistant": {"review": bp.Review()}}) as rig:
        rig.gateway.reviews = Desk(refuse)  # type: ignore[assignment]
        rig.play("one", say="a careful answer that a person looks at first")
        for stream in (False, True):
            assert (await rig.chat(**ASK, stream=stream)).status == 403
        whole, streamed = await rig.settlements()
        assert whole.cost == streamed.cost > 0 and whole.usage == streamed.usage
        assert not streamed.estimated and streamed.flags == [] and streamed.outcome == whole.outcome
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_in_review_occupies_no_slot_of_its_deployment(tmp_path: Path, stream: bool) -> None:
    """Else a judge that is asked there would wait for the place of the answer that it is to judge."""
    judge, more = bp.Judge(deployment="one", question="Is it advice?", refuse_on="yes"), {"one": {"concurrent": 1}}
    async with call_rig(tmp_path, ("one",), more=more, workloads=guarded(judge=judge)) as rig:
        rig.play("one", say="no")
        reply = await rig.chat(max_tokens=100, stream=stream)
        assert reply.status == 200, reply.body
        assert rig.gateway.loads.running("one") == 0
        await rig.books()


async def test_a_call_without_anything_to_guard_has_no_guard(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ("one",)) as rig:
        answer = json.loads((await rig.chat()).body)
        assert "guardrails" not in answer["groundplan"]


# kills ---------------------------------------------------------------------------------------------------------------


def killed(rig: Rig, *scopes: str, streams: bool = False) -> None:
    """A policy with these kills, taken up as a worker does."""
    live: Any = rig.gateway.live
    live.policy = replace(live.policy, kills=frozenset(scopes), severed=frozenset(scopes if streams else ()))
    heed(rig.gateway, live.policy)


@pytest.mark.parametrize(
    "scope",
    [
        "company",
        "workload/assistant",
        "key/{key}",
        "deployment/one",
        "site/{site}",
        "model/{model}",
        "provider/{provider}",
    ],
)
async def test_a_killed_deployment_workload_or_person_is_not_served(tmp_path: Path, scope: str) -> None:
    async with call_rig(tmp_path, ("one",)) as rig:
        place = rig.plan("assistant").deployments_by_name["auto"][0]
        (key,) = rig.gateway.live.policy.keys.values()
        provider = place.model.split("/")[0]
        killed(rig, scope.format(site=place.site, model=place.model, provider=provider, key=key.id))
        reply = await rig.chat()
        assert (reply.status, error(reply.body)["code"]) == (403, "killed")
        killed(rig)
        assert (await rig.chat()).status == 200
        assert rig.models["one"].counted == 1


@pytest.mark.parametrize("scope", ["company", "deployment/one", "site/{site}", "workload/assistant", "key/{key}"])
async def test_a_security_kill_ends_streams_with_an_error_event(tmp_path: Path, scope: str) -> None:
    async with call_rig(tmp_path) as rig:
        (key,) = rig.gateway.live.policy.keys.values()
        scope = scope.format(site=rig.plan("assistant").deployments_by_name["auto"][0].site, key=key.id)
        rig.play("one", say="a long answer that goes on " * 40, chunk_ms=5)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=True, max_tokens=900))
        begun = await reader.readuntil(b'"a l"')
        killed(rig, scope, streams=True)
        got = Stream(parse_reply(begun + await asyncio.wait_for(reader.read(), 20)))
        writer.close()
        assert got.status == 200 and not got.done and got.text
        assert [each["code"] for each in got.errors] == ["killed"]
        assert rig.models["two"].counted == 0 and not rig.gateway.streams
        await rig.books()


async def test_a_security_kill_discards_buffered_data_of_a_stream(tmp_path: Path) -> None:
    """Its client takes it slowly, so that the upstream is ahead."""
    much: dict[str, Any] = {"max_output_tokens": 100_000}
    async with call_rig(tmp_path, ("one",), more={"one": much}, workloads={"assistant": much}) as rig:
        rig.play("one", say="x" * 180_000)
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            own.connect(("127.0.0.1", rig.port))
            own.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=own, limit=1024)
            writer.write(rig.request(stream=True, max_tokens=60_000))
            head = await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            (running,) = cast(set[Attempt], rig.gateway.streams)
            streaming, connection = running.streaming, running._connection
            assert streaming is not None and isinstance(connection, Http1Connection)
            await wait_until(lambda: connection._buffered_bytes > BUFFER_HIGH)
            before = streaming.relay.output_bytes
            killed(rig, "company", streams=True)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            told = Stream(parse_reply(head + await asyncio.wait_for(reader.read(), 20)))
            writer.close()
        assert streaming.relay.output_bytes == before
        assert [each["code"] for each in told.errors] == ["killed"]


async def test_other_streams_go_on_and_an_ordinary_kill_ends_none(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ("one",)) as rig:
        rig.play("one", say="a long answer " * 20, chunk_ms=5)
        asked = asyncio.create_task(rig.stream(max_tokens=900))
        await wait_until(lambda: bool(rig.gateway.streams))
        killed(rig, "workload/other", streams=True)
        killed(rig, "deployment/one")
        got = await asked
        assert got.done and got.text.startswith("a long answer")


async def test_a_whole_answer_is_not_delivered_after_a_security_kill(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ("one",)) as rig:
        rig.play("one", latency_ms=150)
        asked = asyncio.create_task(rig.chat())
        await wait_until(lambda: rig.models["one"].counted == 1)
        killed(rig, "workload/assistant", streams=True)
        reply = await asked
        assert (reply.status, error(reply.body)["code"]) == (403, "killed")
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_in_review_is_not_delivered_after_a_security_kill(tmp_path: Path, stream: bool) -> None:
    """Whoever looks at it may take minutes, and releases it then."""
    async with call_rig(tmp_path, ("one",), workloads={"assistant": {"review": bp.Review()}}) as rig:
        rig.gateway.reviews = Desk(lambda _: killed(rig, "workload/assistant", streams=True))  # type: ignore[assignment]
        rig.play("one", say="a careful answer that a person looks at first")
        reply = await rig.chat(**ASK, stream=stream)
        assert (reply.status, error(reply.body)["code"]) == (403, "killed") and b"careful" not in reply.body
        await rig.books()
