"""What a provider's files say of an order, call by call: attempts, costs, flags, and what is told of the others."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.integration.gateway_stack import deployment

from groundplan.blueprint.model import Rates
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.money import MAX_AMOUNT, PICO
from groundplan.gateway.batches.batch_store import Batch
from groundplan.gateway.batches.orders import order_results
from groundplan.gateway.batches.orders.order_journal import OrderJournal
from groundplan.gateway.batches.orders.order_results import (
    CallResult,
    OrderContext,
    ProviderResults,
    ResultFiles,
    call_result,
    finish_record,
    result_line,
    unmade_reason,
)
from groundplan.gateway.batches.orders.order_store import Order, OrderLine
from groundplan.gateway.batches.providers import provider
from groundplan.gateway.batches.providers.message_batches import to_openai_line
from groundplan.gateway.batches.providers.provider import ProviderBatch
from groundplan.gateway.journal.records import segment_path
from groundplan.gateway.journal.tail import try_lock
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.ledger.model import Finish, Reservation, Settlement
from groundplan.testing.journal import read_segment, replay

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RATES = Rates(input=0, output=10 * PICO, batch=Rates(input=0, output=5 * PICO))
NOT_MADE = ("batch_expired", "the batch expired")
HELD = 200_000_000
"""40 tokens at the batch's price."""


def terms(rates: Rates = RATES) -> OrderContext:
    batch = Batch(
        id=new_id(), workload="assistant", key=new_id(), person="", endpoint="/v1/chat/completions",
        input_file=new_id(), completion_window="24h", metadata=None, status="in_progress", created_at=NOW,
        expires_at=NOW, in_progress_at=NOW,
        cancelling_at=None, ended_at=None, errors=[], output_file=None, error_file=None, total=1, held_usd=0,
        charges=[["all", "total"]], said={"groundplan-feature": "search", "groundplan-ticket": "T-1"},
    )  # fmt: skip
    order = Order(
        new_id(), batch.id, deployment("one", 1, rates=rates), 1, "sent", NOW, 0, False, None, None, ["b"], None, ""
    )
    return OrderContext(batch, order, CHAT, 1000, NOT_MADE)


def line(number: int = 1) -> OrderLine:
    return OrderLine(number, f"c{number}", 0, 1, HELD, new_id())


def answer(call: UUID, tokens: int | None = 20, status: int = 200) -> bytes:
    body: dict[str, Any] = {"id": "x", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    response = {
        "status_code": status,
        "request_id": "r",
        "body": body if status == 200 else {"error": {"message": "no"}},
    }
    return json.dumps({"id": "i", "custom_id": call.hex, "response": response, "error": None}).encode() + b"\n"


def provider_results(folder: Path, *lines: bytes, status: str = "completed", name: str = "output") -> ProviderResults:
    path = folder / name
    path.write_bytes(b"".join(lines))
    results = ResultFiles([path])
    assert list(results.scan())[-1:] in ([], [path.stat().st_size])
    return ProviderResults(ProviderBatch("b", status), results)


def settled(found: CallResult) -> list[tuple[str, int, list[str]]]:
    return [(s.outcome, s.cost, s.flags) for _, s in found.attempts]


def test_unreadable_result_lines_count_for_no_call_and_block_no_other(tmp_path: Path) -> None:
    one, each = terms(), line()
    deep = b"[" * 100_000 + b"]" * 100_000
    odd = [b"{", b"\xff", deep, b'{"custom_id":"x","response":%b}' % deep, b"7", b""]
    found = call_result(one, each, [provider_results(tmp_path, *(raw + b"\n" for raw in odd), answer(each.call))])
    assert settled(found) == [("ok", 100_000_000, ["provider_batch"])]
    assert [to_openai_line(raw) for raw in odd] == [b""] * len(odd)


@pytest.mark.parametrize("length", [999, 1000, 1001, 2002, 5000])
def test_a_result_line_without_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(order_results, "MAX_RESULT_LINE", 1000)
    one, long, each = terms(), line(), line(2)
    raw = answer(long.call)
    raw = raw[:-2] + b" " * (length - len(raw)) + b"}\n"
    found = [provider_results(tmp_path, raw, answer(each.call))]
    assert call_result(one, long, found).ok is (length <= 1000 + 1), "with its line break"
    assert call_result(one, each, found).ok
    if length > 1001:
        assert settled(call_result(one, long, found)) == [("failed", HELD, ["provider_batch", "no_usage"])]


@pytest.mark.parametrize("cut", [1, 3, 7, 100])
async def test_lines_that_no_answer_has_are_left_out(monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    monkeypatch.setattr(provider, "MAX_RESULT_LINE", 5)
    data = b"a\nbbbbb\ncccccc\n\nddddddddddddd\ne\nfffffff"

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), cut):
            yield data[at : at + cut]

    found = [line async for lines in provider.split_lines(pieces()) for line in lines]
    assert found == [b"a", b"bbbbb", b"", b"e"]


def test_a_good_answer_costs_the_batchs_price(tmp_path: Path) -> None:
    one, each = terms(), line()
    found = call_result(one, each, [provider_results(tmp_path, answer(each.call))])
    assert found.ok and settled(found) == [("ok", 100_000_000, ["provider_batch"])] and not found.estimated
    end = finish_record(one, each, found)
    assert (end.status, end.http_status, end.workload, end.deployment) == ("ok", 200, "assistant", "one")
    assert (end.feature, end.ticket) == ("search", "T-1"), "what the batch was ordered for"
    shown = json.loads(result_line(each, found, found.data))
    assert shown["custom_id"] == "c1" and shown["response"]["request_id"] == str(each.call)


def test_a_line_that_the_provider_made_twice_is_two_attempts_and_the_second_is_flagged(tmp_path: Path) -> None:
    one, each = terms(), line()
    both = [
        provider_results(tmp_path, answer(each.call)),
        provider_results(tmp_path, answer(each.call, 10), status="cancelled", name="second"),
    ]
    found = call_result(one, each, both)
    assert settled(found) == [
        ("ok", 100_000_000, ["provider_batch"]),
        ("ok", 50_000_000, ["provider_batch", "sent_twice"]),
    ]
    assert [r.attempt for r, _ in found.attempts] == [0, 1] and found.cost == 150_000_000
    only_second = call_result(one, each, [provider_results(tmp_path, status="expired"), both[1]])
    assert only_second.ok and [r.attempt for r, _ in only_second.attempts] == [0]
    refused = provider_results(tmp_path, answer(each.call, status=400), name="refused")
    good = provider_results(tmp_path, answer(each.call), answer(each.call, 10))
    for pair in ([good, refused], [refused, good]):
        found = call_result(one, each, pair)
        assert (found.ok, found.status, found.cost) == (True, 200, 100_000_000), "whichever was first"
        assert json.loads(found.data)["usage"]["completion_tokens"] == 20


@pytest.mark.parametrize(
    ("raw", "status", "error", "cost"),
    [
        (b"", "completed", "batch_line_lost", HELD),
        (b"", "expired", "batch_expired", 0),
        (b"nonsense\n", "completed", "batch_line_lost", HELD),
        (answer(new_id()), "completed", "batch_line_lost", HELD),
    ],
)
def test_a_call_without_result_that_may_have_been_made_is_charged_at_its_bound(
    tmp_path: Path, raw: bytes, status: str, error: str, cost: int
) -> None:
    one, each = terms(), line()
    found = call_result(one, each, [provider_results(tmp_path, raw, status=status)])
    assert (found.ok, found.error[0], found.cost) == (False, error, cost)
    assert bool(found.attempts) == bool(cost) and found.estimated == bool(cost)
    assert json.loads(result_line(each, found, b""))["error"]["code"] == error


def test_calls_that_end_otherwise_are_settled_accordingly(tmp_path: Path) -> None:
    one, each = terms(), line()
    unreported = call_result(one, each, [provider_results(tmp_path, answer(each.call, None))])
    assert unreported.ok and settled(unreported) == [("ok", HELD, ["provider_batch", "no_usage"])]
    nothing = answer(each.call).replace(b'"prompt_tokens": 1', b'"prompt_tokens": 0')
    assert settled(call_result(one, each, [provider_results(tmp_path, nothing)])) == settled(unreported)
    dear = call_result(one, each, [provider_results(tmp_path, answer(each.call, 50))])
    assert settled(dear) == [("ok", 250_000_000, ["provider_batch", "over_bound"])]
    for most, flags in (((1, 20), []), ((1, 19), ["over_bound"]), ((0, 0), [])):
        bounded = replace(each, most_input=most[0], most_output=most[1])
        assert settled(call_result(one, bounded, [provider_results(tmp_path, answer(each.call))]))[0][2] == [
            "provider_batch",
            *flags,
        ]
    absurd = call_result(
        terms(Rates(input=0, output=600 * PICO)), each, [provider_results(tmp_path, answer(each.call, 10**12))]
    )
    assert settled(absurd) == [("ok", MAX_AMOUNT, ["provider_batch", "over_bound"])], (
        "the most that can be written down"
    )
    long = replace(each, most_input=1)
    told_two = answer(each.call).replace(b'"prompt_tokens": 1', b'"prompt_tokens": 2')
    assert settled(call_result(one, long, [provider_results(tmp_path, told_two)]))[0][2] == [
        "provider_batch",
        "over_bound",
        "over_input",
    ]
    refused = call_result(one, each, [provider_results(tmp_path, answer(each.call, status=400))])
    assert not refused.ok and settled(refused) == [("not_billed", 0, ["provider_batch"])]
    assert finish_record(one, each, refused).error_code == "upstream_refused"
    assert json.loads(result_line(each, refused, refused.data))["response"]["status_code"] == 400
    data: dict[str, Any] = {"custom_id": each.call.hex, "response": {"status_code": 200, "body": {"no": 1}}}
    odd = call_result(one, each, [provider_results(tmp_path, json.dumps(data).encode())])
    assert odd.error[0] == "batch_line_malformed" and settled(odd) == [("failed", HELD, ["provider_batch", "no_usage"])]
    data = {"custom_id": each.call.hex, "response": None, "error": {"code": "batch_cancelled", "message": "theirs"}}
    ended = call_result(one, each, [provider_results(tmp_path, json.dumps(data).encode(), status="cancelled")])
    assert ended.error == NOT_MADE and not ended.attempts, "why it ended is said in our words"
    gone = call_result(one, each, [ProviderResults(None, ResultFiles([]))])
    assert gone.error[0] == "batch_line_lost" and gone.cost == HELD


@pytest.mark.parametrize(
    ("status", "ending", "code"),
    [
        ("completed", ("key_revoked", "why"), "key_revoked"),
        ("failed", None, "batch_order_failed"),
        ("cancelled", None, "batch_cancelled"),
        ("expired", None, "batch_expired"),
    ],
)
def test_calls_that_were_not_made_have_the_reason(status: str, ending: tuple[str, str] | None, code: str) -> None:
    assert unmade_reason([None, ProviderBatch("b", status)], ending)[0] == code


def test_the_journal_of_an_order_is_published_once_and_complete(tmp_path: Path) -> None:
    home, one = Home(tmp_path / "home"), terms()
    home.create()
    lines = [line(1), line(2)]
    for attempt in range(2):  # told again after a crash, it says the same and changes nothing
        journal = OrderJournal(home, one.order.id)
        for each in lines:
            found = call_result(one, each, [provider_results(tmp_path, answer(each.call))])
            for reservation, settlement in found.attempts:
                journal.add(reservation, settlement, finish_record(one, each, found))
        journal.publish()
        folder = home.journal / str(one.order.id)
        entries, ending = read_segment(folder / "00000001.seg")
        assert ending.end == "clean" and len(entries) == 6, attempt
    kinds = [type(entry.record) for entry in entries]
    assert kinds == [Reservation, Settlement, Finish] * 2
    state = replay(entry.record for entry in entries)
    assert state.spent == {("all", "total"): 200_000_000} and all(call.has_ended for call in state.calls.values())
    OrderJournal(home, new_id()).drop()
    assert [path.name for path in home.journal.iterdir()] == [str(one.order.id)]


async def test_writing_the_costs_of_an_order_does_not_block_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large order they are tens of megabytes, and calls go on meanwhile."""
    one, each, home = terms(), line(), Home(tmp_path)
    home.create()
    found = call_result(one, each, [provider_results(tmp_path, answer(each.call))])
    journal, fsync, dirty = OrderJournal(home, one.order.id), os.fsync, []

    def told(descriptor: int) -> None:
        dirty.append(threading.current_thread() is threading.main_thread())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", told)
    for reservation, settlement in found.attempts:
        journal.add(reservation, settlement, finish_record(one, each, found))
    await journal.sync()
    assert dirty == [False]
    journal.publish()
    (segment,) = (home.journal / str(one.order.id)).glob("*.seg")
    assert len(read_segment(segment)[0]) == 3


@pytest.mark.parametrize("full", ["the disk", "files"])
async def test_a_journal_of_an_order_without_disk_space_holds_nothing(tmp_path: Path, full: str) -> None:
    """It is tried again by the same worker, which would wait for the lock of the one before for ever."""
    one, home = terms(), Home(tmp_path)
    home.create()
    making = home.journal / f".{one.order.id}.{os.getpid()}.new"
    making.mkdir()
    segment = segment_path(making, 1)
    segment.symlink_to("/dev/full") if full == "the disk" else segment.mkdir()
    with pytest.raises(OSError):
        journal = OrderJournal(home, one.order.id)
        try:
            await journal.sync()
        finally:
            journal.drop()
    making.mkdir(exist_ok=True)
    lock = try_lock(making)
    assert lock is not None
    os.close(lock)
    shutil.rmtree(making)
    OrderJournal(home, one.order.id).publish()


def test_half_of_a_character_costs_nobody_the_answer(tmp_path: Path) -> None:
    """A model that is cut in the middle of an emoji, and a provider that writes its escapes one by one."""
    one, each = terms(), line()
    half = answer(each.call).replace(b'"content": "a"', b'"content": "a\\ud83d"')
    found = call_result(one, each, [provider_results(tmp_path, half)])
    assert found.ok and settled(found) == [("ok", 100_000_000, ["provider_batch"])]
    shown = json.loads(result_line(each, found, found.data))
    assert shown["response"]["body"]["choices"][0]["message"]["content"] == "a\ufffd"
    theirs = b'{"custom_id":"%b","result":{"type":"succeeded","message":{"content":[{"text":"\\ud83d"}]}}}'
    assert b'[{"text":"\\ufffd"}]' in to_openai_line(theirs % each.call.hex.encode())
