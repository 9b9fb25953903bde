"""Rows of budgets and limits are locked in one order by workers, batches and the shipper, whatever the collation of the
database: that of the bytes of their names, as workers sort them. The embedded server knows no other one; in English, as
is usual elsewhere, `a-b` comes behind `aa`.
"""

from __future__ import annotations

import re

import psycopg

from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Database

LOOP = re.compile(r"ORDER BY ([^\n]*) LOOP")
MADE = "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosrc ~ '(budget|limit)_s'"


def test_several_are_locked_in_the_order_of_the_bytes_of_their_names(database: Database) -> None:
    with psycopg.connect(database.superuser) as conn:
        orders = {name: each for name, words in conn.execute(MADE).fetchall() for each in LOOP.findall(words)}
    assert orders.keys() == {"hold_batch", "move_hold", "hold_order", "close_limits"}
    orders["what goes back"] = ledger_store._LOCK_ALL.partition("ORDER BY ")[2].partition(" FOR UPDATE")[0]
    for name, order in orders.items():
        assert all(each.endswith(' COLLATE "C"') for each in order.split(", ")), (name, order)
