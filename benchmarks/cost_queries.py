"""How long the figures of cost take over many calls, whether they are exact, and how many facts arrive beside them.

    python benchmarks/cost_queries.py --calls 10000000 --json [--folder DIR] [--wait]

Fills a PostgreSQL of its own (embedded, in DIR or a temporary folder) with calls of 30 days, their attempts, charges
and audit entries, some outcomes and kept content, through the same triggers as facts that are shipped; then asks every
figure of the pages of Cost (`cost_figures`) again and again through the routes of the control API, on its own and while
15,000 facts a second arrive by the shipper's own statements and are folded every second; last, as many as it takes.
The folder needs about 2 KB a call.
`--wait` asks for a line of input after the fill, so that it need not be alone on the machine but the rest can be.
`exact` compares sums with those of the facts, to the picodollar. `background` is what no page waits for.
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
MOST_SECONDS = 10
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
"""With the calls: a transaction holds a lock for each call that has one."""
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
"""One call in twenty works on a ticket, and what became of one in twenty-five of them is told, again and again."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--wait", action="store_true", help="read a line of input before figures are asked")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    gc.freeze()  # as the control process does with what it begins with
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder, cluster(Path(folder) / "pg") as server:
        with server.database() as database, cost_figures.company(database, Path(folder)) as made:
            value = measure(database.urls["owner"], asked.calls, made, asked.rounds, wait=asked.wait)
    print(json.dumps(value, indent=None if asked.json else 1))
    return 0 if value["exact"] and value["p95_ms"] <= 300 and value["ingested_per_s"] >= 10_000 else 1


def measure(url: str, calls: int, made: cost_figures.Company, rounds: int, *, wait: bool = False) -> dict[str, Any]:
    began = time.monotonic()
    wanted = cost_figures.figures(made)
    with psycopg.connect(url, autocommit=True) as conn:
        fill(conn, calls)
        filled = time.monotonic() - began
        if wait:
            print(f"filled in {filled:.0f} s; a line of input begins the figures", file=sys.stderr, flush=True)
            sys.stdin.readline()
        size = conn.execute("SELECT pg_database_size(current_database())").fetchone()
        measure_queries(wanted, 1)  # a control process that has just begun is slower once
        alone = measure_queries(wanted, rounds)
        behind = measure_queries(cost_figures.background(made), 3)
        stop = threading.Event()
        counted: list[int] = []
        writer = threading.Thread(target=ingest, args=(url, stop, counted, FACTS_PER_S))
        writer.start()
        beside: dict[str, list[float]] = {}
        begun = time.monotonic()
        while time.monotonic() - begun < INGEST_SECONDS:
            for name, times in measure_queries(wanted, 1).items():
                beside.setdefault(name, []).extend(times)
        took = time.monotonic() - begun
        stop.set()
        writer.join()
        most = most_facts(url)
        rollup_store.fold(conn)
        exact = compared(conn)
    figures = {
        name: {"p95_ms": round(p95(times), 1), "beside_p95_ms": round(p95(beside[name]), 1)}
        for name, times in alone.items()
    }
    return {
        "calls": calls, "days": DAYS, "p95_ms": max(row["p95_ms"] for row in figures.values()),
        "beside_p95_ms": max(row["beside_p95_ms"] for row in figures.values()),
        "ingested_per_s": round(sum(counted) / took), "ingested_most_per_s": most,
        "exact": all(row["equal"] for row in exact.values()),
        "figures": figures,
        "background": {name: round(max(times), 1) for name, times in behind.items()}, "sums": exact,
        "fill_s": round(filled, 1), "bytes": size[0] if size else 0,
        "machine": machine(),
        "load_average": os.getloadavg()[0], "commit": commit(),
    }  # fmt: skip


def fill(conn: psycopg.Connection[Any], calls: int) -> None:
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
        rollup_store.fold(conn)
    conn.execute("INSERT INTO budget_period SELECT budget, period, 1000000, 0 FROM charge_total ON CONFLICT DO NOTHING")
    conn.execute("VACUUM ANALYZE")


def measure_queries(figures: dict[str, cost_figures.Figure], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each figure, each as the console asks for it."""
    found: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(rounds):
        for name, figure in figures.items():
            began = time.perf_counter()
            figure()
            found[name].append((time.perf_counter() - began) * 1000)
    return found


def most_facts(url: str) -> int:
    """How many facts a second are taken while nobody asks for figures."""
    stop, counted = threading.Event(), list[int]()
    writer = threading.Thread(target=ingest, args=(url, stop, counted))
    began = time.monotonic()
    writer.start()
    time.sleep(MOST_SECONDS)
    stop.set()
    writer.join()
    return round(sum(counted) / (time.monotonic() - began))


def ingest(url: str, stop: threading.Event, counted: list[int], most_per_s: float = float("inf")) -> None:
    """Calls, attempts and charges by the shipper's statements, folded every second."""
    epoch = new_id()
    with psycopg.connect(url, autocommit=True) as conn:
        began = folded = time.monotonic()
        while not stop.is_set():
            with conn.transaction():
                counted.append(write(conn, epoch))
            stop.wait(max(0.0, sum(counted) / most_per_s - (time.monotonic() - began)))
            if time.monotonic() - folded > 1:
                rollup_store.fold(conn)
                rollup_store.summarize(conn)
                folded = time.monotonic()


def write(conn: psycopg.Connection[Any], epoch: Any) -> int:
    """One round of the shipper; how many facts (calls, attempts and charges)."""
    calls: list[Any] = []
    attempts: list[Any] = []
    charges: list[Any] = []
    cost = Decimal("0.000012500003")
    parts = {"input": [1000, 2_500_003], "output": [1000, 10_000_000]}
    at = datetime.now(UTC)
    for place in range(BATCH // 3):
        id, workload, deployment = new_id(), f"workload-{place % 12}", f"deployment-{place % 5}"
        person = f"00000000-0000-7000-8000-{place % 5000:012x}"
        calls.append(
            (id, at, workload, person, None, "team-1", "chat", "ok", 200, None, "provider/model-1", deployment,
             "site-1", cost, cost, 1000, 1000, "none", 1, epoch, False, 120.0, 40.0, {}, 0, 0)
        )  # fmt: skip
        attempts.append(
            (id, 0, at, deployment, "site-1", "provider/model-1", "settled", "ok", 200, cost, cost, {"input": 1000},
             False, [], 120.0, epoch, 0.0, None, 40.0, workload, 1, False, parts, "", "")
        )  # fmt: skip
        charges.append((id, 0, workload, f"{at:%Y-%m}", cost))
    ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, attempts)
    ledger_store.insert_rows(conn, ledger_store.INSERT_CHARGES, charges)
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, calls)
    return 3 * len(calls)


def compared(conn: psycopg.Connection[Any]) -> dict[str, dict[str, Any]]:
    """Sums beside those of the facts."""
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
    found = {}
    for name, (facts, sums) in pairs.items():
        one, two = (conn.execute(query.encode()).fetchone() for query in (facts, sums))
        assert one is not None and two is not None
        usd = format_usd(from_decimal(one[0]))
        found[name] = {"facts_usd": usd, "sums_usd": format_usd(from_decimal(two[0])), "equal": one[0] == two[0]}
    return found


def p95(times: list[float]) -> float:
    return sorted(times)[max(0, -(-len(times) * 95 // 100) - 1)]


if __name__ == "__main__":
    raise SystemExit(main())
