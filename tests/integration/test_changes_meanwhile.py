"""Changes that are asked for and decided while somebody else does the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from tests.integration.interleaved import Conn, connect_with_lock_timeout, run_concurrently, wait_until_blocked

from groundplan.core.audit import OPERATOR
from groundplan.core.errors import Conflict
from groundplan.core.ids import new_id
from groundplan.economics.replay import replay_store
from groundplan.economics.replay import service as replays
from groundplan.economics.replay.run import Run
from groundplan.governance import service
from groundplan.governance import store as changes
from groundplan.governance.model import ApprovalRequest
from groundplan.governance.policy import exceptions
from groundplan.governance.policy.exceptions_model import ExceptionRequest
from groundplan.testing.database import Database

RUN = Run(
    id=new_id(), workload="assistant", current="a", candidate="b", judge="c", budget_usd=Decimal(1), calls=10,
    asked_by=OPERATOR,
)  # fmt: skip
NOW = datetime(2026, 3, 2, tzinfo=UTC)


def test_concurrent_identical_requests_create_one_approval_request(database: Database) -> None:
    asked = ApprovalRequest("data", "source/handbook", {"purpose": f"{new_id()}"}, "for the test")
    wanted = ExceptionRequest("house.rule", "assistant", None, NOW + timedelta(days=1), "for the test")
    asks: tuple[Callable[[Conn], UUID], ...] = (
        lambda conn: service.request_approval(conn, OPERATOR, asked, seats=1, at=NOW).id,
        lambda conn: exceptions.request_exception(conn, OPERATOR, wanted, seats=1, now=NOW).id,
    )
    for ask in asks:
        with connect_with_lock_timeout(database) as one, connect_with_lock_timeout(database) as other:
            first = ask(one)
            with run_concurrently(lambda: ask(other)) as second:  # noqa: B023 -- done within
                wait_until_blocked(database, other, unless=second.done)
                one.commit()
                assert second.result() == first
                other.commit()
    with connect_with_lock_timeout(database) as conn:
        assert len(changes.changes(conn, ["pending"])) == 2


def test_a_replay_requested_twice_runs_once(database: Database) -> None:
    def ask(conn: Conn, made: Run) -> None:
        replays.check_alone(conn, made)
        replays.ask(conn, OPERATOR, made)

    with connect_with_lock_timeout(database) as one, connect_with_lock_timeout(database) as other:
        ask(one, RUN)
        with run_concurrently(lambda: ask(other, replace(RUN, id=new_id()))) as second:
            wait_until_blocked(database, other, unless=second.done)
            one.commit()
            with pytest.raises(Conflict) as caught:
                second.result()
        assert caught.value.code == "replay_running" and str(RUN.id) in str(caught.value.hint)
        other.rollback()
        ask(other, replace(RUN, id=new_id(), candidate="d"))
        other.execute("UPDATE replay_run SET state = 'done', ended_at = now()")
        ask(other, replace(RUN, id=new_id()))
        assert [each.candidate for each in replay_store.list_runs(other)] == ["b", "d", "b"]
