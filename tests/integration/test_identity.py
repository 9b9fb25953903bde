"""People, groups, duties, keys and kills: each change is numbered, recorded, and its effect can be followed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.api.watch import gone_workers
from groundplan.core.audit import OPERATOR
from groundplan.core.audit import store as audit_store
from groundplan.core.database import connect
from groundplan.core.errors import GroundplanError
from groundplan.core.ids import new_id
from groundplan.identity import responsibilities, service, store
from groundplan.identity.keys import hash_key
from groundplan.identity.model import GenesisGroup, GenesisPeople, GenesisPerson, KeyTerms, Nomination
from groundplan.testing.database import Database

Conn = psycopg.Connection[tuple[Any, ...]]

ACME = GenesisPeople(
    people=(
        GenesisPerson("Maria@acme.example", "Maria"),
        GenesisPerson("ben@acme.example", "Ben"),
        GenesisPerson("hana@acme.example", "Hana"),
    ),
    groups=(
        GenesisGroup("hr", "team", ("hana@acme.example",)),
        GenesisGroup("leads", "group", ("maria@acme.example",), ("hr",)),
        GenesisGroup("sales", "team", ("BEN@acme.example",)),
    ),
    duties=(
        Nomination("company", "security", "maria@acme.example"),
        Nomination("workload/assistant", "business", "ben@acme.example"),
    ),
)


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["control"], autocommit=True) as conn:
        yield conn


@pytest.fixture
def people(conn: Conn) -> dict[str, UUID]:
    with conn.transaction():
        made = service.create_genesis_people(conn, ACME)
    return {email.partition("@")[0]: id for email, id in made.items()}


def holds_duty(conn: Conn, who: UUID, duty: str, subject: str) -> bool:
    """Whether somebody who is here holds it, for the subject or for the whole company."""
    held = [*store.duties(conn, subject), *store.duties(conn, "company")]
    return any((each.duty, each.person.id, each.person.active) == (duty, who, True) for each in held)


def refused(code: str, act: Callable[[], object]) -> GroundplanError:
    with pytest.raises(GroundplanError) as caught:
        act()
    assert caught.value.code == code, caught.value
    assert caught.value.hint
    return caught.value


def newest_action(conn: Conn) -> tuple[str, str, Any]:
    entry = audit_store.list_entries(conn, limit=1)[0].entry
    return entry.action, entry.subject, entry.detail["policy"]


def number(conn: Conn) -> int:
    row = conn.execute("SELECT number FROM policy_epoch").fetchone()
    assert row is not None
    return int(row[0])


def test_genesis_creates_each_person_once(conn: Conn, people: dict[str, UUID]) -> None:
    assert [person.email for person in store.people(conn)] == [
        "ben@acme.example",
        "hana@acme.example",
        "maria@acme.example",
    ]
    groups = {group.name: (group.type, group.people, group.groups) for group in store.groups(conn)}
    assert groups["leads"] == ("group", ("maria@acme.example",), ("hr",))
    assert store.reader_names(conn, people["hana"]) == {"hr", "leads", "everyone", "hana@acme.example"}
    assert store.reader_names(conn, people["ben"]) == {"sales", "everyone", "ben@acme.example"}
    assert store.reader_names(conn, new_id()) == frozenset()
    assert [(duty.subject, duty.duty, duty.person.name) for duty in store.duties(conn)] == [
        ("company", "security", "Maria"),
        ("workload/assistant", "business", "Ben"),
    ]
    assert newest_action(conn) == ("people.genesis", "company", 1)
    refused("genesis_done", lambda: service.create_genesis_people(conn, ACME))


def test_a_change_of_thousands_of_keys_is_logged_in_several_entries(conn: Conn, people: dict[str, UUID]) -> None:
    conn.execute(
        """INSERT INTO api_key (id, hash, prefix, workload, person_id, created_by)
           SELECT gen_random_uuid(), sha256(n::text::bytea), 'gp_', 'assistant', %s, 'operator'
           FROM generate_series(1, 1700) n""",
        (people["ben"],),
    )
    service.deactivate_person(conn, OPERATOR, people["ben"])
    told = [entry.entry for entry in audit_store.list_entries(conn, subject=f"person/{people['ben']}")]
    assert {entry.action for entry in told} == {"person.left"}
    assert len({id for entry in told for id in entry.detail["revoked_keys"]}) == 1700
    assert len({entry.detail["policy"] for entry in told}) == 1


def test_no_personal_data_enters_the_log(conn: Conn, people: dict[str, UUID]) -> None:
    service.add_person(conn, OPERATOR, "Zoe@acme.example", "Zoe")
    service.add_member(conn, OPERATOR, "hr", "zoe@acme.example")
    service.nominate(conn, OPERATOR, "workload/assistant", {"product": ["zoe@acme.example"]})
    bodies = b"".join(entry.entry.encode() for entry in audit_store.list_entries(conn))
    for word in (b"acme.example", b"Zoe", b"Maria"):
        assert word not in bodies
    assert not conn.execute("SELECT 1 FROM policy_change WHERE subject LIKE '%acme.example%'").fetchone()


@pytest.mark.parametrize(
    ("company", "codes"),
    [
        (GenesisPeople((GenesisPerson("a@x", "A"), GenesisPerson("A@x ", "B"))), {"duplicate_person"}),
        (GenesisPeople((GenesisPerson("nobody", " "),)), {"email", "name"}),
        (GenesisPeople((), (GenesisGroup("g", "group", ("b@x",), ("h",)),)), {"unknown_person", "unknown_group"}),
        (
            GenesisPeople((), (GenesisGroup("everyone"), GenesisGroup("g"), GenesisGroup("g"))),
            {"group_name", "duplicate_group"},
        ),
        (
            GenesisPeople(
                (),
                (GenesisGroup("a", groups=("b",)), GenesisGroup("b", groups=("c",)), GenesisGroup("c", groups=("a",))),
            ),
            {"cyclic_group"},
        ),
        (GenesisPeople((), (GenesisGroup("a", groups=("a",)),)), {"cyclic_group"}),
        (GenesisPeople((), (), (Nomination("company", "king", "b@x"),)), {"unknown_duty", "unknown_person"}),
    ],
)
def test_invalid_people_are_all_reported_at_once(conn: Conn, company: GenesisPeople, codes: set[str]) -> None:
    with pytest.raises(GroundplanError) as caught:
        service.create_genesis_people(conn, company)
    assert {problem.code for problem in caught.value.problems} == codes
    assert all(problem.hint for problem in caught.value.problems)
    assert number(conn) == 0


def test_membership_changes_apply_at_once_and_are_numbered(conn: Conn, people: dict[str, UUID]) -> None:
    assert service.add_member(conn, OPERATOR, "hr", people["ben"]) == 2
    assert {"hr", "leads"} <= store.reader_names(conn, people["ben"])
    assert newest_action(conn) == ("member.added", "group/hr", 2)
    assert service.remove_member(conn, OPERATOR, "hr", "ben@acme.example") == 3
    assert not {"hr", "leads"} & store.reader_names(conn, people["ben"])
    stops = conn.execute("SELECT number, stops FROM policy_change ORDER BY number").fetchall()
    assert stops == [(1, False), (2, False), (3, True)]


def test_an_invalid_membership_is_refused_with_the_nearest_name(conn: Conn, people: dict[str, UUID]) -> None:
    refused("already_member", lambda: service.add_member(conn, OPERATOR, "hr", people["hana"]))
    refused("not_a_member", lambda: service.remove_member(conn, OPERATOR, "leads", people["hana"]))
    assert "sales" in refused("unknown_group", lambda: service.add_member(conn, OPERATOR, "sale", people["ben"])).hint
    assert (
        "hana@"
        in refused("unknown_person", lambda: service.add_member(conn, OPERATOR, "hr", "hanna@acme.example")).hint
    )
    refused("unknown_person", lambda: service.add_member(conn, OPERATOR, "hr", new_id()))
    refused("everyone", lambda: service.remove_member(conn, OPERATOR, "everyone", people["ben"]))
    refused("email", lambda: service.add_member(conn, OPERATOR, "hr", "@"))


def test_a_leaver_is_added_to_no_group(conn: Conn, people: dict[str, UUID]) -> None:
    service.deactivate_person(conn, OPERATOR, people["ben"])
    refused("already_left", lambda: service.add_member(conn, OPERATOR, "hr", "ben@acme.example"))
    service.add_member(conn, OPERATOR, "hr", people["ben"])  # by a directory, which has its own reasons


def test_groups_never_contain_themselves(conn: Conn, people: dict[str, UUID]) -> None:
    refused("cyclic_group", lambda: service.add_member(conn, OPERATOR, "hr", "hr"))
    refused("cyclic_group", lambda: service.add_member(conn, OPERATOR, "hr", "leads"))
    service.add_group(conn, OPERATOR, "board", "group")
    service.add_member(conn, OPERATOR, "board", "leads")
    refused("cyclic_group", lambda: service.add_member(conn, OPERATOR, "hr", "board"))
    refused("duplicate_group", lambda: service.add_group(conn, OPERATOR, "board", "team"))
    refused("group_name", lambda: service.add_group(conn, OPERATOR, "everyone", "team"))
    refused("group_name", lambda: service.add_group(conn, OPERATOR, "public", "group"))
    assert "board" in store.reader_names(conn, people["hana"])


def test_concurrent_changes_cannot_create_a_cycle(conn: Conn, people: dict[str, UUID], database: Database) -> None:
    with connect(database.urls["control"]) as one, connect(database.urls["control"]) as other:
        service.add_member(one, OPERATOR, "sales", "hr")
        outcome: list[str] = []

        def concurrently() -> None:
            try:
                service.add_member(other, OPERATOR, "hr", "sales")
                outcome.append("added")
            except GroundplanError as error:
                outcome.append(error.code)

        thread = threading.Thread(target=concurrently)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        one.commit()
        thread.join()
    assert outcome == ["cyclic_group"]


def test_numbers_are_announced_at_the_commit(conn: Conn, people: dict[str, UUID], database: Database) -> None:
    with connect(database.urls["gateway"], autocommit=True) as listener, connect(database.urls["control"]) as changing:
        listener.execute("LISTEN groundplan_policy")
        made = service.kill(changing, OPERATOR, "company", "drill")
        assert list(listener.notifies(timeout=0.1)) == []
        changing.commit()
        assert [note.payload for note in listener.notifies(timeout=60, stop_after=1)] == [str(made)]


def test_a_refused_change_leaves_no_number(conn: Conn, people: dict[str, UUID]) -> None:
    before = number(conn)
    with pytest.raises(GroundplanError), conn.transaction():
        service.remove_member(conn, OPERATOR, "hr", people["ben"])
    assert number(conn) == before


def test_keys_are_shown_once_and_stored_hashed(conn: Conn, people: dict[str, UUID]) -> None:
    expires = datetime.now(UTC) + timedelta(days=1)
    id, secret = service.create_key(conn, OPERATOR, "assistant", people["ben"], KeyTerms(acts_for_others=True), expires)
    row = conn.execute("SELECT hash FROM api_key WHERE id = %s", (id,)).fetchone()
    assert row is not None and bytes(row[0]) == hash_key(secret)
    key = store.api_key(conn, id)
    assert key is not None and key.workload == "assistant"
    assert (key.id, key.person_id, key.acts_for_others, key.created_by) == (id, people["ben"], True, OPERATOR)
    assert key.expires_at == expires and secret.startswith(key.prefix) and len(key.prefix) < 10
    assert newest_action(conn) == ("key.created", f"key/{id}", number(conn))
    assert secret.encode() not in b"".join(entry.entry.encode() for entry in audit_store.list_entries(conn))


def test_a_revoked_key_stays_revoked(conn: Conn, people: dict[str, UUID]) -> None:
    id, _ = service.create_key(conn, OPERATOR, "assistant")
    made = service.revoke_key(conn, OPERATOR, id)
    assert newest_action(conn) == ("key.revoked", f"key/{id}", made)
    refused("key_revoked", lambda: service.revoke_key(conn, OPERATOR, id))
    refused("unknown_key", lambda: service.revoke_key(conn, OPERATOR, new_id()))
    refused("expires", lambda: service.create_key(conn, OPERATOR, "assistant", expires=datetime.now(UTC)))
    refused("unknown_person", lambda: service.create_key(conn, OPERATOR, "assistant", new_id()))


def test_a_leaver_loses_keys_and_permissions_but_stays_named(conn: Conn, people: dict[str, UUID]) -> None:
    id, _ = service.create_key(conn, OPERATOR, "assistant", people["ben"])
    other, _ = service.create_key(conn, OPERATOR, "assistant", people["hana"])
    assert holds_duty(conn, people["ben"], "business", "workload/assistant")
    service.deactivate_person(conn, OPERATOR, people["ben"])
    gone, kept = store.api_key(conn, id), store.api_key(conn, other)
    assert gone is not None and gone.revoked_at is not None
    assert kept is not None and kept.revoked_at is None
    assert "everyone" not in store.reader_names(conn, people["ben"])
    assert not holds_duty(conn, people["ben"], "business", "workload/assistant")
    (duty,) = store.duties(conn, "workload/assistant")
    assert duty.person.name == "Ben" and not duty.person.active
    refused("already_left", lambda: service.deactivate_person(conn, OPERATOR, people["ben"]))
    refused("already_left", lambda: service.create_key(conn, OPERATOR, "assistant", people["ben"]))
    refused("unknown_person", lambda: service.deactivate_person(conn, OPERATOR, new_id()))


def test_the_access_review_lists_the_rights_of_each_active_person(conn: Conn, people: dict[str, UUID]) -> None:
    key, _ = service.create_key(conn, OPERATOR, "assistant", people["hana"])
    service.deactivate_person(conn, OPERATOR, people["ben"])
    now = datetime.now(UTC)
    found = responsibilities.all_responsibilities(conn, now)
    assert found == [responsibilities.responsibilities_of(conn, people[name], now) for name in ("hana", "maria")]
    assert found[0]["groups"] == ["everyone", "hr", "leads"] and found[0]["duties"] == []
    assert found[0]["keys"] == [{"id": str(key), "workload": "assistant"}]
    assert found[1]["duties"] == ["security of company"] and found[1]["keys"] == []
    gone = responsibilities.responsibilities_of(conn, people["ben"], now)
    assert not gone["active"] and gone["groups"] == ["sales"] and gone["duties"] == ["business of workload/assistant"]


def test_duties_follow_the_nominations(conn: Conn, people: dict[str, UUID]) -> None:
    assert holds_duty(conn, people["maria"], "security", "workload/assistant")
    assert not holds_duty(conn, people["ben"], "security", "workload/assistant")
    wanted = {"business": ["hana@acme.example", "Maria@acme.example"], "data": ["hana@acme.example"]}
    assert service.nominate(conn, OPERATOR, "workload/assistant", wanted)
    before = number(conn)
    assert not service.nominate(conn, OPERATOR, "workload/assistant", wanted)
    assert number(conn) == before
    held = [(duty.duty, duty.person.name) for duty in store.duties(conn, "workload/assistant")]
    assert held == [("business", "Hana"), ("business", "Maria"), ("data", "Hana")]
    assert [duty.subject for duty in store.duties(conn, person_id=people["hana"])] == ["workload/assistant"] * 2
    refused("unknown_duty", lambda: service.nominate(conn, OPERATOR, "company", {"king": []}))
    refused("unknown_person", lambda: service.nominate(conn, OPERATOR, "company", {"data": ["x@acme.example"]}))


def test_kills_stay_in_force_until_lifted(conn: Conn) -> None:
    made = service.kill(conn, OPERATOR, "workload/assistant", " runaway ")
    service.kill(conn, OPERATOR, "company", "drill")
    assert store.stopped_scopes(conn) == {"company", "workload/assistant"}
    assert conn.execute("SELECT reason FROM kill_switch WHERE scope ~ '^workload/'").fetchall() == [("runaway",)]
    service.lift(conn, OPERATOR, "workload/assistant")
    assert store.stopped_scopes(conn) == {"company"}
    assert conn.execute("SELECT count(*) FROM kill_switch").fetchone() == (2,) and number(conn) == made + 2
    refused("not_killed", lambda: service.lift(conn, OPERATOR, "workload/assistant"))
    for scope in ("", "workload/", "people/ben", "workload"):
        refused("kill_scope", lambda scope=scope: service.kill(conn, OPERATOR, scope, "why"))  # type: ignore[misc]
    refused("reason", lambda: service.kill(conn, OPERATOR, "company", " "))


def test_people_are_added_by_command(conn: Conn) -> None:
    service.add_person(conn, OPERATOR, " Zoe@Acme.example", "Zoe ")
    assert service.find_person(conn, "zoe@acme.example").name == "Zoe"
    refused("duplicate_person", lambda: service.add_person(conn, OPERATOR, "zoe@acme.example", "Z"))
    refused("name", lambda: service.add_person(conn, OPERATOR, "y@acme.example", " "))
    refused("unknown_person", lambda: service.find_person(conn, "somebody@else.example"))


def gateway(conn: Conn, ack: int, age_s: float, state: str = "live") -> UUID:
    epoch = new_id()
    conn.execute(
        """INSERT INTO gateway (epoch, host, home, pid, policy_ack, heartbeat_at, state)
           VALUES (%s, 'host', '/home', 1, %s, now() - make_interval(secs => %s), %s)""",
        (epoch, ack, age_s, state),
    )
    return epoch


def test_a_change_is_complete_when_no_gateway_serves_by_the_old_rules(conn: Conn) -> None:
    made = service.kill(conn, OPERATOR, "company", "drill")
    assert service.policy_propagation(conn, made).is_complete
    follows = gateway(conn, made, 0.0)
    gateway(conn, 0, 0.0, "stopped")
    gateway(conn, 0, 0.0, "fenced")
    gone = gateway(conn, 0, 62.0)
    found = service.policy_propagation(conn, made)
    assert found.is_complete and [g.epoch for g in found.acknowledged] == [follows]
    assert [g.epoch for g in found.lapsed] == [gone]


def test_a_worker_that_is_silent_for_a_day_has_no_places_among_calls_and_is_told_until_its_journal_is_there(
    conn: Conn,
) -> None:
    gone, slow = gateway(conn, 0, 90_000.0), gateway(conn, 0, 80_000.0)
    conn.execute("INSERT INTO limit_span (name, span, amount, granted, ends) VALUES ('l', 'now', 5, 5, 'infinity')")
    for epoch, held in ((gone, 3), (slow, 2)):
        conn.execute("INSERT INTO limit_slice (epoch, name, span, granted) VALUES (%s, 'l', 'now', %s)", (epoch, held))
    services: Any = SimpleNamespace(transaction=lambda: nullcontext(conn))
    told = "SELECT subject FROM finding WHERE kind = 'gateway.gone' AND closed_at IS NULL"
    conn.execute("UPDATE gateway SET home = '/x; rm y' WHERE epoch = %s", (gone,))
    assert (gone_workers.fence_silent_workers(services), gone_workers.fence_silent_workers(services)) == (1, 0)
    assert conn.execute("SELECT epoch FROM gateway WHERE state = 'live'").fetchall() == [(slow,)]
    assert conn.execute("SELECT granted FROM limit_span").fetchone() == (2,)
    assert conn.execute(told).fetchall() == [(f"gateway/{gone}",)]
    assert conn.execute("SELECT hint LIKE %s FROM finding", ("%lost host '/x; rm y' --%",)).fetchone() == (True,)
    conn.execute("INSERT INTO shipped (epoch, segment, position, done) VALUES (%s, 1, 64, true)", (gone,))
    gone_workers.fence_silent_workers(services)
    assert conn.execute(told).fetchall() == []


def test_a_worker_that_was_gone_when_the_clock_was_set_back_is_not_waited_for_until_it_has_caught_up(
    conn: Conn,
) -> None:
    made = service.kill(conn, OPERATOR, "company", "drill")
    ahead, stopped = gateway(conn, made - 1, -7200.0), gateway(conn, made - 1, -7200.0, "stopped")
    (waiting,) = service.policy_propagation(conn, made).waiting
    assert waiting.epoch == ahead and not waiting.connected
    assert waiting.until <= conn.execute("SELECT clock_timestamp() + interval '61 seconds'").fetchall()[0][0]
    assert service.fence_silent(conn, OPERATOR, 86_400.0) == []
    heard = "SELECT epoch FROM gateway WHERE heartbeat_at BETWEEN now() - interval '1 minute' AND now() ORDER BY epoch"
    assert conn.execute(heard).fetchall() == [(ahead,), (stopped,)], "its silence counts from here on"


def test_cut_off_gateways_are_named_with_the_time_until_which_they_may_serve(conn: Conn) -> None:
    made = service.kill(conn, OPERATOR, "company", "drill")
    slow, lost = gateway(conn, made - 1, -20.0), gateway(conn, made - 1, 30.0)  # of which one is heard of all the time
    found, strict = service.policy_propagation(conn, made), service.policy_propagation(conn, made, grace_s=0)
    assert not found.is_complete and {g.epoch for g in found.waiting} == {slow, lost}
    (cut_off,) = (each for each in found.waiting if not each.connected)
    assert cut_off.epoch == lost and cut_off.until - cut_off.heartbeat_at == timedelta(seconds=61)
    assert [g.epoch for g in strict.waiting] == [slow] and [g.epoch for g in strict.lapsed] == [lost]
