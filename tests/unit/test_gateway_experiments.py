"""What is tried on calls: a second answer beside the shown one, and arms, without breaking what a call may do."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.gateway_stack import Reply, blueprint, deployment, parse_reply, workload
from tests.unit.call_rig import LIMIT, FixedPolicy, Rig, call_rig, wait_until

from groundplan.api.calls import replays
from groundplan.blueprint.experiment import DeclaredExperiment, Replay
from groundplan.blueprint.model import Cache, Guardrails, Keep, Limit, Routing
from groundplan.core.errors import Unavailable
from groundplan.core.ids import new_id, new_id_bytes
from groundplan.core.money import PICO
from groundplan.economics.experiment.model import AB, CONVERSATION, SHADOW, Experiment
from groundplan.economics.experiment.verdict import CANDIDATE, CONTROL
from groundplan.economics.replay import pairwise
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.experiments import shadow_call
from groundplan.gateway.experiments.assign import assign, receipt_json, unit_of
from groundplan.gateway.experiments.compare import compare, text_of
from groundplan.gateway.experiments.pairs import Pair, Pairs
from groundplan.gateway.experiments.replays import PURPOSE, replayed
from groundplan.gateway.experiments.shadow import Shadows
from groundplan.gateway.experiments.trial import Mark
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.telemetry.content_link import is_sampled
from groundplan.ledger.model import Finish, Reservation, Settlement
from groundplan.release.units import workload_digest
from groundplan.testing.journal import replay

BUDGET = PICO // 100


def tried(**more: Any) -> Experiment:
    values = {"id": "e1", "name": "small", "workload": "assistant", "type": SHADOW, "candidate": "two", **more}
    return Experiment(**{"budget": BUDGET, **values})


@asynccontextmanager
async def trying(folder: Path, experiment: Experiment, **more: Any) -> AsyncIterator[tuple[Rig, Pairs]]:
    """A worker that tries `experiment`, and the facts about answers that wait in it."""
    async with call_rig(folder, more.pop("names", ("one", "two")), **more) as rig:
        pairs = Pairs("")
        rig.gateway.shadow_trials = Shadows(rig.gateway, pairs)
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy)
        live.policy = dataclasses.replace(live.policy, experiments={experiment.workload: experiment})
        rig.slices.add_grant(experiment.budget_name, "total", experiment.budget)
        yield rig, pairs


async def books(rig: Rig) -> dict[str, int]:
    """Picodollars spent by budget; every attempt has its one settlement, and nothing is held."""
    records = await rig.records()
    made = sorted((r.call, r.attempt) for r in records if isinstance(r, Reservation))
    ended = sorted((r.call, r.attempt) for r in records if isinstance(r, Settlement))
    assert made == ended
    assert rig.slices.open_reservations == 0
    spent = {budget: amount for (budget, _), amount in replay(records).spent.items()}
    assert rig.slices.available("all", "total") == LIMIT - spent["all"]
    return spent


async def rest(rig: Rig) -> None:
    await wait_until(lambda: not rig.gateway.background)


async def test_both_models_answer_and_one_answer_is_delivered(tmp_path: Path) -> None:
    async with trying(tmp_path, tried()) as (rig, pairs):
        rig.play("one", tokens=4, say="the answer is 7")
        rig.play("two", tokens=6, say="the answer is 8", latency_ms=500)
        reply = await rig.chat()
        assert reply.json["choices"][0]["message"]["content"] == "the answer is 7"
        assert rig.models["two"].counted == 0, "the second answer began before the shown one was sent"
        await rest(rig)
        (pair,) = pairs.waiting
        assert (pair.basis, pair.score, pair.answered) == ("likeness", 0.0, True), "their numbers differ"
        assert (str(pair.call), pair.beside_tokens) == (reply.json["groundplan"]["call_id"], 5)
        assert pair.beside_ms > 490 > pair.shown_ms, "each is timed by itself"
        records = await rig.records()
    made = [record for record in records if isinstance(record, Reservation)]
    assert [each.deployment for each in made] == ["one", "two"]
    assert [charge.budget for charge in made[1].charges] == ["all", "experiment/e1"]
    ends = {record.call: record for record in records if isinstance(record, Finish)}
    shown, other = ends[pair.call.bytes], ends[pair.beside.bytes]
    assert (shown.route, shown.feature) == ("", "")
    assert other.feature == "experiment/shadow"
    assert [each.purpose for each in made] == ["", "shadow"]
    assert (shown.of, shown.purpose, other.of, other.purpose) == ("", "", str(pair.call), "shadow")
    route = json.loads(other.route)
    assert (route["of"], route["by"], route["deployment"]) == (str(pair.call), "experiment small", "two")


async def test_a_streamed_answer_is_compared_with_a_whole_one(tmp_path: Path) -> None:
    async with trying(tmp_path, tried()) as (rig, pairs):
        for name in ("one", "two"):
            rig.play(name, tokens=5, say="just the same")
        stream = await rig.stream()
        assert stream.done
        await rest(rig)
        (pair,) = pairs.waiting
        assert pair.score == 1.0
        assert (await books(rig))["experiment/e1"] == pair.beside_cost > 0


@pytest.mark.parametrize("mode", ["down", "error", "stall", "cut"])
async def test_a_failing_candidate_does_not_affect_the_delivered_answer(tmp_path: Path, mode: str) -> None:
    async with trying(tmp_path, tried(), more={"two": {"first_token_ms": 300, "idle_ms": 100}}) as (rig, pairs):
        rig.play("two", mode=mode)
        reply = await rig.chat()
        assert reply.status == 200
        assert reply.json["groundplan"]["deployment"] == "one"
        await rest(rig)
        assert [pair.answered for pair in pairs.waiting] == [False]
        await books(rig)


async def test_a_second_answer_needs_room_in_every_budget(tmp_path: Path) -> None:
    async with trying(tmp_path, tried(budget=0)) as (rig, pairs):
        for _ in range(3):
            assert (await rig.chat()).status == 200
            await rest(rig)
        assert not pairs.waiting
        assert rig.models["two"].counted == 0
        assert isinstance(rig.gateway.shadow_trials, Shadows) and rig.gateway.shadow_trials.missed == 3
        assert len(rig.grants.requested_budgets) == 1, "it asks again only after a while"
        await books(rig)


async def test_the_rest_of_a_budget_is_reserved_for_real_calls(tmp_path: Path) -> None:
    async with trying(tmp_path, tried(budget=LIMIT), limit=LIMIT) as (rig, pairs):
        live = rig.gateway.live
        live.remaining = lambda *_: 20 * 10_000_000 * 9  # type: ignore[method-assign]  # of nine calls
        assert (await rig.chat()).status == 200
        await rest(rig)
        assert not pairs.waiting
        assert rig.models["two"].counted == 0


async def test_a_judge_is_asked_in_both_orders_and_charged_to_the_experiment(tmp_path: Path) -> None:
    judged = tried(judge="three")
    names = ("one", "two", "three")
    async with trying(tmp_path, judged, names=names) as (rig, pairs):
        rig.play("one", tokens=5, say="a first answer")
        rig.play("two", tokens=5, say="another one")
        rig.play("three", tokens=1, say="A")
        await rig.chat()
        await rest(rig)
        (pair,) = pairs.waiting
        assert (pair.basis, pair.score, pair.contradicted) == ("judge", 1.0, True), "it prefers the first place"
        assert pair.said == "A A"
        assert rig.models["three"].counted == 2
        last = rig.models["three"].last
        assert last is not None
        asked = json.loads(last.body)["messages"][1]["content"]
        assert asked.index("another one") < asked.index("a first answer")
        assert (await books(rig))["experiment/e1"] > pair.beside_cost


@pytest.mark.parametrize(
    ("script", "said"), [({"say": "Hard: another first"}, "Hard: … …"), ({"say": ""}, ""), ({"mode": "down"}, None)]
)
async def test_unjudged_pairs_stay_open_and_equal_answers_need_no_judge(
    tmp_path: Path, script: dict[str, str], said: str | None
) -> None:
    async with trying(tmp_path, tried(judge="three"), names=("one", "two", "three")) as (rig, pairs):
        rig.play("one", tokens=5, say="a first answer")
        rig.play("two", tokens=5, say="another one")
        rig.play("three", tokens=1, **script)
        await rig.chat()
        await rest(rig)
        (pair,) = pairs.waiting
        assert (pair.basis, pair.score, pair.answered) == ("judge", None, True)
        assert pair.said == said, "without words of the call; None: it did not answer"
        assert pair.row()[-1] == said
        rig.play("two", tokens=5, say="a first answer")
        await rig.chat()
        await rest(rig)
        assert (pairs.waiting[-1].basis, pairs.waiting[-1].score, pairs.waiting[-1].said) == ("judge", 1.0, None)


async def test_values_masked_for_models_are_masked_for_their_judge(tmp_path: Path) -> None:
    email = "ana@acme.example"
    workloads = {"assistant": {"guardrails": Guardrails(input={"personal_data": "mask"})}}
    names = ("one", "two", "three")
    async with trying(tmp_path, tried(judge="three"), names=names, workloads=workloads) as (rig, pairs):
        rig.play("one", say="I wrote to <email_1>.")
        rig.play("two", say="<email_1> has it.")
        rig.play("three", say="SAME")
        reply = await rig.chat(messages=[{"role": "user", "content": f"I am {email}"}], max_tokens=100)
        assert reply.json["choices"][0]["message"]["content"] == f"I wrote to {email}."
        await rest(rig)
        assert pairs.waiting[-1].basis == "judge"
        asked = [rig.models[name].last for name in names]
        said = [request.body.decode() for request in asked if request is not None]
    assert len(said) == 3 and all(email not in body and "<email_1>" in body for body in said)


@pytest.mark.parametrize("sent", ["ana@acme.example", "<email_1>"])
async def test_values_masked_for_models_are_masked_for_the_judge_of_a_replay(tmp_path: Path, sent: str) -> None:
    """A request is kept as the model saw it, its answer as the caller did."""
    email, declared = "ana@acme.example", Guardrails(input={"personal_data": "mask"})
    workloads = {"assistant": {"guardrails": declared}}
    async with call_rig(tmp_path, workloads=workloads) as rig:
        rig.play("one", say="<email_1> has it.")
        rig.play("two", say="SAME")
        asked = {"messages": [{"role": "user", "content": f"I am {sent}"}], "max_tokens": 100}
        request = Request(0.0)
        request.headers = {b"authorization": b"Bearer assistant"}
        request.body = json.dumps({
            "run": str(new_id()), "call": str(new_id()), "endpoint": "chat.completions", "body": asked,
            "answer": f"I wrote to {email}.", "candidate": "one", "judge": "two",
        }).encode()  # fmt: skip
        key = KeyEntry(str(new_id()), "assistant", "", False, False, None, purpose=PURPOSE)
        status, data = await replayed(rig.gateway, request, key)
        assert (status, json.loads(data)["basis"], json.loads(data)["score"]) == (200, "judge", 1.0)
        said = [model.last.body.decode() for model in rig.models.values() if model.last is not None]
    assert len(said) == 2 and all(email not in body and "<email_1>" in body for body in said)


async def test_few_second_answers_are_made_while_the_judge_is_unavailable(tmp_path: Path) -> None:
    async with trying(tmp_path, tried(judge="three"), names=("one", "two", "three")) as (rig, pairs):
        rig.play("one", tokens=5, say="a first answer")
        rig.play("two", tokens=5, say="another one")
        rig.play("three", tokens=1, mode="down")
        for _ in range(6):
            await rig.chat()
            await rest(rig)
        assert len(pairs.waiting) == rig.models["two"].counted == 2
        trials = rig.gateway.shadow_trials
        assert isinstance(trials, Shadows) and trials.missed == 4


async def test_a_judge_without_budget_is_recorded_with_the_reason(tmp_path: Path) -> None:
    poor = tried(judge="three", budget=0)
    async with trying(tmp_path, poor, names=("one", "two", "three")) as (rig, _):
        mark = Mark(poor.id, poor.name, CANDIDATE, of="c1")
        what = shadow_call.ShadowPurpose(poor, shadow_call.JUDGE, mark, shadow_call.budget_of(poor), bare=True)
        line = next(each for each in rig.request().split(b"\r\n") if each.lower().startswith(b"authorization:"))
        headers = {b"authorization": line.partition(b":")[2].strip()}
        found = await compare(rig.gateway, headers, "a question", "one answer", "another", what)
        assert (found.basis, found.score, found.code) == ("judge", None, "budget_exhausted")
        assert rig.models["three"].counted == 0
        assert (await compare(rig.gateway, headers, "a question", "one answer", "one  answer", what)).score == 1.0


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"answered": True, "basis": "judge", "code": ""}, "left_open"),
        ({"answered": True, "basis": "judge", "code": "upstream_failed"}, "left_open"),
        ({"answered": True, "basis": "judge", "code": "budget_exhausted"}, "budget_exhausted"),
        ({"answered": True, "basis": "none", "code": ""}, "not_judged"),
        ({"answered": False, "basis": "none", "code": "no_deployment"}, "no_deployment"),
    ],
)
def test_the_reason_for_a_missing_judgement_is_recorded(told: dict[str, Any], why: str) -> None:
    assert replays._unjudged_reason(told) == why


def test_a_replay_that_outlasts_its_key_continues_with_another() -> None:
    """Else every further call of it would be asked in vain, and it would say that all were asked."""
    waiting: Any = SimpleNamespace(call=new_id(), endpoint="chat.completions", email=None)
    for code in ("key_revoked", "key_expired"):
        line: Any = SimpleNamespace(post=lambda *_, code=code: (401, {"error": {"code": code}}))
        run: Any = SimpleNamespace(id=new_id(), candidate="two", judge="three")
        with pytest.raises(Unavailable, match=replays.WAITS_CODE) if code == "key_expired" else nullcontext():
            assert replays._replay_call(run, waiting, ({}, "7"), line).why == code


async def test_a_person_or_a_kill_ends_an_experiment_at_once(tmp_path: Path) -> None:
    async with trying(tmp_path, tried()) as (rig, pairs):
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy)
        live.policy = dataclasses.replace(live.policy, kills=frozenset({"deployment/two"}))
        await rig.chat()
        await rest(rig)
        live.policy = dataclasses.replace(live.policy, kills=frozenset(), experiments=None)
        await rig.chat()
        await rest(rig)
        assert not pairs.waiting
        assert rig.models["two"].counted == 0


async def headed(rig: Rig, line: str) -> Reply:
    """A call with one more header line."""
    head, _, body = rig.request().partition(b"\r\n\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(head + f"\r\n{line}\r\n\r\n".encode() + body)
    try:
        return parse_reply(await reader.read())
    finally:
        writer.close()


async def test_no_caller_can_impersonate_the_gateway(tmp_path: Path) -> None:
    async with call_rig(tmp_path) as rig:
        assert (await headed(rig, "groundplan-feature: experiment/shadow")).status == 200
        ends = [record for record in await rig.records() if isinstance(record, Finish)]
    assert [end.feature for end in ends] == [""]


async def test_an_arms_deployment_is_asked_first_and_named_in_the_receipt(tmp_path: Path) -> None:
    async with trying(tmp_path, tried(type=AB, share=0.5, split=CONVERSATION)) as (rig, pairs):
        served: dict[str, set[str]] = {}
        for turn in range(24):
            text = f"conversation {turn % 12}"
            reply = await rig.chat(messages=[{"role": "user", "content": text}])
            served.setdefault(text, set()).add(reply.json["groundplan"]["deployment"])
        assert all(len(names) == 1 for names in served.values()), "a conversation changed its arm"
        assert {name for names in served.values() for name in names} == {"one", "two"}
        assert not pairs.waiting
        routes = [json.loads(r.route) for r in await rig.records() if isinstance(r, Finish)]
    assert {(r["arm"], r["deployment"]) for r in routes} == {(CONTROL, "one"), (CANDIDATE, "two")}
    assert {r["experiment"] for r in routes} == {"e1"}
    assert len({r["unit"] for r in routes}) == 12


async def test_an_unavailable_candidate_falls_back(tmp_path: Path) -> None:
    async with trying(tmp_path, tried(type=AB, share=1.0)) as (rig, _):
        rig.play("two", mode="down")
        reply = await rig.chat()
        assert (reply.status, reply.json["groundplan"]["deployment"]) == (200, "one")
        (end,) = [r for r in await rig.records() if isinstance(r, Finish)]
    assert json.loads(end.route)["arm"] == CANDIDATE, "it stays in its arm, so failures count against it"


async def test_a_named_model_is_never_changed(tmp_path: Path) -> None:
    async with trying(tmp_path, tried(type=AB, share=1.0)) as (rig, _):
        reply = await rig.chat(model="scripted/one")
        assert reply.json["groundplan"]["deployment"] == "one"
        (end,) = [r for r in await rig.records() if isinstance(r, Finish)]
    assert end.route == ""


async def test_cached_answers_are_not_shared_between_arms(tmp_path: Path) -> None:
    declared = {"assistant": {"cache": Cache(seconds=60, max_bytes=1 << 20, scope="workload")}}
    experiment = tried(type=AB, share=0.5, split=CONVERSATION)
    async with trying(tmp_path, experiment, workloads=declared) as (rig, _):
        for name in ("one", "two"):
            rig.play(name, tokens=5, say=f"from {name}")
        for number in range(12):
            reply = await headed(rig, f"groundplan-conversation: c{number}")
            assert reply.json["choices"][0]["message"]["content"] == f"from {reply.json['groundplan']['deployment']}"
        assert {rig.models[name].counted for name in ("one", "two")} == {1}, "each arm asked once and then kept"


NAMES = st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=3, unique=True)


@settings(max_examples=200, deadline=None)
@given(
    names=NAMES,
    share=st.floats(0.01, 1.0),
    type=st.sampled_from([AB, SHADOW]),
    model=st.sampled_from(["auto", "x"]),
    over=st.booleans(),
)
def test_an_experiment_uses_only_permitted_deployments_and_ends_on_time(
    names: list[str], share: float, type: str, model: str, over: bool
) -> None:
    """Also where nobody is there to end it."""
    exchange = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), CHAT)
    exchange.deployments = [deployment(name, 1) for name in names]
    exchange.key = KeyEntry("k", "w", "", False, False, None)
    before = list(exchange.deployments)
    ask = Ask({"messages": msgspec.Raw(b'[{"role":"user","content":"q"}]')}, model, 1, "q", False, False, None, 1, 1)
    task = workload("assistant", names)
    assign(exchange, task, ask, {"assistant": tried(type=type, share=share, until=7.0)}, 7.0 if over else 6.999)
    assert sorted(place.name for place in exchange.deployments) == sorted(names)
    if "two" not in names or type == SHADOW or model != "auto" or len(names) == 1 or over:
        assert exchange.deployments == before
    assert not (over and exchange.trial)
    if exchange.trial is not None and exchange.trial.mark is not None:
        assert json.loads(receipt_json(exchange))["arm"] in (CONTROL, CANDIDATE)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_shadow_gets_its_share_of_calls_whichever_content_is_kept(share: float) -> None:
    """Ids begin their second half with two bits that are always the same."""
    task, ask = workload("assistant", ["one", "two"]), Ask({}, "auto", 1, "q", False, False, None, 1, 1)
    experiments, kept = {"assistant": tried(share=share)}, Keep(content="redacted", share=5_000, seconds=60)
    drawn: dict[bool, list[bool]] = {False: [], True: []}
    for _ in range(4000):
        exchange = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), CHAT)
        assign(exchange, task, ask, experiments, 0.0)
        drawn[is_sampled(kept, exchange.id_bytes)].append(exchange.trial is not None)
    for those in drawn.values():
        deviation = math.sqrt(share * (1 - share) / len(those))
        assert abs(sum(those) / len(those) - share) < 6 * deviation


@pytest.mark.parametrize("words", [None, b'[{"role":"user","content":"q"}]'])
def test_a_caller_with_a_rotated_key_stays_in_its_arm(words: bytes | None) -> None:
    fields = {} if words is None else {"messages": msgspec.Raw(words)}
    ask = Ask(fields, "auto", 1, "q", False, False, None, 1, 1)
    exchange = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), CHAT)
    exchange.key = KeyEntry("first", "assistant", "", False, False, None)
    before = unit_of(exchange, ask, CONVERSATION)
    exchange.key = KeyEntry("second", "assistant", "", False, False, None, family="first")
    assert unit_of(exchange, ask, CONVERSATION) == before
    exchange.key = KeyEntry("third", "assistant", "", False, False, None)
    assert unit_of(exchange, ask, CONVERSATION) != before


def test_calls_of_the_gateway_itself_are_in_no_experiment() -> None:
    exchange = Exchange(new_id_bytes(), Request(0.0), CollectedResponse(), CHAT)
    exchange.deployments = [deployment(name, 1) for name in ("one", "two")]
    ask = Ask({}, "auto", 1, "q", False, False, None, 1, 1)
    assign(exchange, workload("assistant", ["one", "two"]), ask, {"assistant": tried(type=SHADOW, share=1.0)}, 0.0)
    assert exchange.trial is None


def test_texts_are_found_in_answers_of_every_form() -> None:
    whole = {"choices": [{"message": {"content": "hello"}}]}
    assert text_of(json.dumps(whole).encode()) == "hello"
    piece = 'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n'
    assert text_of((piece % "he" + piece % "llo" + "data: [DONE]\n\n").encode()) == "hello"
    assert text_of(json.dumps({"content": [{"type": "text", "text": "hello"}]}).encode()) == "hello"
    assert text_of(b"\xff\x00") == ""


CALL = {"id": "t", "type": "function", "function": {"name": "pay", "arguments": '{"to":"Ana", "usd": 5}'}}
USE = {"type": "tool_use", "id": "t", "name": "pay", "input": {"usd": 5, "to": "Ana"}}


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"content": "I pay.", "tool_calls": [CALL]}}]},
        {"type": "message", "content": [{"type": "text", "text": "I pay."}, USE]},
        [
            {"choices": [{"index": 0, "delta": {"content": "I pay."}}]},
            {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **CALL}]}}]},
        ],
    ],
)
def test_function_calls_are_part_of_the_compared_answer(answer: Any) -> None:
    """Two that say the same and call another function with something else were as good as each other."""
    streamed = "".join(f"data: {json.dumps(each)}\n\n" for each in answer) if isinstance(answer, list) else ""
    data = (streamed or json.dumps(answer)).encode()
    assert text_of(data) == 'I pay.\ncalls pay{"to": "Ana", "usd": 5}'


async def test_answers_with_different_function_calls_are_not_equal(tmp_path: Path) -> None:
    async with trying(tmp_path, tried(judge="three"), names=("one", "two", "three")) as (rig, pairs):
        rig.play("one", say="I see", tool=True)
        rig.play("two", say="I see")
        rig.play("three", say="A")
        await rig.chat()
        await rest(rig)
        assert rig.models["three"].counted == 2 and pairs.waiting[-1].said == "A A"
        rig.play("two", say="I see", tool=True)
        await rig.chat()
        await rest(rig)
        assert rig.models["three"].counted == 2 and pairs.waiting[-1].score == 1.0


def test_facts_that_wait_too_long_are_dropped() -> None:
    pairs = Pairs("")
    for _ in range(10_001):
        pairs.add(
            Pair(
                experiment="e", call=new_id(), beside=new_id(), segment="", basis="none", score=None,
                contradicted=False, shown_ms=1, beside_ms=1, shown_cost=0, beside_cost=0, shown_tokens=0,
                beside_tokens=0, answered=True,
            )
        )  # fmt: skip
    assert len(pairs.waiting) == 10_000


async def test_a_key_that_may_not_use_the_candidate_makes_no_second_answer(tmp_path: Path) -> None:
    async with trying(tmp_path, tried(share=1.0)) as (rig, pairs):
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy)
        narrow = {h: dataclasses.replace(k, models=frozenset({"one"})) for h, k in live.policy.keys.items()}
        live.policy = dataclasses.replace(live.policy, keys=narrow)
        assert (await rig.chat()).status == 200
        await rest(rig)
        assert not pairs.waiting
        assert rig.models["two"].counted == 0


@pytest.mark.parametrize("what", ["key", "experiment", "workload"])
async def test_a_key_revoked_meanwhile_makes_no_second_answer(tmp_path: Path, what: str) -> None:
    async with trying(tmp_path, tried()) as (rig, pairs):
        rig.play("one", latency_ms=150)
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy)
        asked = asyncio.create_task(rig.chat())
        await wait_until(lambda: rig.models["one"].counted == 1)
        policy = live.policy
        revoked = {h: dataclasses.replace(k, revoked=True) for h, k in policy.keys.items()}
        changes: dict[str, dict[str, Any]] = {
            "key": {"keys": revoked},
            "experiment": {"experiments": None},
            "workload": {"kills": frozenset({"workload/assistant"})},
        }
        live.policy = dataclasses.replace(policy, **changes[what])
        assert (await asked).status == 200
        await rest(rig)
        assert not pairs.waiting
        assert rig.models["two"].counted == 0


async def test_a_second_answer_uses_the_deployments_limit_and_not_the_persons(tmp_path: Path) -> None:
    limits = [
        Limit(name="each", covers="key", type="requests", amount=1, period="day"),
        Limit(name="place", covers="deployment/two", type="requests", amount=1, period="day"),
        Limit(name="all", covers="workload/assistant", type="requests", amount=9, period="day"),
    ]
    async with trying(tmp_path, tried(), limits=limits) as (rig, pairs):
        day = rig.gateway.clock.now().date().isoformat()
        (key,) = rig.gateway.live.policy.keys.values()
        rig.gateway.limit_slices.add_grant(f"requests/each/{key.id}", day, 1)
        rig.gateway.limit_slices.add_grant("requests/each/", day, 5)
        rig.gateway.limit_slices.add_grant("requests/place", day, 1)
        rig.gateway.limit_slices.add_grant("requests/all", day, 9)
        assert (await rig.chat()).status == 200
        await rest(rig)
        assert [pair.answered for pair in pairs.waiting] == [True]
        assert (await rig.chat()).status == 429, "the caller's own request of today was the first"
        await rest(rig)
        assert rig.models["two"].counted == 1
        assert rig.gateway.limit_slices.spent("requests/all", day) == 2, "of its workload it is one more"


def test_experiments_in_production_need_approval() -> None:
    rule = DeclaredExperiment(name="small", type="ab", candidate="two", budget=PICO)
    plain = blueprint(1, [deployment("one", 1), deployment("two", 1)], [workload("assistant", ["one", "two"])])
    (task,) = plain.workloads
    other = msgspec.structs.replace(task, experiment=rule)
    assert workload_digest(plain, task) != workload_digest(plain, other)
    nightly = msgspec.structs.replace(task, replay=Replay(candidates=["two"], judge="one", budget=1))
    assert workload_digest(plain, task) != workload_digest(plain, nightly)


@pytest.mark.parametrize(
    ("first", "second", "score", "contradicted"),
    [
        ("A", "B", 0.0, False), ("B", "A", 1.0, False), ("A", "A", 1.0, True), ("SAME", "SAME", 1.0, False),
        ("A", "SAME", 0.0, False), ("SAME", "A", 1.0, False), ("SAME", "B", 0.0, False),
    ],
)  # fmt: skip
def test_a_judgement_counts_only_if_both_orders_agree(
    first: str, second: str, score: float, contradicted: bool
) -> None:
    assert pairwise.combine_verdicts(first, second) == pairwise.PairVerdict(score, contradicted)
    assert pairwise.combine_verdicts(first, None) is None


@given(st.text(max_size=40))
def test_judgements_are_parsed_leniently(text: str) -> None:
    assert pairwise.parse_verdict(text) in ("A", "B", "SAME", None)
    assert pairwise.parse_verdict(f"**A** {text}") == "A"
    assert pairwise.parse_verdict("Answer: B.") == "B"
    assert pairwise.parse_verdict("tie") == "SAME"


def test_a_judge_is_given_up_after_that_many_unreadable_pairs_in_a_row() -> None:
    told = pairwise.unreadable_problem("mini", ["", *["Well"] * 4])
    assert told is not None and told.code == "judge_unreadable" and "it said nothing instead" in told.message
    assert "8 tokens" in told.hint
    assert pairwise.unreadable_problem("mini", ["Well"] * 4) is None
    assert pairwise.unreadable_problem("mini", ["Well"] * 3 + [None] + ["Well"] * 9) is None
    assert pairwise.open_pairs_note("mini", 0, 0) == ""
    assert pairwise.open_pairs_note("mini", 3, 0) == "the judge mini gave no readable verdict on 3"


def test_the_recorded_excerpt_of_a_judge_is_short_and_contains_nothing_of_the_call() -> None:
    call = ("Is Ana Berg's card 4111 blocked?", "Yes, Ana.", "No.")
    assert pairwise.redact_reply("Ana Berg's  card\nlooks 4111 fine", call) == "… …'… … looks … fine"
    assert pairwise.redact_reply("I think Be", call) == "I think …", "cut in the middle of a word"
    assert pairwise.redact_reply("  \n", call) == ""
    assert pairwise.redact_reply("x" * 500, call) == "x" * 60 + "…"


async def test_rules_that_exclude_a_deployment_apply_to_second_answers_too(tmp_path: Path) -> None:
    routing = Routing(barred={"two": "the risk of its model is high, above medium"})
    async with trying(tmp_path, tried(), workloads={"assistant": {"routing": routing}}) as (rig, pairs):
        assert (await rig.chat()).status == 200
        await rest(rig)
        assert rig.models["two"].counted == 0
        assert not [pair for pair in pairs.waiting if pair.answered]


async def test_the_receipt_of_an_arm_names_the_deployment_that_a_rule_excluded(tmp_path: Path) -> None:
    routing = Routing(barred={"three": "its tone is 70%, below the floor of 90%"})
    experiment, names = tried(type=AB, share=1.0), ("one", "two", "three")
    async with trying(tmp_path, experiment, names=names, workloads={"assistant": {"routing": routing}}) as (rig, _):
        assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
        (end,) = [r for r in await rig.records() if isinstance(r, Finish)]
    assert json.loads(end.route)["barred"] == routing.barred
