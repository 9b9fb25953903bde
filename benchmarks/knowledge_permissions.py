"""A company whose permissions change in every supported way, and the history of who could read what, when.

Memberships, nested groups, readers and denials of documents, the readers of a source, grants on it, shared links,
states, deletions, and people who leave. `Rules` are the slow and obvious reference; `Books` record for each pair of
person and document the times in which it was refused; `Company` applies the same changes in PostgreSQL. Runs no
searches.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
import psycopg

from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.governance import share_store
from groundplan.knowledge.model import Chunk, Readers, by_grant
from groundplan.release.store import set_source_grants
from groundplan.testing import document_rows
from groundplan.testing.database import Database
from groundplan.testing.document_rows import Document

GROUPS, PEOPLE, DOCUMENTS = 12, 24, 240
SUBJECTS = ("leave", "travel", "salary", "laptop", "office", "training", "bonus", "contract")
SOURCE = "s"
_INHERITING = frozenset(range(0, DOCUMENTS, 5))
"""Documents that inherit the readers of their source, as most do."""
_LINKED = frozenset(range(1, DOCUMENTS, 7))
KINDS = {
    "membership": 0.30, "nested group": 0.04, "readers": 0.26, "refusal": 0.15, "source grant": 0.05,
    "source readers": 0.02, "shared link": 0.10, "state": 0.04, "deletion": 0.02, "person": 0.02,
}  # fmt: skip
"""Kind of change -> its share of all changes."""


@dataclass
class Link:
    """A shared link to one document."""

    holders: set[int]
    holds: bool = True


@dataclass
class Rules:
    """Who may read what, as committed: the reference that answers are compared with. Slow and obvious."""

    active: dict[int, bool]
    members: dict[int, set[int]]
    """group -> people"""
    nested: dict[int, set[int]]
    """group -> groups in it"""
    readers: dict[int, Readers]
    granted: set[str] = field(default_factory=set)
    """Names that have a grant on the source."""
    links: dict[int, Link] = field(default_factory=dict)
    retired: set[int] = field(default_factory=set)
    deleted: set[int] = field(default_factory=set)

    def groups_of(self, person: int) -> set[int]:
        """All groups that the person is in, through others too."""
        groups = {group for group, people in self.members.items() if person in people}
        while True:
            all_groups = {group for group, inner in self.nested.items() if inner & groups} | groups
            if all_groups == groups:
                return groups
            groups = all_groups

    def names(self, person: int) -> set[str]:
        """All reader names that match the person; none for a person who has left."""
        if not self.active[person]:
            return set()
        names = {"everyone", f"p{person}@acme.example"} | {f"g{group}" for group in self.groups_of(person)}
        if names & self.granted:
            names.add(by_grant(SOURCE))
        return names | {f"link/{n}" for n, link in self.links.items() if link.holds and person in link.holders}

    def may_read(self, names: set[str], document: int) -> bool:
        """Whether a person with these names may read the document: denials win, and nobody reads retired or deleted
        documents."""
        if document in self.retired or document in self.deleted:
            return False
        readers = self.readers[document]
        named = not readers.allow.isdisjoint(names) or (document in self.links and f"link/{document}" in names)
        return named and readers.deny.isdisjoint(names)


MAX_REFUSALS = 16
"""Refusals that are kept for a pair: more than a minute of them at 200 changes a second."""


@dataclass
class Refusal:
    """A time without permission: `since` is after the revoking commit, `until` before the granting one began."""

    since: float
    until: float = math.inf


@dataclass
class Books:
    """The rules with their history. Callers hold the lock."""

    rules: Rules
    lock: threading.Lock = field(default_factory=threading.Lock)
    refused: dict[tuple[int, int], deque[Refusal]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=MAX_REFUSALS))
    )

    def end_refusals(self, people: set[int], documents: set[int], now: float) -> None:
        """End the refusals of pairs that the new rules allow; called before the commit, since a search may return them
        from then on."""
        for pair, allowed in self.pairs(people, documents):
            times = self.refused[pair]
            if allowed and times and times[-1].until == math.inf:
                times[-1].until = now

    def begin_refusals(self, people: set[int], documents: set[int], now: float) -> None:
        """Begin refusals for pairs that the rules do not allow; called after the commit has returned, since no search
        may return them from then on."""
        for pair, allowed in self.pairs(people, documents):
            times = self.refused[pair]
            if not allowed and (not times or times[-1].until < math.inf):
                times.append(Refusal(now))

    def refusal_during(self, person: int, document: int, asked: float, answered: float) -> Refusal | None:
        """The refusal that lasted from before the question was sent until after the answer was received; None if there
        is none."""
        times = self.refused[person, document]
        return next((refusal for refusal in times if refusal.since < asked and answered < refusal.until), None)

    def pairs(self, people: set[int], documents: set[int]) -> Iterator[tuple[tuple[int, int], bool]]:
        """Each pair, with whether it is allowed."""
        for person in people:
            names = self.rules.names(person)
            for document in documents:
                yield (person, document), self.rules.may_read(names, document)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of permissions: the people and documents that it can affect, and how it changes the rules and the
    database."""

    kind: str
    people: set[int]
    documents: set[int]
    rule: Callable[[], Any]
    commit: Callable[[], Any]


class Company:
    """The same rules in PostgreSQL, changed one transaction at a time."""

    def __init__(self, database: Database, seed: int) -> None:
        self._random = random.Random(seed)
        self._conn = psycopg.connect(database.urls["control"], autocommit=True)
        self.people = [new_id() for _ in range(PEOPLE)]
        self._groups = [new_id() for _ in range(GROUPS)]
        self.documents: dict[str, int] = {}
        self._ids: list[UUID] = []
        self._vectors = np.random.default_rng(1).normal(size=(DOCUMENTS, 384)).astype(np.float32)
        self._vectors /= np.linalg.norm(self._vectors, axis=1, keepdims=True)
        self._source_allow = frozenset({"g1", "g4", "p3@acme.example"})
        self.changed: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.books = Books(self._build())
        store.analyze_if_new(self._conn)  # as after the first ingestion
        with self.books.lock:
            self.books.begin_refusals(set(range(PEOPLE)), set(range(DOCUMENTS)), time.monotonic())

    def _build(self) -> Rules:
        conn, rng = self._conn, self._random
        for number, id in enumerate(self.people):
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, 'p')", (id, f"p{number}@acme.example"))
        for number, id in enumerate(self._groups):
            conn.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", (id, f"g{number}"))
        nested: dict[int, set[int]] = defaultdict(set)
        for inner in range(1, GROUPS):
            nested[inner // 2].add(inner)
            self._add_member(inner // 2, None, inner)
        members = {group: set(rng.sample(range(PEOPLE), 3)) for group in range(GROUPS)}
        for group, people in members.items():
            for person in people:
                self._add_member(group, person, None)
        store.put_source(conn, SOURCE, path=".", sensitivity="internal", owner="d@acme.example")
        rules = Rules(dict.fromkeys(range(PEOPLE), True), members, nested, {})
        for number in range(DOCUMENTS):
            rules.readers[number] = (
                self._inherited_readers(frozenset()) if number in _INHERITING else self._random_readers()
            )
            self._ids.append(self._put_document(number, rules.readers[number]))
            self.documents[str(self._ids[-1])] = number
        # as a source declares it: no link counts without a sensitivity
        conn.execute("UPDATE document SET sensitivity = 'internal'")
        until = datetime.now(UTC).date() + timedelta(days=30)
        for number in _LINKED:
            rules.links[number] = Link(set(rng.sample(range(PEOPLE), 3)))
            digest = hashlib.sha256(b"%d" % number).digest()
            share_store.put_link(conn, self._ids[number], str(number), digest, until, None, "benchmark")
            for person in rules.links[number].holders:
                share_store.add_holder(conn, str(number), self.people[person])
        return rules

    def _put_document(self, number: int, readers: Readers) -> UUID:
        subject = SUBJECTS[number % len(SUBJECTS)]
        text = f"The rule about {subject} number {number} says what holds for {subject}."
        document = Document(f"d{number}", "Rule", text, str(number), readers, markdown=False)
        chunk = Chunk(0, text, 0, len(text), 1, 1)
        with self._conn.transaction():
            return document_rows.put_document(self._conn, SOURCE, document, [chunk], self._vectors[number : number + 1])

    def _names(self) -> list[str]:
        return [f"g{number}" for number in range(GROUPS)] + [f"p{n}@acme.example" for n in range(PEOPLE)]

    def _random_readers(self) -> Readers:
        deny = self._random.sample(self._names(), 1) if self._random.random() < 0.3 else []
        allow = ["everyone"] if self._random.random() < 0.2 else self._random.sample(self._names(), 4)
        return Readers(frozenset(allow), frozenset(deny))

    def _inherited_readers(self, deny: frozenset[str]) -> Readers:
        """The readers of a document that inherits those of its source."""
        return Readers(self._source_allow | {by_grant(SOURCE)}, deny)

    def question(self, document: int) -> str:
        """A question that finds the document, if it may be read."""
        return f"What is the rule about {SUBJECTS[document % len(SUBJECTS)]} number {document}?"

    # --- changes

    def change(self) -> None:
        """Commit one random change of permissions; grants are recorded before the commit, refusals after."""
        change = self.draw(self._random.choices(list(KINDS), list(KINDS.values()))[0])
        self.begin(change)
        self.commit(change)

    def begin(self, change: Change) -> None:
        """Change the rules, and end the refusals that the change ends."""
        with self.books.lock:
            change.rule()
            self.books.end_refusals(change.people, change.documents, time.monotonic())

    def commit(self, change: Change) -> None:
        """Change the database, then begin the refusals that the change begins."""
        with self._conn.transaction():
            change.commit()
        with self.books.lock:
            self.books.begin_refusals(change.people, change.documents, time.monotonic())
        self.changed[change.kind] += 1

    def draw(self, kind: str) -> Change:
        """A random change of that kind."""
        draws: dict[str, Callable[[str], Change]] = {
            "membership": self._membership, "nested group": self._nesting, "readers": self._readers,
            "refusal": self._refusal, "source grant": self._grant, "source readers": self._source_readers,
            "shared link": self._link, "state": self._state, "deletion": self._deletion, "person": self._person,
        }  # fmt: skip
        return draws[kind](kind)

    def _membership(self, kind: str) -> Change:
        group, person = self._random.randrange(GROUPS), self._random.randrange(PEOPLE)
        members = self.books.rules.members[group]
        is_member = person in members
        return Change(
            kind, {person}, set(range(DOCUMENTS)),
            partial(members.discard if is_member else members.add, person),
            partial(self._remove_person, group, person)
            if is_member
            else partial(self._add_member, group, person, None),
        )  # fmt: skip

    def _nesting(self, kind: str) -> Change:
        """A group leaves its outer group, or joins it again."""
        inner = self._random.randrange(1, GROUPS)
        outer, rules = inner // 2, self.books.rules
        is_nested = inner in rules.nested[outer]
        return Change(
            kind, {person for person in range(PEOPLE) if inner in rules.groups_of(person)}, set(range(DOCUMENTS)),
            partial(rules.nested[outer].discard if is_nested else rules.nested[outer].add, inner),
            partial(self._remove_group, outer, inner) if is_nested else partial(self._add_member, outer, None, inner),
        )  # fmt: skip

    def _readers(self, kind: str) -> Change:
        document = self._random.choice([one for one in range(DOCUMENTS) if one not in _INHERITING])
        return self._change_readers(kind, {document: self._random_readers()})

    def _refusal(self, kind: str) -> Change:
        """A document denies a reader, or nobody any more."""
        document = self._random.randrange(DOCUMENTS)
        readers = self.books.rules.readers[document]
        deny: frozenset[str] = frozenset() if readers.deny else frozenset(self._random.sample(self._names(), 1))
        return self._change_readers(kind, {document: Readers(readers.allow, deny)})

    def _source_readers(self, kind: str) -> Change:
        """The source is declared with other readers, which documents inherit."""
        self._source_allow = frozenset(self._random.sample(self._names(), 3))
        rules = self.books.rules
        return self._change_readers(
            kind, {one: self._inherited_readers(rules.readers[one].deny) for one in _INHERITING}
        )

    def _change_readers(self, kind: str, readers: dict[int, Readers]) -> Change:
        rules = self.books.rules
        stored_readers = {self._ids[one]: each for one, each in readers.items() if one not in rules.deleted}
        return Change(
            kind, set(range(PEOPLE)), set(readers),
            partial(rules.readers.update, readers), partial(store.put_readers, self._conn, stored_readers),
        )  # fmt: skip

    def _grant(self, kind: str) -> Change:
        """A reader is granted the source, or the grant ends."""
        name, rules = self._random.choice(self._names()), self.books.rules
        if rules.granted and self._random.random() < 0.5:
            name = self._random.choice(sorted(rules.granted))
        granted = rules.granted ^ {name}
        return Change(
            kind, {person for person in range(PEOPLE) if name in rules.names(person)}, set(_INHERITING),
            partial(rules.granted.symmetric_difference_update, {name}),
            partial(set_source_grants, self._conn, [(SOURCE, one, None) for one in sorted(granted)]),
        )  # fmt: skip

    def _link(self, kind: str) -> Change:
        """A link is withdrawn, restored, or opened by another person."""
        document, person = self._random.choice(sorted(_LINKED)), self._random.randrange(PEOPLE)
        link, name = self.books.rules.links[document], str(document)
        if link.holds and self._random.random() < 0.3 and len(link.holders) < PEOPLE // 2:
            return Change(
                kind, {person}, {document}, partial(link.holders.add, person),
                partial(share_store.add_holder, self._conn, name, self.people[person]),
            )  # fmt: skip
        restore = partial(self._conn.execute, "UPDATE shared_link SET withdrawn_at = NULL WHERE name = %s", (name,))
        return Change(
            kind, set(link.holders), {document}, partial(setattr, link, "holds", not link.holds),
            partial(share_store.end_link, self._conn, self._ids[document], name) if link.holds else restore,
        )  # fmt: skip

    def _state(self, kind: str) -> Change:
        document, retired = self._random.randrange(DOCUMENTS), self.books.rules.retired
        # retired documents come back soon: documents that nobody may read prove nothing
        if retired and self._random.random() < 0.7:
            document = self._random.choice(sorted(retired))
        state = "approved" if document in retired else "retired"
        return Change(
            kind, set(range(PEOPLE)), {document}, partial(retired.symmetric_difference_update, {document}),
            partial(self._conn.execute, "UPDATE document SET state = %s WHERE id = %s", (state, self._ids[document])),
        )  # fmt: skip

    def _deletion(self, kind: str) -> Change:
        document, rules = self._random.randrange(DOCUMENTS), self.books.rules
        if rules.deleted and self._random.random() < 0.7:
            document = self._random.choice(sorted(rules.deleted))
        commit = (
            partial(self._restore_document, document)
            if document in rules.deleted
            else partial(self._delete_document, document)
        )
        return Change(
            kind, set(range(PEOPLE)), {document}, partial(rules.deleted.symmetric_difference_update, {document}), commit
        )

    def _person(self, kind: str) -> Change:
        person, active = self._random.randrange(PEOPLE), self.books.rules.active
        # people who left come back soon: a person who may read nothing proves nothing
        inactive = [number for number in active if not active[number]]
        if inactive and self._random.random() < 0.7:
            person = self._random.choice(inactive)
        update = "UPDATE person SET active = %s WHERE id = %s"
        return Change(
            kind, {person}, set(range(DOCUMENTS)), partial(active.__setitem__, person, not active[person]),
            partial(self._conn.execute, update, (not active[person], self.people[person])),
        )  # fmt: skip

    # --- in the database

    def _add_member(self, group: int, person: int | None, inner: int | None) -> None:
        self._conn.execute(
            "INSERT INTO membership (id, group_id, person_id, member_group_id) VALUES (%s, %s, %s, %s)",
            (
                new_id(),
                self._groups[group],
                None if person is None else self.people[person],
                None if inner is None else self._groups[inner],
            ),
        )

    def _remove_person(self, group: int, person: int) -> None:
        self._conn.execute(
            "DELETE FROM membership WHERE group_id = %s AND person_id = %s", (self._groups[group], self.people[person])
        )

    def _remove_group(self, outer: int, inner: int) -> None:
        self._conn.execute(
            "DELETE FROM membership WHERE group_id = %s AND member_group_id = %s",
            (self._groups[outer], self._groups[inner]),
        )

    def _delete_document(self, document: int) -> None:
        document_rows.delete_document(self._conn, self._ids[document])

    def _restore_document(self, document: int) -> None:
        """Store the document again, with its current readers."""
        self._put_document(document, self.books.rules.readers[document])
