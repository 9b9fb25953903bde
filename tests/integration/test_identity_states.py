"""Any order of membership changes, compared with a plain model: who may read as what, and which changes are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundplan.core.audit import OPERATOR
from groundplan.core.audit import store as audit_store
from groundplan.core.database import connect
from groundplan.core.errors import GroundplanError
from groundplan.identity import service, store
from groundplan.identity.model import GenesisGroup, GenesisPeople, GenesisPerson
from groundplan.testing.database import Database

Conn = psycopg.Connection[tuple[Any, ...]]
PEOPLE = ("a@x", "b@x", "c@x")
GROUPS = ("g", "h", "i", "j")
MEMBER = st.sampled_from([*PEOPLE, *GROUPS])
CHANGE = st.tuples(st.sampled_from(["add", "add", "remove", "leave"]), st.sampled_from(GROUPS), MEMBER)


class Model:
    """Members by group, as sets."""

    def __init__(self) -> None:
        self.members: dict[str, set[str]] = {group: set() for group in GROUPS}
        self.left: set[str] = set()

    def inside(self, member: str) -> set[str]:
        """The groups that a member is in, however deep, and itself."""
        found = {member}
        while more := {group for group, members in self.members.items() if members & found} - found:
            found |= more
        return found

    def refusal(self, change: str, group: str, member: str) -> str | None:
        if change == "leave":
            return "already_left" if member in self.left else None
        if change == "remove":
            return None if member in self.members[group] else "not_a_member"
        if member in GROUPS and member in self.inside(group):
            return "cyclic_group"
        return "already_member" if member in self.members[group] else None

    def apply(self, change: str, group: str, member: str) -> None:
        if change == "leave":
            self.left.add(member)
        elif change == "add":
            self.members[group].add(member)
        else:
            self.members[group].discard(member)

    def names(self, person: str) -> set[str]:
        own = set() if person in self.left else {person, "everyone"}
        return (self.inside(person) - {person}) | own


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["control"], autocommit=True) as conn:
        yield conn


def perform(conn: Conn, ids: dict[str, UUID], change: str, group: str, member: str) -> str | None:
    try:
        with conn.transaction():
            if change == "leave":
                service.deactivate_person(conn, OPERATOR, ids[member])
            elif change == "add":
                service.add_member(conn, OPERATOR, group, ids.get(member, member))
            else:
                service.remove_member(conn, OPERATOR, group, member)
    except GroundplanError as error:
        return error.code
    return None


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(CHANGE, max_size=25))
def test_any_order_of_changes_gives_what_the_model_says(conn: Conn, changes: list[tuple[str, str, str]]) -> None:
    with conn.transaction(force_rollback=True):
        company = GenesisPeople(
            tuple(GenesisPerson(email, email) for email in PEOPLE), tuple(GenesisGroup(name) for name in GROUPS)
        )
        ids = service.create_genesis_people(conn, company)
        model, done = Model(), 1
        for change, group, member in changes:
            if change == "leave" and member in GROUPS:
                continue
            expected = model.refusal(change, group, member)
            assert perform(conn, ids, change, group, member) == expected
            if expected is None:
                model.apply(change, group, member)
                done += 1
            assert {email: store.reader_names(conn, id) for email, id in ids.items()} == {
                email: model.names(email) for email in PEOPLE
            }
        numbers = [entry.entry.detail["policy"] for entry in audit_store.list_entries(conn, limit=1000)]
        assert sorted(numbers) == list(range(1, done + 1))
