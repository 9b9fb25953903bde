"""Beside the requests: once a minute, what is unusual in the spending of each workload becomes a finding that says why.

A finding closes by itself when it no longer holds. What is usual is read once an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from psycopg import Connection

from groundplan.api import served_blueprint
from groundplan.api.context import Services
from groundplan.core.errors import NotFound
from groundplan.core.money import format_usd, from_decimal
from groundplan.economics.anomaly import loop
from groundplan.economics.anomaly.cause import Single, Slice, alone, causes, level, made_of, told
from groundplan.economics.anomaly.detect import WINDOW, Baseline, detect
from groundplan.economics.anomaly.loop import Loop
from groundplan.economics.anomaly.model import Alarm, Hour, Minute
from groundplan.ledger import finding_store, spend_watch_store
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
    rotated: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """key -> those of its line: what they did a rotated key did before."""


_usual: dict[str, tuple[datetime, Usual]] = {}
"""database -> (hour, what is usual in it), so that a process reads history once an hour."""
_before: dict[str, dict[tuple[datetime, tuple[str, ...]], float | None]] = {}
"""database -> what callers did before their loops (since when, the line of the key), which stays as it was: for each
one all calls of a day are read."""


def watch(services: Services) -> finding_store.Told:
    """Tell what is unusual now, and close what no longer is."""
    with services.transaction() as conn:
        return look(conn, services.clock.now())


def look(conn: Connection[Any], now: datetime) -> finding_store.Told:
    """As `watch`, in the caller's transaction; `now` is the end of the last minute that counts."""
    until = now.replace(second=0, microsecond=0)
    usual = _now(conn, until)
    unusual = _alarms(conn, until, usual)
    loops = _loops(conn, [alarm.subject for _, alarm in unusual if alarm.kind == "runaway"], now)
    unusual = [
        (workload, alarm)
        for workload, alarm in unusual
        if alarm.kind != "runaway" or loop.sure(alarm, loops.get((workload, alarm.subject)))
    ]
    told = {(workload, alarm.subject) for workload, alarm in unusual if alarm.kind == "runaway"}
    rested = [key for workload, key in loops if (workload, key) in usual.known and key not in usual.busiest]
    busiest = usual.busiest | (_earlier(conn, rested, until - WINDOW * MINUTE, usual.rotated) if rested else {})
    unusual += [
        (key[0], alarm)
        for key, seen in loops.items()
        if key not in told and (alarm := loop.stopped(seen, busiest.get(key[1], 0.0))) is not None
    ]
    looping = {(workload, alarm.subject) for workload, alarm in unusual if alarm.kind == "runaway"}
    found = [
        _finding(conn, workload, alarm, now if seen is not None else until, seen)
        for workload, alarm in unusual
        # a caller in a loop is told once, with whether it was known before
        if alarm.kind != "new_caller" or (workload, alarm.subject) not in looping
        for seen in [loops.get((workload, alarm.subject)) if alarm.kind == "runaway" else None]
    ]
    return finding_store.tell_all(conn, found, kinds=[KIND], within="workload/")


def _now(conn: Connection[Any], until: datetime) -> Usual:
    """What is usual before the minutes that are looked at."""
    usual = _history(conn, (until - WINDOW * MINUTE).replace(minute=0))
    rotated = spend_watch_store.rotated(conn, until - HISTORY - timedelta(days=1))
    lines = {(name, rotated[key]) for name, key in usual.known if key in rotated}
    known = {(name, other) for name, line in lines for other in line}
    busiest = _of_lines(usual.busiest, rotated)
    return replace(
        usual,
        known=usual.known | known,
        busiest=busiest | _before_loops(conn, until, rotated),
        rotated=rotated,
    )


def _of_lines(busiest: Mapping[str, float], rotated: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """With each key of a line as busy as the busiest of it: callers change to the new one when they like."""
    found = dict(busiest)
    for key, calls in busiest.items():
        for other in rotated.get(key, ()):
            found[other] = max(found.get(other, 0.0), calls)
    return found


def _loops(conn: Connection[Any], keys: list[str], now: datetime) -> dict[tuple[str, str], Loop]:
    """(workload, key) -> what it did, of these and of those that a budget refused in the last hour. Up to this moment:
    whoever is stopped makes no more minutes that could be waited for."""
    rows = spend_watch_store.loops(conn, keys, loop.SPAN, now - WINDOW * MINUTE, now)
    found = {}
    for row in rows:
        cost, limit = from_decimal(row.pop("cost_usd")), from_decimal(row.pop("limit_usd"))
        del row["newest"]
        found[row["workload"], row["caller"]] = Loop(**row, cost=cost, limit=limit)
    return found


def _alarms(conn: Connection[Any], until: datetime, usual: Usual) -> list[tuple[str, Alarm]]:
    """(workload, what is unusual at the minute that ends at `until`)"""
    since = until - WINDOW * MINUTE
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in spend_watch_store.minutes(conn, since, until):
        rows.setdefault(row["workload"], []).append(row)
    keys: dict[str, set[str]] = {}
    for workload, key in usual.known:
        keys.setdefault(workload, set()).add(key)
    found = []
    for workload in sorted(rows):
        mine = _minutes(rows[workload], since)
        known = frozenset(keys.get(workload, ()))
        past = usual.baselines.get(workload) or Baseline([])
        alarms = detect(past, mine, known, usual.busiest)
        fast = [alarm.subject for alarm in alarms if alarm.kind == "runaway" and not alarm.usual]
        if away := [key for key in fast if key in known]:
            alarms = detect(past, mine, known, usual.busiest | _earlier(conn, away, since, usual.rotated))
        found += [(workload, alarm) for alarm in alarms]
    return found


def _earlier(
    conn: Connection[Any], keys: list[str], until: datetime, rotated: Mapping[str, tuple[str, ...]]
) -> dict[str, float]:
    """key -> calls of its busiest minute on the newest of its days, for those that rested since: over a weekend, or
    between two runs of a month's end."""
    lines = dict.fromkeys(other for key in keys for other in (key, *rotated.get(key, ())))
    return _of_lines(spend_watch_store.busiest_of_last_day(conn, list(lines), until - HISTORY, until), rotated)


def _before_loops(conn: Connection[Any], now: datetime, rotated: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """key -> calls of its busiest minute before it went into a loop, for those that are in one: else the loop itself
    would soon be what is usual. After a day it is, where nothing usual was known."""
    found: dict[str, float] = {}
    known, still = _before.get(_place(conn), {}), dict[tuple[datetime, tuple[str, ...]], float | None]()
    for mark, opened in finding_store.open_marks(conn, KIND):
        kind, _, key = mark.partition(" ")
        if kind == "runaway":
            line = (key, *rotated.get(key, ()))
            if (opened, line) not in known:
                until = opened - WINDOW * MINUTE
                lately = spend_watch_store.busiest(conn, until - COMPARED, until, line)
                before = _earlier(conn, [key], until, rotated) | _of_lines(lately, rotated)
                known[opened, line] = before.get(key)
            calls = still[opened, line] = known[opened, line]
            if calls is not None or now - opened < COMPARED:
                found[key] = calls or 0.0
    _before[_place(conn)] = still
    return found


def _place(conn: Connection[Any]) -> str:
    return f"{conn.info.host}:{conn.info.port}/{conn.info.dbname}"


def _history(conn: Connection[Any], until: datetime) -> Usual:
    place = _place(conn)
    if place in _usual and _usual[place][0] == until:
        return _usual[place][1]
    since = until - HISTORY
    with conn.transaction():
        baselines = {
            name: Baseline(_whole({row["hour"]: _hour(row) for row in rows}, until))
            for name, rows in groupby(spend_watch_store.hours(conn, since, until), itemgetter("workload"))
        }
    made = Usual(
        baselines,
        spend_watch_store.known_keys(conn, since, until - NEW_FOR),
        spend_watch_store.busiest(conn, until - COMPARED, until),
    )
    _usual[place] = until, made
    return made


def _hour(row: dict[str, Any]) -> Hour:
    cost = from_decimal(row["cost_usd"])
    return Hour(row["hour"], row["calls"], cost, row["tokens"], row["cached"], row["by_model"])


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


def _finding(conn: Connection[Any], workload: str, alarm: Alarm, until: datetime, seen: Loop | None) -> Finding:
    before, during = (
        _slices(conn, workload, since, end)
        for since, end in ((alarm.since - COMPARED, alarm.since), (alarm.since, until))
    )
    lasted = max((until - alarm.since) / HOUR, 1 / 60)
    hours = COMPARED / HOUR, lasted
    times = level(alarm, before, during, hours)
    model = alarm.subject if alarm.kind == "mix" else None
    found = (
        [] if alarm.kind == "new_caller" else causes(before, during, *hours, times, model)
    )  # the caller is the cause
    made = made_of(alarm, before, during, hours, times)
    names = spend_watch_store.callers(conn, [alarm.subject, *(c.value for c in found if c.dimension == "caller")])
    who = names.get(alarm.subject, alarm.subject)
    single = _single(conn, workload, alarm, until, during, lasted)
    message = f"{workload}: {told(alarm, found, single, made) if seen is None else loop.told(alarm, seen, who)}."
    for key, name in names.items():
        message = message.replace(key, name)
    return Finding(
        kind=KIND,
        subject=f"workload/{workload}",
        mark=alarm.kind if not alarm.subject else f"{alarm.kind} {alarm.subject}",
        severity="high" if alarm.kind == "runaway" or alarm.score >= _GRAVE else "medium",
        message=message,
        hint=_hint(alarm, seen, single),
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
            **({"loop": _loop_json(seen)} if seen is not None else {}),
            **(
                {"call": {"id": single.id, "cost_usd": format_usd(single.cost), "tokens": single.tokens}}
                if single
                else {}
            ),
        },
    )


def _hint(alarm: Alarm, seen: Loop | None, single: Single | None) -> str:
    if single is not None:
        return f"`groundplan why {single.id}` says whose it was; `limits: {{max_cost_per_call}}` refuses such calls."
    return _STOPPED if seen is not None and seen.stopped is not None else _HINTS[alarm.kind]


def _single(
    conn: Connection[Any], workload: str, alarm: Alarm, until: datetime, during: list[Slice], hours: float
) -> Single | None:
    """The one call that is most of what is unusual, where there is such a one."""
    if alarm.kind not in ("spend", "tokens_per_call"):
        return None
    by = "cost_usd" if alarm.kind == "spend" else "tokens"
    if (row := spend_watch_store.largest(conn, workload, alarm.since, until, by=by)) is None:
        return None
    single = Single(row["id"], from_decimal(row["cost_usd"]), int(row["tokens"]))
    return single if alone(alarm, during, single, hours) else None


def _loop_json(seen: Loop) -> dict[str, Any]:
    return {
        "key": seen.caller, "team": seen.team, "feature": seen.feature, "calls": seen.calls,
        "calls_a_minute": round(seen.rate, 1), "cost_usd": format_usd(seen.cost), "growing": seen.growing,
        "first_tokens": round(seen.first_tokens), "last_tokens": round(seen.last_tokens), "refused": seen.refused,
        "stopped_at": None if seen.stopped is None else seen.stopped.isoformat(), "budget": seen.budget or None,
        "limit_usd": format_usd(seen.limit) if seen.budget else None,
    }  # fmt: skip


_HINTS = {
    "spend": "Look at the calls since then; where it is wanted, raise the budget, else stop its cause.",
    "tokens_per_call": "Compare prompt versions, and how much retrieval adds; `groundplan rollback` undoes a change.",
    "cache_rate": "Something in front of the prompt changes now: a date, a new prompt, or the cache was cleared.",
    "mix": "Another model answers than before: look at health and routing of the first one.",
    "new_caller": "If nobody expected it, revoke its key: `groundplan keys revoke`.",
    "runaway": "Revoke its key (`groundplan keys revoke`), or declare a limit for each key. A hard budget ends it.",
}
_STOPPED = (
    "Nothing more is spent until its budget has room again: mend the agent before (receipts of its calls show what it"
    " did), or revoke its key with `groundplan keys revoke`."
)


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
        for row in spend_watch_store.slices(conn, workload, since, until)
    ]  # fmt: skip


def _prompt(conn: Connection[Any], number: int, workload: str) -> str:
    """The version of its prompt under a blueprint."""
    try:
        blueprint = served_blueprint.blueprint_at(conn, number)
    except NotFound:
        return ""
    return next((w.prompt or "" for w in blueprint.workloads if w.name == workload), "")
