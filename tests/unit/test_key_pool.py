"""Several keys at one provider: the least used is taken, refused ones rest, and all of them come back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.call_rig import call_rig

from groundplan.blueprint.model import Deployment, ProviderKey, Rates
from groundplan.core.endpoints import announce
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.gateway.app import told_health
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.surfaces.realtime.connect import connect
from groundplan.gateway.telemetry.exposition import render
from groundplan.gateway.upstream import provider_refusals
from groundplan.gateway.upstream.key_pool import BUSY_REST_S, LAST_RESORT_S, MAX_REST_S, REFUSED_REST_S, KeyPool
from groundplan.gateway.upstream.providers import SERVICE
from groundplan.gateway.upstream.targets import Targets
from groundplan.testing.metrics import families
from groundplan.testing.scripted import ScriptedModel, start


class Busy(ScriptedModel):
    """A provider that has too much at first, and tells each key when to come back."""

    def __init__(self, *waits: int) -> None:
        super().__init__("busy")
        self.waits = list(waits)
        self.asked: list[str] = []
        self.body = b'{"error":{"message":"busy"}}'

    async def handle(self, request: Request, response: Response) -> None:
        self.asked.append(request.headers[b"authorization"].decode().removeprefix("Bearer "))
        if self.waits:
            wait = self.waits.pop(0)
            response.send(429, self.body, b"retry-after: %d\r\n" % wait if wait else b"")
        else:
            await super().handle(request, response)


def test_use_is_spread_over_keys_and_old_use_counts_less() -> None:
    pool = KeyPool("abc")
    for _ in range(30):
        pool.record_use(pool.order(0.0)[0], 0.0)
    assert pool.order(0.0) == [0, 1, 2]
    pool.record_use(0, 0.0)
    assert pool.order(0.0) == [1, 2, 0]
    pool.record_use(0, 0.0)
    pool.record_use(1, 600.0)  # ten half-lives later one use of now weighs more than twelve of then
    assert pool.order(600.0) == [2, 0, 1]
    for index in (0, 2, 2):
        pool.record_use(index, 600.0)
    assert pool.order(600.0) == [1, 0, 2], "what is used again is not taken for all of its past"


def test_a_key_that_sent_nothing_counts_as_neither_used_nor_probed() -> None:
    pool = KeyPool("ab")
    pool.record_use(0, 0.0)
    pool.undo_use(0, 0.0)
    assert pool.order(0.0) == [0, 1]
    pool.record_refusal(0, 401, 0.0, None)
    due = REFUSED_REST_S + 1.0
    for step in range(3):
        pool.record_use(0, due)
        pool.undo_use(0, due)
        assert pool.problem_statuses(due)[0] == 401 and pool.order(due)[0] == 0, "it is not taken for well"
        due += 60.0 * step
    pool.record_use(0, due)
    assert pool.order(due) == [1], "others wait for how it goes"


async def test_a_key_counts_as_used_when_it_is_sent(tmp_path: Path) -> None:
    """Not where there was no connection: of several keys of which one is refused that one would be well by it."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    keys = {"one": {"keys": [ProviderKey(key=f"file:{tmp_path / name}") for name in ("a", "b")]}}
    async with call_rig(tmp_path / "home", ["one"], more=keys, ports={"one": 1}) as rig:
        pool = rig.gateway.targets.key_pool(rig.plan("assistant").deployments_by_name["one"][0])
        assert (await rig.chat()).status == 503
        assert [key.use_count for key in pool._keys] == [0.0, 0.0]
        await rig.books()


def test_a_refused_key_pauses_for_retry_after_or_the_default() -> None:
    pool = KeyPool("ab")
    assert pool.record_refusal(0, 429, 0.0, None)
    assert pool.order(BUSY_REST_S - 0.1) == [1] and pool.order(BUSY_REST_S) == [0, 1]
    assert pool.record_refusal(0, 401, 20.0, None)
    assert pool.order(20.0 + REFUSED_REST_S - 0.1) == [1]
    assert not pool.record_refusal(1, 429, 20.0, 3.0)
    assert pool.order(22.9) == [] and pool.order(23.0) == [1]
    assert pool.record_refusal(1, 429, 1000.0, 1e9)
    assert pool.order(1000.0 + MAX_REST_S) == [0, 1]
    assert pool.record_refusal(1, 429, 2000.0, 0.0)
    assert pool.order(2000.5) == [0]  # asked again at once it would be refused again


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 30)), max_size=60))
def test_a_paused_key_is_never_chosen(steps: list[tuple[int, bool, float]]) -> None:
    pool, now, until = KeyPool("abcd"), 0.0, [0.0] * 4
    for index, refused, passed in steps:
        now += passed
        order = pool.order(now)
        assert sorted(order) == [i for i in range(4) if until[i] <= now]
        if refused:
            until[index] = now + BUSY_REST_S
            assert pool.record_refusal(index, 429, now, None) == any(each <= now for each in until)
        else:
            pool.record_use(index, now)


async def test_a_deployment_pauses_until_its_first_key_is_usable(tmp_path: Path) -> None:
    """Not as long as the last one that was refused."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    keys = {"one": {"keys": [ProviderKey(key=f"file:{tmp_path / name}") for name in ("a", "b")]}}
    model = Busy(1, 500)
    listener, server, port = await start(model)
    async with call_rig(tmp_path / "home", ["one"], more=keys, ports={"one": port}) as rig:
        refused = await rig.chat()
        assert (refused.status, refused.code, model.asked) == (503, "upstream_failed", ["a", "b"])
        assert refused.headers["retry-after"] == "1"
        await asyncio.sleep(1.1)
        assert (await rig.chat()).status == 200 and model.asked == ["a", "b", "a"]
        await rig.books()
    listener.close()
    await server.drain(0.2)


async def test_a_deployment_whose_keys_all_pause_is_asked_once_the_first_is_usable(tmp_path: Path) -> None:
    """Also where its provider names no time: the client is told when that is, and nothing is sent before."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    keys = {"one": {"keys": [ProviderKey(key=f"file:{tmp_path / name}") for name in ("a", "b")]}}
    model = Busy(0, 0)
    listener, server, port = await start(model)
    async with call_rig(tmp_path / "home", ["one"], more=keys, ports={"one": port}) as rig:
        for _ in range(2):
            refused = await rig.chat()
            assert (refused.status, refused.code, model.asked) == (503, "upstream_failed", ["a", "b"])
            assert 1 < int(refused.headers["retry-after"]) <= BUSY_REST_S
        await rig.books()
    listener.close()
    await server.drain(0.2)


async def test_a_call_that_finds_all_keys_pausing_is_told_for_how_long(tmp_path: Path) -> None:
    """As where another call was refused with the last one meanwhile."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    keys = {"one": {"keys": [ProviderKey(key=f"file:{tmp_path / name}") for name in ("a", "b")]}}
    async with call_rig(tmp_path / "home", ["one"], more=keys) as rig:
        pool = rig.gateway.targets.key_pool(rig.plan("assistant").deployments_by_name["one"][0])
        for index, seconds in enumerate((50.0, 30.0)):
            pool.record_refusal(index, 429, asyncio.get_running_loop().time(), seconds)
        deployments = rig.plan("assistant").deployments_by_name["one"]
        conversation: Any = SimpleNamespace(deployments=deployments, limit_use=None, catalog=None, attempt_count=0)
        with pytest.raises(Unavailable) as error:
            await connect(rig.gateway, conversation, None)
        assert error.value.retry_after is not None and 1 < error.value.retry_after <= 30
        rig.gateway.health.record_success("one")
        refused = await rig.chat()
        assert (refused.status, refused.code, rig.models["one"].counted) == (503, "upstream_failed", 0)
        assert 1 < int(refused.headers["retry-after"]) <= 30
        await rig.books()


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 30), st.floats(0, 700)), max_size=40))
def test_a_pool_pauses_until_one_of_its_keys_is_usable(steps: list[tuple[int, float, float]]) -> None:
    pool, now = KeyPool("abc"), 0.0
    for index, passed, after in steps:
        now += passed
        assert pool.order(now) or pool.rest_seconds(now)
        pool.record_refusal(index, 429, now, after)
        assert pool.order(now + LAST_RESORT_S + 1e-6), "a pause of hours is often garbage"
        assert pool.order(now + pool.rest_seconds(now) + 1e-6)


async def test_a_replaced_keys_state_does_not_apply_to_the_new_key(tmp_path: Path) -> None:
    """Whoever replaces a key that was refused need not wait until the old one would have rested enough."""
    targets = Targets(Home(tmp_path), asyncio.get_running_loop())

    def place(*keys: str) -> Deployment:
        made = [ProviderKey(key=key) for key in keys]
        return Deployment(
            name="d", site="s", model="m", upstream_model="up", url="http://x/v1", rates=Rates(input=1, output=1),
            keys=made,
        )  # fmt: skip

    pool = targets.key_pool(place("env:OLD", "env:OTHER"))
    pool.record_refusal(0, 429, 0.0, MAX_REST_S)
    assert targets.key_pool(place("env:OLD", "env:OTHER")).order(1.0) == [1]
    assert targets.key_pool(place("env:NEW", "env:OTHER")).order(1.0) == [0, 1]
    assert targets.key_pool(place("env:NEW", "env:OTHER", "env:OLD")).order(1.0) == [0, 1], (
        "it rests wherever it stands"
    )
    targets.close()


def test_a_key_without_credit_pauses_longer_each_time_and_is_probed_by_one_call() -> None:
    pool, now = KeyPool("ab"), 0.0
    for rest in (60.0, 120.0, 240.0, 480.0, MAX_REST_S, MAX_REST_S):
        pool.record_refusal(0, 402, now, 20.0)
        pool.record_refusal(0, 402, now + 0.1, 20.0)  # was on its way with it
        assert pool.order(now + rest) == [1] and pool.problem_statuses(now + rest) == [402, 0]
        now += rest + 0.1
        assert sorted(pool.order(now)) == [0, 1]
        pool.record_use(0, now)
        assert pool.order(now + 1.0) == [1], "others do not wait for how that ends"
        assert pool.record_refusal(1, 429, now, 3.0), "but go there where nothing else is left"
        assert pool.order(now + 1.0) == [0]
        pool.record_use(0, now + 1.0)
        assert pool.problem_statuses(now + 1.0)[0] == 402, "whoever found out may still be refused"
        now += 4.0
    assert sorted(pool.order(now + 1.0)) == [0, 1] and pool.problem_statuses(now + 1.0) == [0, 0], (
        "that one was not refused"
    )
    pool.record_use(0, now + 1.0)
    pool.record_refusal(0, 402, now + 1.0, None)
    assert sorted(pool.order(now + 1.0 + REFUSED_REST_S)) == [0, 1]
    assert pool.problem_statuses(now + 1.0 + REFUSED_REST_S + MAX_REST_S) == [402, 0]
    assert pool.problem_statuses(now + 1.1 + REFUSED_REST_S + MAX_REST_S) == [0, 0], "nobody has asked for long"


def test_a_key_without_credit_obeys_retry_after_and_restarts_its_backoff_after_another_refusal() -> None:
    pool = KeyPool("ab")
    pool.record_refusal(0, 402, 0.0, 300.0)
    assert pool.order(299.9) == [1] and pool.order(300.0) == [0, 1]
    pool.record_use(0, 300.0)
    pool.record_refusal(0, 429, 300.0, 1.0)
    pool.record_refusal(0, 402, 400.0, None)
    assert sorted(pool.order(400.0 + REFUSED_REST_S)) == [0, 1]


def quota(name: str) -> bytes:
    """What Gemini answers where one of its quotas is used up."""
    violations = [{"quotaId": f"GenerateRequestsPer{each}PerProjectPerModel"} for each in ("Minute", name)]
    details = [{"violations": violations}, {"retryDelay": "3s"}, {"violations": ["x"]}, 5]
    return json.dumps([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}]).encode()


@pytest.mark.parametrize(
    ("status", "told", "found"),
    [
        (429, b'{"error":{"message":"x","type":"insufficient_quota","code":null}}', True),
        (429, b'{"error":{"message":"x","code":"billing_not_active"}}', True),
        (429, b'{"error":{"message":"insufficient balance","type":"exceeded_current_quota_error"}}', True),
        (429, b'{"error":{"message":"insufficient balance (1008)","type":"insufficient_balance_error"}}', True),
        (401, b'{"error":{"message":"x","type":"insufficient_quota","code":401}}', True),
        (402, b"", True),
        (429, quota("Day"), True),
        (429, quota("Hour"), False),
        (429, b'{"error":{"message":"insufficient_quota","code":"rate_limit_exceeded","type":[]}}', False),
        (500, b'{"error":{"code":"insufficient_quota"}}', False),
        (429, b"x", False),
    ],
)
def test_an_account_without_credit_is_distinguished_from_a_busy_one(status: int, told: bytes, found: bool) -> None:
    assert provider_refusals.is_quota_spent(status, told) == found


async def test_a_key_without_credit_pauses_for_minutes_and_is_reported(tmp_path: Path) -> None:
    """Its provider says so with the status of too many requests, after which a key is tried again in seconds."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    keys = {"one": {"keys": [ProviderKey(key=f"file:{tmp_path / name}") for name in ("a", "b")]}}
    model = Busy(0)
    model.body = (
        b'{"error":{"message":"You exceeded your quota","type":"insufficient_quota","code":"insufficient_quota"}}'
    )
    listener, server, port = await start(model)
    async with call_rig(tmp_path / "home", ["one"], more=keys, ports={"one": port}) as rig:
        for _ in range(3):
            assert (await rig.chat()).status == 200
        assert model.asked == ["a", "b", "b", "b"]
        now, gateway = asyncio.get_running_loop().time(), rig.gateway
        pool = gateway.targets.key_pool(rig.plan("assistant").deployments_by_name["one"][0])
        assert pool.order(now + REFUSED_REST_S - 5.0) == [1], "rather than some seconds"
        why = f"closed: the key file:{tmp_path / 'a'} rests: its account is not paid, or its quota is used up"
        assert told_health(gateway.health, now, gateway.targets.key_problems()) == {"one": why}
        name, found = "groundplan_gateway_deployment_keys", render([("0", families(gateway))]).decode()
        for state, count in {"ready": 1, "busy": 0, "refused": 0, "unpaid": 1}.items():
            assert f'{name}{{worker="0",deployment="one",state="{state}"}} {count}\n' in found
        gateway.targets.declare([])
        assert gateway.targets.key_problems() == {}
        await rig.books()
    listener.close()
    await server.drain(0.2)


async def test_a_deployment_may_have_the_name_of_a_local_service(tmp_path: Path) -> None:
    """What is for the service never goes there, nor its own requests to the service."""
    home, loop = Home(tmp_path), asyncio.get_running_loop()
    announce(home, SERVICE, "http://127.0.0.1:1", "token-of-the-service")
    targets = Targets(home, loop)

    def place(name: str, api: str) -> Deployment:
        return Deployment(
            name=name, site="s", model="m", upstream_model="up", url="http://x/v1", rates=Rates(input=1, output=1),
            api=api,
        )  # fmt: skip

    own, other = place(SERVICE, "openai"), place("other", "gemini")
    for _ in range(2):
        assert targets.of(own).host == b"x" and not targets.of(own).authorization_line
        assert targets.through_service(SERVICE, other, None).host == b"127.0.0.1:1"
        targets.forget(SERVICE)
    targets.close()
