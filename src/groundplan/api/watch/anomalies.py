"""Background check, once a minute: unusual spending of a workload becomes a finding that names the causes.

A finding closes by itself when it no longer holds. Usual values are read from history once an hour.
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
from groundplan.economics.anomaly.cause import (
    LargestCall,
    Slice,
    describe_alarm,
    find_causes,
    is_single_call,
    seasonal_level,
    spend_components,
)
from groundplan.economics.anomaly.detect import WINDOW, Baseline, detect
from groundplan.economics.anomaly.loop import Loop
from groundplan.economics.anomaly.model import Alarm, Hour, Minute
from groundplan.ledger import finding_store, spend_watch_store
from groundplan.ledger.finding import Finding

KIND = "cost.anomaly"
WATCH_SECONDS = 60.0
HISTORY_PERIOD = timedelta(days=28)
COMPARED_PERIOD = timedelta(hours=24)
NEW_CALLER_PERIOD = timedelta(hours=24)
"""How long after its first call a caller counts as new."""
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
_HIGH_SCORE = 3.0


@dataclass(frozen=True, slots=True)
class UsualUsage:
    """Usual usage, from the weeks before an hour."""

    baselines: dict[str, Baseline]
    known: set[tuple[str, str]]
    busiest: dict[str, float]
    rotated: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """key -> other keys of its rotation: their usage counts as that of the key."""


_usual_by_database: dict[str, tuple[datetime, UsualUsage]] = {}
"""database -> (hour, usual usage), so that a process reads history once an hour."""
_calls_before_loops: dict[str, dict[tuple[datetime, tuple[str, ...]], float | None]] = {}
"""database -> (start of a loop, keys of its rotation) -> calls of the busiest minute before it. Kept, since it does not
change and needs all calls of a day."""


def update_findings(services: Services) -> finding_store.FindingChanges:
    """Open findings about what is unusual now, and close those that no longer hold."""
    with services.transaction() as conn:
        return update_anomaly_findings(conn, services.clock.now())


def update_anomaly_findings(conn: Connection[Any], now: datetime) -> finding_store.FindingChanges:
    """As `update_findings`, in the caller's transaction; `now` ends the last minute that counts."""
    until = now.replace(second=0, microsecond=0)
    usual = _usual_usage(conn, until)
    unusual = _find_alarms(conn, until, usual)
    loops = _find_loops(conn, [alarm.subject for _, alarm in unusual if alarm.kind == "runaway"], now)
    unusual = [
        (workload, alarm)
        for workload, alarm in unusual
        if alarm.kind != "runaway" or loop.is_loop(alarm, loops.get((workload, alarm.subject)))
    ]
    runaways = {(workload, alarm.subject) for workload, alarm in unusual if alarm.kind == "runaway"}
    rested = [key for workload, key in loops if (workload, key) in usual.known and key not in usual.busiest]
    busiest = usual.busiest | (_busiest_before(conn, rested, until - WINDOW * MINUTE, usual.rotated) if rested else {})
    unusual += [
        (key[0], alarm)
        for key, found_loop in loops.items()
        if key not in runaways and (alarm := loop.stopped(found_loop, busiest.get(key[1], 0.0))) is not None
    ]
    looping = {(workload, alarm.subject) for workload, alarm in unusual if alarm.kind == "runaway"}
    findings = [
        _finding(conn, workload, alarm, now if alarm_loop is not None else until, alarm_loop)
        for workload, alarm in unusual
        # a caller in a loop gets one finding, also where the caller is new
        if alarm.kind != "new_caller" or (workload, alarm.subject) not in looping
        for alarm_loop in [loops.get((workload, alarm.subject)) if alarm.kind == "runaway" else None]
    ]
    return finding_store.replace_findings(conn, findings, kinds=[KIND], within="workload/")


def _usual_usage(conn: Connection[Any], until: datetime) -> UsualUsage:
    """The usual usage before the checked minutes."""
    usual = _usual_of_history(conn, (until - WINDOW * MINUTE).replace(minute=0))
    rotated = spend_watch_store.rotation_lines(conn, until - HISTORY_PERIOD - timedelta(days=1))
    lines = {(name, rotated[key]) for name, key in usual.known if key in rotated}
    line_members = {(name, other) for name, line in lines for other in line}
    busiest = _busiest_of_lines(usual.busiest, rotated)
    return replace(
        usual,
        known=usual.known | line_members,
        busiest=busiest | _busiest_before_loops(conn, until, rotated),
        rotated=rotated,
    )


def _busiest_of_lines(busiest: Mapping[str, float], rotated: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Key -> calls of its busiest minute, the same for all keys of a rotation: callers switch keys at any time."""
    by_key = dict(busiest)
    for key, calls in busiest.items():
        for other in rotated.get(key, ()):
            by_key[other] = max(by_key.get(other, 0.0), calls)
    return by_key


def _find_loops(conn: Connection[Any], keys: list[str], now: datetime) -> dict[tuple[str, str], Loop]:
    """(workload, key) -> possible loop, of these keys and of those that a budget refused in the last hour. Read up to
    `now`: a caller that was stopped completes no further minute."""
    rows = spend_watch_store.calls_before_refusal(conn, keys, loop.SPAN, now - WINDOW * MINUTE, now)
    loops = {}
    for row in rows:
        cost, limit = from_decimal(row.pop("cost_usd")), from_decimal(row.pop("limit_usd"))
        del row["newest"]
        loops[row["workload"], row["caller"]] = Loop(**row, cost=cost, limit=limit)
    return loops


def _find_alarms(conn: Connection[Any], until: datetime, usual: UsualUsage) -> list[tuple[str, Alarm]]:
    """(workload, alarm) of everything unusual in the minutes that end at `until`."""
    since = until - WINDOW * MINUTE
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in spend_watch_store.calls_by_minute(conn, since, until):
        rows.setdefault(row["workload"], []).append(row)
    keys: dict[str, set[str]] = {}
    for workload, key in usual.known:
        keys.setdefault(workload, set()).add(key)
    unusual = []
    for workload in sorted(rows):
        minutes = _minutes_of(rows[workload], since)
        known = frozenset(keys.get(workload, ()))
        past = usual.baselines.get(workload) or Baseline([])
        alarms = detect(past, minutes, known, usual.busiest)
        fast = [alarm.subject for alarm in alarms if alarm.kind == "runaway" and not alarm.usual]
        if away := [key for key in fast if key in known]:
            alarms = detect(past, minutes, known, usual.busiest | _busiest_before(conn, away, since, usual.rotated))
        unusual += [(workload, alarm) for alarm in alarms]
    return unusual


def _busiest_before(
    conn: Connection[Any], keys: list[str], until: datetime, rotated: Mapping[str, tuple[str, ...]]
) -> dict[str, float]:
    """Key -> calls of its busiest minute on its last active day, for keys that paused since: over a weekend, or between
    two month-end runs."""
    lines = dict.fromkeys(other for key in keys for other in (key, *rotated.get(key, ())))
    return _busiest_of_lines(
        spend_watch_store.busiest_minutes_of_last_day(conn, list(lines), until - HISTORY_PERIOD, until), rotated
    )


def _busiest_before_loops(
    conn: Connection[Any], now: datetime, rotated: Mapping[str, tuple[str, ...]]
) -> dict[str, float]:
    """Key -> calls of its busiest minute before its loop, for keys with an open loop finding: otherwise the loop itself
    would soon be usual. After a day it is, where no earlier usage is known."""
    busiest_by_key: dict[str, float] = {}
    known_calls, still_open = (
        _calls_before_loops.get(_database_name(conn), {}),
        dict[tuple[datetime, tuple[str, ...]], float | None](),
    )
    for mark, opened in finding_store.open_marks(conn, KIND):
        kind, _, key = mark.partition(" ")
        if kind == "runaway":
            line = (key, *rotated.get(key, ()))
            if (opened, line) not in known_calls:
                until = opened - WINDOW * MINUTE
                recent = spend_watch_store.busiest_minutes(conn, until - COMPARED_PERIOD, until, line)
                before = _busiest_before(conn, [key], until, rotated) | _busiest_of_lines(recent, rotated)
                known_calls[opened, line] = before.get(key)
            calls = still_open[opened, line] = known_calls[opened, line]
            if calls is not None or now - opened < COMPARED_PERIOD:
                busiest_by_key[key] = calls or 0.0
    _calls_before_loops[_database_name(conn)] = still_open
    return busiest_by_key


def _database_name(conn: Connection[Any]) -> str:
    return f"{conn.info.host}:{conn.info.port}/{conn.info.dbname}"


def _usual_of_history(conn: Connection[Any], until: datetime) -> UsualUsage:
    database = _database_name(conn)
    if database in _usual_by_database and _usual_by_database[database][0] == until:
        return _usual_by_database[database][1]
    since = until - HISTORY_PERIOD
    with conn.transaction():
        baselines = {
            name: Baseline(_every_hour({row["hour"]: _hour_of(row) for row in rows}, until))
            for name, rows in groupby(
                spend_watch_store.workload_sums_by_hour(conn, since, until), itemgetter("workload")
            )
        }
    usual = UsualUsage(
        baselines,
        spend_watch_store.known_keys(conn, since, until - NEW_CALLER_PERIOD),
        spend_watch_store.busiest_minutes(conn, until - COMPARED_PERIOD, until),
    )
    _usual_by_database[database] = until, usual
    return usual


def _hour_of(row: dict[str, Any]) -> Hour:
    cost = from_decimal(row["cost_usd"])
    return Hour(row["hour"], row["calls"], cost, row["tokens"], row["cached"], row["by_model"])


def _every_hour(hours: dict[datetime, Hour], until: datetime) -> Iterable[Hour]:
    """Every hour from the first one on, those without calls included."""
    at = min(hours)
    while at < until:
        yield hours.get(at) or Hour(at, 0, 0, 0, 0, {})
        at += HOUR


def _minutes_of(rows: list[dict[str, Any]], since: datetime) -> list[Minute]:
    minutes = [Minute(since + index * MINUTE, 0, 0, 0, 0, {}, {}) for index in range(WINDOW)]
    for row in rows:
        index = int((row["at"] - since) / MINUTE)
        before, calls = minutes[index], int(row["calls"])
        by_caller = dict(before.by_caller)
        if row["key"]:
            by_caller[row["key"]] = by_caller.get(row["key"], 0) + calls
        if row["refused"]:
            minutes[index] = Minute(before.at, before.calls, before.cost, before.tokens, before.cached, before.by_model,
                                 by_caller)  # fmt: skip
            continue
        by_model = {**before.by_model, row["model"]: before.by_model.get(row["model"], 0) + calls}
        minutes[index] = Minute(
            before.at,
            before.calls + calls,
            before.cost + from_decimal(row["cost_usd"]),
            before.tokens + int(row["tokens"]),
            before.cached + (calls if row["cached"] else 0),
            by_model,
            by_caller,
        )
    return minutes


def _finding(conn: Connection[Any], workload: str, alarm: Alarm, until: datetime, caller_loop: Loop | None) -> Finding:
    before, during = (
        _slices(conn, workload, since, end)
        for since, end in ((alarm.since - COMPARED_PERIOD, alarm.since), (alarm.since, until))
    )
    lasted = max((until - alarm.since) / HOUR, 1 / 60)
    hours = COMPARED_PERIOD / HOUR, lasted
    times = seasonal_level(alarm, before, during, hours)
    model = alarm.subject if alarm.kind == "mix" else None
    # for a new caller, the caller is the cause
    causes = [] if alarm.kind == "new_caller" else find_causes(before, during, *hours, times, model)
    components = spend_components(alarm, before, during, hours, times)
    names = spend_watch_store.key_holders(conn, [alarm.subject, *(c.value for c in causes if c.dimension == "caller")])
    caller = names.get(alarm.subject, alarm.subject)
    single = _dominant_call(conn, workload, alarm, until, during, lasted)
    text = (
        describe_alarm(alarm, causes, single, components)
        if caller_loop is None
        else loop.describe_loop(alarm, caller_loop, caller)
    )
    message = f"{workload}: {text}."
    for key, name in names.items():
        message = message.replace(key, name)
    return Finding(
        kind=KIND,
        subject=f"workload/{workload}",
        mark=alarm.kind if not alarm.subject else f"{alarm.kind} {alarm.subject}",
        severity="high" if alarm.kind == "runaway" or alarm.score >= _HIGH_SCORE else "medium",
        message=message,
        hint=_hint(alarm, caller_loop, single),
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
                for c in causes
            ],
            **({"loop": _loop_json(caller_loop)} if caller_loop is not None else {}),
            **(
                {"call": {"id": single.id, "cost_usd": format_usd(single.cost), "tokens": single.tokens}}
                if single
                else {}
            ),
        },
    )


def _hint(alarm: Alarm, caller_loop: Loop | None, single: LargestCall | None) -> str:
    if single is not None:
        return f"`groundplan why {single.id}` says whose it was; `limits: {{max_cost_per_call}}` refuses such calls."
    return _STOPPED_HINT if caller_loop is not None and caller_loop.stopped is not None else _HINTS[alarm.kind]


def _dominant_call(
    conn: Connection[Any], workload: str, alarm: Alarm, until: datetime, during: list[Slice], hours: float
) -> LargestCall | None:
    """The single call that causes most of the anomaly; None if there is no such call."""
    if alarm.kind not in ("spend", "tokens_per_call"):
        return None
    by = "cost_usd" if alarm.kind == "spend" else "tokens"
    if (row := spend_watch_store.largest_call(conn, workload, alarm.since, until, by=by)) is None:
        return None
    single = LargestCall(row["id"], from_decimal(row["cost_usd"]), int(row["tokens"]))
    return single if is_single_call(alarm, during, single, hours) else None


def _loop_json(caller_loop: Loop) -> dict[str, Any]:
    stopped = caller_loop.stopped
    return {
        "key": caller_loop.caller,
        "team": caller_loop.team,
        "feature": caller_loop.feature,
        "calls": caller_loop.calls,
        "calls_a_minute": round(caller_loop.rate, 1),
        "cost_usd": format_usd(caller_loop.cost),
        "growing": caller_loop.growing,
        "first_tokens": round(caller_loop.first_tokens),
        "last_tokens": round(caller_loop.last_tokens),
        "refused": caller_loop.refused,
        "stopped_at": None if stopped is None else stopped.isoformat(),
        "budget": caller_loop.budget or None,
        "limit_usd": format_usd(caller_loop.limit) if caller_loop.budget else None,
    }


_HINTS = {
    "spend": "Look at the calls since then; where it is wanted, raise the budget, else stop its cause.",
    "tokens_per_call": "Compare prompt versions, and how much retrieval adds; `groundplan rollback` undoes a change.",
    "cache_rate": "Something in front of the prompt changes now: a date, a new prompt, or the cache was cleared.",
    "mix": "Another model answers than before: look at health and routing of the first one.",
    "new_caller": "If nobody expected it, revoke its key: `groundplan keys revoke`.",
    "runaway": "Revoke its key (`groundplan keys revoke`), or declare a limit for each key. A hard budget ends it.",
}
_STOPPED_HINT = (
    "Nothing more is spent until its budget has room again: mend the agent before (receipts of its calls show what it"
    " did), or revoke its key with `groundplan keys revoke`."
)


def _slices(conn: Connection[Any], workload: str, since: datetime, until: datetime) -> list[Slice]:
    return [
        Slice(
            {
                "prompt": _prompt_version(conn, row["blueprint"], workload), "model": row["model"], "team": row["team"],
                "caller": row["key"], "feature": row["feature"], "endpoint": row["endpoint"],
            },
            int(row["calls"]),
            from_decimal(row["cost_usd"]),
            int(row["tokens"]),
        )
        for row in spend_watch_store.calls_by_attribute(conn, workload, since, until)
    ]  # fmt: skip


def _prompt_version(conn: Connection[Any], number: int, workload: str) -> str:
    """`name@version` of the workload's prompt under a blueprint."""
    try:
        blueprint = served_blueprint.blueprint_at(conn, number)
    except NotFound:
        return ""
    return next((w.prompt or "" for w in blueprint.workloads if w.name == workload), "")
