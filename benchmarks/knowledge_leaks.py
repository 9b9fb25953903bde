"""Whether search ever returns a passage whose permission was revoked before the question was sent.

Two search services, each with a HOME of its own as on two machines, answer from one PostgreSQL. People ask both without
pause while permissions change two hundred times a second, in every way there is: memberships, also of nested groups,
readers and refusals of documents, readers of their source, grants on it, shared links, states, deletions, and people
who leave (`changes` counts them). A check is one (person, passage) that was returned. It is a leak if the person's
permission was revoked before the question was sent, by a commit that had returned, and no commit that restores it had
begun before the answer arrived. The books record for each pair the times in which it was refused, from after the
revoking commit to before the restoring one; a permission that changed while the question ran counts for neither side.
Every leak is reported with the times that make it one.

`revoked` measures single revocations: some of each kind of change that take a passage away from a person to whom the
second service returns it; that person then asks the second service until it is gone. `effective_max_s` is from the
return of the commit to the first answer without it, `given_after` the number of questions sent after that return which
were still answered with it. Other people ask both services meanwhile.
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
_MAX_WAIT_S = 30.0
"""Seconds after which a passage that is still returned counts as never revoked."""
_DRAWS = 60
"""Most changes of a kind that are drawn for each one that takes a passage away."""
_MAX_DELAY_S = 0.1
"""Delay of the changes from which on questions have to wait for them."""


@dataclass
class Tally:
    """Counts of returned passages and of leaks."""

    checks: int = 0
    leaks: int = 0
    empty: int = 0
    times: list[float] = field(default_factory=list)
    flagged: list[dict[str, Any]] = field(default_factory=list)
    """The `leak_record` of each leak."""


def build_request(company: Company, person: int, question: str) -> SearchRequest:
    """A person's request for as many passages as possible."""
    return SearchRequest(
        workload="w", person=str(company.people[person]), query=question, sources=[SOURCE], k=50, max_bytes=1 << 20
    )


def ask(client: Client, company: Company, tally: Tally, rng: random.Random) -> None:
    """Ask one question, and check each returned passage against the books."""
    person = rng.randrange(PEOPLE)
    question = build_request(company, person, f"What is the rule about {', '.join(rng.sample(SUBJECTS, 3))}?")
    sent = time.monotonic()
    milliseconds, passages = client.ask(question)
    answered = time.monotonic()
    with company.books.lock:
        for passage in passages:
            document = company.documents[passage["document"]]
            if (refusal := company.books.refusal_during(person, document, sent, answered)) is not None:
                tally.leaks += 1
                tally.flagged.append(leak_record(person, document, refusal, sent, answered))
    tally.checks += len(passages)
    tally.empty += not passages
    tally.times.append(milliseconds)


def leak_record(person: int, document: int, refusal: Refusal, sent: float, answered: float) -> dict[str, Any]:
    """A leak with its times in seconds after the question was sent; earlier times are negative."""
    until = None if refusal.until == math.inf else round(refusal.until - sent, 6)
    return {
        "person": person,
        "document": document,
        "refused_since": round(refusal.since - sent, 6),
        "answered": round(answered - sent, 6),
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
    """`count` people who ask the services concurrently, until so many checks or seconds, or the event. They wait while
    changes are not `in_time`: on two cores they would leave too little time for the changes."""
    tallies, done, started = [Tally() for _ in range(count)], threading.Event(), time.monotonic()

    def ask_until_done(number: int) -> None:
        client, rng = Client(services[number % len(services)]), random.Random(number)
        while not done.is_set():
            if in_time is not None and not in_time.wait(1.0):
                continue
            ask(client, company, tallies[number], rng)
            if time.monotonic() - started >= seconds or sum(tally.checks for tally in tallies) >= checks:
                done.set()

    threads = [threading.Thread(target=ask_until_done, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield tallies, done
    finally:
        done.set()
        for thread in threads:
            thread.join()


def measure_revocations(company: Company, second: Endpoint, kind: str, rounds: int) -> dict[str, Any]:
    """Figures of `rounds` changes of a kind that take a passage away: how soon the second service stops giving it."""
    client, durations, returned_after = Client(second), [], 0
    for _ in range(_DRAWS * rounds):
        change = company.draw(kind)
        with company.books.lock:
            allowed_before = {pair for pair, allowed in company.books.pairs(change.people, change.documents) if allowed}
        company.begin(change)
        with company.books.lock:
            allowed_after = {pair for pair, allowed in company.books.pairs(change.people, change.documents) if allowed}
        pair = next(
            (
                candidate
                for candidate in sorted(allowed_before - allowed_after)
                if _is_returned(client, company, *candidate)
            ),
            None,
        )
        company.commit(change)
        committed = time.monotonic()
        if pair is None:
            continue
        while _is_returned(client, company, *pair) and time.monotonic() - committed < _MAX_WAIT_S:
            returned_after += 1
        durations.append(time.monotonic() - committed)
        if len(durations) == rounds:
            break
    return {
        "changes": len(durations),
        "effective_max_s": round(max(durations, default=0.0), 4),
        "given_after": returned_after,
    }


def _is_returned(client: Client, company: Company, person: int, document: int) -> bool:
    _, passages = client.ask(build_request(company, person, company.question(document)))
    return any(company.documents[passage["document"]] == document for passage in passages)


def cpu_seconds(database: Database, services: Sequence[Endpoint]) -> dict[str, float]:
    """CPU seconds of each part so far, which other load on the machine does not change much."""
    with psycopg.connect(database.superuser) as conn:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        server_seconds = [sum(psutil.Process(pid).cpu_times()[:2]) for (pid,) in conn.execute(query)]
    return {
        "services": round(sum(sum(psutil.Process(service.pid).cpu_times()[:2]) for service in services), 1),
        "database": round(sum(server_seconds), 1),
        "askers_and_books": round(time.process_time(), 1),
    }


def measure_leaks(
    company: Company, services: Sequence[Endpoint], checks: int, seconds: float, a_second: int, count: int
) -> dict[str, Any]:
    """Count leaks until so many checks or seconds, while permissions change."""
    changes_before, started = sum(company.changed.values()), time.monotonic()
    in_time = threading.Event()
    in_time.set()
    with concurrent_clients(company, services, count, checks, seconds, in_time) as (tallies, done):
        changes = 0
        while not done.is_set():
            company.change()
            changes += 1
            ahead = changes / a_second - (time.monotonic() - started)
            if ahead > 0:
                in_time.set()
                done.wait(ahead)
            elif ahead < -_MAX_DELAY_S:
                in_time.clear()
        in_time.set()
        duration = time.monotonic() - started
    return {
        "checks": sum(tally.checks for tally in tallies),
        "leaks": sum(tally.leaks for tally in tallies),
        "flagged": [leak for tally in tallies for leak in tally.flagged][:20],
        "searches": sum(len(tally.times) for tally in tallies),
        "searches_without_passages": sum(tally.empty for tally in tallies),
        "changes_a_second": round((sum(company.changed.values()) - changes_before) / duration, 1),
        "seconds": round(duration, 1),
        "search": percentiles([ms for tally in tallies for ms in tally.times]),
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
        with concurrent_clients(company, services, 2) as (tallies, _):
            by_kind = {kind: measure_revocations(company, services[1], kind, amounts.rounds) for kind in KINDS}
        results = measure_leaks(company, services, amounts.checks, amounts.seconds, amounts.changes, amounts.askers)
        cpu = cpu_seconds(database, services)
    results["leaks"] += sum(figures.leaks for figures in tallies)
    results["flagged"] = ([leak for figures in tallies for leak in figures.flagged] + results["flagged"])[:20]
    return results | {
        "revoked": {
            "changes": sum(figures["changes"] for figures in by_kind.values()),
            "effective_max_s": max(figures["effective_max_s"] for figures in by_kind.values()),
            "given_after": sum(figures["given_after"] for figures in by_kind.values()),
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
    arguments = parser.parse_args()
    amounts = Amounts(arguments.checks, arguments.seconds, arguments.changes, arguments.askers, arguments.rounds)
    with tempfile.TemporaryDirectory(prefix="bench-leaks-") as folder:
        figures = measure(amounts, Path(folder))
    print(json.dumps(figures, indent=None if arguments.json else 2))
    sys.exit(1 if figures["leaks"] or figures["revoked"]["given_after"] else 0)


if __name__ == "__main__":
    main()
