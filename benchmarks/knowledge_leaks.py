"""Whether search ever gives a passage whose permission was taken away before its question began.

Two search services, each with a HOME of its own as on two machines, answer from one PostgreSQL. People ask both without
pause while permissions change two hundred times a second, in every way there is: memberships, also of groups in groups,
readers and refusals of documents, readers of their source, grants on it, shared links, states, deletions, and people
who leave (`changes` counts them). A check is one (person, passage) that was given. It is a leak if the person's right
to it was gone before the question was sent, by a commit that had returned, and was not about to be given again before
the answer was there. The books keep for each pair the times in which it was refused, from after the commit that took it
away to before the one that gave it back; a right that came or went while the question ran counts for neither side.
Every leak is told with the times that make it one.

`revoked` is the same by itself: of each kind of change some that take a passage away from somebody whom the second
service gives it, then that person asks the second service until it is gone. `effective_max_s` is from the return of the
commit to the first answer without it, `given_after` how many questions sent after that return were still answered with
it. Other people ask both services meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from groundplan.core.endpoints import Endpoint
from groundplan.core.home import Home
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.testing.database import Database, cluster

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_machine import Watch, run_details
from benchmarks.knowledge_permissions import DOCUMENTS, GROUPS, KINDS, PEOPLE, SOURCE, SUBJECTS, Company, Refusal
from benchmarks.knowledge_scale import Client, percentiles, run_search_service

TARGETS = {"leaks": 0, "effective_max_s": 1.0, "given_after": 0, "changes_a_second": 200, "checks": 1_000_000}
_LONGEST = 30.0
"""Seconds after which a passage that is still given is given for good."""
_TRIES = 60
"""Changes of a kind that are drawn for each that takes a passage away."""
_BEHIND_S = 0.1
"""So much later than they should be, changes go before questions."""


@dataclass
class Tally:
    """Counts of returned passages and of leaks."""

    checks: int = 0
    leaks: int = 0
    empty: int = 0
    times: list[float] = field(default_factory=list)
    flagged: list[dict[str, Any]] = field(default_factory=list)
    """Of each leak: who, what, and the seconds from the question to the answer and around the refusal."""


def build_request(company: Company, person: int, question: str) -> SearchRequest:
    """A request of one of the people, for as many passages as there are."""
    return SearchRequest(
        workload="w", person=str(company.people[person]), query=question, sources=[SOURCE], k=50, max_bytes=1 << 20
    )


def ask(client: Client, company: Company, tally: Tally, chance: random.Random) -> None:
    """Ask one question, and check each returned passage against the books."""
    person = chance.randrange(PEOPLE)
    question = build_request(company, person, f"What is the rule about {', '.join(chance.sample(SUBJECTS, 3))}?")
    sent = time.monotonic()
    took, passages = client.ask(question)
    answered = time.monotonic()
    with company.books.lock:
        for one in passages:
            document = company.documents[one["document"]]
            if (refusal := company.books.refusal_during(person, document, sent, answered)) is not None:
                tally.leaks += 1
                tally.flagged.append(leak_record(person, document, refusal, sent, answered))
    tally.checks += len(passages)
    tally.empty += not passages
    tally.times.append(took)


def leak_record(person: int, document: int, refusal: Refusal, asked: float, answered: float) -> dict[str, Any]:
    """A leak with its times in seconds after the question was sent; what began before is negative."""
    until = None if refusal.until == math.inf else round(refusal.until - asked, 6)
    return {
        "person": person,
        "document": document,
        "refused_since": round(refusal.since - asked, 6),
        "answered": round(answered - asked, 6),
        "allowed_again": until,
    }


@contextmanager
def concurrent_clients(
    company: Company,
    services: Sequence[Endpoint],
    count: int,
    checks: float = math.inf,
    seconds: float = math.inf,
    in_time: threading.Event | None = None,
) -> Iterator[tuple[list[Tally], threading.Event]]:
    """So many people who ask the services in turn, until so many checks or seconds, or the event. They wait while
    changes are not `in_time`: on two cores they would leave too little for so many."""
    tallies, done, begun = [Tally() for _ in range(count)], threading.Event(), time.monotonic()

    def go(number: int) -> None:
        client, chance = Client(services[number % len(services)]), random.Random(number)
        while not done.is_set():
            if in_time is not None and not in_time.wait(1.0):
                continue
            ask(client, company, tallies[number], chance)
            if time.monotonic() - begun >= seconds or sum(one.checks for one in tallies) >= checks:
                done.set()

    threads = [threading.Thread(target=go, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield tallies, done
    finally:
        done.set()
        for thread in threads:
            thread.join()


def measure_revocations(company: Company, second: Endpoint, kind: str, rounds: int) -> dict[str, Any]:
    """So many changes of a kind that take a passage away, and when the second service has stopped to give it."""
    client, took, late = Client(second), [], 0
    for _ in range(_TRIES * rounds):
        change = company.draw(kind)
        with company.books.lock:
            before = {pair for pair, allowed in company.books.pairs(change.people, change.documents) if allowed}
        company.begin(change)
        with company.books.lock:
            after = {pair for pair, allowed in company.books.pairs(change.people, change.documents) if allowed}
        pair = next((one for one in sorted(before - after) if _is_given(client, company, *one)), None)
        company.commit(change)
        committed = time.monotonic()
        if pair is None:
            continue
        while _is_given(client, company, *pair) and time.monotonic() - committed < _LONGEST:
            late += 1
        took.append(time.monotonic() - committed)
        if len(took) == rounds:
            break
    return {"changes": len(took), "effective_max_s": round(max(took, default=0.0), 4), "given_after": late}


def _is_given(client: Client, company: Company, person: int, document: int) -> bool:
    _, passages = client.ask(build_request(company, person, company.question(document)))
    return any(company.documents[one["document"]] == document for one in passages)


def cpu_seconds(database: Database, services: Sequence[Endpoint]) -> dict[str, float]:
    """Seconds that each part has computed, which other load on the machine does not change much."""
    with psycopg.connect(database.superuser) as conn:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        servers = [sum(psutil.Process(pid).cpu_times()[:2]) for (pid,) in conn.execute(query)]
    return {
        "services": round(sum(sum(psutil.Process(one.pid).cpu_times()[:2]) for one in services), 1),
        "database": round(sum(servers), 1),
        "askers_and_books": round(time.process_time(), 1),
    }


def measure_leaks(
    company: Company, services: Sequence[Endpoint], checks: int, seconds: float, a_second: int, count: int
) -> dict[str, Any]:
    """Count leaks until so many checks or seconds, while permissions change."""
    before, begun = sum(company.changed.values()), time.monotonic()
    in_time = threading.Event()
    in_time.set()
    with concurrent_clients(company, services, count, checks, seconds, in_time) as (tallies, done):
        changes = 0
        while not done.is_set():
            company.change()
            changes += 1
            ahead = changes / a_second - (time.monotonic() - begun)
            if ahead > 0:
                in_time.set()
                done.wait(ahead)
            elif ahead < -_BEHIND_S:
                in_time.clear()
        in_time.set()
        took = time.monotonic() - begun
    return {
        "checks": sum(one.checks for one in tallies),
        "leaks": sum(one.leaks for one in tallies),
        "flagged": [leak for one in tallies for leak in one.flagged][:20],
        "searches": sum(len(one.times) for one in tallies),
        "searches_without_passages": sum(one.empty for one in tallies),
        "changes_a_second": round((sum(company.changed.values()) - before) / took, 1),
        "seconds": round(took, 1),
        "search": percentiles([ms for one in tallies for ms in one.times]),
    }


@dataclass(frozen=True, slots=True)
class Amounts:
    """The amounts to measure."""

    checks: int
    seconds: float
    changes: int
    askers: int
    rounds: int


def measure(amounts: Amounts, folder: Path) -> dict[str, Any]:
    """All figures."""
    with Watch() as watch, ExitStack() as stack:
        server = stack.enter_context(cluster(folder / "pg"))
        database = stack.enter_context(server.database())
        company = Company(database, seed=7)
        services: list[Endpoint] = []
        for name in ("first", "second"):
            home = Home(folder / name)
            home.create()
            services.append(stack.enter_context(run_search_service(database, home)))
        with concurrent_clients(company, services, 2) as (beside, _):
            by_kind = {kind: measure_revocations(company, services[1], kind, amounts.rounds) for kind in KINDS}
        found = measure_leaks(company, services, amounts.checks, amounts.seconds, amounts.changes, amounts.askers)
        cpu = cpu_seconds(database, services)
    found["leaks"] += sum(one.leaks for one in beside)
    found["flagged"] = ([leak for one in beside for leak in one.flagged] + found["flagged"])[:20]
    return found | {
        "revoked": {
            "changes": sum(one["changes"] for one in by_kind.values()),
            "effective_max_s": max(one["effective_max_s"] for one in by_kind.values()),
            "given_after": sum(one["given_after"] for one in by_kind.values()),
            "by_kind": by_kind,
        },
        "search_services": len(services),
        "changes": company.changed,
        "cpu_seconds": cpu,
        "target": TARGETS,
        **watch.figures(),
        **run_details(f"generated: {PEOPLE} people, {GROUPS} groups in groups, {DOCUMENTS} documents"),
    }


def main() -> None:
    """Print the figures; exit 1 where there is a leak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checks", type=int, default=1_000_000, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=1800.0, help="or after so long")
    parser.add_argument("--changes", type=int, default=200, help="changes of permissions a second")
    parser.add_argument("--askers", type=int, default=4, help="people who ask at the same time")
    parser.add_argument("--rounds", type=int, default=10, help="revocations of each kind for `revoked`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    amounts = Amounts(given.checks, given.seconds, given.changes, given.askers, given.rounds)
    with tempfile.TemporaryDirectory(prefix="bench-leaks-") as folder:
        figures = measure(amounts, Path(folder))
    print(json.dumps(figures, indent=None if given.json else 2))
    sys.exit(1 if figures["leaks"] or figures["revoked"]["given_after"] else 0)


if __name__ == "__main__":
    main()
