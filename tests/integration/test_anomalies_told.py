"""The watch over the ledger: a loop becomes a finding that names who, and closes when it is over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.integration.test_cost_versions import declared, release

from groundplan.api.watch import anomalies
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import finding_store, spend_watch_store
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)


def add(conn: Any, key: Any, minute: int, count: int, status: str = "ok") -> None:
    at = NOW - timedelta(minutes=minute)
    rows: list[tuple[Any, ...]] = [
        (new_id(), at, "support", None, key, "care", "chat", status, 200, None, "acme/m", "own", "rack", 0, 0, 3, 2,
         "none", 1, new_id(), False, 12.5, 3.5, {}, 0, 0)
        for _ in range(count)
    ]  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)


def test_a_loop_is_reported_with_its_caller_and_closed_when_it_ends(database: Database) -> None:
    key = new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        conn.execute(
            "INSERT INTO api_key (id, hash, prefix, workload, created_by) VALUES (%s, %s, 'gp_abc', 'support', 'test')",
            (key, key.bytes),
        )
        add(conn, key, 300, 2)
        for minute in range(1, 6):
            add(conn, key, minute, 30, "refused" if minute == 1 else "ok")
        told = anomalies.update_anomaly_findings(conn, NOW)
        assert (told.opened, told.closed) == (1, 0)
        conn.execute("UPDATE finding SET at = %s", (NOW,))  # they are opened at the time of the database
        assert anomalies.update_anomaly_findings(conn, NOW).opened == 0
        found = finding_store.list_findings(conn, kinds=["cost."])[0]
        assert (found["kind"], found["subject"], found["severity"]) == ("cost.anomaly", "workload/support", "high")
        assert "(key gp_abc) of team care makes 30 calls a minute, usually at most 2" in found["message"]
        assert found["detail"]["kind"] == "runaway"
        assert anomalies.update_anomaly_findings(conn, NOW + timedelta(hours=2)).closed == 1


def test_a_continuing_loop_stays_reported(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its caller did before is read once, not every minute: it is all calls of a day."""
    key, read, busiest = new_id(), list[Any](), spend_watch_store.busiest_minutes

    def noted(conn: Any, since: datetime, until: datetime, keys: Any = None) -> dict[str, float]:
        read.append(keys)
        return busiest(conn, since, until, keys)

    monkeypatch.setattr(spend_watch_store, "busiest_minutes", noted)
    with connect(database.urls["owner"], autocommit=True) as conn:
        add(conn, key, 300, 2)
        for minute in range(-240, 6):
            add(conn, key, minute, 30)
        told = anomalies.update_anomaly_findings(conn, NOW)
        assert told.opened == 1
        # as the watch that told it would have: findings are opened at the time of the database
        conn.execute("UPDATE finding SET at = %s", (NOW,))
        for hours in (1, 2, 3, 4):
            told = anomalies.update_anomaly_findings(conn, NOW + timedelta(hours=hours))
            assert (told.opened, told.kept, told.closed) == (0, 1, 0), hours
        assert [keys for keys in read if keys is not None] == [(str(key),)]
        assert anomalies.update_anomaly_findings(conn, NOW + timedelta(hours=6)).closed == 1


def test_a_new_application_is_no_loop_and_a_very_fast_stranger_is_one_for_a_day(database: Database) -> None:
    steady, fast = new_id(), new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        for minute in range(1, 30):
            add(conn, steady, minute, 30)
        assert anomalies.update_anomaly_findings(conn, NOW).opened == 0
        for minute in range(1, 5):
            add(conn, fast, minute, 170)
        assert anomalies.update_anomaly_findings(conn, NOW).opened == 1
        (found,) = finding_store.list_findings(conn, kinds=["cost."])
        assert f"{fast} of team care makes 170 calls a minute, and was not known before" in found["message"]
        conn.execute("UPDATE finding SET at = %s", (NOW,))
        for minute in (*range(-185, -175), *range(-1446, -1436)):
            add(conn, fast, minute, 170)
        assert anomalies.update_anomaly_findings(conn, NOW + timedelta(hours=3, minutes=1)).kept == 1
        assert anomalies.update_anomaly_findings(conn, NOW + timedelta(hours=24, minutes=1)).closed == 1, (
            "it is what this caller does"
        )


def test_a_new_caller_is_reported_as_new_or_as_a_loop_but_not_as_both(database: Database) -> None:
    application, agent = new_id(), new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        calls(conn, "support", [62 + 2.5 * n for n in range(24 * 52)])
        calls(conn, "care", [62 + 2.5 * n for n in range(24 * 52)])
        for minute in range(1, 6):
            add(conn, application, minute, 30)  # many a minute, as applications make that begin
        stopped = add_calls_until_refused(conn, agent, "care", 0.2, [100] * 100)
        anomalies.update_anomaly_findings(conn, NOW)
        found = finding_store.list_findings(conn, kinds=["cost."])
        new, loop = sorted(
            (row for row in found if row["detail"]["kind"] in ("new_caller", "runaway")),
            key=lambda row: str(row["detail"]["kind"]),
        )
        assert (new["subject"], loop["subject"]) == ("workload/support", "workload/care")
        assert "loop" not in new["detail"] and f"{application} makes 100%" in new["message"]
        assert "% of calls and was never seen before" in new["message"]
        assert "and was not known before" in loop["message"] and f"stopped it at {stopped:%H:%M}" in loop["message"]


def test_usual_use_of_a_key_spans_a_weekend(database: Database) -> None:
    back, once = new_id(), new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        for minute in (*range(1, 6), *range(3 * 1440, 3 * 1440 + 5)):
            add(conn, back, minute, 30)
        for minute, count in (*((minute, 30) for minute in range(1, 6)), (3 * 1440, 2)):
            add(conn, once, minute, count)
        anomalies.update_anomaly_findings(conn, NOW)
        (found,) = finding_store.list_findings(conn, kinds=["cost."])
        assert f"{once} of team care makes 30 calls a minute, usually at most 2" in found["message"]


@pytest.mark.parametrize("days", [1, 3])
def test_a_rotated_key_is_the_same_caller(database: Database, days: int) -> None:
    """A busy application goes on with the new key: neither a stranger nor a loop, a day or a weekend after the old."""
    old, new = new_id(), new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        calls(conn, "support", [62 + 2.5 * n for n in range(24 * 52)])
        for minute in range(days * 1440, days * 1440 + 5):
            add(conn, old, minute, 200)
        for minute in range(1, 6):
            add(conn, new, minute, 200)
        add(conn, old, days * 1440 + 24 * 60, 1)
        told = {row["detail"]["kind"] for row in _looked(conn)}
        assert "runaway" in told, "nobody says whose key it is"
        conn.execute("UPDATE finding SET at = %s", (NOW,))  # as it is by a clock that says so
        assert {row["detail"]["kind"] for row in _looked(conn)} == told
        for id, after in ((old, None), (new, old)):
            conn.execute(
                """INSERT INTO api_key (id, hash, prefix, workload, created_by, family)
                   VALUES (%s, %s, 'gp_abc', 'support', 'test', %s)""",
                (id, id.bytes, after or id),
            )
        told = {row["detail"]["kind"] for row in _looked(conn)}
        assert not told & {"new_caller", "runaway"}
        for minute in range(1, 6):
            add(conn, new, minute, 2000)
        (found,) = [row for row in _looked(conn) if row["detail"]["kind"] == "runaway"]
        assert "makes 2,200 calls a minute, usually at most 200" in found["message"]


def _looked(conn: Any) -> list[dict[str, Any]]:
    anomalies.update_anomaly_findings(conn, NOW)
    return finding_store.list_findings(conn, kinds=["cost."], limit=100)


def calls(conn: Any, workload: str, minutes: Iterable[float], **other: Any) -> None:
    """One call before each of these minutes before NOW."""
    what = {
        "key": None,
        "team": "care",
        "model": "acme/m",
        "cost": Decimal("0.001"),
        "tokens": 300,
        "blueprint": 1,
    } | other
    rows: list[tuple[Any, ...]] = [
        (new_id(), NOW - timedelta(minutes=minute), workload, None, what["key"], what["team"], "chat", "ok", 200, None,
         what["model"], "own", "rack", what["cost"], what["cost"], what["tokens"] - 2, 2,
         "exact" if what.get("cached") == place % 2 else "none", what["blueprint"], new_id(), False, 12.5, 3.5, {}, 0,
         0)
        for place, minute in enumerate(minutes)
    ]  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)


def test_each_kind_of_anomaly_is_found_in_the_ledger_with_its_cause(database: Database) -> None:
    usual, now = [62 + 2.5 * n for n in range(24 * 52)], [0.5 * (n + 1) for n in range(110)]
    known, stranger = new_id(), new_id()
    changed: dict[str, dict[str, Any]] = {
        "spend": {"cost": Decimal("0.01")},
        "tokens_per_call": {"tokens": 2600, "blueprint": 2, "team": "support"},
        "cache_rate": {},
        "mix": {"model": "acme/large"},
        "new_caller": {"key": stranger},
    }
    with connect(database.urls["owner"], autocommit=True) as conn:
        for number, prompt in ((1, "faq@11"), (2, "faq@12")):
            made = declared(number, dict.fromkeys(changed, "care"), [])
            workloads = [msgspec.structs.replace(each, prompt=prompt) for each in made.workloads]
            release(conn, msgspec.structs.replace(made, workloads=workloads), NOW - timedelta(days=4 - number))
        for kind, other in changed.items():
            calls(conn, kind, usual, key=known, **({"cached": 0} if kind == "cache_rate" else {}))
            calls(conn, kind, now, **{"key": known} | other)
        anomalies.update_anomaly_findings(conn, NOW)
        found = {
            row["subject"].removeprefix("workload/"): row["message"]
            for row in finding_store.list_findings(conn, kinds=["cost."], limit=100)
            if row["subject"] == f"workload/{row['detail']['kind']}"
        }
    assert set(found) == set(changed)
    assert "+2,300 tokens a call: prompt faq@12 (new), team support (new)" in found["tokens_per_call"]
    assert found["tokens_per_call"].startswith("tokens_per_call: since 13:3")
    assert "an hour instead of $0.02" in found["spend"]
    assert "0% of calls from the cache instead of 50%" in found["cache_rate"]
    assert "100% of calls at acme/large instead of 0%: model acme/large (new)" in found["mix"]
    assert f"{stranger} makes 100% of calls and was never seen before" in found["new_caller"]


@pytest.mark.parametrize(
    ("other", "kind", "text"),
    [
        ({"cost": Decimal(5), "tokens": 302}, "spend", "one call of 302 tokens for $5.00 is most of"),
        (
            {"cost": Decimal("0.002"), "tokens": 900_002},
            "tokens_per_call",
            "one call of 900,002 tokens for $0.00200 is",
        ),
    ],
)
def test_one_huge_call_is_reported_as_a_single_call(
    database: Database, other: dict[str, Any], kind: str, text: str
) -> None:
    """And not as what an hour of such calls would cost, or the mean of a few calls of which it is one."""
    key = new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        calls(conn, "support", [float(n + 1) for n in range(60 * 52)], key=key)
        calls(conn, "support", [28.5], key=key, **other)
        (found,) = [row for row in _looked(conn) if row["detail"]["kind"] == kind]
        assert text in found["message"] and found["message"].startswith("support: since 14:0")
        told = found["detail"]["call"]
        assert f"`groundplan why {told['id']}`" in found["hint"] and Decimal(told["cost_usd"]) == other["cost"]


def add_calls_until_refused(
    conn: Any, key: Any, workload: str, every_s: float, prompts: list[int], **other: Any
) -> datetime:
    """Calls of these prompt sizes, and then refusals by a budget; when the first of these was."""
    began = NOW - timedelta(seconds=every_s * len(prompts) + 20)
    ended = began + timedelta(seconds=every_s * len(prompts) + len(prompts) / 10)
    rows: list[tuple[Any, ...]] = []
    for place, tokens in enumerate([*prompts, 0, 0, 0, *[80] * other.get("after", 0)]):
        at = began + timedelta(seconds=every_s * min(place, len(prompts)) + place / 10)
        served = not len(prompts) <= place < len(prompts) + 3
        rows.append(
            (new_id(), at, workload, None, key, "care", "chat", "ok" if served else "refused", 200 if served else 429,
             None if served else other.get("code", "budget_exhausted"), "acme/m", "own", "rack",
             Decimal("0.001") if served else Decimal(0), 0, tokens, 2, "none", 1, new_id(), False, 12.5, 3.5,
             {"feature": "triage"}, 0, 0)
        )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)
    return ended


def test_a_loop_stopped_by_its_budget_is_reported_without_a_full_minute(database: Database) -> None:
    agent, slow, month_end, other_refusal = new_id(), new_id(), new_id(), new_id()
    mixed = [400, 120, 900, 300, 200, 1000, 350, 500, 150, 800, 250, 700]
    with connect(database.urls["owner"], autocommit=True) as conn:
        conn.execute(
            "INSERT INTO api_key (id, hash, prefix, workload, created_by) VALUES (%s, %s, 'gp_abc', 'quick', 'test')",
            (agent, agent.bytes),
        )
        stopped = add_calls_until_refused(conn, agent, "quick", 0.5, [100] * 25, after=7)  # its budget was raised
        add_calls_until_refused(conn, slow, "growing", 12.0, [100 + 50 * place for place in range(12)])
        add_calls_until_refused(conn, month_end, "ordinary", 12.0, mixed)
        add_calls_until_refused(conn, other_refusal, "limited", 0.5, [100] * 25, code="rate_limit_exceeded")
        anomalies.update_anomaly_findings(conn, NOW)
        found = {row["subject"]: row for row in finding_store.list_findings(conn, kinds=["cost."])}
        assert set(found) == {"workload/quick", "workload/growing"}
        quick, growing = found["workload/quick"], found["workload/growing"]
        assert quick["message"].startswith(
            f"quick: since {quick['detail']['since'][11:16]} (key gp_abc) of team care, feature triage, made 25 calls a"
            " minute, and was not known before. After 25 calls for $0.0250, its budget stopped it at"
            f" {stopped:%H:%M}, and 3 of its calls were refused since."
        )
        assert "groundplan keys revoke" in quick["hint"] and quick["severity"] == "high"
        assert quick["detail"]["loop"]["stopped_at"] == stopped.isoformat()
        conn.execute("UPDATE finding SET at = %s", (NOW,))  # they are opened at the time of the database
        anomalies.update_anomaly_findings(
            conn, stopped + timedelta(minutes=60, seconds=0.15)
        )  # its calls are of more than an hour ago
        found = {row["subject"]: row for row in finding_store.list_findings(conn, kinds=["cost."])}
        assert "After 25 calls for $0.0250, its budget stopped it" in found["workload/quick"]["message"]
        assert "each longer than the one before: 175 to 575 tokens a prompt" in growing["message"]
        assert growing["detail"]["loop"]["growing"] and not quick["detail"]["loop"]["growing"]
        assert anomalies.update_anomaly_findings(conn, NOW + timedelta(hours=2)).closed == 1, (
            "the other one had ended before"
        )


@pytest.mark.parametrize("ago", [120, 3 * 1440])
def test_usual_use_is_no_loop_when_its_budget_is_exhausted(database: Database, ago: int) -> None:
    key = new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        for minute in range(ago, ago + 60):
            add(conn, key, minute, 25)
        add_calls_until_refused(conn, key, "support", 2.0, [100] * 40)
        anomalies.update_anomaly_findings(conn, NOW)
        told = finding_store.list_findings(conn, kinds=["cost."])
        assert [row for row in told if row["detail"]["kind"] == "runaway"] == []


def test_recently_valid_keys_of_a_rotation_line_are_checked(database: Database) -> None:
    """One that is rotated every hour has thousands after a year: the others of each, each minute, are millions."""
    first, lone = new_id(), new_id()
    with connect(database.urls["owner"], autocommit=True) as conn:
        conn.execute(
            """INSERT INTO api_key (id, hash, prefix, workload, created_by, family, expires_at)
               SELECT CASE n WHEN 1 THEN %(first)s ELSE gen_random_uuid() END, sha256(n::text::bytea), 'gp', 'support',
                 'test', %(first)s, %(now)s - make_interval(days => 60 - n) FROM generate_series(1, 59) n
               UNION ALL SELECT %(lone)s, %(lone)s::text::bytea, 'gp', 'support', 'test', %(lone)s, NULL""",
            {"first": first, "lone": lone, "now": NOW},
        )
        found = spend_watch_store.rotation_lines(conn, NOW - timedelta(days=29))
        assert len(found) == 29 and str(first) not in found and str(lone) not in found
        (line,) = {id(line): line for line in found.values()}.values()
        assert set(line) == set(found)
