"""The books of a call: for each way that attempts can end, what the journal says and what the slices hold
afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.closing import close
from tests.integration.gateway_stack import Reply, blueprint, deployment, parse_reply, scripted_upstream, workload
from tests.unit.call_rig import BOUND, LIMIT, PATIENT, FixedPolicy, NoMoreGrants, call_rig, wait_until

from groundplan.blueprint.model import Deployment
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.logs import JsonLinesFormatter
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.caching.idempotency import Holder, IdempotentAnswers
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.pipeline import Pipeline
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Server
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.surfaces import stored_api
from groundplan.gateway.upstream.targets import Targets
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement
from groundplan.testing import ManualClock
from groundplan.testing.journal import read_segment
from groundplan.testing.scripted import Script, ScriptedModel

KEY = "gp_unit"


@dataclass
class Rig:
    gateway: Gateway
    port: int
    one: ScriptedModel
    two: ScriptedModel
    grants: NoMoreGrants
    live: FixedPolicy

    async def chat(self, **more: Any) -> Reply:
        body = {"model": "auto", "messages": [{"role": "user", "content": "a b c d"}], "max_tokens": 20, **more}
        data = json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
        writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
        try:
            return parse_reply(await reader.read())
        finally:
            writer.close()

    @property
    def slices(self) -> Slices:
        return self.gateway.slices

    async def records(self) -> list[Any]:
        """Everything in the journal, which is closed for it."""
        await self.gateway.journal.close()
        found: list[Any] = []
        for path in sorted(self.gateway.journal.folder.glob("*.seg")):
            found += [entry.record for entry in read_segment(path)[0]]
        return found

    def idle(self, spent: int) -> None:
        assert self.slices.open_reservations == 0
        assert self.slices.available("all", "total") == LIMIT - spent
        assert self.slices.spent("all", "total") == spent


@asynccontextmanager
async def made(
    folder: Path, one: int, two: int, one_more: dict[str, Any]
) -> AsyncIterator[tuple[Gateway, int, NoMoreGrants, FixedPolicy]]:
    loop = asyncio.get_running_loop()
    home = Home(folder)
    home.create()
    epoch = new_id()
    journal = Journal.open(home.journal / str(epoch), epoch, loop, 1 << 20)
    places: list[Deployment] = [deployment("one", one, **one_more), deployment("two", two, **PATIENT)]
    catalog = index(blueprint(1, places, [workload("assistant", ["one", "two"])]))
    entry = KeyEntry(str(new_id()), "assistant", "", False, False, None)
    policy = Policy(1, {hashlib.sha256(KEY.encode()).digest(): entry}, {}, frozenset(), frozenset())
    slices, clock, grants, live = Slices(), ManualClock(), NoMoreGrants(), FixedPolicy(policy, catalog)
    slices.add_grant("all", "total", LIMIT)
    answers = IdempotentAnswers(home.journal, epoch, clock.now().timestamp())
    answers.open(Holder(1, bytes(32)))
    gateway = Gateway(epoch, loop, clock, journal, slices, grants, live, Targets(home, loop), answers)
    server = Server(Pipeline(gateway).handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    yield gateway, listener.sockets[0].getsockname()[1], grants, live
    await close(listener, server, busy=lambda: gateway.running_calls or gateway.background)
    await journal.close()
    gateway.targets.close()
    answers.close()


@pytest.fixture
async def rig(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    more = getattr(request, "param", {})
    async with scripted_upstream("one") as (one, port_one), scripted_upstream("two") as (two, port_two):
        async with made(tmp_path, more.pop("port", port_one), port_two, more) as (gateway, port, grants, live):
            yield Rig(gateway, port, one, two, grants, live)


def kinds(records: list[Any]) -> list[str]:
    return [type(record).__name__ for record in records]


async def test_a_good_call_is_reserved_settled_and_finished(rig: Rig) -> None:
    rig.one.script = Script(tokens=7)
    assert (await rig.chat()).status == 200
    rig.idle(70_000_000)
    reservation, settlement, finish = await rig.records()
    assert isinstance(reservation, Reservation) and isinstance(settlement, Settlement) and isinstance(finish, Finish)
    assert reservation.bound == BOUND and reservation.charges == [Charge("all", "total", BOUND)]
    assert (settlement.cost, settlement.outcome, settlement.usage.output) == (70_000_000, "ok", 7)
    assert (finish.status, finish.http_status, finish.deployment) == ("ok", 200, "one")
    assert [name for name, _ in finish.steps] == ["identify", "cache", "admit", "ground", "serve", "settle"]
    assert [at for _, at in finish.steps] == sorted(at for _, at in finish.steps)
    assert len({record.call for record in (reservation, settlement, finish)}) == 1


async def test_an_error_answer_passes_its_reservation_on(rig: Rig) -> None:
    rig.one.script, rig.two.script = Script(mode="error", status=503), Script(tokens=7)
    assert (await rig.chat()).status == 200
    rig.idle(70_000_000)
    first, failed, second, ok, finish = await rig.records()
    assert (failed.outcome, failed.cost, failed.http_status, failed.attempt) == ("not_billed", 0, 503, 0)
    assert second.attempt == 1 and second.charges == [Charge("all", "total", 0)] and second.bound == BOUND
    assert (ok.outcome, ok.attempt, ok.cost, finish.deployment) == ("ok", 1, 70_000_000, "two")
    assert first.charges[0].amount == BOUND and not failed.estimated


@pytest.mark.parametrize("rig", [{"first_token_ms": 1000, "idle_ms": 500}], indirect=True, ids=["soon"])
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (Script(mode="down"), ["cut"]),
        (Script(mode="stall"), ["timeout"]),
        (Script(mode="cut"), ["cut"]),
        (Script(mode="error", status=502), []),
    ],
)
async def test_an_uncertain_failure_keeps_its_bound_and_the_next_attempt_reserves_anew(
    rig: Rig, script: Script, flags: list[str]
) -> None:
    rig.one.script, rig.two.script = script, Script(tokens=7)
    reply = await rig.chat()
    assert reply.status == 200 and reply.json["groundplan"]["estimated"] is True
    rig.idle(BOUND + 70_000_000)
    _, failed, second, _, _ = await rig.records()
    assert (failed.outcome, failed.cost, failed.estimated) == ("failed", BOUND, True)
    assert failed.flags == ["no_usage", *flags], "why, where no status says it"
    assert second.charges == [Charge("all", "total", BOUND)]


@pytest.mark.parametrize("rig", [{"port": 9}], indirect=True)
async def test_a_refused_connection_costs_nothing(rig: Rig) -> None:
    rig.two.script = Script(tokens=7)
    assert (await rig.chat(stream=True)).status == 200
    rig.idle(70_000_000)


async def test_both_failing_leaves_no_reservation_behind(rig: Rig) -> None:
    rig.one.script = rig.two.script = Script(mode="error")
    assert (await rig.chat()).code == "upstream_failed"
    rig.idle(0)
    records = await rig.records()
    assert kinds(records) == ["Reservation", "Settlement", "Reservation", "Settlement", "Finish"]
    assert records[-1].status == "failed" and records[-1].error_code == "upstream_failed"


async def test_an_upstream_that_reports_more_than_its_cap_is_charged_and_flagged(rig: Rig) -> None:
    rig.one.script = Script(mode="miscount", tokens=20)
    assert (await rig.chat()).status == 200
    _, settlement, _ = await rig.records()
    assert settlement.cost == 670_000_000 and settlement.flags == ["over_bound"]
    rig.idle(670_000_000)
    refused = await rig.chat()
    assert (refused.status, refused.code, rig.one.counted, rig.two.counted) == (403, "killed", 1, 0)


async def test_a_stream_that_is_cut_is_counted_by_us(rig: Rig) -> None:
    rig.one.script = Script(mode="cut", tokens=20)
    await rig.chat(stream=True)
    _, settlement, finish = await rig.records()
    assert (settlement.outcome, settlement.estimated, finish.status) == ("failed", True, "failed")
    assert 0 < settlement.cost <= BOUND
    rig.idle(settlement.cost)


async def test_a_client_that_goes_away_is_billed_at_the_bound_unless_its_provider_says_otherwise(rig: Rig) -> None:
    rig.one.script = Script(tokens=20, chunk_ms=50)
    data = b'{"model":"auto","messages":[{"role":"user","content":"x"}],"stream":true,"max_tokens":20}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {KEY}\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(head + b"content-length: %d\r\n\r\n" % len(data) + data)
    await reader.readuntil(b"You")
    writer.transport.abort()
    await wait_until(lambda: rig.gateway.running_calls == 0)
    _, settlement, finish = await rig.records()
    assert (finish.status, finish.http_status, finish.error_code) == ("cancelled", 499, "client_gone")
    assert (settlement.outcome, settlement.estimated) == ("cancelled", True)
    assert settlement.cost == BOUND
    rig.idle(BOUND)


async def test_an_empty_slice_refuses_before_anything_is_written_or_sent(rig: Rig) -> None:
    rig.slices.release("all", "total", keep=BOUND - 1)
    reply = await rig.chat()
    assert (reply.status, reply.code, rig.grants.requested_budgets) == (429, "budget_exhausted", ["all"])
    assert reply.headers["x-should-retry"] == "false"
    assert rig.one.counted == 0 and rig.slices.open_reservations == 0
    (finish,) = await rig.records()
    assert (finish.status, finish.error_code) == ("refused", "budget_exhausted")
    error = reply.json["error"]
    assert error["message"] == f"{finish.refusal}. {error['hint']}", "most clients show nothing but the message"
    assert "the budget all (" in finish.refusal


@pytest.mark.parametrize("is_connected", [False, True])
async def test_nothing_is_sent_whose_reservation_could_not_be_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, is_connected: bool
) -> None:
    """Also over a connection that stands, where both wait for the end of the same turn of the loop, and over a new one,
    which is made after that."""
    assert not is_connected or (await rig.chat()).status == 200
    await wait_until(lambda: not rig.gateway.journal._spare_segments.is_allocating)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    reply = await rig.chat()
    monkeypatch.undo()
    assert (reply.status, reply.code) == (503, "journal_unavailable")
    assert (rig.one.counted, rig.two.counted) == (int(is_connected), 0) and rig.slices.open_reservations == 0


async def test_a_deployment_is_not_called_failed_that_was_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since its reservation could not be written, and there is no other one to be told so."""
    async with call_rig(tmp_path, ("one",)) as rig:
        assert (await rig.chat()).status == 200
        await wait_until(lambda: not rig.gateway.journal._spare_segments.is_allocating)

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", full)
        reply = await rig.chat()
        monkeypatch.undo()
        assert (reply.status, reply.code, rig.models["one"].counted) == (503, "journal_unavailable", 1)


async def test_a_budget_that_cannot_be_asked_for_is_not_called_exhausted(rig: Rig) -> None:
    rig.grants.connected = False
    rig.slices.release("all", "total", keep=BOUND - 1)
    reply = await rig.chat()
    assert (reply.status, reply.code) == (503, "budget_unreachable")
    assert "retry-after" in reply.headers and "x-should-retry" not in reply.headers
    assert rig.one.counted == 0 and rig.slices.open_reservations == 0


async def test_copies_multiply_the_reservation(rig: Rig) -> None:
    rig.slices.release("all", "total", keep=3 * BOUND - 1)
    assert (await rig.chat(n=3)).code == "budget_exhausted"
    rig.slices.add_grant("all", "total", 1)
    assert (await rig.chat(n=3)).status == 200


async def test_a_closed_journal_refuses_every_call_and_spends_nothing(rig: Rig) -> None:
    await rig.gateway.journal.close()
    reply = await rig.chat()
    assert (reply.status, reply.code) == (503, "journal_unavailable")
    assert rig.one.counted == 0
    rig.idle(0)


async def test_the_policy_lease_and_the_grace(rig: Rig) -> None:
    rig.live.seconds = 60.9
    assert (await rig.chat()).status == 200
    rig.live.seconds = 61.1
    assert (await rig.chat()).code == "policy_lease_expired"


@pytest.mark.parametrize("killed", [False, True])
async def test_a_worker_that_stood_still_asks_what_holds_now(rig: Rig, *, killed: bool) -> None:
    """So does one whose clock was set: the next heartbeat is a moment away, and nobody is refused for that."""
    rig.live.seconds, rig.live.is_following = 61.1, True

    def confirm() -> None:
        rig.live.seconds = 0.0
        if killed:
            rig.live.policy = dataclasses.replace(rig.live.policy, kills=frozenset({"company"}))

    asyncio.get_running_loop().call_later(0.02, confirm)
    reply = await rig.chat()
    assert (reply.status, rig.one.counted) == ((403, 0) if killed else (200, 1))


@pytest.mark.parametrize("killed", [False, True])
async def test_what_is_no_call_asks_what_holds_now_as_a_call_does(rig: Rig, *, killed: bool) -> None:
    """A stored answer, a batch, a file, a search, an MCP server's tools: a clock that was set refuses none of them."""
    rig.live.seconds, rig.live.is_following = 7200.0, True

    def confirm() -> None:
        rig.live.seconds = 0.0
        if killed:
            rig.live.policy = dataclasses.replace(rig.live.policy, kills=frozenset({"company"}))

    asyncio.get_running_loop().call_later(0.02, confirm)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    head = (
        f"GET /v1/responses/resp_gone HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
    )
    writer.write(head.encode())
    reply = parse_reply(await reader.read())
    writer.close()
    assert reply.code == ("killed" if killed else "path_unknown"), "it was admitted, and nothing is stored here"


async def test_a_worker_whose_policy_was_never_confirmed_is_not_ready(rig: Rig) -> None:
    """It has no grace that could have run out: it was started, and has not heard of the database a second time."""
    rig.live.seconds = float("inf")
    refused = await rig.chat()
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "not_ready", "1")
    assert rig.one.counted == 0


async def test_a_failure_beside_calls_is_logged_with_the_id_that_its_client_has(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("nobody foresaw it")

    monkeypatch.setattr(stored_api, "admit_caller", fails)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"GET /v1/chat/completions HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n")
    reply = parse_reply(await reader.read())
    writer.close()
    assert (reply.status, reply.code) == (503, "internal_error")
    (record,) = [each for each in caplog.records if each.exc_info]
    line = json.loads(JsonLinesFormatter("gateway").format(record))
    assert line["request_id"] == reply.headers["x-request-id"] and "nobody foresaw it" in line["exception"]
