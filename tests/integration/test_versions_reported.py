"""Which version an upstream says that it is, whatever it says: kept, and no name holds up the others."""

from __future__ import annotations

import json

import psycopg
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment, Rates
from groundplan.gateway.call.model_versions import DAY_SECONDS, INTERVAL_SECONDS, MAX_VERSIONS, ModelVersions
from groundplan.testing.database import Database

PLACE = Deployment(
    name="d", site="s", model="m", upstream_model="up", url="http://x/v1", rates=Rates(input=1, output=1)
)


async def test_what_cannot_be_written_in_a_name_is_left_out(database: Database) -> None:
    reported = ModelVersions(database.urls["gateway"])
    for says in ({"model": "a\0b\n"}, {"model": "\0"}, {"model": "c", "system_fingerprint": "\0f" + "x" * 300}):
        reported.record_answer(PLACE, json.dumps(says).encode())
    await reported.flush()
    with psycopg.connect(database.superuser) as conn:
        found = conn.execute("SELECT model, fingerprint FROM model_reported ORDER BY model").fetchall()
    assert found == [("ab", ""), ("c", "f" + "x" * 198)]


async def test_what_waited_for_the_database_is_told_in_the_order_in_which_it_was_reported(database: Database) -> None:
    reported = ModelVersions(database.urls["gateway"])
    for fingerprint in ("fp_9", "fp_1", "fp_5"):
        reported.record_answer(PLACE, json.dumps({"model": "m", "system_fingerprint": fingerprint}).encode())
    await reported.flush()
    with psycopg.connect(database.superuser) as conn:
        found = conn.execute("SELECT fingerprint FROM model_reported ORDER BY first_at").fetchall()
        times = conn.execute("SELECT count(DISTINCT first_at) FROM model_reported").fetchone()
    assert found == [("fp_9",), ("fp_1",), ("fp_5",)]
    assert times == (3,), "or none would be newer than the other"


async def test_one_that_says_something_else_each_time_takes_neither_memory_nor_rows_without_end(
    database: Database,
) -> None:
    """And is told again the next day; what another one says is told at once."""
    reported = ModelVersions(database.urls["gateway"])
    for number in range(5 * MAX_VERSIONS):
        assert reported.is_due("d", number * INTERVAL_SECONDS) and not reported.is_due(
            "d", number * INTERVAL_SECONDS + INTERVAL_SECONDS / 2
        )
        reported.record_answer(PLACE, json.dumps({"model": "m", "system_fingerprint": f"fp_{number}"}).encode())
    reported.record_answer(replace(PLACE, name="other"), b'{"model": "n"}')
    await reported.flush()
    assert [len(known.versions) for known in reported._known.values()] == [MAX_VERSIONS, 1]
    assert reported.is_due("d", DAY_SECONDS + 2 * INTERVAL_SECONDS)
    reported.record_answer(PLACE, b'{"model": "m", "system_fingerprint": "fp_new"}')
    await reported.flush()
    with psycopg.connect(database.superuser) as conn:
        found = conn.execute("SELECT deployment, count(*), max(fingerprint) FROM model_reported GROUP BY 1 ORDER BY 1")
        assert found.fetchall() == [("d", MAX_VERSIONS + 1, "fp_new"), ("other", 1, "")]
