"""Rules in shadow are tried beside real calls, by their facts: counted by day, told to their owner, begun anew when
they change, and the same as a trial against the recorded calls."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg_pool import ConnectionPool
from tests.integration.test_api_control import WORKSPACE

from groundplan.api.context import Services
from groundplan.api.genesis import prepare_home
from groundplan.api.release import Releases
from groundplan.api.served_blueprint import current_blueprint
from groundplan.api.watch import policy_shadow
from groundplan.core.audit import OPERATOR
from groundplan.core.database import connect, database_url
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.governance.policy import exception_store, shadow
from groundplan.ledger import finding_store
from groundplan.testing.clock import ManualClock
from groundplan.testing.database import Database

RULES = """---
kind: policy
name: no-chat
owner: ana@acme.example
mode: MODE
cedar: |
  forbid (principal, action == Action::"call", resource) when { context.endpoint == "chat.completions" };
---
kind: policy
name: office-hours
owner: ana@acme.example
cedar: |
  forbid (principal, action == Action::"call", resource) when { context.hour >= 12 };
mode: MODE
"""
NOON = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def services(database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[Services]:
    home = Home(tmp_path / "home")
    prepare_home(home)
    settings = database.settings(home.root)
    pool: ConnectionPool[Any] = ConnectionPool(
        lambda: database_url(home, settings, "control"), min_size=1, max_size=2, open=True
    )
    with pool:
        made = Services(home, settings, None, False, Releases(home, clock), pool, clock)
        with made.transaction() as conn:
            assert made.releases.genesis(conn, {"acme.yaml": WORKSPACE + RULES.replace("MODE", "shadow")})
        yield made


def record(database: Database, at: datetime, count: int, endpoint: str = "chat.completions") -> None:
    with connect(database.urls["owner"]) as conn:
        for number in range(count):
            conn.execute(
                """INSERT INTO call (id, at, workload, endpoint, status, http_status, model, deployment, site, cost_usd,
                     reserved_usd, blueprint, epoch, detail)
                   VALUES (%s, %s, 'assistant', %s, 'ok', 200, 'm', 'local', 'here', 0, 0, 1, %s, '{}')""",
                (new_id(), at + timedelta(seconds=number), endpoint, new_id()),
            )


def findings(services: Services) -> list[dict[str, Any]]:
    with services.transaction() as conn:
        return sorted(
            finding_store.list_findings(conn, kinds=[policy_shadow.KIND]), key=lambda each: str(each["subject"])
        )


def days(services: Services, name: str) -> list[tuple[str, int, int]]:
    with services.transaction() as conn:
        (item,) = [each for each in current_blueprint(conn).policies if each.name == name]
        found = policy_shadow.refusals_by_day(conn, item, services.clock.now(), 3)
    return [(str(each["day"]), each["looked_at"], each["would_refuse"]) for each in found]


def test_calls_are_decided_beside_their_making_and_their_owner_is_told(
    services: Services, database: Database, clock: ManualClock
) -> None:
    policy_shadow.try_shadow_rules(services)
    assert findings(services) == [] and days(services, "no-chat")[0] == ("2026-11-25", 0, 0)
    record(database, NOON - timedelta(days=1), 3)
    record(database, NOON - timedelta(hours=3), 2, "embeddings")
    record(database, NOON, 4)
    policy_shadow.try_shadow_rules(services)
    assert days(services, "no-chat") == [("2026-11-25", 4, 4), ("2026-11-24", 0, 0)], "an old hour is closed"
    clock.advance(20)
    record(database, NOON + timedelta(seconds=10), 2)
    policy_shadow.try_shadow_rules(services)
    policy_shadow.try_shadow_rules(services)
    assert days(services, "no-chat")[0] == ("2026-11-25", 6, 6), "decided again, and not counted twice"
    assert days(services, "office-hours")[0] == ("2026-11-25", 6, 6)
    chat, hours = findings(services)
    assert (
        "The rule no-chat, in shadow, would have refused 0 calls yesterday and 6 so far today, of assistant (6)"
        in (chat["message"])
    )
    assert (chat["owner"], chat["subject"], len(chat["detail"]["calls"])) == ("ana@acme.example", "policy/no-chat", 6)
    assert hours["subject"] == "policy/office-hours"


def test_a_rule_that_is_new_begins_with_yesterday_and_one_that_is_enforced_is_told_no_more(
    services: Services, database: Database
) -> None:
    record(database, NOON - timedelta(days=1), 3)
    record(database, NOON - timedelta(days=1), 2, "embeddings")
    record(database, NOON - timedelta(hours=3), 5)
    policy_shadow.try_shadow_rules(services)
    assert days(services, "no-chat") == [("2026-11-25", 5, 5), ("2026-11-24", 5, 3)]
    assert days(services, "office-hours") == [("2026-11-25", 5, 0), ("2026-11-24", 5, 5)]
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        calls = exception_store.recorded_calls(conn, NOON - timedelta(days=2), NOON, 100)
        trials = {each.policy: each for each in shadow.try_policies(blueprint, blueprint.policies, calls, {}, {})}
    for name, trial in trials.items():
        assert sum(refused for _, _, refused in days(services, name)) == trial.refused, "as a trial says"
    with services.transaction() as conn:
        text = WORKSPACE + RULES.replace("MODE", "enforce", 1).replace("MODE", "shadow").replace(">= 12", ">= 13")
        services.releases.apply(conn, OPERATOR, {"acme.yaml": text}, "enforced")
    policy_shadow.try_shadow_rules(services)
    assert findings(services) == [], "no-chat refuses by itself now, and the other one begins anew and refuses nothing"
    assert days(services, "office-hours") == [("2026-11-25", 5, 0), ("2026-11-24", 5, 0)]


def test_a_rule_that_names_a_key_counts_the_calls_of_its_successor(services: Services, database: Database) -> None:
    first, second, stranger = new_id(), new_id(), new_id()
    named = RULES.replace("principal, action", f'principal == Application::"{first}", action').replace("MODE", "shadow")
    with services.transaction() as conn:
        services.releases.apply(conn, OPERATOR, {"acme.yaml": WORKSPACE + named}, "a key is named")
    with connect(database.urls["owner"]) as conn:
        for key, family in ((first, None), (second, first), (stranger, None)):
            conn.execute(
                """INSERT INTO api_key (id, hash, prefix, workload, created_by, family)
                   VALUES (%s, %s, 'gp_', 'assistant', 'operator', %s)""",
                (key, key.bytes, family),
            )
    record(database, NOON, 6)
    with connect(database.urls["owner"]) as conn:
        for number, key in enumerate((first, second, second, stranger, stranger, stranger)):
            conn.execute(
                "UPDATE call SET key_id = %s WHERE id = (SELECT id FROM call ORDER BY at LIMIT 1 OFFSET %s)",
                (key, number),
            )
        lines = {str(key): (str(first),) for key in (first, second)}
        assert exception_store.lines_by_key(conn, [str(first), "unknown"]) == lines
    policy_shadow.try_shadow_rules(services)
    assert days(services, "no-chat")[0] == ("2026-11-25", 6, 3)
