"""What workers count of answers by meaning arrives in PostgreSQL, under the gateway's own role, and is told net."""

from __future__ import annotations

from groundplan.api.cost import semantic_savings
from groundplan.core.database import connect
from groundplan.gateway.caching.semantic_counts import SemanticCounts
from groundplan.testing.clock import ManualClock
from groundplan.testing.database import Database

CLOCK = ManualClock()


async def test_counts_of_workers_add_up_and_are_told_net(database: Database) -> None:
    one, other = (SemanticCounts(database.urls["gateway"], CLOCK) for _ in range(2))
    one.add_lookup("support", 3_000_000)
    one.add_lookup("support", 600_000)
    one.add_hit("support", 40 * 10**9)
    one.add_check("support", wrong=True)
    await one.flush()
    other.add_lookup("support", 0)
    other.add_hit("support", 10**9)
    await other.close()
    await one.flush()
    with connect(database.urls["control"], autocommit=True) as conn:
        (row,) = semantic_savings.semantic_savings_json(conn, CLOCK.now().date())
    assert (row["workload"], row["looked"], row["given"], row["checked"], row["found_wrong"]) == ("support", 3, 2, 1, 1)
    assert row["saved_usd"] == "0.041000000000"
    assert row["lookups_usd"] == "0.000050000000"
    assert row["wrong_usd"] == "0.000000000000"
    assert row["net_usd"] == "0.040950000000"


async def test_what_cannot_be_written_waits(database: Database) -> None:
    tally = SemanticCounts("postgresql://nobody@127.0.0.1:9/none", CLOCK)
    tally.add_check("support", wrong=False)
    await tally.flush()
    tally._url = database.urls["gateway"]
    await tally.flush()
    with connect(database.urls["control"], autocommit=True) as conn:
        assert semantic_savings.semantic_savings_json(conn, CLOCK.now().date())[0]["checked"] == 1
