"""Approvals end by the calendar: announced, renewed, in grace, over; seats, what is asked beside the blueprint, and
mail to a real server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiosmtpd.controller import Controller
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import ConnectionPool
from tests.acceptance.stack import free_port
from tests.integration.interleaved import connect_with_lock_timeout, run_concurrently, wait_until_blocked
from tests.integration.test_api_control import WORKSPACE

from groundplan.api.context import Services
from groundplan.api.genesis import prepare_home
from groundplan.api.mail import smtp as mail
from groundplan.api.release import Releases
from groundplan.api.watch import access_rights, approval_terms, stage_ends
from groundplan.core.audit import OPERATOR
from groundplan.core.audit import store as audit_store
from groundplan.core.database import database_url
from groundplan.core.errors import Conflict, Denied, Invalid
from groundplan.core.home import Home
from groundplan.gateway.policy.catalog import index
from groundplan.governance import service as governance
from groundplan.governance import store as governance_store
from groundplan.governance.approvals import Answer, Approver
from groundplan.governance.model import ApprovalRequest, Change
from groundplan.governance.policy import exceptions
from groundplan.governance.policy.exceptions_model import ExceptionRequest
from groundplan.governance.validity import Term, due_announcement, phase, validity_term
from groundplan.identity import service as identity
from groundplan.ledger import finding_store
from groundplan.release import service as release
from groundplan.release import store as release_store
from groundplan.testing.clock import ManualClock
from groundplan.testing.database import Database

DUTIES = ("product", "architecture", "engineering", "operations", "finance", "data", "compliance")
OWNERS = "owners: {business: ana, security: sam, " + ", ".join(f"{duty}: sam" for duty in DUTIES) + "}"
TERMS = "approvals: {parts: [], valid_days: 60, grace_days: 10, seats: 2}\n"


def declared(sensitivity: str = "internal", terms: str = TERMS) -> dict[str, str]:
    terms = terms or "approvals: {parts: []}\n"
    owners = "owners: {compliance: sam, security: sam, data: ana}\n"
    text = WORKSPACE.replace("format: 1\napprovals: {parts: []}\n", f"format: 1\n{terms}{owners}")
    text = text.replace("stage: pilot", "stage: production").replace("owners: {business: ana, security: sam}", OWNERS)
    return {"acme.yaml": text.replace("sensitivity: internal", f"sensitivity: {sensitivity}")}


class Kept:
    """What a real mail server was given."""

    def __init__(self) -> None:
        self.mails: list[Message] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 -- its name there
        self.mails.append(BytesParser().parsebytes(envelope.content))
        return "250 OK"


@pytest.fixture
def post() -> Iterator[tuple[Kept, int]]:
    port = free_port()
    kept = Kept()
    server = Controller(kept, hostname="127.0.0.1", port=port, ready_timeout=60)
    server.start()
    yield kept, port
    server.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 25, 12, 0, tzinfo=UTC))


@pytest.fixture
def services(database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[Services]:
    home = Home(tmp_path / "home")
    prepare_home(home)
    settings = database.settings(home.root)
    pool: ConnectionPool[Any] = ConnectionPool(
        lambda: database_url(home, settings, "control"), min_size=1, max_size=3, open=True
    )
    with pool:
        yield Services(home, settings, None, False, Releases(home, clock), pool, clock)


def begin(services: Services, sensitivity: str = "internal", terms: str = TERMS) -> Change:
    with services.transaction() as conn:
        assert services.releases.genesis(conn, declared(sensitivity, terms))
        (change,) = governance_store.changes(conn, ["pending"])
    return change


def approve(services: Services, change: Change, *names: str) -> None:
    for name in names:
        with services.transaction() as conn:
            who = identity.find_person(conn, f"{name}@acme.example").id
            services.releases.approve(conn, Approver(who, "passkey"), change.id, Answer())


def one(services: Services, change: Change) -> Change:
    with services.transaction() as conn:
        found = governance_store.change_by_id(conn, change.id)
    assert found is not None
    return found


def served(services: Services) -> list[str]:
    with services.transaction() as conn:
        found = release.current(conn)
    assert found is not None
    return [item.name for item in found.blueprint.workloads]


def findings(services: Services) -> list[dict[str, Any]]:
    with services.transaction() as conn:
        return finding_store.list_findings(conn, kinds=[approval_terms.KIND])


def test_the_end_of_a_pilot_is_announced_with_the_day_from_which_calls_are_refused(
    services: Services, clock: ManualClock
) -> None:
    """Ninety days after it began, unless said: nobody changes anything, and all its calls are refused."""
    with services.transaction() as conn:
        assert services.releases.genesis(conn, {"acme.yaml": WORKSPACE})
        found = release.current(conn)
    assert found is not None
    (pilot,) = found.blueprint.workloads
    assert pilot.expires is not None
    plan, last = index(found.blueprint).plans["assistant"], date.fromisoformat(pilot.expires)
    assert last == date(2027, 2, 23)
    told: list[tuple[str, str] | None] = []
    for before in (31, 30, 8, 7, 0, -1):
        day = last - timedelta(days=before)
        clock.advance((datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC) - clock.now()).total_seconds())
        stage_ends.update_findings(services)
        with services.transaction() as conn:
            rows = finding_store.list_findings(conn, kinds=[stage_ends.KIND])
        assert all((row["owner"], row["due"]) == ("ana@acme.example", last) for row in rows) and len(rows) < 2
        said = [(row["severity"], row["message"].partition("assistant ")[2].split()[0]) for row in rows]
        told.append(said[0] if said else None)
        assert (clock.seconds() >= plan.until) is (told[-1] == ("high", "ended")), "as gateways have it"
    assert told == [None, *[("medium", "ends")] * 2, *[("high", "ends")] * 2, ("high", "ended")]
    on = msgspec.structs.replace(pilot, stage="production")
    assert not list(stage_ends.stage_end_findings(msgspec.structs.replace(found.blueprint, workloads=[on]), last))


def test_an_expiring_approval_is_announced_then_in_grace_then_ended(services: Services, clock: ManualClock) -> None:
    change = begin(services)
    approve(services, change, "ana", "sam")
    done = one(services, change)
    assert (done.state, done.expires_on, done.grace_until) == ("applied", date(2027, 1, 24), date(2027, 2, 3))
    assert approval_terms.process_approval_terms(services) == [] and findings(services) == []
    clock.advance(timedelta(days=31).total_seconds())
    approval_terms.process_approval_terms(services)
    assert "ends on 2027-01-24" in findings(services)[0]["message"] and findings(services)[0]["severity"] == "medium"
    clock.advance(timedelta(days=30).total_seconds())
    assert approval_terms.process_approval_terms(services) == [] and served(services) == ["assistant"], (
        "grace is declared"
    )
    assert findings(services)[0]["severity"] == "critical" and "grace period" in findings(services)[0]["message"]
    clock.advance(timedelta(days=10).total_seconds())
    (number,) = approval_terms.process_approval_terms(services)
    assert number == 3 and served(services) == [] and one(services, change).state == "expired"
    assert approval_terms.process_approval_terms(services) == [] and findings(services) == []
    with services.transaction() as conn:
        assert audit_store.list_entries(conn, limit=2)[1].entry.action == "approval.expired"
        with pytest.raises(Conflict) as caught:
            services.releases.rollback(conn, OPERATOR, 2, False, "back")
    assert caught.value.code == "rollback_revives", "going back does not revive what ended"


def test_restricted_data_has_no_grace(services: Services, clock: ManualClock) -> None:
    change = begin(services, "restricted")
    approve(services, change, "ana", "sam")
    assert one(services, change).grace_until == one(services, change).expires_on == date(2027, 1, 24)
    clock.advance(timedelta(days=61).total_seconds())
    assert approval_terms.process_approval_terms(services) == [3] and served(services) == []


def test_a_renewed_approval_replaces_the_old_one_without_interruption(services: Services, clock: ManualClock) -> None:
    change = begin(services)
    approve(services, change, "ana", "sam")
    clock.advance(timedelta(days=50).total_seconds())
    with services.transaction() as conn:
        wanted = governance.request_renewal(conn, OPERATOR, change.id, "still needed", at=clock.now())
        assert governance.request_renewal(conn, OPERATOR, change.id, "again", at=clock.now()).id == wanted.id
        services.releases.apply(conn, OPERATOR, declared(), "the same once more")
    assert one(services, wanted).state == "pending", "another apply leaves it waiting"
    approve(services, wanted, "ana")
    assert one(services, wanted).state == "pending" and one(services, change).state == "applied"
    approve(services, wanted, "sam")
    assert one(services, change).state == "superseded" and one(services, wanted).expires_on == date(2027, 3, 15)
    clock.advance(timedelta(days=30).total_seconds())
    assert approval_terms.process_approval_terms(services) == [] and served(services) == ["assistant"]
    with services.transaction() as conn:
        services.releases.withdraw(conn, f"person:{identity.find_person(conn, 'sam@acme.example').id}", wanted.id)
    assert served(services) == [], "withdrawing the renewal withdraws what it renewed"


def test_a_decision_does_not_wait_for_a_concurrently_ending_approval(
    database: Database, services: Services, clock: ManualClock
) -> None:
    change = begin(services)
    approve(services, change, "ana", "sam")
    clock.advance(timedelta(days=80).total_seconds())
    with connect_with_lock_timeout(database) as deciding:
        release_store.lock_releases(deciding)  # as whoever approves, withdraws or applies does first
        with run_concurrently(lambda: approval_terms.process_approval_terms(services)) as looking:
            wait_until_blocked(database)
            locked = governance_store.change_by_id(deciding, change.id)
            deciding.commit()
            assert locked is not None and looking.result() == [3]


def test_a_person_with_many_duties_takes_one_seat(services: Services) -> None:
    both = TERMS.replace("seats: 2", "seats: 3")
    change = begin(services, terms=both)
    approve(services, change, "ana", "sam")
    done = one(services, change)
    assert done.state == "pending" and done.open_needs == () and (done.approver_count, done.seats) == (2, 3)
    with services.transaction() as conn:
        identity.add_person(conn, OPERATOR, "fay@acme.example", "Fay")
        who = identity.find_person(conn, "fay@acme.example").id
        conn.execute(
            "INSERT INTO duty (subject, duty, person_id) VALUES ('workload/assistant', 'security', %s)", (who,)
        )
    approve(services, change, "fay")
    assert one(services, change).state == "applied" and served(services) == ["assistant"]


def test_requests_outside_the_blueprint_are_bound_to_their_declaration(services: Services, clock: ManualClock) -> None:
    change = begin(services, terms="")
    what = {"model": "acme/model", "version": "2026-10", "purpose": "answers"}
    with services.transaction() as conn:
        asked = services.releases.request_approval(
            conn, OPERATOR, ApprovalRequest("model", "model/acme-model", what, "evaluated")
        )
        assert (
            services.releases.request_approval(
                conn, OPERATOR, ApprovalRequest("model", "model/acme-model", what, "again")
            ).id
            == asked.id
        )
        other = services.releases.request_approval(
            conn, OPERATOR, ApprovalRequest("model", "model/acme-model", {**what, "version": "2"}, "newer")
        )
        assert other.digest != asked.digest
        with pytest.raises(Invalid):
            services.releases.request_approval(conn, OPERATOR, ApprovalRequest("pet", "model/x", what, "no such thing"))
        services.releases.apply(conn, OPERATOR, declared(terms=""), "the same once more")
    assert one(services, asked).state == "pending", "an apply leaves it waiting"
    with pytest.raises(Denied):
        approve(services, asked, "ana")
    approve(services, asked, "sam")
    assert one(services, asked).state == "applied" and one(services, asked).expires_on == date(2027, 11, 25)
    with services.transaction() as conn:
        standing = governance.approval_status(conn)
        assert standing.is_approved("model/acme-model", asked.digest)
        assert not standing.is_approved("model/acme-model", other.digest)
        with pytest.raises(Conflict):
            services.releases.request_approval(
                conn, OPERATOR, ApprovalRequest("model", "model/acme-model", what, "a third time")
            )
        services.releases.withdraw(conn, f"person:{identity.find_person(conn, 'sam@acme.example').id}", asked.id)
        assert not governance.approval_status(conn).is_approved("model/acme-model", asked.digest)
    assert one(services, change).state == "pending"


def test_mail_contains_links_that_decide_nothing(
    services: Services, clock: ManualClock, post: tuple[Kept, int]
) -> None:
    kept, port = post
    change = begin(services)
    settings = dataclasses.replace(services.settings, mail_url=f"smtp://127.0.0.1:{port}", mail_from="gp@acme.example")
    reach = dataclasses.replace(services, settings=settings)
    assert mail.send_waiting(services) == 0
    approval_terms.process_approval_terms(reach)
    approval_terms.process_approval_terms(reach)
    assert mail.send_waiting(reach) == 2 and mail.send_waiting(reach) == 0
    assert sorted(each["To"] for each in kept.mails) == ["ana@acme.example", "sam@acme.example"]
    body = str(kept.mails[0].get_payload())
    assert f"/governance/changes/{change.id}" in body and "decides nothing" in body and "approve?" not in body
    approve(services, change, "ana")
    clock.advance(timedelta(days=3).total_seconds())
    approval_terms.process_approval_terms(reach)
    assert mail.send_waiting(reach) == 1 and kept.mails[-1]["To"] == "sam@acme.example", "reminded, and only who waits"
    approve(services, change, "sam")
    for day in (31, 23, 6):
        clock.advance(timedelta(days=day).total_seconds())
        approval_terms.process_approval_terms(reach)
        assert mail.send_waiting(reach) == 2
        assert "ends on" in kept.mails[-1]["Subject"]


def test_configuring_mail_sends_no_outdated_announcements(
    services: Services, clock: ManualClock, post: tuple[Kept, int]
) -> None:
    """It waited for good, and all of it went out on that day."""
    kept, port = post
    change = begin(services)
    settings = dataclasses.replace(services.settings, mail_url=f"smtp://127.0.0.1:{port}", mail_from="gp@acme.example")
    reach = dataclasses.replace(services, settings=settings)
    approval_terms.process_approval_terms(services)
    approve(services, change, "ana")
    clock.advance(timedelta(days=40).total_seconds())
    assert mail.send_waiting(services) == 0 and mail.send_waiting(reach) == 0
    approval_terms.process_approval_terms(services)
    assert mail.send_waiting(services) == 0, "that is new"
    assert mail.send_waiting(reach) == 1 and [each["To"] for each in kept.mails] == ["sam@acme.example"]


def test_an_exception_waits_in_the_inbox_and_its_end_is_announced(services: Services, clock: ManualClock) -> None:
    begin(services, terms=TERMS.replace("valid_days: 60", "valid_days: 365"))
    with services.transaction() as conn:
        wanted = ExceptionRequest("no-training", "assistant", None, clock.now() + timedelta(days=40), "a trial")
        made = exceptions.request_exception(conn, OPERATOR, wanted, seats=1, now=clock.now())

    def told() -> list[tuple[str, str]]:
        approval_terms.process_approval_terms(services)
        with services.transaction() as conn:
            found = finding_store.list_findings(conn, kinds=["governance.exception_asked", approval_terms.KIND])
        return [(each["kind"].rpartition("_")[2], each["severity"]) for each in found if each["mark"] == str(made.id)]

    assert told() == [("asked", "medium")] == told()
    with services.transaction() as conn:
        change = governance_store.change_by_id(conn, made.id)
    assert change is not None and change.type == "exception"
    approve(services, change, "sam")
    assert (one(services, change).state, one(services, change).expires_on) == ("applied", date(2027, 1, 4))
    assert told() == []
    ahead = {}
    for day in (9, 10, 32, 33, 39):
        clock.set_now(datetime(2026, 11, 25, 12, tzinfo=UTC) + timedelta(days=day))
        ahead[day] = told()
    assert ahead == {9: [], 10: [("ends", "medium")], 32: [("ends", "medium")], 33: [("ends", "high")],
                     39: [("ends", "high")]}  # fmt: skip
    with services.transaction() as conn:
        marks = conn.execute(
            "SELECT split_part(mark, ':', 1), split_part(mark, ':', 3) FROM mail WHERE mark LIKE %s ORDER BY id",
            (f"%:{made.id}:%",),
        ).fetchall()
    assert marks == [("waits", "0"), ("ends", "30"), ("ends", "7"), ("ends", "1")], "sam, who holds both duties"
    clock.set_now(datetime(2026, 11, 25, 12, 1, tzinfo=UTC) + timedelta(days=41))
    assert told() == [] and one(services, change).state == "expired"


def test_an_undecided_exception_expires(services: Services, clock: ManualClock) -> None:
    begin(services)
    with services.transaction() as conn:
        wanted = ExceptionRequest("r", "assistant", None, clock.now() + timedelta(hours=1), "a trial")
        made = exceptions.request_exception(conn, OPERATOR, wanted, seats=1, now=clock.now())
    approval_terms.process_approval_terms(services)
    with services.transaction() as conn:
        assert exceptions.get_exception(conn, made.id).state == "asked"
    clock.advance(3601)
    approval_terms.process_approval_terms(services)
    with services.transaction() as conn:
        assert exceptions.get_exception(conn, made.id).state == "ended"
        assert finding_store.list_findings(conn, kinds=["governance.exception_asked"]) == []


def test_a_price_above_the_approved_band_needs_its_own_approval(services: Services) -> None:
    files = declared(
        terms=TERMS.replace("parts: []", "parts: [model], price_band: 10%").replace("seats: 2", "seats: 1")
    )
    with services.transaction() as conn:
        assert services.releases.genesis(conn, files)
        (change,) = governance_store.changes(conn, ["pending"])
        (model,) = services.releases.request_part_approvals(conn, OPERATOR, "into use", None, None)
    assert model.type == "model" and model.price == {"output": 10 * 10**12}
    approve(services, model, "sam")
    approve(services, change, "ana", "sam")

    def told(price: str) -> list[str]:
        dearer = {"acme.yaml": files["acme.yaml"].replace("output: 10 USD", price)}
        assert dearer != files
        with services.transaction() as conn:
            services.releases.apply(conn, OPERATOR, dearer, "a new price")
            return [each for each in services.releases.plan(conn, dearer)["notes"] if "costs more" in each]

    assert told("output: 11 USD") == []
    (note,) = told("output: 11.1 USD")
    assert "gateways refuse it" in note and "acme.yaml:" in note
    with services.transaction() as conn:
        (dearer,) = services.releases.request_part_approvals(conn, OPERATOR, "it costs more now", None, None)
    assert dearer.digest == model.digest and dearer.price["output"] == 11_100 * 10**9
    approve(services, dearer, "sam")
    assert (one(services, dearer).state, one(services, model).state) == ("applied", "superseded")
    assert told("output: 12 USD") == []


def test_access_reviews_are_due_by_the_calendar(services: Services) -> None:
    begin(services)
    found: dict[int, list[str]] = {}
    for days in (70, 77, 89, 92):
        with services.transaction() as conn:
            access_rights.update_rights_findings(conn, datetime.now(UTC) + timedelta(days=days))
            rows = finding_store.list_findings(conn, kinds=[access_rights.REVIEW])
        found[days] = [each["severity"] for each in rows]
    assert found == {70: [], 77: ["low"], 89: ["low"], 92: ["high"]}


def test_undeliverable_mail_is_retried(services: Services, clock: ManualClock) -> None:
    begin(services)
    settings = dataclasses.replace(services.settings, mail_url="smtp://127.0.0.1:9")
    dead = dataclasses.replace(services, settings=settings)
    approval_terms.process_approval_terms(dead)
    assert mail.send_waiting(dead) == 0
    with services.transaction() as conn:
        tries = conn.execute("SELECT tries, problem FROM mail").fetchall()
    assert all(count == 1 and "Refused" in str(problem) for count, problem in tries) and len(tries) == 2


def test_a_slow_mail_server_holds_no_database_connection_and_gets_no_duplicates(
    services: Services, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(services)
    reach = dataclasses.replace(
        services, settings=dataclasses.replace(services.settings, mail_url="smtp://127.0.0.1:9")
    )
    approval_terms.process_approval_terms(reach)
    given = list[Any]()

    def slow(_: Services, waiting: Any) -> None:
        given.append(waiting.id)
        with ExitStack() as stack:
            for _each in range(3):  # all that the pool has
                stack.enter_context(services.pool.connection(timeout=2))
        if len(given) == 1:
            assert mail.send_waiting(reach) == 1, "somebody else hands the other one over"
        if len(given) == 3:
            raise SystemExit  # it is killed

    monkeypatch.setattr(mail, "send_mail", slow)
    assert mail.send_waiting(reach) == 1 and len({*given}) == len(given) == 2
    clock.advance(timedelta(days=3).total_seconds())
    approval_terms.process_approval_terms(reach)
    with pytest.raises(SystemExit):
        mail.send_waiting(reach)
    clock.advance(mail.MAX_SENDING_TIME.total_seconds() + 1)
    assert mail.send_waiting(reach) == 2 and given.count(given[2]) == 2, "what nobody knows of is handed over again"


def test_a_subject_cannot_inject_headers() -> None:
    assert mail.one_line("a\r\nBcc: thief@evil.example\n\nx") == "a Bcc: thief@evil.example x"


@given(
    st.dates(date(2026, 1, 1), date(2030, 1, 1)), st.integers(1, 3650), st.integers(0, 90),
    st.sampled_from(["production", "pilot"]), st.sampled_from(["internal", "restricted"]), st.integers(-10, 4000),
)  # fmt: skip
def test_the_phases_follow_each_other(
    day: date, valid: int, grace: int, stage: str, sensitivity: str, later: int
) -> None:
    term = validity_term(day, valid_days=valid, grace_days=grace, stage=stage, sensitivity=sensitivity)
    assert term.grace_until >= term.expires_on > day
    assert sensitivity != "restricted" or term.grace_until == term.expires_on
    order = ["holds", "announced", "grace", "over"]
    today = day + timedelta(days=later)
    assert order.index(phase(term, today)) <= order.index(phase(term, today + timedelta(days=1)))
    assert (due_announcement(term, today) is None) == (phase(term, today) == "holds")


def test_the_announcements_come_thirty_seven_and_one_day_ahead() -> None:
    term = Term(date(2027, 1, 31), date(2027, 1, 31))
    told = [due_announcement(term, term.expires_on - timedelta(days=left)) for left in (31, 30, 8, 7, 2, 1, 0)]
    assert told == [None, 30, 30, 7, 7, 1, 1]
