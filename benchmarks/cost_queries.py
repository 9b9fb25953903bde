"""Latency and exactness of the cost figures over many calls, and the facts per second ingested meanwhile.

    python benchmarks/cost_queries.py --calls 10000000 --json [--folder DIR] [--wait]

Fills a PostgreSQL of its own (embedded, in DIR or a temporary folder) with calls of 30 days, their attempts, charges
and audit entries, some outcomes and stored content, through the same triggers as shipped facts; then queries every
figure of the Cost pages (`cost_figures`) repeatedly through the routes of the control API, alone and while 15,000 facts
a second arrive by the shipper's own statements and are folded every second; last, ingests as many facts as possible.
The folder needs about 2 KB a call.
`--wait` waits for a line of input after the fill, so that only the measurement needs the machine for itself.
`exact` compares sums with those of the facts, to the picodollar. `background` is work that no page waits for.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import cost_figures
from benchmarks.provenance import commit, machine

from groundplan.core.ids import new_id
from groundplan.core.money import format_usd, from_decimal
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import rollup_store
from groundplan.testing.database import cluster

DAYS = 30
CHUNK = 100_000
ROUNDS = 20
INGEST_SECONDS = 40
FACTS_PER_S = 15_000
MAX_INGEST_SECONDS = 10
BATCH = 2500
NOW = datetime.now(UTC).replace(minute=20, second=0, microsecond=0)
SINCE = NOW - timedelta(days=DAYS)

_CHUNK = """CREATE TEMP TABLE made AS
  SELECT g, at, uuidv7(at - clock_timestamp()) AS id, 'workload-' || (h %% 12) AS workload, 'team-' || (h %% 4) AS team,
    'deployment-' || (h %% 5) AS deployment, 'site-' || (h %% 3) AS site, 'provider/model-' || (h %% 5) AS model,
    CASE WHEN h %% 50 = 0 THEN 'refused' WHEN h %% 37 = 0 THEN 'failed' ELSE 'ok' END AS status,
    CASE WHEN h %% 9 = 0 THEN 'exact' ELSE 'none' END AS cache, 1 + h %% 3 AS blueprint,
    ('00000000-0000-7000-8000-' || lpad(to_hex(h %% 5000), 12, '0'))::uuid AS person,
    100 + h %% 3000 AS tokens_in, 10 + h %% 700 AS tokens_out, (50 + h %% 4000)::double precision AS ms, h
  FROM (SELECT g, %(since)s + (%(until)s - %(since)s) * (g::double precision / %(calls)s) AS at,
          abs(hashint8(g)::bigint) AS h
        FROM generate_series(%(first)s, %(last)s) g) s"""
_ATTEMPTS = """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, http_status,
    reserved_usd, cost_usd, usage, epoch, workload, blueprint, parts)
  SELECT id, 0, at, deployment, site, model, 'settled', CASE status WHEN 'ok' THEN 'ok' ELSE 'failed' END, 200, 0.01,
    (tokens_in * 2500000 + tokens_out * 10000000 + h %% 7) * 1e-12,
    jsonb_build_object('input', tokens_in, 'output', tokens_out), %(epoch)s, workload, blueprint,
    jsonb_build_object('input', jsonb_build_array(tokens_in, tokens_in * 2500000 + h %% 7),
      'output', jsonb_build_array(tokens_out, tokens_out * 10000000))
  FROM made WHERE status <> 'refused' AND cache = 'none'"""
_CHARGES = """INSERT INTO charge SELECT id, 0, workload, to_char(at, 'YYYY-MM'),
    (tokens_in * 2500000 + tokens_out * 10000000 + h %% 7) * 1e-12
  FROM made WHERE status <> 'refused' AND cache = 'none'"""
_ENTRIES = """INSERT INTO audit_entry (id, at, action, actor, subject, body, leaf_index)
  SELECT id, at, 'call', 'gateway:' || %(epoch)s, 'workload/' || workload, '\\x7b7d', g FROM made"""
_CONTENT = """INSERT INTO content (call_id, at, workload, kind, expires_at, sealed)
  SELECT id, at, workload, 'redacted', now() + interval '30 days', 'sealed:' || coalesce(person::text, '') || ':' ||
    repeat('x', 500 + (h %% 300)::int) FROM made WHERE status = 'ok' AND h %% 10 = 0"""
_OUTCOMES = """INSERT INTO outcome (id, call_id, accepted, value_usd, label, by)
  SELECT gen_random_uuid(), id, hashtext(id::text) %% 10 <> 0, 0.5,
    (ARRAY['accuracy', 'tone', 'thumb'])[1 + abs(hashtext(id::text)) %% 3], 'benchmark'
  FROM made WHERE status = 'ok' AND hashtext(id::text) %% 200 = 0"""
"""In the chunk's own transaction, which holds a lock for each call with an outcome."""
_CALLS = """INSERT INTO call (id, at, workload, person_id, team, endpoint, status, http_status, model, deployment,
    site, cost_usd, reserved_usd, prompt_tokens, completion_tokens, cache, blueprint, epoch, duration_ms, first_byte_ms,
    detail, shipped_at)
  SELECT id, at, workload, person, team, 'chat', status, 200, model, deployment, site,
    CASE WHEN status = 'refused' OR cache = 'exact' THEN 0
      ELSE (tokens_in * 2500000 + tokens_out * 10000000 + h %% 7) * 1e-12 END,
    0.01, tokens_in, tokens_out, cache, blueprint, %(epoch)s, ms, ms / 3,
    CASE WHEN h %% 3 = 0 THEN jsonb_build_object('sources', jsonb_build_array(jsonb_build_array(
      'document-' || h %% 2000, 'a.md', 1, 9))) ELSE '{}' END
      || CASE WHEN h %% 20 = 1 THEN jsonb_build_object('ticket', 'SUP-' || h / 20 %% 50000) ELSE '{}' END, at
  FROM made"""
_TICKETS = """INSERT INTO outcome (id, call_id, at, accepted, value_usd, label, by, ticket)
  SELECT DISTINCT ON (ticket, made.workload) gen_random_uuid(), call_id, made.at, hashtext(ticket) %% 10 <> 0, 4,
    'ticket ' || ticket, 'benchmark', ticket
  FROM ticket_call JOIN made ON made.id = call_id AND h / 20 %% 25 = 0 ORDER BY ticket, made.workload, made.at DESC"""
"""One call in twenty works on a ticket; the outcome of one ticket in twenty-five is recorded, again in each chunk."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--wait", action="store_true", help="read a line of input before figures are asked")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    gc.freeze()  # as the control process does after its start
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, cluster(Path(folder) / "pg") as server:
        with server.database() as database, cost_figures.open_company(database, Path(folder)) as company:
            results = measure(database.urls["owner"], arguments.calls, company, arguments.rounds, wait=arguments.wait)
    print(json.dumps(results, indent=None if arguments.json else 1))
    return 0 if results["exact"] and results["p95_ms"] <= 300 and results["ingested_per_s"] >= 10_000 else 1


def measure(url: str, calls: int, company: cost_figures.Company, rounds: int, *, wait: bool = False) -> dict[str, Any]:
    started = time.monotonic()
    queries = cost_figures.figures(company)
    with psycopg.connect(url, autocommit=True) as conn:
        fill(conn, calls)
        filled = time.monotonic() - started
        if wait:
            print(f"filled in {filled:.0f} s; a line of input begins the figures", file=sys.stderr, flush=True)
            sys.stdin.readline()
        size = conn.execute("SELECT pg_database_size(current_database())").fetchone()
        measure_queries(queries, 1)  # the first queries of a control process are slower
        alone = measure_queries(queries, rounds)
        background = measure_queries(cost_figures.background(company), 3)
        stop = threading.Event()
        ingested: list[int] = []
        writer = threading.Thread(target=ingest, args=(url, stop, ingested, FACTS_PER_S))
        writer.start()
        while_ingesting: dict[str, list[float]] = {}
        ingest_started = time.monotonic()
        while time.monotonic() - ingest_started < INGEST_SECONDS:
            for name, times in measure_queries(queries, 1).items():
                while_ingesting.setdefault(name, []).extend(times)
        seconds = time.monotonic() - ingest_started
        stop.set()
        writer.join()
        most_per_s = measure_most_facts(url)
        rollup_store.roll_up(conn)
        exact = compare_sums(conn)
    figures = {
        name: {"p95_ms": round(p95(times), 1), "beside_p95_ms": round(p95(while_ingesting[name]), 1)}
        for name, times in alone.items()
    }
    return {
        "calls": calls, "days": DAYS, "p95_ms": max(row["p95_ms"] for row in figures.values()),
        "beside_p95_ms": max(row["beside_p95_ms"] for row in figures.values()),
        "ingested_per_s": round(sum(ingested) / seconds), "ingested_most_per_s": most_per_s,
        "exact": all(row["equal"] for row in exact.values()),
        "figures": figures,
        "background": {name: round(max(times), 1) for name, times in background.items()}, "sums": exact,
        "fill_s": round(filled, 1), "bytes": size[0] if size else 0,
        "machine": machine(),
        "load_average": os.getloadavg()[0], "commit": commit(),
    }  # fmt: skip


def fill(conn: psycopg.Connection[Any], calls: int) -> None:
    """Generate `calls` calls of the last 30 days with everything that belongs to them."""
    epoch = new_id()
    conn.execute("SET synchronous_commit = off")
    for first in range(0, calls, CHUNK):
        values = {"since": SINCE, "until": NOW, "calls": calls, "first": first, "last": min(first + CHUNK, calls) - 1}
        with conn.transaction():
            conn.execute("DROP TABLE IF EXISTS pg_temp.made")
            with psycopg.ClientCursor(conn) as cursor:
                cursor.execute(_CHUNK, values)
            for statement in (_ATTEMPTS, _CHARGES, _CALLS, _ENTRIES, _CONTENT, _OUTCOMES, _TICKETS):
                with psycopg.ClientCursor(conn) as cursor:
                    cursor.execute(statement, {"epoch": epoch})
        rollup_store.roll_up(conn)
    conn.execute("INSERT INTO budget_period SELECT budget, period, 1000000, 0 FROM charge_total ON CONFLICT DO NOTHING")
    conn.execute("VACUUM ANALYZE")


def measure_queries(figures: dict[str, cost_figures.Figure], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each query of each figure."""
    durations: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(rounds):
        for name, figure in figures.items():
            started = time.perf_counter()
            figure()
            durations[name].append((time.perf_counter() - started) * 1000)
    return durations


def measure_most_facts(url: str) -> int:
    """The most facts a second that are ingested while no figure is queried."""
    stop, counted = threading.Event(), list[int]()
    writer = threading.Thread(target=ingest, args=(url, stop, counted))
    started = time.monotonic()
    writer.start()
    time.sleep(MAX_INGEST_SECONDS)
    stop.set()
    writer.join()
    return round(sum(counted) / (time.monotonic() - started))


def ingest(url: str, stop: threading.Event, counted: list[int], max_per_s: float = float("inf")) -> None:
    """Write calls, attempts and charges by the shipper's statements until `stop`, folding every second; the numbers of
    facts are appended to `counted`."""
    epoch = new_id()
    with psycopg.connect(url, autocommit=True) as conn:
        started = folded = time.monotonic()
        while not stop.is_set():
            with conn.transaction():
                counted.append(write_batch(conn, epoch))
            stop.wait(max(0.0, sum(counted) / max_per_s - (time.monotonic() - started)))
            if time.monotonic() - folded > 1:
                rollup_store.roll_up(conn)
                rollup_store.summarize_indexes(conn)
                folded = time.monotonic()


def write_batch(conn: psycopg.Connection[Any], epoch: Any) -> int:
    """Write one batch of the shipper; returns the number of facts (calls, attempts and charges)."""
    calls: list[Any] = []
    attempts: list[Any] = []
    charges: list[Any] = []
    cost = Decimal("0.000012500003")
    parts = {"input": [1000, 2_500_003], "output": [1000, 10_000_000]}
    at = datetime.now(UTC)
    for number in range(BATCH // 3):
        call_id, workload, deployment = new_id(), f"workload-{number % 12}", f"deployment-{number % 5}"
        person = f"00000000-0000-7000-8000-{number % 5000:012x}"
        calls.append(
            (call_id, at, workload, person, None, "team-1", "chat", "ok", 200, None, "provider/model-1", deployment,
             "site-1", cost, cost, 1000, 1000, "none", 1, epoch, False, 120.0, 40.0, {}, 0, 0)
        )  # fmt: skip
        attempts.append(
            (call_id, 0, at, deployment, "site-1", "provider/model-1", "settled", "ok", 200, cost, cost,
             {"input": 1000}, False, [], 120.0, epoch, 0.0, None, 40.0, workload, 1, False, parts, "", "")
        )  # fmt: skip
        charges.append((call_id, 0, workload, f"{at:%Y-%m}", cost))
    ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, attempts)
    ledger_store.insert_rows(conn, ledger_store.INSERT_CHARGES, charges)
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, calls)
    return 3 * len(calls)


def compare_sums(conn: psycopg.Connection[Any]) -> dict[str, dict[str, Any]]:
    """The sums of the summary tables compared with those of the facts."""
    pairs = {
        "calls": ("SELECT sum(cost_usd) FROM call", "SELECT sum(cost_usd) FROM call_hour"),
        "calls by day": ("SELECT sum(cost_usd) FROM call", "SELECT sum(cost_usd) FROM call_day"),
        "attempts": ("SELECT sum(cost_usd) FROM attempt", "SELECT sum(cost_usd) FROM part_hour"),
        "charges": ("SELECT sum(cost_usd) FROM charge", "SELECT sum(cost_usd) FROM charge_total"),
        "people": ("SELECT sum(cost_usd) FROM call WHERE status <> 'refused'", "SELECT sum(cost_usd) FROM person_day"),
        "keys": ("SELECT sum(cost_usd) FROM call WHERE status <> 'refused'", "SELECT sum(cost_usd) FROM key_day"),
        "documents": (
            "SELECT sum(cost_usd) FROM call WHERE status <> 'refused'", "SELECT sum(cost_usd) FROM document_day",
        ),
    }  # fmt: skip
    comparisons = {}
    for name, (facts_query, sums_query) in pairs.items():
        of_facts, of_sums = (conn.execute(query.encode()).fetchone() for query in (facts_query, sums_query))
        assert of_facts is not None and of_sums is not None
        usd = format_usd(from_decimal(of_facts[0]))
        comparisons[name] = {
            "facts_usd": usd,
            "sums_usd": format_usd(from_decimal(of_sums[0])),
            "equal": of_facts[0] == of_sums[0],
        }
    return comparisons


def p95(times: list[float]) -> float:
    return sorted(times)[max(0, -(-len(times) * 95 // 100) - 1)]


if __name__ == "__main__":
    raise SystemExit(main())
