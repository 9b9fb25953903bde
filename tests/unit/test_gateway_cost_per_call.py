"""What one call may cost holds for all its attempts together: fallbacks, retries, hedges and streams that go on."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.gateway_stack import RATES, Reply, parse_reply
from tests.unit.call_rig import BOUND, Rig, call_rig, reliability, wait_until
from tests.unit.test_gateway_cascade import NAMES, SCHEMA, declared, text

CAP = BOUND + BOUND // 2
"""Of a call: two attempts at their bounds are more."""


def capped(most: int = CAP, **settings: Any) -> dict[str, dict[str, Any]]:
    return {"assistant": {"max_cost_per_call": most, **reliability(**settings)}}


async def capped_by_caller(rig: Rig, most: str, **more: Any) -> Reply:
    request = rig.request(**more).replace(b"\r\n\r\n", b"\r\ngroundplan-max-cost-usd: %b\r\n\r\n" % most.encode(), 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request)
    try:
        return parse_reply(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("by", ["workload", "caller"])
async def test_no_attempt_follows_a_billed_one_above_what_a_call_may_cost(
    tmp_path: Path, by: str, stream: bool
) -> None:
    workloads = capped() if by == "workload" else {"assistant": reliability()}
    async with call_rig(tmp_path, workloads=workloads) as rig:
        rig.play("one", mode="error", status=502)
        reply = await (rig.chat(stream=stream) if by == "workload" else capped_by_caller(rig, "0.0003", stream=stream))
        assert (reply.status, reply.code) == (403, "cost_per_call")
        error = reply.json["error"]
        told = [Decimal(error[name]) for name in ("spent_usd", "needed_usd", "max_cost_usd")]
        assert told == [Decimal("0.0002"), Decimal("0.0004"), Decimal("0.0003")]
        assert rig.models["two"].counted == 0
        assert sum((await rig.books()).spent.values()) == BOUND


async def test_the_next_deployment_is_asked_within_the_cost_cap(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=capped(2 * BOUND)) as rig:
        rig.play("one", mode="error", status=502)
        assert (await rig.chat()).headers["groundplan-deployment"] == "two"
        await rig.books()


async def test_an_unbilled_attempt_leaves_room_in_the_cost_cap(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=capped(BOUND)) as rig:
        rig.play("one", mode="error", status=503)
        assert (await rig.chat()).headers["groundplan-deployment"] == "two"
        await rig.books()


async def test_a_retry_above_the_cost_cap_is_not_made(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], workloads=capped(same=2, backoff_ms=1)) as rig:
        rig.play("one", mode="error", status=502)
        assert (await rig.chat()).code == "cost_per_call"
        assert rig.models["one"].counted == 1
        await rig.books()


async def test_a_cheaper_deployment_replaces_one_above_the_cost_cap(tmp_path: Path) -> None:
    cheap = {"three": {"rates": replace(RATES, output=RATES.output // 10)}}
    async with call_rig(tmp_path, ["one", "two", "three"], more=cheap, workloads=capped()) as rig:
        rig.play("one", mode="error", status=502)
        assert (await rig.chat()).headers["groundplan-deployment"] == "three"
        assert rig.models["two"].counted == 0
        await rig.books()


DEAR = {"two": {"rates": replace(RATES, output=RATES.output * 10)}}


@pytest.mark.parametrize("by", ["workload", "caller"])
async def test_a_deployment_above_the_cost_cap_is_left_out_as_long_as_another_is_within_it(
    tmp_path: Path, by: str
) -> None:
    workloads = capped(BOUND) if by == "workload" else {"assistant": reliability()}
    async with call_rig(tmp_path, more=DEAR, workloads=workloads) as rig:

        async def call(**more: Any) -> Reply:
            return await (rig.chat(**more) if by == "workload" else capped_by_caller(rig, "0.0002", **more))

        assert (await call()).headers["groundplan-deployment"] == "one"
        reply = await call(model="two")
        assert (reply.status, reply.code) == (403, "cost_per_call"), "nothing else may serve it"
        rig.play("one", mode="error", status=503)
        reply = await call()
        assert (reply.status, reply.code) == (503, "upstream_failed"), "it may be sent again"
        assert rig.models["two"].counted == 0
        await rig.books()


@pytest.mark.parametrize(("most", "sent"), [(CAP, 0), (2 * BOUND, 1)])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_hedge_and_the_open_attempt_both_count_towards_the_cost_cap(
    tmp_path: Path, most: int, sent: int, stream: bool
) -> None:
    async with call_rig(tmp_path, workloads=capped(most, hedge={"after_ms": 40, "at_most": 1.0})) as rig:
        one = rig.hold("one")
        asked = asyncio.create_task(rig.chat(stream=stream))
        if not sent:
            await wait_until(lambda: rig.models["one"].counted == 1)
            await asyncio.sleep(0.15)  # a hedge would be sent after 0.04
            one.release()
        assert (await asked).status == 200
        assert rig.models["two"].counted == sent
        await rig.books()


async def test_a_broken_stream_is_not_resumed_above_the_cost_cap_and_says_so(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=capped(BOUND + 1, on_broken_stream="resume")) as rig:
        rig.play("one", mode="cut", chunk_ms=3)
        stream = await rig.stream()
        (error,) = stream.errors
        assert error["code"] == "stream_broken" and "that one may cost" in error["message"]
        assert rig.models["two"].counted == 0 and stream.text
        await rig.books()


async def test_a_drained_attempt_counts_at_its_bound(tmp_path: Path) -> None:
    """`one` loses against the hedge and is drained, `two` breaks off, and with `three` it could be more than two."""
    settings: dict[str, Any] = {"hedge": {"after_ms": 30, "at_most": 1.0}, "on_broken_stream": "resume"}
    drained = {"one": {"billing_on_cancel": "drain"}}
    names = ["one", "two", "three"]
    async with call_rig(tmp_path, names, more=drained, workloads=capped(2 * BOUND, **settings)) as rig:
        one = rig.hold("one")
        rig.play("two", mode="cut", chunk_ms=3)
        stream = await rig.stream()
        assert "another attempt may bring this call to" in stream.errors[0]["message"]
        assert (rig.models["two"].counted, rig.models["three"].counted) == (1, 0)
        one.release()
        await wait_until(lambda: not rig.gateway.background)
        await rig.books()


async def test_a_cheap_try_is_not_repeated_if_nothing_would_be_left_for_the_answer(tmp_path: Path) -> None:
    workloads = declared(schema=SCHEMA)
    workloads["assistant"] |= capped(2 * BOUND, same=2, backoff_ms=1)["assistant"]
    async with call_rig(tmp_path, NAMES, workloads=workloads) as rig:
        rig.play("small", mode="error", status=502)
        assert (await rig.chat()).headers["groundplan-deployment"] == "large"
        assert rig.models["small"].counted == 1
        await rig.books()


async def test_an_unaccepted_answer_is_delivered_if_the_next_would_exceed_the_cost_cap(tmp_path: Path) -> None:
    """The try and one more attempt fit; that one is billed and fails, and a third does not fit."""
    workloads = declared(schema=SCHEMA, give=True)
    workloads["assistant"]["max_cost_per_call"] = 2 * BOUND
    async with call_rig(tmp_path, NAMES, workloads=workloads) as rig:
        rig.play("small", say="no JSON at all")
        rig.play("large", mode="error", status=502)
        reply = await rig.chat()
        assert reply.status == 200 and text(reply.body) == "no JSON at all"
        assert rig.models["judge"].counted == 0
        await rig.books()


@pytest.mark.parametrize(("requested", "status"), [("1", 403), ("0.00019", 403), ("0.0003", 200)])
async def test_a_caller_may_lower_the_cost_cap_of_the_workload_but_not_raise_it(
    tmp_path: Path, requested: str, status: int
) -> None:
    most = BOUND - 1 if requested == "1" else 2 * BOUND
    async with call_rig(tmp_path, workloads=capped(most)) as rig:
        reply = await capped_by_caller(rig, requested)
        assert reply.status == status and (status == 200 or reply.code == "cost_per_call")
        assert rig.models["one"].counted == (status == 200)
        await rig.books()
