"""Whether search ever gives a passage whose permission was taken away before its question began.

People ask without pause through the search service while permissions change two hundred times a second: memberships
end and begin, documents get and lose readers, refusals come and go, people leave and come back. A check is one
(person, passage) that was given. It is a leak if the person's right to it was gone before the question was sent, by a
commit that had returned, and was not about to be given again before the answer was there. The books keep for each pair
the times in which it was refused, from after the commit that took it away to before the one that gave it back; a right
that came or went while the question ran counts for neither side. Every leak is told with the times that make it one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
import psycopg

from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.model import Chunk, Document, Readers
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.testing.database import Database, cluster

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_scale import Client, commit, service, spread

GROUPS, PEOPLE, DOCUMENTS = 12, 24, 240
SUBJECTS = ("leave", "travel", "salary", "laptop", "office", "training", "bonus", "contract")


@dataclass
class Rules:
    """Who may read what, as committed: the reference that answers are held against. Slow and obvious."""

    active: dict[int, bool]
    members: dict[int, set[int]]
    """group -> people"""
    nested: dict[int, set[int]]
    """group -> groups in it"""
    readers: dict[int, Readers]

    def groups_of(self, person: int) -> set[int]:
        """All groups that the person is in, through others too."""
        found = {group for group, people in self.members.items() if person in people}
        while True:
            more = {group for group, inner in self.nested.items() if inner & found} | found
            if more == found:
                return found
            found = more

    def names(self, person: int) -> set[str]:
        """All names by which the person reads; who has left has none."""
        if not self.active[person]:
            return set()
        return {"everyone", f"p{person}@acme.example"} | {f"g{group}" for group in self.groups_of(person)}

    def may(self, names: set[str], document: int) -> bool:
        """Refusal over permission."""
        readers = self.readers[document]
        return not readers.allow.isdisjoint(names) and readers.deny.isdisjoint(names)


KEPT = 16
"""Refusals of a pair that are remembered: at 200 changes a second more than a minute of them."""


@dataclass
class Refusal:
    """A time without a right: `since` is after its commit had returned, `until` before the next one was begun."""

    since: float
    until: float = math.inf


@dataclass
class Books:
    """The rules with their history. Everything is called while holding the lock."""

    rules: Rules
    lock: threading.Lock = field(default_factory=threading.Lock)
    refused: dict[tuple[int, int], deque[Refusal]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=KEPT))
    )

    def expect(self, people: set[int], documents: set[int], now: float) -> None:
        """Before a commit, with the rules as they will be: from now on, what it allows may be given."""
        for pair, allowed in self._pairs(people, documents):
            times = self.refused[pair]
            if allowed and times and times[-1].until == math.inf:
                times[-1].until = now

    def settle(self, people: set[int], documents: set[int], now: float) -> None:
        """After a commit has returned: from now on, what it refuses may not be given."""
        for pair, allowed in self._pairs(people, documents):
            times = self.refused[pair]
            if not allowed and (not times or times[-1].until < math.inf):
                times.append(Refusal(now))

    def leaked(self, person: int, document: int, asked: float, answered: float) -> Refusal | None:
        """The refusal that held from before the question was sent until the answer was there."""
        times = self.refused[person, document]
        return next((one for one in times if one.since < asked and answered < one.until), None)

    def _pairs(self, people: set[int], documents: set[int]) -> Iterator[tuple[tuple[int, int], bool]]:
        for person in people:
            names = self.rules.names(person)
            for document in documents:
                yield (person, document), self.rules.may(names, document)


class Company:
    """The same rules in PostgreSQL, changed one transaction at a time."""

    def __init__(self, database: Database, seed: int) -> None:
        self._random = random.Random(seed)
        self._conn = psycopg.connect(database.urls["control"], autocommit=True)
        self.people = [new_id() for _ in range(PEOPLE)]
        self._groups = [new_id() for _ in range(GROUPS)]
        self.documents: dict[str, int] = {}
        self._ids: list[UUID] = []
        self.books = Books(self._build())
        store.count_first(self._conn)  # as after the first ingestion
        with self.books.lock:
            self.books.settle(set(range(PEOPLE)), set(range(DOCUMENTS)), time.monotonic())

    def _build(self) -> Rules:
        conn, chance = self._conn, self._random
        for number, id in enumerate(self.people):
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, 'p')", (id, f"p{number}@acme.example"))
        for number, id in enumerate(self._groups):
            conn.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", (id, f"g{number}"))
        nested: dict[int, set[int]] = defaultdict(set)
        for inner in range(1, GROUPS):
            nested[inner // 2].add(inner)
            self._member(inner // 2, None, inner)
        members = {group: set(chance.sample(range(PEOPLE), 3)) for group in range(GROUPS)}
        for group, people in members.items():
            for person in people:
                self._member(group, person, None)
        store.put_source(conn, "s", path=".", sensitivity="internal", owner="d@acme.example")
        vectors = np.random.default_rng(1).normal(size=(DOCUMENTS, 384)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        readers = {number: self._some_readers() for number in range(DOCUMENTS)}
        for number in range(DOCUMENTS):
            subject = SUBJECTS[number % len(SUBJECTS)]
            text = f"The rule about {subject} number {number} says what holds for {subject}."
            made = Document(f"d{number}", "Rule", text, str(number), readers[number], markdown=False)
            chunk = Chunk(0, text, 0, len(text), 1, 1)
            with conn.transaction():
                id = store.put_document(conn, "s", made, [chunk], vectors[number : number + 1])
            self._ids.append(id)
            self.documents[str(id)] = number
        return Rules(dict.fromkeys(range(PEOPLE), True), members, nested, readers)

    def _some_readers(self) -> Readers:
        names = [f"g{number}" for number in range(GROUPS)] + [f"p{n}@acme.example" for n in range(PEOPLE)]
        deny = self._random.sample(names, 1) if self._random.random() < 0.3 else []
        allow = ["everyone"] if self._random.random() < 0.2 else self._random.sample(names, 4)
        return Readers(frozenset(allow), frozenset(deny))

    def _member(self, group: int, person: int | None, inner: int | None) -> None:
        self._conn.execute(
            "INSERT INTO membership (id, group_id, person_id, member_group_id) VALUES (%s, %s, %s, %s)",
            (
                new_id(),
                self._groups[group],
                None if person is None else self.people[person],
                None if inner is None else self._groups[inner],
            ),
        )

    def change(self) -> None:
        """One change of permissions, committed; grants are in the books before, refusals after."""
        chance, rules = self._random, self.books.rules
        kind = chance.random()
        people, documents = set(range(PEOPLE)), set(range(DOCUMENTS))
        if kind < 0.5:
            group, person = chance.randrange(GROUPS), chance.randrange(PEOPLE)
            people, inside = {person}, person in rules.members[group]
            rule = partial(rules.members[group].discard if inside else rules.members[group].add, person)
            commit_it = partial(self._leave, group, person) if inside else partial(self._member, group, person, None)
        elif kind < 0.95:
            document, readers = chance.randrange(DOCUMENTS), self._some_readers()
            documents = {document}
            rule = partial(rules.readers.__setitem__, document, readers)
            commit_it = partial(self._set_readers, document, readers)
        else:
            person = chance.randrange(PEOPLE)
            # who has left comes back soon: somebody who may read nothing proves nothing
            active = not rules.active[person] or chance.random() < 0.8
            people = {person}
            rule = partial(rules.active.__setitem__, person, active)
            commit_it = partial(self._set_active, person, active)
        with self.books.lock:
            rule()
            self.books.expect(people, documents, time.monotonic())
        commit_it()
        with self.books.lock:
            self.books.settle(people, documents, time.monotonic())

    def _leave(self, group: int, person: int) -> None:
        self._conn.execute(
            "DELETE FROM membership WHERE group_id = %s AND person_id = %s", (self._groups[group], self.people[person])
        )

    def _set_readers(self, document: int, readers: Readers) -> None:
        with self._conn.transaction():
            store.set_readers(self._conn, self._ids[document], readers)

    def _set_active(self, person: int, active: bool) -> None:
        self._conn.execute("UPDATE person SET active = %s WHERE id = %s", (active, self.people[person]))


@dataclass
class Tally:
    """What was given, and what should not have been."""

    checks: int = 0
    leaks: int = 0
    empty: int = 0
    times: list[float] = field(default_factory=list)
    flagged: list[dict[str, Any]] = field(default_factory=list)
    """Of each leak: who, what, and the seconds from the question to the answer and around the refusal."""


def ask(client: Client, company: Company, tally: Tally, chance: random.Random) -> None:
    """One question, and each passage that it gave held against the books."""
    person = chance.randrange(PEOPLE)
    question = SearchRequest(
        workload="w",
        person=str(company.people[person]),
        query=f"What is the rule about {', '.join(chance.sample(SUBJECTS, 3))}?",
        sources=["s"],
        k=50,
        max_bytes=1 << 20,
    )
    asked = time.monotonic()
    took, passages = client.ask(question)
    answered = time.monotonic()
    with company.books.lock:
        for one in passages:
            document = company.documents[one["document"]]
            if (refusal := company.books.leaked(person, document, asked, answered)) is not None:
                tally.leaks += 1
                tally.flagged.append(told(person, document, refusal, asked, answered))
    tally.checks += len(passages)
    tally.empty += not passages
    tally.times.append(took)


def computed(database: Database, service_pid: int) -> dict[str, float]:
    """Seconds that each part has computed, which other load on the machine does not change much."""
    with psycopg.connect(database.superuser) as conn:
        asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        servers = [sum(psutil.Process(pid).cpu_times()[:2]) for (pid,) in conn.execute(asked)]
    return {
        "service": round(sum(psutil.Process(service_pid).cpu_times()[:2]), 1),
        "database": round(sum(servers), 1),
        "askers_and_books": round(time.process_time(), 1),
    }


def told(person: int, document: int, refusal: Refusal, asked: float, answered: float) -> dict[str, Any]:
    """A leak with its times in seconds after the question was sent; what began before is negative."""
    until = None if refusal.until == math.inf else round(refusal.until - asked, 6)
    return {
        "person": person,
        "document": document,
        "refused_since": round(refusal.since - asked, 6),
        "answered": round(answered - asked, 6),
        "allowed_again": until,
    }


def measure(checks: int, seconds: float, a_second: int, askers: int, folder: Path) -> dict[str, Any]:
    """Until so many checks or seconds."""
    with ExitStack() as stack:
        server = stack.enter_context(cluster(folder / "pg"))
        database = stack.enter_context(server.database())
        company = Company(database, seed=7)
        home = Home(folder / "home")
        home.create()
        endpoint = stack.enter_context(service(database, home))
        tallies = [Tally() for _ in range(askers)]
        changes, done = [0], threading.Event()
        begun = time.monotonic()

        def change() -> None:
            while not done.is_set():
                company.change()
                changes[0] += 1
                ahead = changes[0] / a_second - (time.monotonic() - begun)
                if ahead > 0:
                    done.wait(ahead)

        def run(number: int) -> None:
            client, chance = Client(endpoint), random.Random(number)
            while time.monotonic() - begun < seconds and sum(one.checks for one in tallies) < checks:
                ask(client, company, tallies[number], chance)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(askers)]
        changer = threading.Thread(target=change)
        changer.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begun
        done.set()
        changer.join()
        cpu = computed(database, endpoint.pid)
    return {
        "checks": sum(one.checks for one in tallies),
        "leaks": sum(one.leaks for one in tallies),
        "flagged": [leak for one in tallies for leak in one.flagged][:20],
        "searches": sum(len(one.times) for one in tallies),
        "searches_without_passages": sum(one.empty for one in tallies),
        "changes_a_second": round(changes[0] / took, 1),
        "seconds": round(took, 1),
        "search": spread([ms for one in tallies for ms in one.times]),
        "cpu_seconds": cpu,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load_average": os.getloadavg()[0],
        "commit": commit(),
    }


def main() -> None:
    """Print the figures; exit 1 where there is a leak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checks", type=int, default=1_000_000, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=1800.0, help="or after so long")
    parser.add_argument("--changes", type=int, default=200, help="changes of permissions a second")
    parser.add_argument("--askers", type=int, default=4, help="people who ask at the same time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-leaks-") as folder:
        figures = measure(options.checks, options.seconds, options.changes, options.askers, Path(folder))
    print(json.dumps(figures, indent=None if options.json else 2))
    sys.exit(1 if figures["leaks"] else 0)


if __name__ == "__main__":
    main()
