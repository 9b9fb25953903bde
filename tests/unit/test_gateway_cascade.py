"""Try small, check, go on: an unchecked answer never reaches the caller, and every attempt is in the books."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.integration.gateway_stack import parse_reply
from tests.unit.call_rig import BOUND, FixedPolicy, Rig, call_rig, read_records, wait_until

from groundplan.blueprint.model import Cascade, Judge, RouteRule, Routing
from groundplan.economics.routing.decide import agree
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.client_address import networks
from groundplan.gateway.routing import cascade
from groundplan.ledger.model import Finish, Reservation, Settlement
from groundplan.testing.journal import replay

SCHEMA = json.dumps({"type": "object", "required": ["ok"]})
JUDGE = Judge(deployment="judge", question="Is it right?", refuse_on="no")
NAMES = ("small", "large", "judge")


def declared(**checks: Any) -> dict[str, dict[str, Any]]:
    routing = Routing(
        rules=[RouteRule(name="legal", use="large", words=["lawyer"])], cascade=Cascade(first="small", **checks)
    )
    return {"assistant": {"routing": routing}}


async def settled(rig: Rig) -> tuple[list[Finish], list[tuple[bytes, Settlement]]]:
    """The ends of the calls, and the settlements, after the books were looked at."""
    await rig.books()
    return journalled(rig)


def journalled(rig: Rig) -> tuple[list[Finish], list[tuple[bytes, Settlement]]]:
    records = read_records(rig.gateway.journal.folder)
    ends = [record for record in records if isinstance(record, Finish)]
    return ends, [(record.call, record) for record in records if isinstance(record, Settlement)]


def reserved(rig: Rig) -> list[Reservation]:
    return [record for record in read_records(rig.gateway.journal.folder) if isinstance(record, Reservation)]


def decode_route(end: Finish) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(end.route)
    return found


def text(body: bytes) -> str:
    found: str = json.loads(body)["choices"][0]["message"]["content"]
    return found


async def test_an_accepted_answer_is_delivered_and_a_rejected_one_never(tmp_path: Path) -> None:
    async with call_rig(tmp_path, NAMES, workloads=declared(schema=SCHEMA)) as rig:
        rig.play("small", say='{"ok":1}')
        rig.play("large", say='{"ok":2}')
        first = await rig.chat()
        rig.play("small", say="no JSON at all")
        second = await rig.chat()
        ruled = await rig.chat(messages=[{"role": "user", "content": "call my lawyer"}])
        ends, attempts = await settled(rig)
    assert [text(reply.body) for reply in (first, second, ruled)] == ['{"ok":1}', '{"ok":2}', '{"ok":2}']
    assert [end.deployment for end in ends] == ["small", "large", "large"]
    assert [decode_route(end)["by"] for end in ends] == ["cascade", "cascade", "rule legal"]
    assert "passed: schema" in decode_route(ends[0])["reason"]
    assert "does not fit the schema" in decode_route(ends[1])["reason"]
    assert decode_route(ends[1])["escalated"] is True
    of_second = [s for call, s in attempts if call == ends[1].call]
    assert [(s.outcome, s.flags) for s in of_second] == [("ok", ["cascade"]), ("ok", [])]
    assert all(s.cost > 0 and s.usage.output > 0 for s in of_second)
    facts = json.loads(second.body)["groundplan"]
    assert float(facts["cost_usd"]) == pytest.approx(sum(s.cost for s in of_second) / 1e12)


async def test_a_stream_begins_only_after_the_check(tmp_path: Path) -> None:
    async with call_rig(tmp_path, NAMES, workloads=declared(schema=SCHEMA)) as rig:
        rig.play("small", say='{"ok":1}')
        rig.play("large", say='{"ok":2}')
        passed = await rig.stream(stream_options={"include_usage": True})
        rig.play("small", say='{"wrong":1}')
        escalated = await rig.stream()
        ends, _ = await settled(rig)
    assert passed.done and passed.text == '{"ok":1}' and passed.finish == ["stop"]
    assert passed.facts["deployment"] == "small"
    assert any(chunk.get("usage") for chunk in passed.chunks)
    assert escalated.done and escalated.text == '{"ok":2}' and "wrong" not in escalated.raw.decode()
    assert [end.deployment for end in ends] == ["small", "large"]


@pytest.mark.parametrize(("word", "by"), [("yes", "small"), ("no", "large"), ("perhaps", "large")])
async def test_the_judge_decides_and_is_a_call_of_its_own(tmp_path: Path, word: str, by: str) -> None:
    async with call_rig(tmp_path, NAMES, workloads=declared(judge=JUDGE)) as rig:
        rig.play("judge", say=word)
        assert (await rig.chat()).status == 200
        assert "a b c d" in (rig.models["judge"].last or pytest.fail("not asked")).body.decode()
        ends, _ = await settled(rig)
    assert [end.deployment for end in ends] == ["judge", by]
    assert ends[0].route == ""
    assert (ends[0].purpose, ends[0].of) == ("cascade", str(UUID(bytes=ends[1].call)))
    assert (ends[1].purpose, ends[1].of) == ("", "")
    assert [each.purpose for each in reserved(rig)][:2] == ["", "cascade"], "what it costs is told apart from the first"


async def test_agreeing_answers_are_accepted_and_each_is_charged(tmp_path: Path) -> None:
    async with call_rig(tmp_path, NAMES, workloads=declared(agreement=3)) as rig:
        assert (await rig.chat()).status == 200
        assert rig.models["small"].counted == 3
        rig.play("small", mode="error", status=500, after=1)
        reply = await rig.chat()
        ends, _ = await settled(rig)
    assert reply.status == 200
    assert ends[2].deployment == "small" and "agreement" in decode_route(ends[2])["reason"]
    assert {(end.purpose, end.of) for end in ends[:2]} == {("cascade", str(UUID(bytes=ends[2].call)))}
    assert ends[-1].deployment == "large" and "do not agree" in decode_route(ends[-1])["reason"]


@pytest.mark.parametrize("header", ["authorization: Bearer", "x-api-key:", "api-key:"])
async def test_nested_calls_are_attributed_to_their_caller(tmp_path: Path, header: str) -> None:
    async with call_rig(tmp_path, NAMES, workloads=declared(agreement=3)) as rig:
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy)
        near = {digest: replace(key, networks=networks(["127.0.0.0/8"])) for digest, key in live.policy.keys.items()}
        live.policy = replace(live.policy, keys=near)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request().replace(b"authorization: Bearer", header.encode(), 1))
        assert (reply := parse_reply(await asyncio.wait_for(reader.read(), 20))).status == 200, reply.body
        writer.close()
        assert rig.models["small"].counted == 3
        ends, _ = await settled(rig)
    assert ends[2].deployment == "small" and "agreement" in decode_route(ends[2])["reason"]
    assert {end.key for end in ends} == {key.id for key in near.values()}


async def test_without_probabilities_no_answer_is_accepted(tmp_path: Path) -> None:
    async with call_rig(tmp_path, NAMES, workloads=declared(confidence=0.5)) as rig:
        assert (await rig.chat()).status == 200
        assert b'"logprobs":true' in (rig.models["small"].last or pytest.fail("not asked")).body
        ends, _ = await settled(rig)
    assert ends[0].deployment == "large"
    assert "no probabilities" in decode_route(ends[0])["reason"]


async def test_an_unsuitable_or_failing_small_model_is_skipped(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    async with call_rig(tmp_path, NAMES, workloads=declared(schema=SCHEMA)) as rig:
        assert (await rig.chat(tools=[tool])).status == 200
        assert (await rig.chat(n=2)).status == 200
        assert rig.models["small"].counted == 0
        rig.play("small", mode="error", status=503)
        rig.play("large", say='{"ok":2}')
        assert text((await rig.chat()).body) == '{"ok":2}'
        rig.play("small", mode="error", status=400)
        assert text((await rig.chat()).body) == '{"ok":2}'
        ends, attempts = await settled(rig)
    assert [end.deployment for end in ends] == ["large"] * 4
    assert "could not be checked" in decode_route(ends[0])["reason"]
    assert "could not answer" in decode_route(ends[2])["reason"]
    assert [s.outcome for call, s in attempts if call == ends[3].call] == ["not_billed", "ok"]


async def test_no_cheap_try_is_made_if_only_one_attempt_is_allowed(tmp_path: Path) -> None:
    """What did not pass would leave none for the others, and its caller without an answer."""
    settings = declared(schema=SCHEMA)
    settings["assistant"]["attempts"] = 1
    async with call_rig(tmp_path, NAMES, workloads=settings) as rig:
        rig.play("small", say="no JSON")
        rig.play("large", say='{"ok":1}')
        assert text((await rig.chat()).body) == '{"ok":1}' and rig.models["small"].counted == 0
        ends, _ = await settled(rig)
    assert "one attempt only" in decode_route(ends[0])["reason"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_silent_try_leaves_time_for_the_next_deployment(tmp_path: Path, stream: bool) -> None:
    """Of a deadline that is shorter than its own time limits it had all, and the call failed."""
    workloads = declared(schema=SCHEMA)
    workloads["assistant"]["deadline_ms"] = 2000
    async with call_rig(tmp_path, NAMES, workloads=workloads) as rig:
        rig.play("small", mode="stall")
        rig.play("large", say='{"ok":2}')
        reply = await rig.chat(stream=stream)
        ends, _ = await settled(rig)
    assert (reply.status, ends[0].deployment) == (200, "large")
    assert "small was tried first, and others were asked, since it could not answer" in decode_route(ends[0])["reason"]


async def test_a_repeatedly_failing_try_is_skipped(tmp_path: Path) -> None:
    """It is asked last as any other, and one call at a time finds out whether it is well again."""
    async with call_rig(tmp_path, NAMES, workloads=declared(schema=SCHEMA)) as rig:
        rig.play("small", mode="error", status=500)
        rig.play("large", say='{"ok":2}')
        for _ in range(3):
            assert (await rig.chat()).json["groundplan"]["deployment"] == "large"
        rig.play("small", say='{"ok":1}')
        reply = await rig.chat()
        assert reply.json["groundplan"]["deployment"] == "large" and rig.models["small"].counted == 3
        for when in ("_open_until", "_opened_at"):
            getattr(rig.gateway.health, when)["small"] -= 60
        assert (await rig.chat()).json["groundplan"]["deployment"] == "small"
        ends, _ = await settled(rig)
    assert "it has failed lately" in decode_route(ends[3])["reason"]


async def test_a_judge_that_is_silent_leaves_time_for_the_others(tmp_path: Path) -> None:
    workloads = declared(judge=JUDGE)
    workloads["assistant"]["deadline_ms"] = 2000
    async with call_rig(tmp_path, NAMES, workloads=workloads) as rig:
        rig.play("judge", mode="stall")
        rig.play("large", say="LARGE")
        reply = await rig.chat()
        ends, attempts = await settled(rig)
    assert (reply.status, text(reply.body)) == (200, "LARGE")
    judged, call = sorted(ends, key=lambda end: end.deployment == "large")
    assert "its checks took too long" in decode_route(call)["reason"]
    assert [s.outcome for each, s in attempts if each == judged.call] == ["cancelled"], "it is in the books"


async def test_an_answer_that_cannot_be_streamed_is_not_given_as_an_empty_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with call_rig(tmp_path, ("small", "large"), workloads=declared(schema=SCHEMA, give=True)) as rig:
        rig.play("large", mode="error", status=500)
        monkeypatch.setattr(cascade, "_events", lambda *_: None)
        reply, stream = await rig.chat(), await rig.stream()
    assert (reply.status, "You asked" in text(reply.body)) == (200, True)
    assert (stream.status, stream.done) == (503, False)


async def test_no_answer_is_given_that_cannot_be_journalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal fails as the other deployment's answer is settled, which ends the call."""
    async with call_rig(tmp_path, ("small", "large"), workloads=declared(schema=SCHEMA, give=True)) as rig:
        journal, settled = rig.gateway.journal, list[Any]()
        settle = journal.settle

        def fail_second(record: Any, *, ends: bool = False) -> int:
            settled.append(record)
            if len(settled) == 2:
                journal._seal("for the test")
            return settle(record, ends=ends)

        monkeypatch.setattr(journal, "settle", fail_second)
        reply = await rig.chat()
        assert (reply.status, reply.code, len(settled)) == (503, "journal_unavailable", 2)


@pytest.mark.parametrize("give", [True, False])
async def test_an_unaccepted_answer_is_handled_as_declared_if_no_other_deployment_answers(
    tmp_path: Path, give: bool
) -> None:
    async with call_rig(tmp_path, ("small", "large"), workloads=declared(schema=SCHEMA, give=give)) as rig:
        rig.play("large", mode="down")
        reply, stream = await rig.chat(), await rig.stream()
        ends, _ = await settled(rig)
    assert (reply.status, stream.status) == ((200, 200) if give else (502, 502) if reply.status == 502 else (503, 503))
    if give:
        assert "You asked" in text(reply.body) and stream.done
        assert [end.deployment for end in ends] == ["small", "small"]
    else:
        assert {end.status for end in ends} == {"failed"}


async def test_escalating_needs_its_own_reservation(tmp_path: Path) -> None:
    async with call_rig(tmp_path, NAMES, limit=BOUND, workloads=declared(schema=SCHEMA)) as rig:
        reply = await rig.chat()
        await rig.gateway.journal.close()
        ends, attempts = journalled(rig)
        assert rig.slices.open_reservations == 0
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (429, "budget_exhausted")
    assert [s.flags for _, s in attempts] == [["cascade"]]
    assert ends[0].status == "failed"


async def test_a_client_disconnecting_during_the_check_leaves_exact_books(tmp_path: Path) -> None:
    async with call_rig(tmp_path, NAMES, workloads=declared(judge=JUDGE)) as rig:
        rig.play("judge", latency_ms=3000)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request())
        await wait_until(lambda: rig.models["judge"].counted > 0)
        writer.close()
        await wait_until(lambda: rig.slices.open_reservations == 0 and rig.gateway.running_calls == 0)
        await rig.books()


def test_equal_answers_are_recognised() -> None:
    assert agree.is_same_answer("Paris.", "paris")
    assert not agree.is_same_answer("Paris", "Lyon")
    assert agree.is_same_answer("It opens at 9 on working days.", "On working days it opens at 9, always.")
    assert not agree.is_same_answer("It opens at 9 on working days.", "It opens at 10 on working days.")
    assert not agree.is_same_answer("You may cancel it within two weeks.", "You may not cancel it within two weeks.")
    for says, denies in (
        ("You can cancel it within two weeks.", "You can\u2019t cancel it within two weeks."),
        ("We would have paid for it then.", "We wouldn't have paid for it then."),
        ("Vous pouvez le rendre dans les deux semaines.", "Vous ne pouvez pas le rendre dans les deux semaines."),
        ("On a le droit de le rendre ici.", "On n\u2019a pas le droit de le rendre ici."),
        ("Se puede devolver en dos semanas.", "Nunca se puede devolver en dos semanas."),
        ("Du kan lämna tillbaka den inom två veckor.", "Du kan inte lämna tillbaka den inom två veckor."),
        ("Du kan levere den tilbake etter to uker.", "Du kan ikke levere den tilbake etter to uker."),
        ("U kunt het binnen twee weken terugsturen.", "U kunt het niet binnen twee weken terugsturen."),
        ("Można to zwrócić w ciągu dwóch tygodni.", "Nie można tego zwrócić w ciągu dwóch tygodni."),
    ):  # fmt: skip
        assert not agree.is_same_answer(says, denies) and agree.is_same_answer(denies, denies.replace(".", "!")), denies
    assert agree.all_agree(["a", "A!"]) and not agree.all_agree(["", ""])
    assert agree.confidence([-0.1, -0.3]) == pytest.approx(0.8187, abs=1e-3)
    assert agree.confidence([]) is None


async def test_a_worker_that_dies_during_the_check_has_journalled_the_try(tmp_path: Path) -> None:
    async with call_rig(tmp_path, NAMES, workloads=declared(judge=JUDGE)) as rig:
        rig.play("judge", latency_ms=60_000)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request())
        await wait_until(lambda: rig.models["judge"].counted > 0)
        left = tmp_path / "left" / rig.gateway.journal.folder.name
        segments = shutil.ignore_patterns("*.new")  # one that is only being made
        shutil.copytree(rig.gateway.journal.folder, left, ignore=segments)  # what a kill -9 leaves behind
        writer.close()
        await wait_until(lambda: rig.gateway.running_calls == 0)
    records = read_records(left)
    made = [record for record in records if isinstance(record, Reservation)]
    ended = [record for record in records if isinstance(record, Settlement)]
    assert [record.deployment for record in made] == ["small", "judge"]
    assert [(record.call, record.outcome, record.flags) for record in ended] == [(made[0].call, "ok", ["cascade"])]
    state = replay(records)
    assert sum(state.spent.values()) == ended[0].cost
    waiting = {call.call for call in state.calls.values() if any(each.is_open for each in call.attempts.values())}
    assert waiting == {made[1].call}
    assert not [record for record in records if isinstance(record, Finish)]


@pytest.mark.parametrize(("logprob", "by"), [(-0.02, "small"), (-1.5, "large")])
async def test_an_answer_is_accepted_by_its_token_probabilities(tmp_path: Path, logprob: float, by: str) -> None:
    async def sure(request: Request, response: Response) -> None:
        assert json.loads(request.body)["logprobs"] is True
        choice = {
            "index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop",
            "logprobs": {"content": [{"token": "Yes", "logprob": logprob}, {"token": ".", "logprob": logprob}]},
        }  # fmt: skip
        usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
        response.send(200, json.dumps({"id": "x", "model": "m", "choices": [choice], "usage": usage}).encode())

    loop = asyncio.get_running_loop()
    server = Server(sure, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    async with call_rig(tmp_path, NAMES, workloads=declared(confidence=0.9)) as rig:
        live: Any = rig.gateway.live
        before, url = live.catalog.blueprint, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        places = [msgspec.structs.replace(d, url=url) if d.name == "small" else d for d in before.deployments]
        live.catalog = index(msgspec.structs.replace(before, deployments=places))
        plain, stream, wanted = await rig.chat(), await rig.stream(), await rig.chat(logprobs=True)
        ends, _ = await settled(rig)
    listener.close()
    await server.drain(0.2)
    assert [end.deployment for end in ends] == [by, by, by]
    assert b"logprobs" not in plain.body and b"logprobs" not in stream.raw
    assert stream.done
    if by == "small":
        assert "passed: confidence" in decode_route(ends[0])["reason"]
        assert b'"logprob":-0.02' in wanted.body.replace(b" ", b"")
    else:
        assert "sure to 22% only" in decode_route(ends[0])["reason"]
