"""What a caller is told whose call a limit or a budget has no room for: when it frees, or that waiting never helps."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.integration.gateway_stack import Reply, parse_reply
from tests.unit.call_rig import BOUND, NoMoreGrants, Rig, call_rig, wait_until
from tests.unit.raw_upstream import json_response, post, raw_upstream_rig

from groundplan.blueprint.model import Budget, Limit
from groundplan.core.errors import Conflict, Exhausted, Unavailable
from groundplan.core.money import PICO
from groundplan.gateway.budgets.periods import current_key, ends
from groundplan.gateway.call.admit import budget_exhausted, calls_per_day_exhausted
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.guard.relay import refusal_error
from groundplan.gateway.http.errors import error_response, upstream_error_body
from groundplan.gateway.http.server import Connection
from groundplan.gateway.surfaces.messages import errors as messages_errors
from groundplan.governance.guardrails.model import Refusal
from groundplan.ledger.model import Finish

NOW = 1_795_000_000.0


def limit(kind: str, amount: int, covers: str = "company", name: str = "few") -> Limit:
    return Limit(name=name, covers=covers, type=kind, amount=amount, period="day")


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("covers", ["company", "deployment/one"])
@pytest.mark.parametrize(("kind", "most"), [("tokens", 19), ("cost", BOUND - 1)])
async def test_a_call_above_the_whole_limit_is_told_no_time_and_not_to_try_again(
    tmp_path: Path, kind: str, most: int, covers: str, connected: bool
) -> None:
    """Whether PostgreSQL can be asked makes no difference: it has never so much to give."""
    async with call_rig(tmp_path, ["one"], limits=[limit(kind, most, covers)]) as rig:
        rig.grants.connected = connected
        reply = await rig.chat()
        error = reply.json["error"]
        assert (reply.status, reply.code, error["limit"]) == (429, "rate_limit_exceeded", "few")
        assert "retry-after" not in reply.headers and "frees_at" not in error
        assert reply.headers["x-should-retry"] == "false"
        assert "fewer tokens or raise the limit" in error["hint"] and str(error["needed"]) in error["hint"]
        assert rig.grants.requested_budgets == [], "nobody waits for what cannot be given"
        assert rig.models["one"].counted == 0 and rig.gateway.limit_slices.open_reservations == 0
        await rig.books()


async def test_where_waiting_helps_the_time_is_told(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], limits=[limit("cost", BOUND)]) as rig:
        reply = await rig.chat()  # the grants lends nothing
        error = reply.json["error"]
        assert (reply.status, reply.code) == (429, "rate_limit_exceeded")
        span = current_key("day", "", "UTC", rig.gateway.clock.seconds())
        end = ends(span)
        assert end is not None and error["frees_at"] == end.isoformat() and "It is free again at" in error["hint"]
        assert reply.headers["x-should-retry"] == "false" and "retry-after" not in reply.headers


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
async def test_of_two_deployments_the_one_for_which_waiting_helps_is_told(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    limits = [limit("cost", BOUND - 1, "deployment/one", "small"), limit("cost", BOUND, "deployment/two", "used")]
    async with call_rig(tmp_path, order, limits=limits) as rig:
        error = (await rig.chat()).json["error"]
        assert error["limit"] == "used" and error["frees_at"]
        await rig.books()


def test_a_budget_that_is_smaller_than_the_call_tells_no_time() -> None:
    budget = Budget(name="all", covers="company", limit=PICO, period="day")
    period = current_key("day", "", "UTC", NOW)
    never, later = (
        budget_exhausted(budget, PICO + 1, period, PICO, 0, NOW),
        budget_exhausted(budget, PICO, period, 0, 0, NOW),
    )
    assert "frees_at" not in never.details and never.retry_after is None and "raise the budget" in never.hint
    assert b"x-should-retry: false" in error_response(never)[2] and b"retry-after" not in error_response(never)[2]
    assert later.details["frees_at"] and later.retry_after is not None and "free again" in later.hint


@pytest.mark.parametrize("kind", [Exhausted, Unavailable])
@pytest.mark.parametrize(("seconds", "told"), [(0.2, b"1"), (60.0, b"60"), (60.5, None), (2_000_000.0, None)])
def test_no_client_is_sent_away_for_longer_than_it_may_wait(
    kind: type[Exhausted | Unavailable], seconds: float, told: bytes | None
) -> None:
    """The client for .NET keeps to it without a bound: a call waited for the end of the month and said nothing."""
    lines = error_response(kind("no", code="no", hint="", retry_after=seconds))[2]
    assert (b"retry-after: " in lines) is (told is not None)
    assert told is None or b"retry-after: %b\r\n" % told in lines
    assert (b"x-should-retry: false" in lines) is (told is None and kind is Exhausted)


@pytest.mark.parametrize(
    "code", ["response_finished", "batch_running", "batch_ended", "file_in_use", "idempotency_replayed"]
)
def test_what_has_happened_already_is_not_tried_again(code: str) -> None:
    """Official clients repeat what is answered with 409, twice and after pauses, unless they are told not to."""
    error = Conflict("it is over", code=code, hint="Ask for another one.")
    for of in (error_response, messages_errors.error_response):
        assert b"x-should-retry: false\r\n" in of(error, "")[2]


@pytest.mark.parametrize("asked", [{"key": "nobody"}, {"max_tokens": "many"}, {}, {"stream": True}])
async def test_nothing_is_left_of_a_refused_call(tmp_path: Path, asked: dict[str, Any]) -> None:
    """Garbage is looked for each ten million objects: a crowd that is refused would keep its memory for hours."""

    def left(rig: Rig) -> int:
        known = {id(one) for one in rig.server.connections}
        kinds = (Exchange, Connection)
        return sum(type(one) in kinds and id(one) not in known for one in gc.get_objects())

    async with call_rig(tmp_path, ["one"], limits=[limit("tokens", 19)]) as rig:
        gc.collect()
        before = left(rig)
        gc.disable()
        try:
            for _ in range(20):
                assert (await rig.chat(**asked)).status in (400, 401, 429)
            await wait_until(lambda: not rig.server.connections)
            await wait_until(lambda: left(rig) == before)
        finally:
            gc.enable()


class Untold(NoMoreGrants):
    """A grants that heard nothing of PostgreSQL."""

    def was_refused_lately(self, name: str, period: str) -> bool:  # noqa: ARG002 -- the protocol's signature
        return False


@pytest.mark.parametrize(("connected", "hint", "after"), [(True, "did not answer in time", 1), (False, "status", 2)])
async def test_a_budget_of_which_nothing_was_heard_is_not_called_used_up(
    tmp_path: Path, connected: bool, hint: str, after: int
) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        rig.slices.release("all", "total")
        rig.gateway.leases = rig.grants = Untold(connected=connected)
        reply = await rig.chat()
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "budget_unreachable", str(after))
        assert hint in reply.json["error"]["hint"]


def test_a_workload_that_may_have_no_calls_tells_no_time() -> None:
    told = calls_per_day_exhausted("assistant", 0, NOW)
    assert told.retry_after is None and "calls_per_day: 100" in told.hint and told.code == "calls_per_day"
    again = calls_per_day_exhausted("assistant", 5, NOW).retry_after
    assert again is not None and again > 0


def test_a_period_that_is_over_frees_at_no_time() -> None:
    """Of a line of a batch, which belongs to the day on which that was begun."""
    budget = Budget(name="daily", covers="company", limit=PICO, period="day")
    day = current_key("day", "", "UTC", NOW - 86_400)
    error = budget_exhausted(budget, PICO // 2, day, 0, 0, NOW)
    assert error.retry_after is None and error.details["frees_at"] is None and "order it again" in error.hint


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, "max_tokens"),
        ("responses", {"input": "hi"}, "max_output_tokens"),
        ("completions", {"prompt": "hi"}, "max_tokens"),
        ("messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 900}, "max_tokens"),
    ],
)
async def test_the_field_that_makes_a_call_cheaper_is_one_that_its_endpoint_takes(
    tmp_path: Path, path: str, body: dict[str, Any], field: str
) -> None:
    async with call_rig(tmp_path, ["one"], workloads={"assistant": {"max_cost_per_call": BOUND // 2}}) as rig:
        told = await post_with_headers(rig, path, body)
        assert (told.status, told.code) == (403, "cost_per_call")
        assert f"fewer tokens with {field}," in told.json["error"]["hint"]
        followed = await post_with_headers(rig, path, {**body, field: 5})
        assert followed.status == 200, followed.body


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, "max_tokens"),
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, "max_completion_tokens"),
        ("responses", {"input": "hi"}, "max_output_tokens"),
        ("completions", {"prompt": "hi"}, "max_tokens"),
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, "enable_search"),
        ("responses", {"input": "hi"}, "conversation"),
        ("completions", {"prompt": "hi"}, "lora"),
        ("embeddings", {"input": "hi"}, "chat_template"),
    ],
)
async def test_the_field_that_is_refused_is_named_where_official_clients_have_it(
    tmp_path: Path, path: str, body: dict[str, Any], field: str
) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        asked = 0 if "tokens" in field else True
        told = await post_with_headers(rig, path, {**body, field: asked})
        error = told.json["error"]
        assert (told.status, error["param"]) == (400, field)
        assert error["code"] == ("field_unsupported" if asked else "cap_range")
        assert field in error["hint"] or asked is True


@pytest.mark.parametrize(
    ("one", "two", "in_vain"),
    [(401, 401, True), (404, 402, True), (401, 503, False), (503, 401, False), (403, 429, False)],
)
async def test_what_somebody_has_to_mend_is_not_tried_again_by_official_clients(
    tmp_path: Path, one: int, two: int, *, in_vain: bool
) -> None:
    """They ask three times else, each of all deployments, before anybody hears of it."""
    async with call_rig(tmp_path, ["one", "two"]) as rig:
        for name, status in (("one", one), ("two", two)):
            rig.play(name, mode="error", status=status)
        base = f"http://127.0.0.1:{rig.port}/v1"
        async with openai.AsyncOpenAI(api_key="assistant", base_url=base, max_retries=1) as client:
            with pytest.raises(openai.InternalServerError) as caught:
                await client.completions.create(model="auto", prompt="hi")
        assert caught.value.code == "upstream_failed"
        assert rig.models["one"].counted == (1 if in_vain else 2)
        headers = caught.value.response.headers
        assert headers.get("x-should-retry") == ("false" if in_vain else None)
        assert ("retry-after" in headers) is not in_vain


async def test_who_was_not_asked_may_answer_the_next_time(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one", "two"], workloads={"assistant": {"attempts": 1}}) as rig:
        rig.play("one", mode="error", status=401)
        reply = await rig.chat()
        assert (reply.status, "retry-after" in reply.headers) == (503, True)


@pytest.mark.parametrize(("said", "made"), [("1", 0), ("true", 0), ("0", 1), ("False", 1), ("no", 1), ("off", 1)])
async def test_an_estimate_that_is_not_asked_for_is_a_call(tmp_path: Path, said: str, made: int) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        told = await post_with_headers(rig, "completions", {"prompt": "hi"}, f"groundplan-estimate: {said}\r\n")
        assert told.status == 200 and rig.models["one"].counted == made
        assert (told.json["object"] == "groundplan.estimate") is not bool(made)
        (end,) = [each for each in await rig.records() if isinstance(each, Finish)]
    assert end.endpoint == ("completions" if made else "completions.estimate")


@pytest.mark.parametrize(
    ("refused", "hint"),
    [
        (Refusal("input", "secrets"), "Leave it out."),
        (Refusal("input", "max_size"), "Send less,"),
        (Refusal("input", "languages", "fr"), "Write in another language,"),
        (Refusal("input", "failed", "presidio"), "Try again:"),
        (Refusal("output", "failed", "judge"), "Try again:"),
        (Refusal("output", "max_size"), "Ask otherwise,"),
    ],
)
def test_what_a_caller_can_do_about_a_refusal_is_told(refused: Refusal, hint: str) -> None:
    assert refusal_error(refused).hint.startswith(hint)


async def post_with_headers(rig: Rig, path: str, body: dict[str, Any], more: str = "") -> Reply:
    data = json.dumps({"model": "auto", **body}).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n{more}"
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
    try:
        return parse_reply(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()


PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]


@pytest.mark.parametrize(
    ("path", "body", "param", "told"),
    [
        ("/v1/embeddings", {"input": "a"}, "model", "deployment of type embeddings, and name it in `embeddings` of"),
        ("/v1/moderations", {"input": "a"}, "model", "deployment of type moderation, and name it in `also` of"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": PICTURE}]}, None, "`accepts: [image]` with"),
        ("/v1/chat/completions", {"service_tier": "priority"}, "service_tier", "price: {..., priority: {input:"),
        ("/v1/chat/completions", {"service_tier": "scale"}, "service_tier", "service_tier"),
        ("/v1/chat/completions", {"tools": [{"type": "web_search"}]}, "tools", "of type function or custom"),
        ("/v1/responses", {"input": "a", "tools": [{"type": "web_search"}]}, "tools", "Send functions"),
    ],
)
async def test_what_no_deployment_is_declared_for_is_refused_with_how_to_declare_it(
    tmp_path: Path, path: str, body: dict[str, Any], param: str | None, told: str
) -> None:
    """`param` names a field of the request, as at OpenAI."""
    if path.endswith("completions"):
        body = {"messages": [{"role": "user", "content": "a"}], **body}
    async with call_rig(tmp_path, ["one"]) as rig:
        reply = await post(rig, path, {"model": "one", **body})
    error = reply.json["error"]
    assert reply.status in (400, 404) and error["param"] == param
    assert told in error["hint"] and "`groundplan plan`" not in error["hint"]


async def test_a_workload_without_a_model_for_chat_says_who_tells_why(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], more={"one": {"kind": "embeddings"}}) as rig:
        reply = await rig.chat()
    assert (reply.status, reply.code) == (404, "model_not_found")
    assert "`groundplan why placement/assistant`" in reply.json["error"]["hint"]


_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."


@pytest.mark.parametrize(
    ("status", "answer", "told"),
    [
        (400, {"error": {"message": "no", "code": "bad"}}, ("invalid_request_error", "no", "bad")),
        (403, {"error": {"message": "no"}}, ("permission_error", "no", "upstream_refused")),
        (413, {"error": "too much"}, ("request_too_large", "too much", "upstream_refused")),
        (422, {"object": "error", "message": "no", "code": 422}, ("invalid_request_error", "no", "upstream_refused")),
        (400, [], ("invalid_request_error", "the upstream refused the request", "upstream_refused")),
        (
            400,
            {"error": {"message": _LONG, "code": "context_length_exceeded"}},
            ("invalid_request_error", f"prompt is too long: {_LONG}", "context_length_exceeded"),
        ),
        (
            400,
            {"error": {"message": "The prompt is too long: 9"}},
            ("invalid_request_error", "The prompt is too long: 9", "context_length_exceeded"),
        ),
    ],
)
def test_a_refusal_by_chat_is_what_anthropics_clients_know(
    status: int, answer: object, told: tuple[str, str, str]
) -> None:
    found = json.loads(messages_errors.upstream_refusal_body(status, json.dumps(answer).encode(), "call"))
    error = found["error"]
    assert (error["type"], error["message"], error["code"]) == told
    assert found["request_id"] == "call" and error["hint"]


def test_a_refusal_by_anthropic_is_passed_on_unchanged() -> None:
    own = b'{"type":"error", "error":{"type":"invalid_request_error","message":"no"},"request_id":"req_1"}'
    assert messages_errors.upstream_refusal_body(400, own, "call") is own


def test_a_budget_that_does_not_renew_is_not_said_to_be_free_again() -> None:
    budget = Budget(name="all", covers="company", limit=PICO, period="total")
    refused = budget_exhausted(budget, PICO // 2, "total", PICO // 4, PICO // 4, NOW)
    assert refused.hint == "It does not renew: raise it, or ask for fewer tokens."
    assert (refused.details["frees_at"], refused.details["remaining_usd"]) == (None, "0.250000000000")
    assert refused.retry_after is None and b"x-should-retry: false" in error_response(refused)[2]


_GOOGLE = {"error": {"code": 400, "message": "Unknown name 'foo'", "status": "INVALID_ARGUMENT"}}
_EXTRA = [{"type": "extra_forbidden", "loc": ["body", "foo"], "msg": "Extra inputs are not permitted"}]
_MISTRAL = {"object": "error", "message": {"detail": _EXTRA}, "type": "invalid_request_error", "code": None}


@pytest.mark.parametrize(
    ("answer", "message", "code"),
    [
        ([_GOOGLE], "Unknown name 'foo'", 400),
        (_MISTRAL, "body.foo: Extra inputs are not permitted", "upstream_refused"),
        ({"detail": _EXTRA * 2}, "; ".join(["body.foo: Extra inputs are not permitted"] * 2), "upstream_refused"),
        ({"detail": "no tools"}, "no tools", "upstream_refused"),
        ({"error": "no images", "error_type": "validation"}, "no images", "upstream_refused"),
        ({"object": "error", "message": "too hot", "code": 422}, "too hot", "upstream_refused"),
        ({"success": False, "errors": [{"code": 5006, "message": "no text"}]}, "no text", "upstream_refused"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_upstream_says_in_another_shape_reaches_clients_as_a_message(
    tmp_path: Path, answer: Any, message: str, code: object, stream: bool
) -> None:
    """OpenAI's clients show nothing but `error.message`. The other fields stay."""
    refusal = json_response(json.dumps(answer).encode(), b"422 Unprocessable Entity")
    async with raw_upstream_rig(tmp_path, refusal) as rig:
        reply = await rig.chat(stream=stream)
        error = reply.json["error"]
        assert (reply.status, error["message"], error["code"]) == (422, message, code)
        if isinstance(answer, dict):
            assert {**answer, "error": error} == reply.json
        asked = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        assert (await post(rig, "/v1/messages", asked)).json["error"]["message"] == message


@pytest.mark.parametrize("answer", [{}, {"error": None}, {"error": {"message": "no", "extra": 1}}, {"error": {}}])
def test_a_refusal_of_openais_shape_or_without_a_message_stays_as_it_is(answer: object) -> None:
    data = json.dumps(answer).encode()
    assert upstream_error_body(data, 400) == data
