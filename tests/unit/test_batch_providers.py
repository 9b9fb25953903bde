"""What a provider's batch API has to say for itself before orders can be given to it, and what is ordered there."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid5

import msgspec
import pytest
from tests.unit.call_rig import Rig, call_rig

from groundplan.blueprint import model as bp
from groundplan.core.errors import Denied
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.batches.batch_calls import BatchCalls
from groundplan.gateway.batches.batch_check import CheckResult, OrderDraft
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT, Batch, BatchLine
from groundplan.gateway.batches.orders.order_recorder import OrderRecorder
from groundplan.gateway.batches.orders.order_results import CallResult, OrderContext
from groundplan.gateway.batches.orders.order_runner import OrderRunner
from groundplan.gateway.batches.orders.order_store import Order, OrderLine
from groundplan.gateway.batches.providers.message_batches import MessageBatches
from groundplan.gateway.batches.providers.openai_batches import OpenAIBatches
from groundplan.gateway.batches.providers.provider import (
    OrderInput,
    Provider,
    ProviderRefused,
    ProviderUnavailable,
    UploadingProvider,
    path_segment,
)
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.gate import gate_of
from groundplan.gateway.surfaces.chat.surface import CHAT as CHAT_CALLS
from groundplan.gateway.telemetry.content_link import Content
from groundplan.ledger.model import Settlement, Usage

REFUSED = b'{"error":{"message":"no sk-provider-0123456789 x"}}'
ASKED = {"line", "create", "find", "retrieve", "cancel", "content", "delete"}


def test_a_provider_that_leaves_something_open_cannot_be_made() -> None:
    half = type("Half", (Provider,), {name: getattr(OpenAIBatches, name) for name in ASKED - {"cancel"}})
    with pytest.raises(TypeError, match="cancel"):
        half(None, None)
    whole = type("Whole", (Provider,), {name: getattr(OpenAIBatches, name) for name in ASKED})
    assert isinstance(whole(None, None), Provider)


def test_only_where_input_is_a_file_of_its_own_it_is_uploaded() -> None:
    assert issubclass(OpenAIBatches, UploadingProvider)
    assert not issubclass(MessageBatches, UploadingProvider)
    assert not hasattr(MessageBatches, "upload")


async def test_what_is_about_an_account_or_an_order_under_way_refuses_no_order(tmp_path: Path) -> None:
    """Of one that the provider works at already, it may be that it is taken."""
    async with call_rig(tmp_path, ["one"]) as rig:
        (place,) = rig.plan("assistant").deployments_by_name["auto"]
        asked = OrderInput(new_id(), "/v1/chat/completions", tmp_path / "input", "file-1")
        for status, may_have_acted in ((402, False), (429, False), (409, True), (503, True), (302, True)):
            rig.play("one", mode="error", status=status, only="POST /v1/batches")
            with pytest.raises(ProviderUnavailable) as away:
                await OpenAIBatches(rig.gateway, place).create(asked)
            assert away.value.may_have_acted is may_have_acted, status
        rig.play("one", mode="error", status=400, only="POST /v1/batches")
        with pytest.raises(ProviderRefused):
            await OpenAIBatches(rig.gateway, place).create(asked)


async def test_a_key_that_a_provider_repeats_in_results_is_kept_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is cut on its way, and in what a batch is called."""
    secret = "sk-provider-0123456789"
    said = (
        f'{{"id":"batch_1 of {secret}","status":"completed","x":"{"-" * 20} {secret}{secret} {secret[:9]}"}}'.encode()
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(said))
            for begin in range(0, len(said), 7):
                writer.write(said[begin : begin + 7])
                await writer.drain()
                await asyncio.sleep(0.002)

    monkeypatch.setenv("PROVIDER_KEY", secret)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    ports = {"one": server.sockets[0].getsockname()[1]}
    async with server, call_rig(tmp_path, ["one"], more={"one": {"key": "env:PROVIDER_KEY"}}, ports=ports) as rig:
        (place,) = rig.plan("assistant").deployments_by_name["auto"]
        provider = OpenAIBatches(rig.gateway, place)
        kept = b"".join([piece async for piece in provider.content("file-1")])
        assert kept == said.replace(secret.encode(), b"[hidden]")
        assert (await provider.retrieve("batch_1")).id == "batch_1 of [hidden]"


@pytest.mark.parametrize(
    ("answer", "may_have_acted"),
    [
        (b"", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{", True),
        (b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n%b" % (len(REFUSED), REFUSED), None),
    ],
    ids=["nothing", "cut", "no JSON", "refused"],
)
async def test_what_a_provider_may_have_taken_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, may_have_acted: bool | None
) -> None:
    """Else it would be sent once more, and paid twice."""

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    monkeypatch.setenv("PROVIDER_KEY", "sk-provider-0123456789")
    server = await asyncio.start_server(answers, "127.0.0.1", 0)
    ports = {"one": server.sockets[0].getsockname()[1]}
    async with server, call_rig(tmp_path, ["one"], more={"one": {"key": "env:PROVIDER_KEY"}}, ports=ports) as rig:
        (place,) = rig.plan("assistant").deployments_by_name["auto"]
        asked = OrderInput(new_id(), "/v1/chat/completions", tmp_path / "input", "file-1")
        with pytest.raises((ProviderUnavailable, ProviderRefused)) as told:
            await OpenAIBatches(rig.gateway, place).create(asked)
        if may_have_acted is None:
            assert isinstance(told.value, ProviderRefused) and str(told.value) == "no [hidden] x"
        else:
            assert isinstance(told.value, ProviderUnavailable) and told.value.may_have_acted is may_have_acted


async def test_what_was_asked_over_is_there_for_calls(tmp_path: Path) -> None:
    """Whether the provider did it or refused it."""
    async with call_rig(tmp_path, ["one"]) as rig:
        (place,) = rig.plan("assistant").deployments_by_name["auto"]
        provider, pool = OpenAIBatches(rig.gateway, place), rig.gateway.targets.of(place).pool
        for asks in (provider.find_uploads("x"), provider.retrieve("batch_none")):
            with suppress(ProviderRefused):
                await asks
            kept = pool.take_idle()
            assert kept is not None
            kept.abort()


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a?b", "a b", "\xe9", "a%2fb"])
def test_a_name_that_a_provider_gives_changes_no_path(name: str) -> None:
    with pytest.raises(ProviderUnavailable):
        path_segment(name)


CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
PICTURE = ASK | {"messages": [{"role": "user", "content": [IMAGE]}]}


def batch_of(rig: Rig, endpoint: str = CHAT) -> Batch:
    """One that the key of `assistant` has ordered."""
    key = rig.gateway.live.policy.keys[hashlib.sha256(b"assistant").digest()]
    now = rig.gateway.clock.now()
    return Batch(
        id=new_id(), workload="assistant", key=UUID(key.id), person="", endpoint=endpoint, input_file=new_id(),
        completion_window="24h", metadata=None, status="in_progress", created_at=now, expires_at=now,
        in_progress_at=now, cancelling_at=None, ended_at=None, errors=[], output_file=None, error_file=None, total=1,
        held_usd=0, charges=[["all", "total"]],
    )  # fmt: skip


def order_of(rig: Rig, batch: Batch, place: bp.Deployment, **more: Any) -> Order:
    """One that its provider has, where nothing else is said."""
    now = rig.gateway.clock.now()
    made = Order(new_id(), batch.id, place, 1, "sent", now, 0, False, None, None, ["b"], None, "")
    return replace(made, **more)


def limited(covers: str) -> dict[str, Any]:
    return {"limits": [bp.Limit(name="many", covers=covers, type="requests", amount=99, period="minute")]}


@pytest.mark.parametrize(
    ("workload", "place", "more", "body", "ordered"),
    [
        ({}, {}, {}, ASK, True),
        ({}, {}, {}, ASK | {"service_tier": "default"}, True),
        ({}, {"serves": []}, {}, ASK, False),
        ({}, {"api": "anthropic"}, {}, ASK, False),
        ({}, {"accepts": ["image"], "image_tokens": 9}, {}, PICTURE, False),
        ({}, {}, limited("workload/assistant"), ASK, False),
        ({}, {}, limited("deployment/one"), ASK, False),
        ({}, {"keys": [bp.ProviderKey(key="env:A", requests=[(9, "minute")])]}, {}, ASK, False),
        ({}, {"keys": [bp.ProviderKey(key="env:A")]}, {}, ASK, True),
        ({"calls_per_day": 9}, {}, {}, ASK, False),
        ({"people": 9}, {}, {}, ASK, False),
        ({"grounding": bp.Grounding(sources=["handbook"])}, {}, {}, ASK, False),
        ({"review": bp.Review()}, {}, {}, ASK, False),
        ({"guardrails": bp.Guardrails(input={"secrets": "block"})}, {}, {}, ASK, False),
    ],
)  # fmt: skip
async def test_what_a_provider_would_pass_over_is_made_as_a_call(
    tmp_path: Path, workload: dict[str, Any], place: dict[str, Any], more: dict[str, Any], body: Any, ordered: bool
) -> None:
    """Limits, guardrails, passages, people who look at answers: all that only happens here."""
    declared = {"serves": ["batches"], **place}
    async with call_rig(tmp_path, ["one"], workloads={"assistant": workload}, more={"one": declared}, **more) as rig:
        calls, batch = BatchCalls(rig.gateway), batch_of(rig)
        exchange = calls.exchange(batch, new_id(), json.dumps(body).encode())
        calls.assess(exchange, batch)
        assert (calls.provider_deployment(exchange) is not None) is ordered


@pytest.mark.parametrize(("given", "ordered"), [("hello", True), ([IMAGE], False)])
async def test_moderated_images_are_made_as_calls(tmp_path: Path, given: Any, ordered: bool) -> None:
    """They may have a price of their own, and results of an order do not say how many there were."""
    declared = {"serves": ["batches"], "kind": "moderation"}
    workloads = {"assistant": {"also": ["one"]}}
    async with call_rig(tmp_path, ["one"], workloads=workloads, more={"one": declared}) as rig:
        calls, batch = BatchCalls(rig.gateway), batch_of(rig, "/v1/moderations")
        exchange = calls.exchange(batch, new_id(), json.dumps({"model": "auto", "input": given}).encode())
        calls.assess(exchange, batch)
        assert (calls.provider_deployment(exchange) is not None) is ordered


async def test_a_line_is_looked_at_once_more_as_it_is_ordered(tmp_path: Path) -> None:
    """What is held for it is for what it could cost when its batch was begun, at one deployment."""
    serves: dict[str, Any] = {name: {"serves": ["batches"]} for name in ("one", "two")}
    async with call_rig(tmp_path, ["one", "two"], more=serves) as rig:
        calls, batch, body = BatchCalls(rig.gateway), batch_of(rig), json.dumps(ASK).encode()
        held = calls.assess(exchange := calls.exchange(batch, new_id(), body), batch)
        place, (other,) = calls.provider_deployment(exchange), rig.plan("assistant").deployments_by_name["two"]
        assert place is not None and place.name == "one"
        sent = json.loads(calls.forwarded_body(batch, place, new_id(), body, held))
        assert sent == ASK | {"model": place.upstream_model}
        for at, most, code in ((place, held - 1, "batch_bound_changed"), (other, held, "batch_place_changed")):
            with pytest.raises(Denied) as told:
                calls.forwarded_body(batch, at, new_id(), body, most)
            assert told.value.code == code


def _killed(rig: Rig) -> None:
    live: Any = rig.gateway.live
    live.policy = replace(live.policy, kills=frozenset({"deployment/one"}))


def _stopped(rig: Rig) -> None:
    live: Any = rig.gateway.live
    live.policy = replace(live.policy, kills=frozenset({"workload/assistant"}))


def _other_models(rig: Rig) -> None:
    live: Any = rig.gateway.live
    live.policy = replace(
        live.policy, keys={name: replace(key, models=frozenset({"two"})) for name, key in live.policy.keys.items()}
    )


def _declared(**more: Any) -> Callable[[Rig], None]:
    """What a release makes of `assistant`, or of the company's rules, after the order was written."""

    def release(rig: Rig) -> None:
        live: Any = rig.gateway.live
        first = live.catalog.blueprint
        settings = {name: value for name, value in more.items() if name != "policies"}
        tasks = [msgspec.structs.replace(each, **settings) for each in first.workloads]
        rules = more.get("policies", first.policies)
        made = msgspec.structs.replace(first, number=2, workloads=tasks, policies=rules)
        live.catalog = replace(index(made), gate=gate_of(made))

    return release


def _today(rig: Rig) -> None:
    """A rule that refuses what is asked on this day of the week."""
    day = rig.gateway.clock.now().isoweekday()
    text = '@id("r") @owner("s") forbid (principal, action == Action::"call", resource)'
    text += f" when {{ context.weekday == {day} }};"
    _declared(policies=[bp.PolicyRules(name="p", text=text, owner="", enforced=True)])(rig)


GUARDED = _declared(guardrails=bp.Guardrails(input={"secrets": "block"}))


@pytest.mark.parametrize(
    ("change", "order", "code"),
    [
        (lambda _: None, {}, ""),
        (_killed, {}, "killed"),
        (_stopped, {}, "killed"),
        (_other_models, {}, "batch_place_changed"),
        (lambda _: None, {"site": "another"}, "batch_place_changed"),
        (_declared(deployments=["two"]), {}, "batch_place_changed"),
        (_declared(deployments=["two"]), {"blueprint": 3}, ""),
        (GUARDED, {}, "batch_place_changed"),
        (_declared(review=bp.Review()), {}, "batch_place_changed"),
        (GUARDED, {"state": "sent"}, ""),
        (_today, {}, "policy_denied"),
        (_today, {"days": 2}, ""),
    ],
)
async def test_what_an_order_needs_is_looked_at_until_it_is_over(
    tmp_path: Path, change: Callable[[Rig], None], order: dict[str, Any], code: str
) -> None:
    """Of rules those of today about the time when it was ordered; what this worker has not heard of is not held
    against it."""
    async with call_rig(tmp_path, ["one", "two"]) as rig:
        place = msgspec.structs.replace(
            next(each for each in rig.plan("assistant").deployments_by_name["auto"] if each.name == "one"),
            **{name: value for name, value in order.items() if name == "site"},
        )
        batch, made = batch_of(rig), rig.gateway.clock.now() - timedelta(days=order.get("days", 0))
        number, state = order.get("blueprint", 1), order.get("state", "new")
        given = order_of(rig, batch, place, blueprint=number, state=state, created_at=made)
        calls = BatchCalls(rig.gateway)
        change(rig)
        if not code:
            calls.check(batch, given)
            return
        with pytest.raises(Denied) as told:
            calls.check(batch, given)
        assert told.value.code == code


@pytest.mark.parametrize(("moved", "asked"), [(False, True), (True, False)])
async def test_a_key_is_sent_to_no_place_but_the_one_that_it_is_declared_for(
    tmp_path: Path, moved: bool, asked: bool
) -> None:
    """An order is followed where it was given, with the key that its deployment has by now; another place's is not for
    it."""
    async with call_rig(tmp_path, ["one"]) as rig:
        (place,) = rig.plan("assistant").deployments_by_name["one"]
        live: Any = rig.gateway.live
        now = msgspec.structs.replace(place, key="env:NEWER", url="http://127.0.0.1:1/v1" if moved else place.url)
        live.catalog = index(msgspec.structs.replace(live.catalog.blueprint, number=2, deployments=[now]))
        batch, shelf = batch_of(rig), Blobs(Home(tmp_path))
        order = order_of(rig, batch, place)
        provider = OrderRunner(rig.gateway, BatchCalls(rig.gateway), shelf, "")._provider_for(order)
        assert (provider._fallback is not None) is asked


@pytest.mark.parametrize("stored", [None, "file-1"])
@pytest.mark.parametrize("listing", ["found", "away", "refused"])
async def test_an_input_whose_upload_nobody_heard_the_end_of_is_deleted_at_its_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str | None, listing: str
) -> None:
    """Its worker was killed, or got no answer, and its batch was cancelled before another one went on. That one may
    have uploaded the input once more, since it did not find the first upload yet."""
    asked: list[str] = []
    known = [] if stored is None else [stored]

    async def find_uploads(_: Any, filename: str) -> list[str]:
        asked.append(filename)
        if listing == "away":
            raise ProviderUnavailable("it is away", may_have_acted=False)
        if listing == "refused":
            raise ProviderRefused("there is no such list", 405)
        return [*known, "file-2", "file-3"]

    async def delete(_: Any, name: str) -> None:
        asked.append(name)

    monkeypatch.setattr(OpenAIBatches, "find_uploads", find_uploads)
    monkeypatch.setattr(OpenAIBatches, "delete", delete)
    async with call_rig(tmp_path, ["one"]) as rig:
        (place,) = rig.plan("assistant").deployments_by_name["one"]
        batch, shelf = batch_of(rig), Blobs(Home(tmp_path))
        order = order_of(rig, batch, place, state="new", uploading=True, provider_file=stored, provider_batches=[])
        shelf.ready()
        mark = shelf.path(uuid5(order.id, "input"))
        mark.touch()
        runner = OrderRunner(rig.gateway, BatchCalls(rig.gateway), shelf, "")
        await runner._delete_files(order, OpenAIBatches(rig.gateway, place), [])
        name = f"groundplan-{order.id}.jsonl"
        assert asked == [name, *known, *(("file-2", "file-3") if listing == "found" else ())]
        assert mark.exists() is (listing == "away"), "what is left there is tried again"


@pytest.mark.parametrize(("endpoint", "status"), [(MESSAGES_ENDPOINT, 403), (CHAT, None)])
async def test_a_refused_line_of_a_message_batch_has_the_status_of_its_refusal(
    tmp_path: Path, endpoint: str, status: int | None
) -> None:
    """The type of its error follows from it; OpenAI's files have no such field."""
    async with call_rig(tmp_path, ["one"], more={"one": {"serves": ["batches"]}}) as rig:
        (place,) = rig.plan("assistant").deployments_by_name["one"]
        batch, shelf = batch_of(rig, endpoint), Blobs(Home(tmp_path))
        data = f'{{"custom_id":"a","method":"POST","url":"{endpoint}","body":{json.dumps(ASK)}}}\n'.encode()

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield data

        await shelf.keep(batch.input_file, pieces())
        _killed(rig)
        runner, order = OrderRunner(rig.gateway, BatchCalls(rig.gateway), shelf, ""), order_of(rig, batch, place)
        line = OrderLine(1, "a", 0, len(data), 7, new_id())
        _, told = await runner._provider_line(batch, order, OpenAIBatches(rig.gateway, place), line)
    assert told is not None and isinstance(told["error"], dict)
    assert told["error"]["code"] == "killed" and told["error"].get("status_code") == status


async def test_what_a_provider_made_is_kept_and_counted_as_any_call(tmp_path: Path) -> None:
    keeps = {"assistant": {"keep": bp.Keep(content="full", seconds=60)}}
    async with call_rig(tmp_path, ["one"], workloads=keeps) as rig:
        sent: list[Content] = []
        rig.gateway.content_sender = SimpleNamespace(send=sent.append)  # type: ignore[assignment]
        (place,) = rig.plan("assistant").deployments_by_name["one"]
        batch, shelf, body = batch_of(rig), Blobs(Home(tmp_path)), json.dumps(ASK)
        data = f'{{"custom_id":"a","method":"POST","url":"{CHAT}","body":{body}}}\n'.encode()

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield data

        await shelf.keep(batch.input_file, pieces())
        order = order_of(rig, batch, place)
        line = OrderLine(1, "a", 0, len(data), 7, new_id())
        made = CallResult(ok=True, status=200, data=b'{"choices":[]}')
        recorder = OrderRecorder(rig.gateway, BatchCalls(rig.gateway), shelf)
        terms = OrderContext(batch, order, CHAT_CALLS, 0, ("", ""))
        told = json.loads(await recorder._result_line(terms, line, made))
        assert told["response"]["body"]["groundplan"]["deployment"] == "one"
        (kept,) = sent
        assert (kept.call, json.loads(kept.prompt)) == (line.call.bytes, ASK)
        assert json.loads(kept.answer) == told["response"]["body"]
        ended = Settlement(line.call.bytes, 0, 0, 7, "ok", 200, Usage(input=1, output=2), False, [], 0)
        attempts: Any = [(None, ended)]
        recorder._count_metrics(terms, CallResult(ok=True, status=200, attempts=attempts))
        calls, tries = rig.gateway.call_counters.calls, rig.gateway.call_counters.attempts
        assert {labels: each.count for labels, each in calls.items()} == {
            (CHAT_CALLS.name, "assistant", "one", "ok", 200): 1
        }
        assert {labels: (each.count, each.cost, each.tokens[:2]) for labels, each in tries.items()} == {
            ("assistant", "one", "ok"): (1, 7, [1, 2])
        }


RATES = bp.Rates(input=1, output=1)


def test_a_batch_of_which_nothing_is_made_holds_nothing_and_every_line_says_why() -> None:
    own = BatchLine(1, "a", 0, 9, 0, error=("field_unsupported", "x"))
    place = bp.Deployment(name="d", site="s", model="m", upstream_model="m", url="http://x", rates=RATES)
    order = OrderDraft(new_id(), place, 1, 7)
    checked = CheckResult(lines=[own, BatchLine(2, "b", 9, 9, 7, order=order.id)], total=7, orders=[order])
    checked.refuse_all("budget_exhausted", "y")
    assert checked.lines == [own, BatchLine(2, "b", 9, 9, 0, error=("budget_exhausted", "y"))]
    assert (checked.total, checked.orders) == (0, [])
