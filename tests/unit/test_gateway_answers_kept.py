"""Answers kept for an Idempotency-Key, across workers and restarts; and the memory of failing deployments."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import signal
import threading
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply, parse_reply
from tests.unit.call_rig import FixedPolicy, call_rig, reliability
from tests.unit.raw_upstream import (
    DONE,
    STREAM_HEAD,
    chunk,
    completion_body,
    encode_events,
    json_response,
    raw_upstream_rig,
)

from groundplan.blueprint.model import Deployment, Limit, Rates
from groundplan.core.errors import Conflict, Unavailable
from groundplan.core.ids import new_id
from groundplan.gateway.caching import idempotency
from groundplan.gateway.caching.idempotency import (
    ENTRY_BYTES,
    MEMORY_BYTES,
    MEMORY_SECONDS,
    Holder,
    IdempotentAnswers,
    KeptAnswer,
)
from groundplan.gateway.caching.sharing import AnswerServer, fetch_answer
from groundplan.gateway.caching.used_idempotency_keys import DAY_SECONDS
from groundplan.gateway.upstream.health import Health

ONE, TWO, BODY = b"1" * 32, b"2" * 32, b"b" * 32
NOW = 1_700_000_000.0


def make_answer(body: bytes = b"answer") -> KeptAnswer:
    return KeptAnswer(200, b"", b"", body)


HOLDER = Holder(1, b"t" * 32)


def open_answers(folder: Path) -> IdempotentAnswers:
    answers = IdempotentAnswers(folder, new_id(), NOW)
    answers.open(HOLDER)
    return answers


async def test_a_duplicate_waits_for_the_first_and_gets_its_answer(tmp_path: Path) -> None:
    answers = open_answers(tmp_path)
    assert await answers.begin(ONE, BODY, NOW) is None
    second = asyncio.create_task(answers.begin(ONE, BODY, NOW))
    await asyncio.sleep(0)
    answers.claim(ONE, NOW)
    answers.keep(ONE, make_answer())
    assert await second == make_answer() and await answers.begin(ONE, BODY, NOW) == make_answer()
    answers.keep(ONE, make_answer(b"another"))
    assert await answers.begin(ONE, BODY, NOW) == make_answer(), "the first one stays"
    answers.close()


async def test_a_worker_without_idempotency_keys_leaves_no_file(tmp_path: Path) -> None:
    """Of every reload there was one, which each call with a key looked at for a day."""
    first, second = open_answers(tmp_path), open_answers(tmp_path)
    assert await second.begin(ONE, BODY, NOW) is None
    second.claim(ONE, NOW)
    second.keep(ONE, make_answer())
    first.close()
    second.close()
    (left,) = tmp_path.iterdir()
    later = open_answers(tmp_path)
    assert await later.begin(ONE, BODY, NOW) is None
    assert later.claim(ONE, NOW) == [HOLDER]
    assert len([*tmp_path.iterdir()]) == 2 and left.exists()
    later.close()


async def test_a_duplicate_of_a_call_that_sent_nothing_becomes_the_first(tmp_path: Path) -> None:
    answers = open_answers(tmp_path)
    assert await answers.begin(ONE, BODY, NOW) is None
    second, third = (asyncio.create_task(answers.begin(ONE, BODY, NOW)) for _ in range(2))
    await asyncio.sleep(0)
    answers.release(ONE)
    assert await second is None and not third.done(), "one of them: the other one waits for it"
    answers.keep(ONE, make_answer())
    assert await third == make_answer()


async def test_a_duplicate_that_stops_waiting_takes_the_answer_from_nobody(tmp_path: Path) -> None:
    """As another worker does that is stopped while it asks."""
    answers = open_answers(tmp_path)
    assert await answers.begin(ONE, BODY, NOW) is None
    answers.claim(ONE, NOW)
    gone, waiting = (asyncio.create_task(answers.find_for_worker(ONE, BODY)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    answers.keep(ONE, make_answer())
    assert await waiting == make_answer() and await answers.begin(ONE, BODY, NOW) == make_answer()
    answers.release(ONE)
    assert not answers._bytes, "else there was room for ever fewer"
    answers.close()


async def test_of_two_workers_using_a_key_concurrently_at_least_one_sees_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = open_answers(tmp_path), open_answers(tmp_path)
    seen: list[Holder] = []
    reads = one._read_other_files

    def meanwhile(now: float) -> None:
        reads(now)
        seen.extend(two.claim(ONE, now))

    monkeypatch.setattr(one, "_read_other_files", meanwhile)
    assert one.claim(ONE, NOW) or seen
    one.close()
    two.close()


async def test_the_same_key_with_another_body_is_a_conflict(tmp_path: Path) -> None:
    answers = open_answers(tmp_path)
    await answers.begin(ONE, BODY, NOW)
    with pytest.raises(Conflict) as caught:
        await answers.begin(ONE, b"c" * 32, NOW)
    assert caught.value.code == "idempotency_mismatch"


async def test_an_answer_is_replayed_to_the_same_person_only_and_not_after_a_kill(tmp_path: Path) -> None:
    """A key that acts for others may use one Idempotency-Key for several of them, who do not read each other's."""
    async with call_rig(tmp_path, ["one"]) as rig:
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy)
        (digest, key) = next(iter(live.policy.keys.items()))
        people = {name: str(new_id()) for name in ("ana@acme.example", "ben@acme.example")}
        live.policy = replace(live.policy, keys={digest: replace(key, acts_for_others=True)}, people=people)

        async def ask(name: str) -> Reply:
            lines = f"\r\nidempotency-key: once\r\ngroundplan-on-behalf-of: {name}\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(rig.request().replace(b"\r\n\r\n", lines.encode(), 1))
            try:
                return parse_reply(await asyncio.wait_for(reader.read(), 20))
            finally:
                writer.close()

        ana, ben = people
        first, again, other = await ask(ana), await ask(ana), await ask(ben)
        assert again.body == first.body and again.headers["groundplan-replay"] == "true"
        assert other.status == 200 and "groundplan-replay" not in other.headers and rig.models["one"].counted == 2
        for scope in ("deployment/one", f"key/{key.id}", "workload/assistant", "company"):
            live.policy = replace(live.policy, kills=frozenset({scope}))
            assert ((stopped := await ask(ana)).status, stopped.code) == (403, "killed"), scope
        assert rig.gateway.call_counters.cache_hits == {("assistant", "replay"): 1}, "a refusal is no answer"
        live.policy = replace(live.policy, kills=frozenset())
        assert (await ask(ana)).body == first.body and rig.models["one"].counted == 2
        rig.gateway.journal._seal("for the test")
        refused = await ask(ana)
        assert (refused.status, refused.code) == (503, "journal_unavailable"), "nothing is given unrecorded"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_calls_a_killed_function_is_not_replayed(tmp_path: Path, stream: bool) -> None:
    call = {"index": 0, "id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    said = json.loads(completion_body())
    said["choices"][0] |= {"message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": "tool_calls"}
    sent = STREAM_HEAD + encode_events(
        chunk({"role": "assistant", "tool_calls": [call]}), chunk({}, "tool_calls"), DONE
    )
    async with raw_upstream_rig(tmp_path, sent if stream else json_response(json.dumps(said).encode())) as rig:
        tools = [{"type": "function", "function": {"name": name}} for name in ("look", "other")]

        async def ask() -> Reply:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            request = rig.request(stream=stream, tools=tools)
            writer.write(request.replace(b"\r\n\r\n", b"\r\nidempotency-key: once\r\n\r\n", 1))
            try:
                return parse_reply(await asyncio.wait_for(reader.read(), 20))
            finally:
                writer.close()

        live: Any = rig.gateway.live
        assert (await ask()).status == 200
        for name, status in (("other", 200), ("look", 403)):
            live.policy = replace(live.policy, kills=frozenset({f"tool/{name}"}))
            assert (await ask()).status == status, name


async def test_a_replayed_answer_reports_the_current_remaining_budget(tmp_path: Path) -> None:
    limit = Limit(name="few", covers="workload/assistant", type="requests", amount=9, period="day")
    async with call_rig(tmp_path, ["one"], workloads={"assistant": reliability()}, limits=[limit]) as rig:
        rig.gateway.limit_slices.add_grant("requests/few", rig.gateway.clock.now().date().isoformat(), 9)

        async def ask() -> Reply:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(rig.request().replace(b"\r\n\r\n", b"\r\nidempotency-key: once\r\n\r\n", 1))
            try:
                return parse_reply(await asyncio.wait_for(reader.read(), 20))
            finally:
                writer.close()

        first, other, again = await ask(), await rig.chat(), await ask()
        left = [Decimal(each.headers["groundplan-budget-remaining-usd"]) for each in (first, other, again)]
        assert left[0] - left[1] == Decimal(other.headers["groundplan-cost-usd"]) > 0 == left[2] - left[1]
        assert first.headers["x-ratelimit-limit-requests"] == "9" and "groundplan-replay" in again.headers
        of_now = {"groundplan-budget-remaining-usd", "groundplan-replay", "date"}
        lasting = {name: value for name, value in first.headers.items() if not name.startswith("x-ratelimit-")}
        assert {n: v for n, v in again.headers.items() if n not in of_now} == {
            n: v for n, v in lasting.items() if n not in of_now
        }


async def test_a_request_with_the_rotated_api_key_is_the_same_request(tmp_path: Path) -> None:
    """Whoever sends it again may have the new one by then."""
    async with call_rig(tmp_path, ["one"]) as rig:
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy)
        (key,) = live.policy.keys.values()
        new, other = (replace(key, id=str(new_id()), family=family) for family in (key.id, ""))
        keys = {sha256(name.encode()).digest(): each for name, each in (("new", new), ("other", other))}
        live.policy = replace(live.policy, keys=live.policy.keys | keys)
        replayed = []
        for name in ("assistant", "new", "other"):
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(rig.request(name).replace(b"\r\n\r\n", b"\r\nidempotency-key: once\r\n\r\n", 1))
            replayed.append("groundplan-replay" in parse_reply(await asyncio.wait_for(reader.read(), 20)).headers)
            writer.close()
        assert replayed == [False, True, False] and rig.models["one"].counted == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unanswered_free_call_may_be_repeated_with_its_key(tmp_path: Path, stream: bool) -> None:
    """Clients send the same again when they are told to come back. What may have been billed is not made twice."""
    async with call_rig(tmp_path, ["one", "two"]) as rig:

        async def ask() -> Reply:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(rig.request(stream=stream).replace(b"\r\n\r\n", b"\r\nidempotency-key: once\r\n\r\n", 1))
            try:
                return parse_reply(await asyncio.wait_for(reader.read(), 20))
            finally:
                writer.close()

        for name in ("one", "two"):
            rig.play(name, mode="error", status=429)
        assert [(told.status, told.code) for told in (await ask(), await ask())] == [(503, "upstream_failed")] * 2
        rig.play("one", mode="error", status=502)
        assert (await ask()).status == 503
        rig.play("one")
        told = await ask()
        assert (told.status, told.code) == (409, "idempotency_replayed"), "a 502 may have been billed"
        await rig.books()


async def test_other_and_restarted_workers_know_a_keys_holder_for_a_day(tmp_path: Path) -> None:
    first, second = open_answers(tmp_path), open_answers(tmp_path)
    assert await first.begin(ONE, BODY, NOW) is None
    assert await second.begin(ONE, BODY, NOW) is None
    assert first.claim(ONE, NOW) == []
    assert second.claim(ONE, NOW) == [HOLDER]
    assert await second.find_for_worker(ONE, BODY) is None
    first.close()
    for path in tmp_path.glob("idempotency-*.log"):
        os.utime(path, (NOW, NOW))  # written then
    later = IdempotentAnswers(tmp_path, new_id(), NOW + DAY_SECONDS - 60)
    later.open(HOLDER)
    await later.begin(ONE, BODY, NOW + DAY_SECONDS - 60)
    assert later.claim(ONE, NOW + DAY_SECONDS - 60) == [HOLDER], "the second one sent nothing"
    later.release(ONE)
    await later.begin(ONE, BODY, NOW + DAY_SECONDS + 1)
    assert later.claim(ONE, NOW + DAY_SECONDS + 1) == []
    later.close()
    second.close()


async def test_a_key_for_which_nothing_was_sent_is_free_on_all_workers(tmp_path: Path) -> None:
    """Also for one that was told to wait for it, and after its own worker started again."""
    first, second = open_answers(tmp_path), open_answers(tmp_path)
    await first.begin(ONE, BODY, NOW)
    assert first.claim(ONE, NOW) == []
    await second.begin(ONE, BODY, NOW)
    assert second.claim(ONE, NOW) == [HOLDER]
    first.release(ONE)
    assert second.claim(ONE, NOW) == []
    await first.begin(ONE, BODY, NOW)
    assert first.claim(ONE, NOW) == [HOLDER], "it is the other one's now"
    second.release(ONE)
    later = open_answers(tmp_path)
    await later.begin(ONE, BODY, NOW)
    assert later.claim(ONE, NOW) == []
    for each in (first, second, later):
        each.close()


async def test_a_key_of_a_full_file_is_free_where_nothing_was_sent(tmp_path: Path) -> None:
    """It is taken back where it was written: another file says nothing of it."""
    first, second, late = open_answers(tmp_path), open_answers(tmp_path), NOW + idempotency.FILE_SECONDS
    await first.begin(ONE, BODY, NOW)
    assert first.claim(ONE, NOW) == []
    await first.begin(TWO, BODY, late)
    assert first.claim(TWO, late) == [] and len([*tmp_path.iterdir()]) == 3, "it began the next file"
    first.release(ONE)
    await second.begin(ONE, BODY, late)
    assert second.claim(ONE, late) == []
    assert second.claim(TWO, late) == [HOLDER]
    first.close()
    second.close()


async def test_a_key_that_could_not_be_synced_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request was refused before anything was sent, and comes again, to any worker."""
    first, second = open_answers(tmp_path), open_answers(tmp_path)

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "no")

    await first.begin(ONE, BODY, NOW)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing)
        with pytest.raises(Unavailable):
            await first.claim_durably(ONE, NOW)
    first.release(ONE)
    await second.begin(ONE, BODY, NOW)
    assert second.claim(ONE, NOW) == []
    first.close()
    second.close()


async def test_a_worker_gives_its_answers_to_another_only_with_the_token(tmp_path: Path) -> None:
    first, second = IdempotentAnswers(tmp_path, new_id(), NOW), open_answers(tmp_path)
    desk = AnswerServer(first)
    await desk.open()
    await first.begin(ONE, BODY, NOW)
    first.claim(ONE, NOW)
    await second.begin(ONE, BODY, NOW)
    (holder,) = second.claim(ONE, NOW)
    asked = asyncio.create_task(fetch_answer([holder], ONE, BODY))
    await asyncio.sleep(0.05)
    first.keep(ONE, make_answer())
    assert await asked == make_answer()
    for wrong, digest, body, code in (
        (Holder(holder.port, b"x" * 32), ONE, BODY, ""),
        (Holder(9, holder.token), ONE, BODY, ""),
        (holder, TWO, BODY, ""),
        (holder, ONE, b"c" * 32, "idempotency_mismatch"),
    ):
        if not code:
            assert await fetch_answer([wrong], digest, body) is None
            continue
        with pytest.raises(Conflict) as caught:
            await fetch_answer([wrong], digest, body)
        assert caught.value.code == code
    await desk.close()
    first.close()
    second.close()


async def test_files_of_other_workers_are_read_before_serving(tmp_path: Path) -> None:
    """Of a day it may take seconds, in which no call of the worker would go on."""
    first, second = open_answers(tmp_path), IdempotentAnswers(tmp_path, new_id(), NOW)
    for number in range(100):
        first.claim(sha256(bytes([number])).digest(), NOW)
    desk = AnswerServer(second)
    await desk.open()
    assert [reader.position for reader in second._readers.values()] == [101 * 40]
    assert second.claim(sha256(bytes([7])).digest(), NOW) == [HOLDER]
    await desk.close()
    first.close()
    second.close()


async def test_answers_are_dropped_by_age_and_size_but_their_keys_stay_used(tmp_path: Path) -> None:
    answers = open_answers(tmp_path)
    for digest, body, at in ((ONE, b"x", NOW), (TWO, bytes(MEMORY_BYTES + 1), NOW + 1)):
        assert await answers.begin(digest, BODY, at) is None
        answers.claim(digest, at)
        answers.keep(digest, make_answer(body))
    for digest in (ONE, TWO):
        with pytest.raises(Conflict):
            await answers.begin(digest, BODY, NOW + MEMORY_SECONDS)
    assert await answers.begin(bytes(32), BODY, NOW + 2 * DAY_SECONDS) is None and not len(answers._evicted)
    answers.close()


async def test_a_running_call_keeps_no_other_answers_in_memory(tmp_path: Path) -> None:
    """Such as a stream of an hour, beside many that come to their end."""
    answers, size = open_answers(tmp_path), MEMORY_BYTES // 4
    assert await answers.begin(ONE, BODY, NOW) is None
    for number in range(12):
        digest = bytes([number]) * 32
        assert await answers.begin(digest, BODY, NOW + number) is None
        answers.keep(digest, make_answer(bytes(size)))
        done = [each.answer.result() for each in answers._entries.values() if each.answer.done()]
        assert sum(len(each.body) for each in done if each is not None) <= MEMORY_BYTES
    with pytest.raises(Conflict):
        await answers.begin(bytes(32), BODY, NOW + 12)
    assert await answers.begin(bytes([11]) * 32, BODY, NOW + 12) == make_answer(bytes(size))
    late = asyncio.create_task(answers.begin(ONE, BODY, NOW + MEMORY_SECONDS))
    await asyncio.sleep(0)
    answers.keep(ONE, make_answer())
    assert await late == make_answer()
    answers.close()


async def test_keys_used_by_others_more_than_a_day_ago_are_forgotten(tmp_path: Path) -> None:
    """A worker lives for weeks, and each of its calls may have a key of its own."""
    answers, other = open_answers(tmp_path), open_answers(tmp_path)
    for number in range(50):
        at, digest = NOW + number * DAY_SECONDS / 10, number.to_bytes(32, "big")
        assert other.claim(digest, at) == []
        await answers.begin(digest, BODY, at)
        assert answers.claim(digest, at) == [HOLDER]
        for path in tmp_path.glob("idempotency-*.log"):
            if path.stat().st_mtime > NOW + 100 * DAY_SECONDS:
                os.utime(path, (at, at))  # as if it had been written then
        assert sum(len(reader.seen) for reader in answers._readers.values()) <= 16
        files = list(tmp_path.glob("idempotency-*.log"))
        assert len(files) <= 14 and sum(path.stat().st_size for path in files) <= 14 * 40 + 48 * 40
        assert len(answers._readers) <= 7
    answers.close()
    other.close()


async def test_no_file_that_a_worker_still_writes_is_deleted(tmp_path: Path) -> None:
    """One that had nothing to write for a day begins another one, where others find its keys."""
    quiet = open_answers(tmp_path)
    for path in tmp_path.glob("idempotency-*.log"):
        os.utime(path, (NOW, NOW))
    late = NOW + DAY_SECONDS + 1
    other = IdempotentAnswers(tmp_path, new_id(), late)
    other.open(HOLDER)
    await quiet.begin(ONE, BODY, late)
    assert quiet.claim(ONE, late) == []
    await other.begin(ONE, BODY, late)
    assert other.claim(ONE, late) == [HOLDER]
    quiet.close()
    other.close()


async def test_answers_use_the_memory_limit_whatever_their_size(tmp_path: Path) -> None:
    answers = open_answers(tmp_path)
    for number in range(MEMORY_BYTES // ENTRY_BYTES + 500):
        digest = number.to_bytes(32, "big")
        assert await answers.begin(digest, BODY, NOW) is None
        answers.keep(digest, make_answer(b""))
    assert len(answers._entries) <= MEMORY_BYTES // ENTRY_BYTES
    assert answers._evicted.is_used(bytes(32), NOW) and not answers._evicted.is_used(digest, NOW)
    answers.close()


async def test_a_ten_minutes_old_answer_is_not_replayed_even_without_traffic_meanwhile(tmp_path: Path) -> None:
    answers = open_answers(tmp_path)
    assert await answers.begin(ONE, BODY, NOW) is None
    answers.claim(ONE, NOW)
    answers.keep(ONE, make_answer())
    assert await answers.begin(ONE, BODY, NOW + MEMORY_SECONDS - 1) == make_answer()
    with pytest.raises(Conflict) as caught:
        await answers.begin(ONE, BODY, NOW + MEMORY_SECONDS)
    assert caught.value.code == "idempotency_replayed"
    answers.close()


async def test_a_key_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """As when a disk is full: what fits of an entry is taken back, so that later entries are read right."""
    answers = open_answers(tmp_path)
    file = next(tmp_path.glob("idempotency-*.log"))
    before = file.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before + 10, hard))
    try:
        with pytest.raises(Unavailable) as caught:
            answers.claim(ONE, NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.code == "journal_unavailable" and file.stat().st_size == before
    answers.claim(TWO, NOW)
    assert open_answers(tmp_path).claim(TWO, NOW) == [HOLDER]
    answers.close()


async def test_nothing_is_sent_if_other_workers_keys_cannot_be_read(tmp_path: Path) -> None:
    """As where no more files may be open; the key is free then, and whoever is asked again makes the call."""
    first, second = open_answers(tmp_path), open_answers(tmp_path)
    await first.begin(ONE, BODY, NOW)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(Unavailable):
            first.claim(ONE, NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    first.release(ONE)
    await second.begin(ONE, BODY, NOW)
    assert second.claim(ONE, NOW) == []
    for each in (first, second):
        each.close()


async def test_a_worker_that_cannot_create_its_file_refuses_keys_until_it_can(tmp_path: Path) -> None:
    """As where the disk has room for a journal and for no more names: all other calls need no such file."""
    folder = tmp_path / "journal"
    answers = IdempotentAnswers(folder, new_id(), NOW)
    answers.open(HOLDER)
    await answers.begin(ONE, BODY, NOW)
    with pytest.raises(Unavailable) as caught:
        answers.claim(ONE, NOW)
    assert caught.value.code == "journal_unavailable"
    answers.release(ONE)
    folder.mkdir()
    await answers.begin(ONE, BODY, NOW)
    assert answers.claim(ONE, NOW) == [] and open_answers(folder).claim(ONE, NOW) == [HOLDER]
    answers.close()


def open_files(folder: Path) -> list[str]:
    """Names of those below it that this process has open."""
    found = [path.resolve() for path in Path("/proc/self/fd").iterdir() if path.exists()]
    return sorted(path.name for path in found if path.parent == folder.resolve())


async def test_a_full_file_is_synced_once_more_even_after_a_lack_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, synced = open_answers(tmp_path), list[str]()
    first = open_files(tmp_path)
    assert await answers.claim_durably(ONE, NOW) == []
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "run_in_executor", no_thread)
        with pytest.raises(Unavailable):
            async with asyncio.timeout(5):
                await answers.claim_durably(TWO, NOW + idempotency.FILE_SECONDS)
    second = [name for name in open_files(tmp_path) if name not in first]
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink().name))
    assert await answers.claim_durably(b"3" * 32, NOW + idempotency.FILE_SECONDS) == []
    assert synced == first + second and open_files(tmp_path) == second, "it is written no more"
    answers.close()


def no_thread(*_: Any) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_failed_sync_fails_its_calls_and_those_waiting_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, begun, fails = open_answers(tmp_path), threading.Event(), threading.Event()
    (first,) = open_files(tmp_path)

    def failing(_: int) -> None:
        begun.set()
        fails.wait(10)
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing)
        one = asyncio.create_task(answers.claim_durably(ONE, NOW))
        await asyncio.to_thread(begun.wait, 10)
        gone, two = (asyncio.create_task(answers.claim_durably(TWO, NOW)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        fails.set()
        async with asyncio.timeout(5):
            told = await asyncio.gather(one, two, return_exceptions=True)
    assert [type(each) for each in told] == [Unavailable] * 2
    gone, three = (asyncio.create_task(answers.claim_durably(b"3" * 32, NOW)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(5):
        assert await three == []
    (second,) = open_files(tmp_path)
    assert second != first, "what that one holds is not known"
    answers.close()


async def test_a_torn_entry_of_another_worker_is_read_once_complete(tmp_path: Path) -> None:
    apart, shared = tmp_path / "apart", tmp_path / "shared"
    apart.mkdir()
    shared.mkdir()
    open_answers(apart).claim(ONE, NOW)
    (log,) = apart.glob("idempotency-*.log")
    other, written = shared / log.name, log.read_bytes()
    other.write_bytes(written[:-10])
    answers = open_answers(shared)
    await answers.begin(ONE, BODY, NOW)
    assert answers.claim(ONE, NOW) == [], "half an entry says nothing"
    answers.release(ONE)
    other.write_bytes(written)
    await answers.begin(ONE, BODY, NOW)
    assert answers.claim(ONE, NOW) == [HOLDER]
    answers.close()


def place(name: str) -> Deployment:
    return Deployment(
        name=name, site="s", model="m", upstream_model="m", url="http://x", rates=Rates(input=0, output=0)
    )


def test_a_failing_deployment_is_asked_last_and_tried_once_a_second() -> None:
    health, both = Health(), [place("a"), place("b")]

    def order(now: float) -> str:
        return "".join(d.name for d in health.order(both, now))

    for _ in range(2):
        health.record_failure("a", 0.0)
    assert order(0.0) == "ab"
    health.record_failure("a", 0.0)
    assert order(0.5) == "ba"
    assert order(1.1) == "ab" and health.may_attempt("a", 1.1) and order(1.2) == "ba"
    health.record_failure("a", 1.3)
    assert order(3.2) == "ba" and order(3.4) == "ab"
    health.record_success("a")
    assert order(3.5) == "ab" and order(3.5) == "ab"
    for _ in range(30):
        health.record_failure("a", 10.0)
    assert order(10.0 + 15.1) == "ab"
