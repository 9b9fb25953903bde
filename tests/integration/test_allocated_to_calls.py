"""What the receipts of a day tell of a cost beside the calls is together never more than that cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.integration.test_api_control import run_control

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Database

VECTORS = """\
kind: deployment
name: vectors
site: here
type: embeddings
model: acme/vectors
url: http://127.0.0.1:9/v1
price: {input: 1 USD/Mtok, output: 0 USD/Mtok, request: 0.001 USD}
---
kind: allocation
name: rack
term: capacity
cost: 1 USD/day
covers: deployment/vectors
source: invoice 7
from: 2026-01-01
---
kind: allocation
name: watched
term: capacity
rate: 100 USD
per: 1000 calls
covers: deployment/vectors
source: invoice 8
from: 2026-01-01
"""


def embedded(dsn: str, at: datetime, cache: str = "none", endpoint: str = "embeddings") -> UUID:
    """A call of one token, which also cost something by the request; of a cache it asked nobody."""
    id, tokens = new_id(), int(endpoint == "embeddings")
    cost = Decimal("0.001001") * tokens
    parts = {"input": [1, 1_000_000], "requests": [1, 1_000_000_000]}
    attempt: tuple[Any, ...] = (
        id, 0, at, "vectors", "here", "acme/vectors", "settled", "ok", 200, cost, cost, {"input": 1}, False, [], 1.0,
        new_id(), 0.0, None, None, "assistant", 2, False, parts, "", "",
    )  # fmt: skip
    call: tuple[Any, ...] = (
        id, at, "assistant", None, None, None, endpoint, "ok", 200, None, "acme/vectors", "vectors", "here", cost,
        cost, tokens, 0, cache, 2, new_id(), False, 12.5, 3.5, {"sources": []}, 0, 0,
    )  # fmt: skip
    if cache != "none":  # which names the deployment alone
        call = tuple(None if value in ("acme/vectors", "here") else value for value in call)
    with connect(dsn, autocommit=True) as conn:
        if cache == "none" and tokens:
            ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, [attempt])
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, [call])
    return id


def test_receipts_sum_to_the_allocated_cost(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path) as control:
        (control.workspace / "vectors.yaml").write_text(VECTORS)
        company = control.workspace / "acme.yaml"
        company.write_text(company.read_text().replace("[local]\n", "[local]\nembeddings: [vectors]\n"))
        assert control.ask("POST", "/api/apply", {"files": control.files()}).status in (200, 201)
        at = datetime.now(UTC).replace(hour=0, minute=0, second=1, microsecond=0) - timedelta(days=1)
        calls = [embedded(database.dsn, at, cache) for cache in ("none", "none", "exact")]
        calls += [
            embedded(database.dsn, at, endpoint=none) for none in ("embeddings.estimate", "messages.count_tokens")
        ]
        receipts = [control.ask("GET", f"/api/calls/{call}").body for call in calls]
        assert {term["term"] for one in receipts[:2] for term in one["attempts"][0]["terms"]} == {"embedding"}
        carried = [term for each in receipts for term in each["allocated"]["terms"]]
        assert sum(Decimal(term["cost_usd"]) for term in carried if term["allocation"] == "rack") == 1
        asked = [Decimal(term["cost_usd"]) for term in carried if term["allocation"] == "watched"]
        assert asked == [Decimal("0.1"), Decimal("0.1")], "a cached answer asked nobody"
        why = [control.ask("GET", f"/api/why/{call}").body["facts"]["allocated"] for call in calls]
        assert why == [each["allocated"] for each in receipts]
        listed = {row["id"]: row for row in control.ask("GET", "/api/calls").body["calls"]}
        for told in (receipts[2], listed[str(calls[2])]):
            assert (told["model"], told["deployment"], told["site"]) == ("acme/vectors", "vectors", "here")
