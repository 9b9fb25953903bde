"""The SQL of replays: runs, the stored calls that they repeat, and judgements. Reads no content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, tuple_row
from psycopg.types.json import Jsonb

from groundplan.core.database import select
from groundplan.core.errors import Problem
from groundplan.economics.replay.model import Judged
from groundplan.economics.replay.run import QueuedCall, ReplayResult, Run

ENDPOINTS = ("chat.completions", "messages")
DAYS = 30
"""Highest age in days of a call, and of a judgement that counts."""
STALE = "6 minutes"
"""Longer than any answer takes, after which a runner counts as gone."""
OPEN = "left_open"
"""Reasons of calls that the judge left open: it could not answer, or gave no verdict."""
PAUSE = "30 seconds"
"""Pause before a released run is claimed again."""
_COLUMNS: LiteralString = """id, workload, current, candidate, judge, budget_usd, calls, asked_by, state, night,
    asked_at, began_at, ended_at, sampled, outcome, proposal, problem, keys"""
# calls that were answered by the deployment of today, whole, by a model, for people, and not judged lately
_SAMPLE: LiteralString = """INSERT INTO replay_call (run, call_id, segment, cost_usd)
    SELECT %(run)s, c.id, coalesce(c.detail ->> 'feature', ''), c.cost_usd
    FROM content k JOIN call c ON c.id = k.call_id
    WHERE k.workload = %(workload)s AND k.at >= %(since)s AND NOT k.cut AND k.expires_at > now() + interval '1 hour'
      AND c.deployment = %(current)s AND c.status = 'ok' AND c.endpoint = ANY(%(endpoints)s)
      AND c.cache NOT IN ('exact', 'semantic')
      AND NOT c.detail ? 'of'
      AND NOT EXISTS (SELECT 1 FROM replay_call o JOIN replay_run r ON r.id = o.run
        WHERE o.call_id = c.id AND o.state = 'judged' AND r.candidate = %(candidate)s AND r.judge = %(judge)s)
    ORDER BY random() LIMIT %(calls)s ON CONFLICT DO NOTHING"""
_JUDGED: LiteralString = """SELECT c.call_id::text, c.segment, c.kept, c.cost_usd::float8, c.candidate_usd::float8,
      c.reviewed
    FROM replay_call c JOIN replay_run r ON r.id = c.run
    WHERE c.state = 'judged' AND r.workload = %(workload)s AND r.current = %(current)s AND r.candidate = %(candidate)s
      AND r.judge = %(judge)s AND r.asked_at >= %(since)s ORDER BY c.call_id"""

_OPEN: LiteralString = """WITH mine AS (
      SELECT c.call_id, c.segment, c.state, c.why FROM replay_call c JOIN replay_run r ON r.id = c.run
      WHERE r.workload = %(workload)s AND r.current = %(current)s AND r.candidate = %(candidate)s
        AND r.judge = %(judge)s AND r.asked_at >= %(since)s)
    SELECT segment, count(DISTINCT call_id) FROM mine m WHERE state = 'skipped' AND why = %(open)s
      AND NOT EXISTS (SELECT 1 FROM mine j WHERE j.call_id = m.call_id AND j.state = 'judged') GROUP BY 1"""


def insert(conn: Connection[Any], made: Run) -> bool:
    """Insert a run; False if this night has it already."""
    values = asdict(made)
    done = conn.execute(
        """INSERT INTO replay_run (id, workload, current, candidate, judge, budget_usd, calls, night, asked_by, state)
           VALUES (%(id)s, %(workload)s, %(current)s, %(candidate)s, %(judge)s, %(budget_usd)s, %(calls)s, %(night)s,
             %(asked_by)s, 'waiting') ON CONFLICT DO NOTHING""",
        values,
    )
    return done.rowcount == 1


def find_unfinished(conn: Connection[Any], made: Run) -> UUID | None:
    """The unfinished run of the same replay, if any. Locks requests for the workload until the transaction ends."""
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 55))", (made.workload,))
    row = conn.execute(
        """SELECT id FROM replay_run WHERE workload = %s AND current = %s AND candidate = %s AND judge = %s
             AND night IS NULL AND state IN ('waiting', 'running') LIMIT 1""",
        (made.workload, made.current, made.candidate, made.judge),
    ).fetchone()
    return None if row is None else row[0]


def list_runs(conn: Connection[Any], workload: str | None = None, limit: int = 100) -> list[Run]:
    """Runs, newest first."""
    query: LiteralString = f"""SELECT {_COLUMNS} FROM replay_run WHERE %(w)s::text IS NULL OR workload = %(w)s
        ORDER BY id DESC LIMIT %(n)s"""
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(query, {"w": workload, "n": limit}).fetchall()


def newest_proven(conn: Connection[Any], since: datetime) -> list[Run]:
    """The newest run of each workload and candidate that ended since then with a proposal."""
    query: LiteralString = f"""SELECT DISTINCT ON (workload, candidate) {_COLUMNS} FROM replay_run
        WHERE state = 'done' AND proposal IS NOT NULL AND ended_at >= %s
        ORDER BY workload, candidate, ended_at DESC"""
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(query, (since,)).fetchall()


def find(conn: Connection[Any], id: UUID) -> Run | None:
    query: LiteralString = f"SELECT {_COLUMNS} FROM replay_run WHERE id = %s"
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(query, (id,)).fetchone()


def claim(conn: Connection[Any], runner: UUID) -> Run | None:
    """Claim the next run without a runner, or whose runner is gone; None: none. A heartbeat as far ahead as those of
    runners that are gone are behind came from a clock that was set back since."""
    query: LiteralString = f"""UPDATE replay_run SET state = 'running', runner = %s, beat = now(),
          began_at = coalesce(began_at, now())
        WHERE id = (SELECT id FROM replay_run
            WHERE (state = 'waiting' AND (beat IS NULL OR beat NOT BETWEEN now() - interval '{PAUSE}'
              AND now() + interval '{PAUSE}'))
            OR (state = 'running' AND beat NOT BETWEEN now() - interval '{STALE}' AND now() + interval '{STALE}')
          ORDER BY asked_at LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING {_COLUMNS}"""
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(query, (runner,)).fetchone()


def heartbeat(conn: Connection[Any], run: UUID, runner: UUID) -> bool:
    """Record that the runner is alive; False if another one has taken over."""
    done = conn.execute(
        "UPDATE replay_run SET beat = now() WHERE id = %s AND runner = %s AND state = 'running'", (run, runner)
    )
    return done.rowcount == 1


def release(conn: Connection[Any], run: UUID, runner: UUID) -> None:
    """Release a run, so that a runner continues it after a pause."""
    conn.execute("UPDATE replay_run SET state = 'waiting' WHERE id = %s AND runner = %s", (run, runner))


def draw_sample(conn: Connection[Any], run: Run, since: datetime) -> int:
    """Draw the sample of calls, once; returns its size."""
    if run.sampled:
        return 0
    asked = {
        "run": run.id, "workload": run.workload, "since": since, "current": run.current, "endpoints": list(ENDPOINTS),
        "candidate": run.candidate, "judge": run.judge, "calls": run.calls,
    }  # fmt: skip
    count = conn.execute(_SAMPLE, asked).rowcount
    conn.execute("UPDATE replay_run SET sampled = true WHERE id = %s", (run.id,))
    return count


def give_up_sent(conn: Connection[Any], run: UUID) -> int:
    """Give up calls that a previous runner had sent: they are not sent again."""
    return conn.execute(
        "UPDATE replay_call SET state = 'skipped', why = 'interrupted' WHERE run = %s AND state = 'sent'", (run,)
    ).rowcount


def take_next_call(conn: Connection[Any], run: UUID) -> QueuedCall | None:
    """Take the next stored call and mark it as sent; None: none is left. The order is random, so that a run whose
    budget ends has replayed a representative part."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(
            """UPDATE replay_call r SET state = 'sent' FROM call c
               WHERE (r.run, r.call_id) = (SELECT w.run, w.call_id FROM replay_call w JOIN call k ON k.id = w.call_id
                   WHERE w.run = %s AND w.state = 'waiting'
                   ORDER BY md5(w.call_id::text) LIMIT 1 FOR UPDATE OF w SKIP LOCKED) AND c.id = r.call_id
               RETURNING r.call_id, c.endpoint, (SELECT email FROM person p WHERE p.id = c.person_id AND p.active),
                 c.person_id IS NOT NULL""",
            (run,),
        ).fetchone()
    return None if row is None else QueuedCall(*row[:3])


def put_back(conn: Connection[Any], run: UUID, call: UUID) -> None:
    """Put back a call that was certainly not sent."""
    conn.execute("UPDATE replay_call SET state = 'waiting' WHERE run = %s AND call_id = %s", (run, call))


def record_answer(conn: Connection[Any], run: UUID, came: ReplayResult) -> None:
    conn.execute(
        """UPDATE replay_call SET state = %s, beside_call = %s, kept = %s, contradicted = %s, candidate_usd = %s,
             why = %s, said = %s WHERE run = %s AND call_id = %s""",
        (
            "skipped" if came.kept is None else "judged", came.beside, came.kept, came.contradicted,
            came.candidate_usd, came.why, came.said, run, came.call,
        ),
    )  # fmt: skip


def add_key(conn: Connection[Any], run: UUID, key: UUID, purpose: str) -> None:
    """Add the key of a run, which is valid for nothing else."""
    conn.execute("UPDATE api_key SET purpose = %s WHERE id = %s", (purpose, key))
    conn.execute("UPDATE replay_run SET keys = keys || %s::uuid WHERE id = %s", (key, run))


def spent(conn: Connection[Any], keys: Sequence[UUID]) -> Decimal:
    """US dollars that were charged to the budgets of its keys."""
    row = conn.execute(
        """SELECT coalesce(sum(cost_usd), 0) FROM (SELECT budget, cost_usd FROM charge_total
             UNION ALL SELECT budget, cost_usd FROM charge_delta) c WHERE budget = ANY(%s)""",
        ([f"key/{key}" for key in keys],),
    ).fetchone()
    assert row is not None
    return Decimal(row[0])


def judged_calls(conn: Connection[Any], run: Run, since: datetime) -> list[Judged]:
    """Recent judgements of this candidate by this judge, compared with the present deployment."""
    asked: Mapping[str, Any] = {
        "workload": run.workload, "current": run.current, "candidate": run.candidate, "judge": run.judge,
        "since": since,
    }  # fmt: skip
    with conn.cursor(row_factory=tuple_row) as cursor:
        return [Judged(*row) for row in cursor.execute(_JUDGED, asked).fetchall()]


def left_open_by_segment(conn: Connection[Any], run: Run, since: datetime) -> dict[str, int]:
    """Segment -> calls without a judgement because the judge left them open."""
    asked = {
        "workload": run.workload, "current": run.current, "candidate": run.candidate, "judge": run.judge,
        "since": since, "open": OPEN,
    }  # fmt: skip
    with conn.cursor(row_factory=tuple_row) as cursor:
        return dict(cursor.execute(_OPEN, asked).fetchall())


def contradiction_counts(conn: Connection[Any], run: UUID) -> tuple[int, int]:
    """(pairs with contradicting verdicts, all judged pairs) of a run."""
    row = conn.execute(
        "SELECT count(*) FILTER (WHERE contradicted), count(*) FROM replay_call WHERE run = %s AND state = 'judged'",
        (run,),
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def end(conn: Connection[Any], run: UUID, outcome: str, proposal: dict[str, Any] | None) -> None:
    """It is done."""
    conn.execute(
        "UPDATE replay_run SET state = 'done', outcome = %s, proposal = %s, ended_at = now() WHERE id = %s",
        (outcome, None if proposal is None else Jsonb(proposal), run),
    )


def fail(conn: Connection[Any], run: UUID, problem: Problem) -> None:
    told = Jsonb({"code": problem.code, "hint": problem.hint})
    conn.execute(
        "UPDATE replay_run SET state = 'failed', outcome = %s, problem = %s, ended_at = now() WHERE id = %s",
        (problem.message, told, run),
    )


def calls(conn: Connection[Any], run: UUID, limit: int = 500) -> list[dict[str, Any]]:
    """Calls of a run, worse ones first."""
    return select(
        conn,
        """SELECT call_id, segment, state, why, beside_call, kept, contradicted, cost_usd, candidate_usd, reviewed, said
               FROM replay_call WHERE run = %s ORDER BY kept NULLS LAST, call_id LIMIT %s""",
        (run, limit),
    )


def progress(conn: Connection[Any], run: UUID) -> dict[str, int]:
    """Counts of a run's calls by state."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute("SELECT state, count(*) FROM replay_call WHERE run = %s GROUP BY 1", (run,)).fetchall()
    return {state: int(count) for state, count in rows}


def record_review(conn: Connection[Any], run: UUID, call: UUID, kept: bool, by: str) -> bool:
    """Record a person's review of a judged pair; False if there is none."""
    done = conn.execute(
        """UPDATE replay_call SET reviewed = %s, reviewed_by = %s
           WHERE run = %s AND call_id = %s AND state = 'judged'""",
        (kept, by, run, call),
    )
    return done.rowcount == 1


def current_night(now: datetime) -> date | None:
    """The night that `now` is in, from one to five o'clock UTC; None by day."""
    return now.date() if 1 <= now.hour < 5 else None
