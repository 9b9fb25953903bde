"""Models, prompts and sources for a purpose bite: on a real gateway, by releases and approvals as people make them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg_pool import ConnectionPool
from tests.integration.gateway_stack import Reply, Stack, installation, scripted_upstream
from tests.integration.nursery import run_command
from tests.integration.test_api_control import run_control

from groundplan.api.context import Services
from groundplan.api.knowledge.allowed_sources import usable_sources
from groundplan.api.release import Releases
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.api.watch import model_changes
from groundplan.core.audit import OPERATOR
from groundplan.core.clock import SystemClock
from groundplan.core.database import database_url
from groundplan.core.errors import Conflict, Denied, Invalid
from groundplan.gateway.journal.shipper import Shipper
from groundplan.governance import service as governance
from groundplan.governance.approvals import Answer, Approver
from groundplan.governance.approved_parts import audience_declaration
from groundplan.governance.model import ApprovalRequest
from groundplan.governance.register.versions import KIND
from groundplan.governance.store import changes
from groundplan.identity import service as identity
from groundplan.ledger import finding_store
from groundplan.testing.database import Database
from groundplan.testing.scripted import ScriptedModel

DUTIES = ("product", "architecture", "engineering", "operations", "finance", "data", "compliance")
OWNERS = "{business: ana, security: sam, " + ", ".join(f"{duty}: sam" for duty in DUTIES) + "}"
WORKSPACE = """\
kind: company
name: acme
format: 1
approvals: {grace_days: 5}
owners: {compliance: sam, security: sam, data: sam, product: sam}
---
{kind: person, name: ana, email: ana@acme.example}
---
{kind: person, name: sam, email: sam@acme.example}
---
{kind: site, name: here, type: private, jurisdiction: EU}
---
kind: deployment
name: one
site: here
model: acme/one
upstream_model: one-2026-10
url: http://127.0.0.1:PORT1/v1
price: {input: 0 USD/Mtok, output: 10 USD/Mtok}
---
kind: deployment
name: two
site: here
model: acme/two
upstream_model: two-2026-10
url: http://127.0.0.1:PORT2/v1
price: {input: 0 USD/Mtok, output: 10 USD/Mtok}
---
kind: prompt
name: polite
version: 1
text: Be polite.
---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: ana
readers: [everyone]
---
kind: workload
name: trial
purpose: Try it out
stage: pilot
sensitivity: internal
deployments: [one]
prompt: polite
owners: {business: ana, security: sam}
---
{kind: budget, name: trial, covers: workload/trial, limit: 100 USD/month}
"""
LIVE = """---
kind: workload
name: NAME
purpose: Answer staff
stage: production
sensitivity: SENSITIVITY
deployments: [one]
fallbacks: [two]
owners: OWNERS
MORE
---
{kind: budget, name: NAME, covers: workload/NAME, limit: 100 USD/month}
"""


def live(name: str, more: str, sensitivity: str = "internal") -> str:
    text = LIVE.replace("NAME", name).replace("OWNERS", OWNERS).replace("SENSITIVITY", sensitivity)
    return text.replace("MORE\n", f"{more}\n" if more else "")


WIDER = {"name: support\npurpose: Answer staff": "name: support\naudience: customers\npurpose: Answer staff"}


@dataclass
class World:
    stack: Stack
    releases: Releases
    files: dict[str, str]
    model: ScriptedModel
    pool: ConnectionPool[Any]

    def connect(self) -> Connection[Any]:
        return psycopg.connect(self.stack.database.urls["control"])

    def person(self, conn: Connection[Any], name: str) -> Any:
        return identity.find_person(conn, f"{name}@acme.example").id

    def approve(self, change: Any, *names: str) -> dict[str, Any]:
        done: dict[str, Any] = {}
        for name in names:
            with self.connect() as conn:
                done = self.releases.approve(conn, Approver(self.person(conn, name), "passkey"), change, Answer())
        return done

    def pending(self, subject: str) -> Any:
        with self.connect() as conn:
            return next(each.id for each in changes(conn, ["pending"]) if each.subject == subject)

    def ask(self, workload: str | None = None) -> list[str]:
        with self.connect() as conn:
            made = self.releases.request_part_approvals(conn, OPERATOR, "evaluated", workload, None)
        return [each.subject for each in made]

    def approve_parts(self, *subjects: str) -> None:
        for subject in subjects:
            self.approve(self.pending(subject), "sam")

    def withdraw(self, subject: str) -> dict[str, Any]:
        with self.connect() as conn:
            change = next(each for each in changes(conn, ["applied"]) if each.subject == subject)
            return self.releases.withdraw(conn, f"person:{self.person(conn, 'sam')}", change.id)

    @property
    def services(self) -> Services:
        settings = self.stack.database.settings(self.stack.home.root)
        return Services(self.stack.home, settings, None, False, self.releases, self.pool, SystemClock())

    def changed(self) -> list[dict[str, Any]]:
        """What the control process finds wrong with models."""
        model_changes.update_findings(self.services)
        with self.connect() as conn:
            return finding_store.list_findings(conn, kinds=[KIND])

    def plan(self, **replaced: str) -> dict[str, Any]:
        files = dict(self.files)
        for old, new in replaced.items():
            files["a.yaml"] = files["a.yaml"].replace(old, new)
        with self.connect() as conn:
            return self.releases.plan(conn, files)


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    async with (
        scripted_upstream("one") as (model, first),
        scripted_upstream("two") as (_, second),
        installation(database, tmp_path) as stack,
    ):
        text = WORKSPACE.replace("PORT1", str(first)).replace("PORT2", str(second))
        text += live("support", "prompt: polite") + live("answers", "sources: [handbook]")
        text += live("secret", "prompt: polite", "restricted")
        releases = Releases(stack.home, SystemClock())
        settings = database.settings(stack.home.root)
        with ConnectionPool(database_url(stack.home, settings, "control"), min_size=1, max_size=2, open=True) as pool:
            made = World(stack, releases, {"a.yaml": text}, model, pool)
            with made.connect() as conn:
                assert releases.genesis(conn, made.files)
            yield made


TOOK: list[float] = []
"""Seconds until each change of one test was effective: one, where the machine lets its worker run."""


async def until(ask: Callable[[], Awaitable[Reply]], status: int, code: str = "") -> Reply:
    began = time.monotonic()
    while True:
        reply = await ask()
        took = time.monotonic() - began
        if reply.status == status and (status == 200 or reply.code == code):
            TOOK.append(took)
            return reply
        assert took < 30, (reply.status, reply.body)
        await asyncio.sleep(0.02)


async def serve(world: World, name: str, *parts: str) -> str:
    """With its parts approved it is approved itself and served; a key of it."""
    world.ask(name)
    world.approve_parts(*parts)
    done = world.approve(world.pending(f"workload/{name}"), "ana", "sam")
    await world.stack.wait_until_ready(done["blueprint"])
    return world.stack.key(name)


async def test_production_cannot_be_approved_before_its_parts_are(world: World) -> None:
    planned = {each["subject"]: each["missing"] for each in world.plan()["pending"]}
    told = planned["workload/support"]
    assert [each["code"] for each in told] == ["approval_missing"] * 3
    rule = "the rule approved-model refuses workload/support: nobody has approved model/acme/one (version one-2026-10)"
    assert rule in told[0]["message"]
    assert "(sam@acme.example) and compliance" in told[0]["hint"] and "groundplan changes ask" in told[0]["hint"]
    assert "for the purpose 'Answer staff'" in planned["workload/answers"][2]["message"]
    change = world.pending("workload/support")
    world.approve(change, "ana")
    with pytest.raises(Invalid) as caught:
        world.approve(change, "sam")
    assert caught.value.code == "approval_missing" and len(caught.value.problems) == 3
    asked = world.ask("support")
    assert asked == ["model/acme/one", "model/acme/two", "prompt/polite"] and world.ask("support") == asked, "once"
    world.approve_parts(*asked)
    assert world.approve(change, "sam")["blueprint"] == 2

    for old, new, part in (
        ("one-2026-10", "one-2026-11", "model/acme/one (version one-2026-11)"),
        ("version: 1\ntext: Be polite.", "version: 2\ntext: Be brief.", "prompt/polite (version 2)"),
    ):
        (pending,) = [each for each in world.plan(**{old: new})["pending"] if each["subject"] == "workload/support"]
        assert [part in each["message"] for each in pending["missing"]] == [True]
    cheaper = world.plan(**{"output: 10 USD/Mtok": "output: 7 USD/Mtok"})
    assert "workload/support" not in {each["subject"] for each in cheaper["pending"]}, "a price is no part of it"

    wide = {"approvals: {grace_days: 5}": "approvals: {parts: [model, prompt, data, rollout], grace_days: 5}"}
    bound = [{each["subject"]: each for each in world.plan(**wide, **more)["pending"]} for more in ({}, WIDER)]
    assert "workload/support" not in bound[0] and any(
        "reaching employees" in each for each in world.plan(**wide)["notes"]
    )
    (missing,) = bound[1]["workload/support"]["missing"]
    assert "approved-rollout" in missing["message"] and "reaching customers in production" in missing["message"]
    with world.connect() as conn:
        with pytest.raises(Invalid, match="no rollout"):
            world.releases.request_approval(
                conn, OPERATOR, ApprovalRequest("rollout", "workload/support", {"audience": "all"}, "wider")
            )

    looser = world.plan(**{"approvals: {grace_days: 5}": "approvals: {parts: [model], grace_days: 5}"})
    (company,) = [each for each in looser["pending"] if each["subject"] == "company"]
    assert [need["duty"] for need in company["needs"]] == ["business", "security"]
    assert {"field": "approvals.parts", "old": "data, model, prompt", "new": "model"} in company["fields"]

    world.withdraw("model/acme/one")
    with world.connect() as conn:
        changed = {"a.yaml": world.files["a.yaml"].replace("Try it out", "Try it")}
        assert world.releases.apply(conn, OPERATOR, changed, "other")["blueprint"] == 3, "it holds up nothing else"
        with pytest.raises(Conflict) as back:
            world.releases.rollback(conn, OPERATOR, 2, False, "back")
    assert back.value.code == "rollback_revives" and "model/acme/one" in back.value.message
    assert "gateways refuse it" in world.plan()["notes"][0]


async def test_why_says_which_price_and_which_ended_approval_refuse_a_call(world: World) -> None:
    """`groundplan why`, of the call and of its workload, on a control process of its own."""
    stack = world.stack
    stack.start()
    await stack.wait_until_ready()
    key = await serve(world, "support", "model/acme/one", "model/acme/two", "prompt/polite")
    assert (await stack.chat(key)).status == 200

    def applied(price: str) -> int:
        dearer = {"a.yaml": world.files["a.yaml"].replace("output: 10 USD", f"output: {price} USD")}
        with world.connect() as conn:
            return int(world.releases.apply(conn, OPERATOR, dearer, "a new price")["blueprint"])

    with run_control(stack.database, stack.home.root.parent) as control:

        async def why(id: str) -> str:
            """What is told, once the call is shipped."""
            with psycopg.connect(stack.database.urls["shipper"], autocommit=True) as connection:
                await asyncio.to_thread(Shipper(stack.home).run_round, connection)
            reply = await asyncio.to_thread(control.ask, "GET", f"/api/why/{id}")
            assert reply.status == 200, reply.body
            return "\n".join(reply.body["because"])

        await stack.wait_until_ready(applied("11.9"))
        assert (await stack.chat(key)).status == 200, "within a fifth of what was approved"
        await stack.wait_until_ready(applied("12.1"))
        refused = await until(lambda: stack.chat(key), 403, "approval_price")
        call = refused.headers["groundplan-call-id"]
        priced = (
            "the rule approved-model refuses workload/support: model/acme/one (version one-2026-10) costs more than"
        )
        for told in (await why(call), await why("workload/support")):
            assert f"Gateways refuse it: {priced}" in told and "groundplan changes ask --workload support" in told
        assert "Reason: approval_price." in await why(call)

        await stack.wait_until_ready(applied("10"))
        await until(lambda: stack.chat(key), 200)
        assert (await why(call)).endswith("What it uses is approved now.")
        today = datetime.now(UTC).date()
        move = "UPDATE change SET expires_on = %s::date - 9, grace_until = %s::date - 1 WHERE type = 'prompt'"
        stack.policy("test", "prompt", move, today, today)
        refused = await until(lambda: stack.chat(key), 403, "approval_expired")
        ended = "the rule approved-prompt refuses workload/support: the approval of prompt/polite (version 1) has ended"
        call = refused.headers["groundplan-call-id"]
        for told in (await why(call), await why("workload/support")):
            assert f"Gateways refuse it: {ended}" in told and "costs more" not in told
        environment = {**os.environ, "GROUNDPLAN_URL": f"http://127.0.0.1:{control.port}"}
        done = await asyncio.to_thread(run_command, ("why", call, "--home", str(stack.home.root)), environment, 60)
        assert done.returncode == 0 and ended in done.stdout and "Reason: approval_expired." in done.stdout, done


async def test_withdrawals_and_expiries_apply_to_the_next_call(world: World) -> None:
    """Models fall back and then refuse; a prompt and a source refuse the workload; restricted data has no grace."""
    stack = world.stack
    TOOK.clear()
    stack.start()
    await stack.wait_until_ready()
    trial = stack.key("trial")
    world.model.script.fingerprint = "fp_1"
    parts = ("model/acme/one", "model/acme/two", "prompt/polite")
    key = await serve(world, "support", *parts)
    answers, secret = await serve(world, "answers", "source/handbook"), await serve(world, "secret")
    reply = await stack.chat(key)
    assert reply.json["groundplan"]["deployment"] == "one"
    await until(lambda: stack.chat(secret), 200)
    assert (await stack.chat(trial)).status == 200
    assert (await stack.chat(answers)).code == "grounding_unavailable", "let through to its sources, served by nobody"

    told = world.changed()
    assert told == [], "the first version that is reported is the one that was approved"
    world.model.script.fingerprint, later = "fp_2", time.monotonic() + 60
    while not (told := world.changed()):
        assert (await stack.chat(key, stream=True)).status == 200 and time.monotonic() < later
        await asyncio.sleep(0.2)
    (finding,) = told
    assert (finding["subject"], finding["severity"]) == ("deployment/one", "high")
    assert "reported one-2026-10 with fingerprint fp_1 and now one-2026-10 with fingerprint fp_2" in finding["message"]
    with world.connect() as conn:
        (held,) = [each for each in changes(conn, ["applied"]) if each.subject == "model/acme/one"]
        assert list(model_changes.changes_by_digest(world.services, conn)) == [held.digest], "its approval is flagged"
        renewed = governance.request_renewal(conn, OPERATOR, held.id, "evaluated again", at=datetime.now(UTC))
    world.approve(renewed.id, "sam")
    assert world.changed() == [], "approved as it is now"

    done, began = world.withdraw("model/acme/one"), time.monotonic()
    while (reply := await stack.chat(key)).json["groundplan"]["deployment"] != "two":
        assert reply.status == 200 and time.monotonic() - began < 30
    TOOK.append(time.monotonic() - began)
    await stack.wait_until_acknowledged(done["policy"])  # that is what `effective` counts
    world.withdraw("model/acme/two")
    refused = await until(lambda: stack.chat(key), 403, "approval_withdrawn")
    assert "model/acme/one (version one-2026-10)" in refused.json["error"]["message"]
    assert (await stack.chat(trial)).status == 200, "a pilot may go on trying it"
    assert set(world.ask()) == {"model/acme/one", "model/acme/two"}
    world.approve_parts("model/acme/one", "model/acme/two")
    await until(lambda: stack.chat(key), 200)

    with world.connect() as conn:
        reach = world.releases.request_approval(
            conn, OPERATOR, ApprovalRequest("rollout", "workload/support", audience_declaration("customers"), "wider")
        )
    world.approve(reach.id, "sam")
    assert (await stack.chat(key)).status == 200
    with world.connect() as conn:
        world.releases.withdraw(conn, f"person:{world.person(conn, 'sam')}", reach.id)
    assert (await stack.chat(key)).status == 200, "it reaches employees only, of whom nothing was withdrawn"
    with world.connect() as conn:
        reach = world.releases.request_approval(
            conn, OPERATOR, ApprovalRequest("rollout", "workload/support", audience_declaration("employees"), "own")
        )
    world.approve(reach.id, "sam")
    with world.connect() as conn:
        world.releases.withdraw(conn, f"person:{world.person(conn, 'sam')}", reach.id)
    refused = await until(lambda: stack.chat(key), 403, "approval_withdrawn")
    assert "workload/support reaching employees in production" in refused.json["error"]["message"]
    with world.connect() as conn:
        reach = world.releases.request_approval(
            conn, OPERATOR, ApprovalRequest("rollout", "workload/support", audience_declaration("public"), "all")
        )
    world.approve(reach.id, "sam")
    await until(lambda: stack.chat(key), 200)

    world.withdraw("prompt/polite")
    await until(lambda: stack.chat(key), 403, "approval_withdrawn")
    world.withdraw("source/handbook")
    refused = await until(lambda: stack.chat(answers), 403, "approval_withdrawn")
    with world.connect() as conn, pytest.raises(Denied) as withdrawn:
        blueprint = current_blueprint(conn)
        usable_sources(conn, blueprint, require_workload(blueprint, "answers"), datetime.now(UTC).date())
    assert withdrawn.value.code == "approval_withdrawn", "nor is it searched on the console"
    assert "approved-data" in refused.json["error"]["message"]
    world.ask()
    world.approve_parts("prompt/polite")
    await until(lambda: stack.chat(key), 200)

    today = datetime.now(UTC).date()
    move = "UPDATE change SET expires_on = %s::date - %s, grace_until = %s::date + %s WHERE type = 'model'"
    stack.policy("test", "model", move, today, 1, today, 4)
    await until(lambda: stack.chat(secret), 403, "approval_expired")
    assert (await stack.chat(key)).status == 200, "in grace, which is a finding"
    stack.policy("test", "model", move, today, 9, today, -1)
    await until(lambda: stack.chat(key), 403, "approval_expired")
    assert sorted(TOOK)[len(TOOK) // 2] < 1.0, TOOK
