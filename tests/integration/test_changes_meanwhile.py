"""Changes that are asked for and decided while somebody else does the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.integration.interleaved import beside, patient, until_it_waits

from groundplan.core.audit import OPERATOR
from groundplan.core.ids import new_id
from groundplan.governance import service
from groundplan.governance import store as changes
from groundplan.governance.model import Asked
from groundplan.governance.policy import exceptions
from groundplan.governance.policy.exceptions_model import ExceptionRequest
from groundplan.testing.database import Database

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def test_who_asks_for_the_same_at_the_same_moment_asks_for_one_thing(database: Database) -> None:
    asked = Asked("data", "source/handbook", {"purpose": f"{new_id()}"}, "for the test")
    wanted = ExceptionRequest("house.rule", "assistant", None, NOW + timedelta(days=1), "for the test")
    for ask in (
        lambda conn: service.ask(conn, OPERATOR, asked, seats=1, at=NOW).id,
        lambda conn: exceptions.ask(conn, OPERATOR, wanted, seats=1, now=NOW).id,
    ):
        with patient(database) as one, patient(database) as other:
            first = ask(one)
            with beside(lambda: ask(other)) as second:  # noqa: B023 -- done within
                until_it_waits(database, other, unless=second.done)
                one.commit()
                assert second.result() == first
                other.commit()
    with patient(database) as conn:
        assert len(changes.changes(conn, ["pending"])) == 2
