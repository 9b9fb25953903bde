"""Beside the requests: once a minute, what is unusual in the spending of each workload becomes a finding that says why.

A finding closes by itself when it no longer holds. What is usual is read once an hour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api import served
from groundplan.api.context import Services
from groundplan.core.errors import NotFound
from groundplan.core.money import from_decimal
from groundplan.economics.anomaly.cause import Slice, causes, told
from groundplan.economics.anomaly.detect import WINDOW, Baseline, detect
from groundplan.economics.anomaly.model import Alarm, Hour, Minute
from groundplan.ledger import finding_store, minute_store, rollup_store
from groundplan.ledger.finding import Finding

KIND = "cost.anomaly"
WATCH_SECONDS = 60.0
HISTORY = timedelta(days=28)
COMPARED = timedelta(hours=24)
NEW_FOR = timedelta(hours=24)
"""A caller is told as new for so long after its first call."""
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
_GRAVE = 3.0


@dataclass(frozen=True, slots=True)
class Usual:
    """What is known of the weeks before an hour."""

    baselines: dict[str, Baseline]
    known: set[tuple[str, str]]
    busiest: dict[str, float]


_usual: dict[str, tuple[datetime, Usual]] = {}
"""database -> (hour, what is usual in it), so that a process reads history once an hour."""


def watch(services: Services) -> finding_store.Told:
    """Tell what is unusual now, and close what no longer is."""
    with services.transaction() as conn:
        return look(conn, services.clock.now())


def look(conn: Connection[Any], now: datetime) -> finding_store.Told:
    """As `watch`, in the caller's transaction; `now` is the end of the last minute that counts."""
    until = now.replace(second=0, microsecond=0)
    found = [
        _finding(conn, workload, alarm, until)
        for workload, alarm in alarms(conn, until)
    ]  # fmt: skip
    return finding_store.tell_all(conn, found, kinds=[KIND], within="workload/")


def alarms(conn: Connection[Any], until: datetime) -> list[tuple[str, Alarm]]:
    """(workload, what is unusual at the minute that ends at `until`)"""
    since = until - WINDOW * MINUTE
    rows = minute_store.minutes(conn, since, until)
    if not rows:
        return []
    usual = _history(conn, since.replace(minute=0))
    busiest = usual.busiest | _before_loops(conn)
    found = []
    for workload in sorted({row["workload"] for row in rows}):
        mine = _minutes([row for row in rows if row["workload"] == workload], since)
        known = frozenset(key for name, key in usual.known if name == workload)
        past = usual.baselines.get(workload) or Baseline([])
        found += [(workload, alarm) for alarm in detect(past, mine, known, busiest)]
    return found


def _before_loops(conn: Connection[Any]) -> dict[str, float]:
    """key -> calls of its busiest minute in the day before it went into a loop, for those that are in one: else the
    loop itself would soon be what is usual."""
    found: dict[str, float] = {}
    for mark, opened in finding_store.open_marks(conn, KIND):
        kind, _, key = mark.partition(" ")
        if kind == "runaway":
            until = opened - WINDOW * MINUTE
            found[key] = minute_store.busiest(conn, until - COMPARED, until).get(key, 0.0)
    return found


def _history(conn: Connection[Any], until: datetime) -> Usual:
    place = f"{conn.info.host}:{conn.info.port}/{conn.info.dbname}"
    if place in _usual and _usual[place][0] == until:
        return _usual[place][1]
    since = until - HISTORY
    wanted = {"since": since, "until": until, "workload": None, "status": None, "deployment": None, "demo": None}
    rows = rollup_store.calls_by(conn, ["hour", "workload", "model"], wanted)
    hours: dict[str, dict[datetime, Hour]] = {}
    for row in rows:
        calls = int(row["calls"] or 0)
        mine = hours.setdefault(row["workload"], {})
        hour = mine.get(row["hour"]) or Hour(row["hour"], 0, 0, 0, 0, {})
        mine[row["hour"]] = Hour(
            hour.at,
            hour.calls + calls,
            hour.cost + from_decimal(row["cost_usd"]),
            hour.tokens + int(row["prompt_tokens"] + row["completion_tokens"]),
            hour.cached + int(row["cached"] or 0),
            {**hour.by_model, row["model"] or "cache": calls},
        )
    made = Usual(
        {name: Baseline(_whole(mine, until)) for name, mine in hours.items()},
        minute_store.known_keys(conn, since, until - NEW_FOR),
        minute_store.busiest(conn, until - COMPARED, until),
    )
    _usual[place] = until, made
    return made


def _whole(hours: dict[datetime, Hour], until: datetime) -> Iterable[Hour]:
    """Every hour from the first one on: without calls there is an hour all the same."""
    at = min(hours)
    while at < until:
        yield hours.get(at) or Hour(at, 0, 0, 0, 0, {})
        at += HOUR


def _minutes(rows: list[dict[str, Any]], since: datetime) -> list[Minute]:
    made = [Minute(since + place * MINUTE, 0, 0, 0, 0, {}, {}) for place in range(WINDOW)]
    for row in rows:
        place = int((row["at"] - since) / MINUTE)
        before, calls = made[place], int(row["calls"])
        by_caller = dict(before.by_caller)
        if row["key"]:
            by_caller[row["key"]] = by_caller.get(row["key"], 0) + calls
        if row["refused"]:
            made[place] = Minute(before.at, before.calls, before.cost, before.tokens, before.cached, before.by_model,
                                 by_caller)  # fmt: skip
            continue
        by_model = {**before.by_model, row["model"]: before.by_model.get(row["model"], 0) + calls}
        made[place] = Minute(
            before.at,
            before.calls + calls,
            before.cost + from_decimal(row["cost_usd"]),
            before.tokens + int(row["tokens"]),
            before.cached + (calls if row["cached"] else 0),
            by_model,
            by_caller,
        )
    return made


def _finding(conn: Connection[Any], workload: str, alarm: Alarm, until: datetime) -> Finding:
    before, during = (
        _slices(conn, workload, since, end)
        for since, end in ((alarm.since - COMPARED, alarm.since), (alarm.since, until))
    )
    lasted = max((until - alarm.since) / HOUR, 1 / 60)
    found = causes(before, during, COMPARED / HOUR, lasted)
    names = minute_store.callers(conn, [alarm.subject, *(c.value for c in found if c.dimension == "caller")])
    message = f"{workload}: {told(alarm, found)}."
    for key, name in names.items():
        message = message.replace(key, name)
    return Finding(
        kind=KIND,
        subject=f"workload/{workload}",
        mark=alarm.kind if not alarm.subject else f"{alarm.kind} {alarm.subject}",
        severity="high" if alarm.kind == "runaway" or alarm.score >= _GRAVE else "medium",
        message=message,
        hint=_HINTS[alarm.kind],
        detail={
            "kind": alarm.kind,
            "since": alarm.since.isoformat(),
            "seen": alarm.seen,
            "usual": alarm.usual,
            "score": round(alarm.score, 2),
            "subject": names.get(alarm.subject, alarm.subject),
            "causes": [
                {
                    "dimension": c.dimension,
                    "value": names.get(c.value, c.value),
                    "share": round(c.share, 3),
                    "new": c.new,
                }
                for c in found
            ],
        },
    )


_HINTS = {
    "spend": "Look at the calls since then; where it is wanted, raise the budget, else stop its cause.",
    "tokens_per_call": "Compare prompt versions, and how much retrieval adds; `groundplan rollback` undoes a change.",
    "cache_rate": "Something in front of the prompt changes now: a date, a new prompt, or the cache was cleared.",
    "mix": "Another model answers than before: look at health and routing of the first one.",
    "new_caller": "If nobody expected it, revoke its key: `groundplan keys revoke`.",
    "runaway": "Revoke its key (`groundplan keys revoke`), or declare a limit for each key. A hard budget ends it.",
}


def _slices(conn: Connection[Any], workload: str, since: datetime, until: datetime) -> list[Slice]:
    return [
        Slice(
            {
                "prompt": _prompt(conn, row["blueprint"], workload), "model": row["model"], "team": row["team"],
                "caller": row["key"], "feature": row["feature"], "endpoint": row["endpoint"],
            },
            int(row["calls"]),
            from_decimal(row["cost_usd"]),
            int(row["tokens"]),
        )
        for row in minute_store.slices(conn, workload, since, until)
    ]  # fmt: skip


def _prompt(conn: Connection[Any], number: int, workload: str) -> str:
    """The version of its prompt under a blueprint."""
    try:
        blueprint = served.at(conn, number)
    except NotFound:
        return ""
    return next((w.prompt or "" for w in blueprint.workloads if w.name == workload), "")
