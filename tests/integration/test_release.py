"""Releases on a real database: genesis, pending production, approvals, rollback that revives nothing, signatures."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg.types.json import Jsonb

from groundplan.blueprint.artifact import decode, verify_signature
from groundplan.catalog.model import DUTIES
from groundplan.core import audit
from groundplan.core.audit.store import list_entries
from groundplan.core.database import connect
from groundplan.core.errors import Conflict, Denied, Invalid, NotFound
from groundplan.governance import service as governance
from groundplan.governance import store as changes
from groundplan.governance.approvals import Answer, Approver
from groundplan.governance.model import Need
from groundplan.identity import service as identity
from groundplan.identity import store as people
from groundplan.maturity.service import readiness
from groundplan.release import approvals, service, store
from groundplan.release.publish import Signing
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]


class FixedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def seconds(self) -> float:
        return self.time.timestamp()

    def monotonic(self) -> float:
        return self.time.timestamp()


BASE = """\
kind: company
name: acme
approvals: {parts: []}
---
kind: person
name: ben
email: ben@acme.example
---
kind: group
name: hr
members: [hana@acme.example]
---
kind: site
name: rack
type: private
jurisdiction: EU
---
kind: deployment
name: own
site: rack
model: acme/own
url: http://127.0.0.1:9/v1
price: {input: 1 USD/Mtok, output: 2 USD/Mtok}
---
kind: workload
name: assistant
purpose: Answer staff questions
stage: pilot
owners: {business: ana@acme.example}
---
kind: budget
name: assistant
covers: workload/assistant
limit: 200 USD/month
"""

OTHERS = ", ".join(f"{duty}: maria@acme.example" for duty in DUTIES if duty not in ("business", "security", "finance"))
PRODUCTION = f"""\
---
kind: workload
name: support
purpose: Answer customers
stage: production
audience: customers
owners: {{business: maria@acme.example, security: sam@acme.example, finance: fay@acme.example, {OTHERS}}}
---
kind: budget
name: support
covers: workload/support
limit: 50 USD/month
"""
BOTH = {"a.yaml": BASE + PRODUCTION}
ONLY_PILOT = {"a.yaml": BASE}


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["control"]) as opened:
        yield opened


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def signing(clock: FixedClock) -> Signing:
    return Signing(Ed25519PrivateKey.generate(), clock)


def person(conn: Conn, name: str) -> UUID:
    return identity.find_person(conn, f"{name}@acme.example").id


def holds_duty(conn: Conn, who: UUID, duty: str, subject: str) -> bool:
    """Whether somebody who is here holds it."""
    held = people.duties(conn, subject)
    return any((each.duty, each.person.id, each.person.active) == (duty, who, True) for each in held)


def approver(conn: Conn, name: str) -> Approver:
    return Approver(person(conn, name), "passkey")


def served(conn: Conn) -> list[str]:
    current = service.current(conn)
    assert current is not None
    return [workload.name for workload in current.blueprint.workloads]


def approve_all(conn: Conn, signing: Signing, change: UUID) -> int | None:
    number = None
    for name in ("maria", "sam", "fay"):
        number = approvals.approve(conn, signing, approver(conn, name), change).number
    return number


def test_genesis_serves_the_pilot_and_production_waits_for_its_duties(conn: Conn, signing: Signing) -> None:
    applied = service.genesis(conn, signing, BOTH)
    assert applied.number == 1
    ((change, waits),) = applied.pending
    assert waits == tuple(Need("workload/support", duty) for duty in ("business", "security", "finance"))
    assert served(conn) == ["assistant"]

    stored = store.newest_blueprint(conn)
    assert stored is not None and stored.genesis and stored.sources == BOTH
    assert verify_signature(stored.body, stored.signature, signing.key.public_key().public_bytes_raw())
    assert holds_duty(conn, person(conn, "sam"), "security", "workload/support")
    assert [item.id for item in governance.pending_changes(conn)] == [change]
    recorded = [item.entry.action for item in list_entries(conn)]
    assert "blueprint.genesis" in recorded and "change.requested" in recorded
    with pytest.raises(Conflict):
        service.genesis(conn, signing, BOTH)


def test_the_last_approval_makes_the_next_blueprint(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    first = approvals.approve(conn, signing, approver(conn, "maria"), change)
    assert first.number is None
    assert [need.duty for need in first.pending[0][1]] == ["security", "finance"]
    approvals.approve(conn, signing, approver(conn, "sam"), change)
    last = approvals.approve(conn, signing, approver(conn, "fay"), change)
    assert (last.number, last.pending) == (2, ())
    assert served(conn) == ["assistant", "support"]
    assert governance.pending_changes(conn) == []
    with pytest.raises(Conflict) as caught:
        approvals.approve(conn, signing, approver(conn, "sam"), change)
    assert caught.value.code == "change_settled"


def test_while_it_waits_the_approval_of_somebody_who_has_left_counts_no_longer(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    for name in ("maria", "sam"):
        approvals.approve(conn, signing, approver(conn, name), change)
    identity.deactivate_person(conn, "operator", person(conn, "sam"))
    last = approvals.approve(conn, signing, approver(conn, "fay"), change)
    assert last.number is None and [need.duty for need in last.pending[0][1]] == ["security"]
    identity.hand_over(conn, "operator", person(conn, "sam"), person(conn, "hana"))
    assert approvals.approve(conn, signing, approver(conn, "hana"), change).number == 2
    identity.deactivate_person(conn, "operator", person(conn, "fay"))
    assert service.preview(conn, signing, BOTH).to_json()["pending"] == [], "what is served stays approved"


def test_nobody_approves_what_they_asked_for_or_without_the_duty(conn: Conn, signing: Signing) -> None:
    service.genesis(conn, signing, ONLY_PILOT)
    identity.add_person(conn, "operator", "sam@acme.example", "Sam")
    sam = person(conn, "sam")
    applied = service.apply(conn, signing, audit.person_actor(sam), BOTH)
    ((change, _),) = applied.pending
    with pytest.raises(Denied) as caught:
        approvals.approve(conn, signing, Approver(sam, "passkey"), change)
    assert caught.value.message == ("You asked for this change; somebody else with the duty security must approve it.")
    with pytest.raises(Denied) as caught:
        approvals.approve(conn, signing, approver(conn, "ben"), change)
    assert caught.value.code == "duty_missing" and "maria@acme.example" in caught.value.hint


def test_the_only_person_may_approve_alone_and_it_is_no_evidence(conn: Conn, signing: Signing) -> None:
    alone = BASE.partition("---\nkind: site")[2]
    text = "kind: company\nname: acme\napprovals: {parts: []}\nseparation: solo\n---\nkind: site" + alone
    owners = ", ".join(f"{duty}: ana@acme.example" for duty in DUTIES)
    text = text.replace(
        "stage: pilot\nowners: {business: ana@acme.example}", f"stage: production\nowners: {{{owners}}}"
    )
    ((change, _),) = service.genesis(conn, signing, {"a.yaml": text}).pending
    assert approvals.approve(conn, signing, approver(conn, "ana"), change).number == 2
    (settled,) = changes.changes(conn, ["applied"])
    assert all(approval.unseparated and not approval.is_evidence for approval in settled.approvals)


def test_with_a_second_person_nobody_approves_alone_any_more(conn: Conn, signing: Signing) -> None:
    """`separation: solo` stays declared, and holds only while one person can sign in."""
    head = "kind: company\nname: acme\napprovals: {parts: []}\nseparation: solo\n---\nkind: site"
    alone = head + BASE.partition("---\nkind: site")[2]
    owners = ", ".join(f"{duty}: ana@acme.example" for duty in DUTIES)
    named = alone.replace("stage: pilot\nowners: {business: ana@acme.example}", f"stage: pilot\nowners: {{{owners}}}")
    service.genesis(conn, signing, {"a.yaml": named})
    identity.add_person(conn, "operator", "second@acme.example", "Second")
    files = {"a.yaml": named.replace("stage: pilot", "stage: production")}
    ana = person(conn, "ana")
    ((change, _),) = service.apply(conn, signing, audit.person_actor(ana), files).pending
    with pytest.raises(Denied) as caught:
        approvals.approve(conn, signing, Approver(ana, "passkey"), change)
    assert caught.value.code == "self_approval"
    identity.deactivate_person(conn, "operator", person(conn, "second"))
    assert approvals.approve(conn, signing, Approver(ana, "passkey"), change).number == 2
    (settled,) = changes.changes(conn, ["applied"])
    assert all(approval.unseparated for approval in settled.approvals)


def test_a_refused_change_is_over_and_can_be_asked_for_again(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    refused = approvals.refuse(conn, signing, approver(conn, "sam"), change, Answer(comment="not yet"))
    assert refused.state == "refused"
    ((again, _),) = service.apply(conn, signing, "operator", BOTH).pending
    assert again != change


def test_applying_the_same_twice_makes_no_blueprint_and_keeps_approvals(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    approvals.approve(conn, signing, approver(conn, "maria"), change)
    again = service.apply(conn, signing, "operator", BOTH)
    assert again.number is None
    assert [(id, [need.duty for need in waits]) for id, waits in again.pending] == [(change, ["security", "finance"])]


def test_changed_content_supersedes_and_its_approvals_do_not_carry_over(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    approvals.approve(conn, signing, approver(conn, "maria"), change)
    dearer = {"a.yaml": BOTH["a.yaml"].replace("50 USD/month", "60 USD/month")}
    ((other, waits),) = service.apply(conn, signing, "operator", dearer).pending
    assert other != change and len(waits) == 3
    with pytest.raises(Conflict):
        approvals.approve(conn, signing, approver(conn, "sam"), change)


def test_an_approval_takes_the_newest_files_with_it(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    newer = {"a.yaml": BOTH["a.yaml"].replace("stage: pilot\n", "stage: pilot\nlimits: {people: 5}\n")}
    assert service.apply(conn, signing, "operator", newer).number == 2
    assert approve_all(conn, signing, change) == 3
    current = service.current(conn)
    assert current is not None
    assert {w.name: w.people for w in current.blueprint.workloads}["assistant"] == 5


def test_owners_of_approved_production_stay_until_their_successors_are_approved(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    approve_all(conn, signing, change)
    captured = {"a.yaml": BOTH["a.yaml"].replace("security: sam@acme.example", "security: ben@acme.example")}
    ((other, _),) = service.apply(conn, signing, "operator", captured).pending
    assert not holds_duty(conn, person(conn, "ben"), "security", "workload/support")
    approvals.approve(conn, signing, approver(conn, "maria"), other)
    approvals.approve(conn, signing, approver(conn, "sam"), other)
    assert holds_duty(conn, person(conn, "ben"), "security", "workload/support")
    assert not holds_duty(conn, person(conn, "sam"), "security", "workload/support")


def test_rollback_makes_the_next_number_with_the_old_content(conn: Conn, signing: Signing) -> None:
    service.genesis(conn, signing, ONLY_PILOT)
    dearer = {"a.yaml": BASE.replace("200 USD", "300 USD")}
    assert service.apply(conn, signing, "operator", dearer).number == 2
    back = service.rollback(conn, signing, "operator")
    assert back.number == 3
    one, three = store.blueprint_by_number(conn, 1), store.blueprint_by_number(conn, 3)
    assert one is not None and three is not None
    first, third = decode(one.body), decode(three.body)
    assert third.rollback_of == 1 and third.budgets == first.budgets and third.workloads == first.workloads
    assert service.rollback(conn, signing, "operator").number == 4, "undoing the undoing"
    for number, error in ((4, Conflict), (99, NotFound)):
        with pytest.raises(error):
            service.rollback(conn, signing, "operator", number)


def test_what_this_release_takes_no_more_is_corrected_by_an_apply_and_gone_back_to(
    database: Database, conn: Conn, signing: Signing
) -> None:
    service.genesis(conn, signing, ONLY_PILOT)
    conn.commit()
    former = BASE.replace("stage: pilot", "stage: pilot\nformerly: allowed") + "---\nkind: forgotten\nname: one\n"
    with connect(database.urls["owner"]) as owner:
        owner.execute("UPDATE blueprint SET sources = %s", (Jsonb({"a.yaml": former}),))
    found = service.current(conn)
    assert found is not None and found.workspace.workloads["assistant"].stage == "pilot"
    assert not service.preview(conn, signing, ONLY_PILOT).differences
    assert service.apply(conn, signing, "operator", {"a.yaml": BASE.replace("200 USD", "300 USD")}).number == 2
    assert service.rollback(conn, signing, "operator").number == 3


def test_a_withdrawn_approval_takes_the_workload_out_and_rollback_does_not_revive_it(
    conn: Conn, signing: Signing
) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    assert approve_all(conn, signing, change) == 2
    gone = approvals.withdraw(conn, signing, audit.person_actor(person(conn, "sam")), change)
    assert gone.number == 3
    assert served(conn) == ["assistant"]
    with pytest.raises(Conflict) as caught:
        service.rollback(conn, signing, "operator", 2)
    assert caught.value.code == "rollback_revives"
    assert [problem.message for problem in caught.value.problems] == ["workload/support: an approval was withdrawn"]
    assert served(conn) == ["assistant"]
    back = service.rollback(conn, signing, "operator", 2, without_revoked=True)
    assert (back.number, back.left_out) == (4, ("workload/support",))
    assert served(conn) == ["assistant"]


def test_an_ended_pilot_holds_up_neither_a_withdrawal_nor_a_change_nor_a_rollback(
    conn: Conn, signing: Signing, clock: FixedClock
) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    approve_all(conn, signing, change)
    clock.time += timedelta(days=100)
    assert approvals.withdraw(conn, signing, audit.person_actor(person(conn, "maria")), change).number == 3
    current = service.current(conn)
    assert current is not None
    assert [item.name for item in current.blueprint.budgets] == ["assistant"]
    retired = {"a.yaml": BOTH["a.yaml"].replace("stage: production", "stage: retired")}
    service.apply(conn, signing, "operator", retired)
    assert service.rollback(conn, signing, "operator", 1).number is not None


def test_withdrawing_an_approval_of_older_content_leaves_the_newer_served(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    approve_all(conn, signing, change)
    dearer = {"a.yaml": BOTH["a.yaml"].replace("50 USD/month", "60 USD/month")}
    ((other, _),) = service.apply(conn, signing, "operator", dearer).pending
    approve_all(conn, signing, other)
    assert approvals.withdraw(conn, signing, audit.person_actor(person(conn, "sam")), change).number is None
    assert served(conn) == ["assistant", "support"]
    with pytest.raises(Conflict):
        service.rollback(conn, signing, "operator", 2)


def test_withdrawn_content_can_be_approved_anew(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    approve_all(conn, signing, change)
    approvals.withdraw(conn, signing, audit.person_actor(person(conn, "sam")), change)
    ((again, _),) = service.apply(conn, signing, "operator", BOTH).pending
    assert approve_all(conn, signing, again) == 4
    assert served(conn) == ["assistant", "support"]


def test_rollback_does_not_bring_back_what_was_killed_since(conn: Conn, signing: Signing) -> None:
    service.genesis(conn, signing, ONLY_PILOT)
    service.apply(conn, signing, "operator", {"a.yaml": BASE.replace("200 USD", "300 USD")})
    identity.kill(conn, "operator", "workload/assistant", "it answers nonsense")
    # the kill bears the database's time, the blueprints that of the test's clock
    conn.execute("UPDATE kill_switch SET at = %s", (datetime(2026, 11, 26, tzinfo=UTC),))
    with pytest.raises(Conflict) as caught:
        service.rollback(conn, signing, "operator", 1)
    assert "it answers nonsense" in caught.value.message
    assert service.rollback(conn, signing, "operator", 1, without_revoked=True).left_out == ("workload/assistant",)


def test_rollback_does_not_bring_back_a_pilot_that_has_ended(conn: Conn, signing: Signing, clock: FixedClock) -> None:
    service.genesis(conn, signing, ONLY_PILOT)
    service.apply(conn, signing, "operator", {"a.yaml": BASE.replace("stage: pilot", "stage: retired")})
    clock.time += timedelta(days=100)
    with pytest.raises(Conflict) as caught:
        service.rollback(conn, signing, "operator")
    assert "ended on" in caught.value.message


def test_rollback_brings_back_what_was_served_and_not_what_was_approved_later(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    assert approve_all(conn, signing, change) == 2
    assert served(conn) == ["assistant", "support"]
    assert service.rollback(conn, signing, "operator", 1).number == 3
    assert served(conn) == ["assistant"]
    assert service.rollback(conn, signing, "operator", 2).number == 4
    assert served(conn) == ["assistant", "support"]


def test_rollback_keeps_what_waits_waiting(conn: Conn, signing: Signing) -> None:
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    service.apply(conn, signing, "operator", {"a.yaml": BOTH["a.yaml"].replace("200 USD", "300 USD")})
    back = service.rollback(conn, signing, "operator")
    assert [id for id, _ in back.pending] == [change]
    assert approve_all(conn, signing, change) == 4
    current = service.current(conn)
    assert current is not None
    assert {item.name: item.limit // 10**12 for item in current.blueprint.budgets} == {"assistant": 200, "support": 50}


def test_rollback_does_not_go_behind_caps_that_were_lowered_since(conn: Conn, signing: Signing) -> None:
    wide = BASE.replace("name: acme\n", "name: acme\ncaps: {people: 50}\n").replace(
        "stage: pilot\n", "stage: pilot\nlimits: {people: 50}\n"
    )
    service.genesis(conn, signing, {"a.yaml": wide})
    service.apply(conn, signing, "operator", ONLY_PILOT)
    with pytest.raises(Conflict) as caught:
        service.rollback(conn, signing, "operator")
    assert "caps were lowered since" in caught.value.message
    back = service.rollback(conn, signing, "operator", without_revoked=True)
    current = service.current(conn)
    assert current is not None and current.blueprint.caps.people == 25
    assert (back.left_out, served(conn)) == (("workload/assistant",), [])


def test_rollback_charges_today_s_prices(conn: Conn, signing: Signing, clock: FixedClock) -> None:
    dated = BASE.replace(
        "price: {input: 1 USD/Mtok, output: 2 USD/Mtok}",
        "price: [{input: 1 USD/Mtok, output: 2 USD/Mtok}, {input: 3 USD/Mtok, output: 4 USD/Mtok, from: 2026-12-01}]",
    )
    service.genesis(conn, signing, {"a.yaml": dated})
    service.apply(conn, signing, "operator", {"a.yaml": dated.replace("200 USD", "300 USD")})
    clock.time += timedelta(days=10)
    service.rollback(conn, signing, "operator")
    current = service.current(conn)
    assert current is not None
    assert current.blueprint.deployments[0].rates.input == 3 * 10**12


def test_a_refused_apply_changes_nothing(conn: Conn, signing: Signing) -> None:
    service.genesis(conn, signing, ONLY_PILOT)
    with pytest.raises(Invalid) as caught:
        service.apply(
            conn, signing, "operator", {"a.yaml": BASE.replace("stage: pilot", "stage: pilot\nresidency: [US]")}
        )
    (problem,) = caught.value.problems
    assert problem.where is not None and problem.where.file == "a.yaml"
    stored = store.newest_blueprint(conn)
    assert stored is not None and stored.number == 1


def test_two_releases_at_once_get_two_numbers(database: Database, conn: Conn, signing: Signing) -> None:
    service.genesis(conn, signing, ONLY_PILOT)
    conn.commit()

    def release(people: int) -> int | None:
        text = BASE.replace("stage: pilot\n", f"stage: pilot\nlimits: {{people: {people}}}\n")
        with connect(database.urls["control"]) as mine:
            return service.apply(mine, signing, "operator", {"a.yaml": text}).number

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(release, (1, 2, 3, 4)))
    assert sorted(number for number in numbers if number) == [2, 3, 4, 5]


def test_gateways_are_told_when_the_transaction_commits(database: Database, conn: Conn, signing: Signing) -> None:
    with connect(database.urls["gateway"], autocommit=True) as gateway:
        gateway.execute("LISTEN groundplan_blueprint")
        service.genesis(conn, signing, ONLY_PILOT)
        assert list(gateway.notifies(timeout=0.1)) == []
        conn.commit()
        assert [n.payload for n in gateway.notifies(timeout=30, stop_after=1)] == ["1"]


def governance_points(conn: Conn, signing: Signing, workload: str) -> dict[str, str | None]:
    current = service.current(conn)
    assert current is not None
    (found,) = readiness(conn, current, signing.clock.now(), {workload})
    return {point.name: point.evidence for point in found.of("governance")}


def test_approvals_by_others_are_evidence_and_those_of_the_demo_are_not(conn: Conn, signing: Signing) -> None:
    name = "approved by somebody other than the requester"
    ((change, _),) = service.genesis(conn, signing, BOTH).pending
    for who in ("maria", "sam"):
        approvals.approve(conn, signing, approver(conn, who), change)
    assert approvals.approve(conn, signing, Approver(person(conn, "fay"), "demo", audit.OPERATOR), change).number == 2
    assert governance_points(conn, signing, "support")[name] is None

    dearer = {"a.yaml": BOTH["a.yaml"].replace("50 USD/month", "60 USD/month")}
    ((other, _),) = service.apply(conn, signing, "operator", dearer).pending
    approve_all(conn, signing, other)
    points = governance_points(conn, signing, "support")
    assert points[name] == f"/governance#change-{other}"
    assert points["an owner in every duty"] == "/workloads/support#owners"
    identity.deactivate_person(conn, "operator", person(conn, "sam"))
    assert governance_points(conn, signing, "support")["an owner in every duty"] is None, "evidence lapses"


def test_readiness_covers_every_declared_workload(conn: Conn, signing: Signing) -> None:
    service.genesis(conn, signing, BOTH)
    current = service.current(conn)
    assert current is not None
    found = {item.workload: item for item in readiness(conn, current, signing.clock.now())}
    assert sorted(found) == ["assistant", "support"]
    assert found["assistant"].score("cost") == "2/5"
    assert found["support"].score("placement") == "not measured yet"


def test_a_raised_company_budget_takes_effect_with_the_approval_of_finance(conn: Conn, signing: Signing) -> None:
    budget = "---\nkind: budget\nname: all\ncovers: company\nlimit: 1000 USD/month\n"
    base = BOTH["a.yaml"] + budget
    service.genesis(conn, signing, {"a.yaml": base})
    raised = {"a.yaml": base.replace("1000 USD", "2000 USD").replace("200 USD", "100 USD")}
    applied = service.apply(conn, signing, "operator", raised)
    (change,) = [id for id, needs in applied.pending if needs == (Need("company", "finance"),)]

    def limits() -> dict[str, int]:
        current = service.current(conn)
        assert current is not None
        return {item.name: item.limit // 10**12 for item in current.blueprint.budgets}

    assert limits() == {"all": 1000, "assistant": 100}
    with pytest.raises(Denied):
        approvals.approve(conn, signing, approver(conn, "sam"), change)
    approvals.approve(conn, signing, approver(conn, "fay"), change)
    assert limits() == {"all": 2000, "assistant": 100}
    with pytest.raises(Conflict) as caught:
        approvals.withdraw(conn, signing, audit.person_actor(person(conn, "fay")), change)
    assert caught.value.code == "withdraw_by_lowering"
    assert service.apply(conn, signing, "operator", {"a.yaml": base}).number is not None
    assert limits()["all"] == 1000


def test_preview_changes_nothing(conn: Conn, signing: Signing) -> None:
    service.genesis(conn, signing, ONLY_PILOT)
    result = service.preview(conn, signing, BOTH)
    assert [need.duty for need in result.needs] == ["business", "security", "finance"]
    assert governance.pending_changes(conn) == []


def test_budgets_and_limits_of_keys_and_people_that_are_not_there_are_told(conn: Conn, signing: Signing) -> None:
    service.genesis(conn, signing, ONLY_PILOT)
    good, _ = identity.create_key(conn, audit.OPERATOR, "helper")
    gone, _ = identity.create_key(conn, audit.OPERATOR, "helper")
    identity.revoke_key(conn, audit.OPERATOR, gone)
    named = {
        "good": f"key/{good}", "gone": f"key/{gone}", "never": f"key/{UUID(int=7)}", "odd": f"key/{'-' * 36}",
        "ben": "user/ben@acme.example", "bea": "user/bea@acme.example", "each": "user", "any": "key",
    }  # fmt: skip
    limits = "".join(
        f"---\nkind: limit\nname: {name}\ncovers: {what}\nrequests: 9/day\n" for name, what in named.items()
    )
    budget = f"---\nkind: budget\nname: theirs\ncovers: key/{gone}\nlimit: 9 USD/month\n"
    told = service.preview(conn, signing, {"a.yaml": BASE + limits + budget}).warnings
    assert dict(each.message.removeprefix("`covers` of ").split(" has no effect: ") for each in told) == {
        "budget theirs": "that key is revoked",
        "limit gone": "that key is revoked",
        "limit never": "there is no such key",
        "limit odd": "there is no such key",
        "limit bea": "nobody with the address bea@acme.example is here",
    }
    assert all(each.where is not None and each.code == "no_effect" for each in told)
