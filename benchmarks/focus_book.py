"""A real book of costs for `focus_validator`: a small company's calls of two months in a ledger, and its further costs
by declared rules, exported by the same code as `groundplan cost export`.

No exported row is written here: a field is empty because the book has no value for it (a cost that nobody carries, idle
capacity, calls of no team, a removed deployment, an allocation without a quantity).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from groundplan.api.cost import book as cost_book
from groundplan.core.clock import SystemClock
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.economics.export.focus import focus_csv
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import rollup_store
from groundplan.release import service
from groundplan.release.publish import Signing
from groundplan.testing.database import Database

DAYS = 45
REVIEW_MINUTES = 6
"""Minutes of review of each of four answers."""
FILES = {
    "acme.yaml": """\
kind: company
name: acme
approvals: {parts: []}
---
kind: person
name: ana
email: ana@acme.example
---
kind: team
name: care
members: [ana]
---
kind: site
name: azure-sweden
type: cloud
jurisdiction: EU
---
kind: site
name: rack
type: private
jurisdiction: EU
---
kind: deployment
name: gpt-eu
site: azure-sweden
model: openai/gpt-4.1-mini
url: http://127.0.0.1:9/v1
price: {input: 0.40 USD/Mtok, output: 1.60 USD/Mtok}
---
kind: deployment
name: own
site: rack
model: llama
url: http://127.0.0.1:9/v1
price: free
---
kind: deployment
name: painter
site: azure-sweden
type: images
model: openai/gpt-image-1
url: http://127.0.0.1:9/v1
price: {input: 0 USD/Mtok, output: 0 USD/Mtok, images: {any: 0.01 USD}}
---
kind: deployment
name: vectors
site: rack
type: embeddings
model: minilm
url: http://127.0.0.1:9/v1
price: {input: 0.02 USD/Mtok, output: 0 USD/Mtok}
---
kind: deployment
name: sorter
site: azure-sweden
type: rerank
model: cohere/rerank-v3.5
url: http://127.0.0.1:9/v1
price: {input: 0 USD/Mtok, output: 0 USD/Mtok, request: 0.002 USD}
---
kind: workload
name: support
purpose: Answer customers
stage: pilot
team: care
deployments: [gpt-eu, own]
embeddings: [vectors]
also: [painter, sorter]
owners: {business: ana}
---
kind: workload
name: answers
purpose: Answer anybody
stage: pilot
deployments: [own]
owners: {business: ana}
---
kind: budget
name: support
covers: workload/support
limit: 1000 USD/month
---
kind: budget
name: answers
covers: workload/answers
limit: 1000 USD/month
---
kind: allocation
name: platform
term: platform
cost: 310 USD/month
by: equal
source: the contract
---
kind: allocation
name: rack
term: capacity
cost: 12.30 USD/day
covers: deployment/own
capacity: 10M/day
source: "=invoice(7)"
---
kind: allocation
name: vectors
term: vector_storage
cost: 7 USD/month
covers: workload/support
basis: estimated
source: "@guess"
---
kind: allocation
name: traffic
term: egress
rate: 0.09 USD
per: gigabyte of answers
basis: estimated
source: the price list
---
kind: allocation
name: reviewers
term: review
rate: 45 USD
per: review hour
source: wages
---
kind: allocation
name: visits
term: site_visits
rate: 120 USD
per: site visit
quantity: 3/month
covers: site/rack
source: the plan
""",
}
_GPT_EU: Mapping[str, Any] = {"deployment": "gpt-eu", "site": "azure-sweden", "model": "openai/gpt-4.1-mini"}
_SUPPORT: Mapping[str, Any] = {"workload": "support", "team": "care"}
CALL_KINDS: tuple[Mapping[str, Any], ...] = (
    {**_GPT_EU, **_SUPPORT},
    {**_GPT_EU, **_SUPPORT, "tier": "batch"},
    {**_GPT_EU, **_SUPPORT, "purpose": "guardrail"},
    {**_GPT_EU, **_SUPPORT, "estimated": True},
    {"deployment": "own", "site": "rack", "model": "llama", "workload": "answers", "team": "", "free": True},
    {**_GPT_EU, **_SUPPORT, "deployment": "painter", "model": "openai/gpt-image-1",
     "parts": {"images_made": [2, 20_000_000_000]}},
    {**_SUPPORT, "deployment": "vectors", "site": "rack", "model": "minilm", "parts": {"input": [300, 6_000_000]}},
    {**_GPT_EU, **_SUPPORT, "deployment": "sorter", "model": "cohere/rerank-v3.5",
     "parts": {"requests": [1, 2_000_000_000]}},
    {"deployment": "gone", "site": "", "model": "elder/model", "workload": "left", "team": ""},
)  # fmt: skip
"""Kinds of calls; there is a call of each on every third day."""


def export(database: Database) -> str:
    """The export of all days of the book, as `GET /api/cost/focus` writes it."""
    today = datetime.now(UTC).date()
    with connect(database.urls["control"], autocommit=True) as conn, conn.transaction():
        service.genesis(conn, Signing(Ed25519PrivateKey.generate(), SystemClock()), FILES)
    with connect(database.urls["owner"], autocommit=True) as conn:
        _fill_ledger(conn, today)
    with connect(database.urls["control"], autocommit=True) as conn:
        rollup_store.roll_up(conn)
        days = cost_book.parse_days(today - timedelta(days=DAYS), today, today)
        months = [(month.first, month.last, cost_book.cost_lines(conn, month, today)) for month in days.months]
    return focus_csv(months, "acme")


def _fill_ledger(conn: Any, today: date) -> None:
    calls: list[tuple[Any, ...]] = []
    attempts: list[tuple[Any, ...]] = []
    for days_ago in range(1, DAYS, 3):
        at = datetime.combine(today - timedelta(days=days_ago), time(9), UTC)
        for kind in CALL_KINDS:
            call_id = new_id()
            parts = kind.get("parts") or {"input": [1000 + days_ago, 400_000_000], "output": [200, 320_000_001]}
            if kind.get("free"):
                parts = {name: [count, 0] for name, (count, _) in parts.items()}
            cost = sum((Decimal(amount) for _, amount in parts.values()), Decimal(0)).scaleb(-12)
            location = (kind["deployment"], kind["site"], kind["model"])
            calls.append(
                (call_id, at, kind["workload"], None, None, kind["team"], "chat", "ok", 200, None, kind["model"],
                 kind["deployment"], kind["site"], cost, cost, 1000, 200, "none", 1, new_id(), False, 12.5, 3.5, {},
                 0, 0)
            )  # fmt: skip
            attempts.append(
                (call_id, 0, at, *location, "settled", "ok", 200, cost, cost, {"input": 1000},
                 bool(kind.get("estimated")), [], 1.0, new_id(), 0.0, None, None, kind["workload"], 1, False, parts,
                 kind.get("purpose", ""), kind.get("tier", ""))
            )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, attempts)
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, calls)
    for call in calls[:4]:
        conn.execute(
            """INSERT INTO held_call
                 (id, kind, workload, key_id, gateway, at, due_at, state, decided_by, decided_at, minutes)
               VALUES (%s, 'answer', %s, %s, %s, %s, %s, 'released', 'ana', %s, %s)""",
            (call[0], call[2], new_id(), new_id(), call[1], call[1], call[1], REVIEW_MINUTES),
        )
