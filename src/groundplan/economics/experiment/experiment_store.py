"""The SQL of experiments: their rows, and tallies by arm of their calls and pairs. No rules."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, dict_row, tuple_row
from psycopg.types.json import Jsonb

from groundplan.core.database import select
from groundplan.economics.experiment.record import ExperimentRecord
from groundplan.economics.experiment.sequential import Tally
from groundplan.economics.experiment.verdict import CANDIDATE

_COLUMNS: LiteralString = """id, name, workload, type, candidate, judge, share, split, tolerance, guard_tolerance,
    level, budget_usd, until, reason, slow_ms, dear_usd, blueprint, digest, asked_by, asked_at, decided_by, decided_at,
    decided_reason, began_at, state, outcome, outcome_reason, ended_by, ended_at, figures"""
_INSERT: LiteralString = """INSERT INTO experiment (id, name, workload, type, candidate, judge, share, split, tolerance,
      guard_tolerance, level, budget_usd, until, reason, slow_ms, dear_usd, blueprint, digest, asked_by, state,
      began_at)
    VALUES (%(id)s, %(name)s, %(workload)s, %(type)s, %(candidate)s, %(judge)s, %(share)s, %(split)s, %(tolerance)s,
      %(guard_tolerance)s, %(level)s, %(budget_usd)s, %(until)s, %(reason)s, %(slow_ms)s, %(dear_usd)s, %(blueprint)s,
      %(digest)s, %(asked_by)s, %(state)s, %(began_at)s) ON CONFLICT DO NOTHING"""
# of each call in an arm: did it get an answer, fast enough, how cheap (0 to 1), and what people said of it. What a
# cache gave tells neither time nor cost of a model, and the arm with more callers has more of it
_CALLS: LiteralString = """WITH mine AS (
    SELECT c.detail -> 'route' ->> 'arm' AS arm, coalesce(c.detail -> 'route' ->> 'unit', '') AS unit,
      coalesce(c.detail ->> 'feature', '') AS segment,
      CASE WHEN NOT c.given THEN CASE c.status WHEN 'ok' THEN 1.0 WHEN 'failed' THEN 0.0 END END::float8 AS answered,
      CASE WHEN c.given THEN NULL WHEN c.status = 'ok' THEN (c.duration_ms <= %(slow)s::float8)::int::float8
        WHEN c.status = 'cancelled' AND c.duration_ms > %(slow)s::float8 THEN 0.0 END::float8 AS fast,
      CASE WHEN c.status = 'ok' AND NOT c.given AND %(dear)s::numeric > 0
        THEN 1 - least(1, c.cost_usd / %(dear)s::numeric)::float8 END AS cheap,
      coalesce(o.accepted, o.thumbs)::float8 AS quality, o.thumbs::float8 AS thumbs
    FROM (SELECT *, cache IN ('exact', 'semantic') AS given FROM call) c LEFT JOIN LATERAL (
      SELECT avg(accepted::int) FILTER (WHERE NOT starts_with(coalesce(label, ''), 'thumb')) AS accepted,
        avg(accepted::int) FILTER (WHERE starts_with(label, 'thumb')) AS thumbs
      FROM outcome WHERE outcome.call_id = c.id) o ON true
    WHERE c.detail -> 'route' ->> 'experiment' = %(id)s AND c.detail -> 'route' ? 'experiment'
      AND NOT c.detail -> 'route' ? 'of'),
  units AS (
    SELECT arm, unit, segment, v.name, v.x FROM mine, LATERAL (VALUES ('answered', answered), ('fast', fast),
      ('cheap', cheap), ('quality', quality), ('thumbs', thumbs)) v(name, x) WHERE v.x IS NOT NULL)"""
_WHOLE: LiteralString = """ SELECT name, '' AS segment, arm, count(m), sum(m), sum(m * m) FROM (
    SELECT name, arm, unit, avg(x) AS m FROM units GROUP BY 1, 2, 3) u GROUP BY 1, 2, 3
  UNION ALL SELECT 'quality', segment, arm, count(m), sum(m), sum(m * m) FROM (
    SELECT arm, segment, unit, avg(x) AS m FROM units WHERE name = 'quality' GROUP BY 1, 2, 3) u
    WHERE segment <> '' GROUP BY 1, 2, 3"""
_PAIRS: LiteralString = """WITH mine AS (
    SELECT p.segment, p.score, p.basis, p.answered, p.shown_ms, p.beside_ms, p.shown_usd, p.beside_usd
    FROM experiment_pair p WHERE p.experiment = %(id)s),
  v AS (
    SELECT 'quality' AS name, '' AS segment, 'candidate' AS arm, score::float8 AS x FROM mine
    UNION ALL SELECT 'quality', segment, 'candidate', score FROM mine WHERE segment <> ''
    UNION ALL SELECT 'open', '', 'candidate', 1 FROM mine WHERE score IS NULL AND basis <> 'none'
    UNION ALL SELECT 'open', segment, 'candidate', 1 FROM mine WHERE score IS NULL AND basis <> 'none' AND segment <> ''
    UNION ALL SELECT 'answered', '', 'control', 1 FROM mine
    UNION ALL SELECT 'answered', '', 'candidate', answered::int FROM mine
    UNION ALL SELECT 'fast', '', 'control', (shown_ms <= %(slow)s::float8)::int FROM mine
    UNION ALL SELECT 'fast', '', 'candidate', (beside_ms <= %(slow)s::float8)::int FROM mine WHERE answered
    UNION ALL SELECT 'cheap', '', 'control', 1 - least(1, shown_usd / %(dear)s::numeric) FROM mine
      WHERE %(dear)s::numeric > 0
    UNION ALL SELECT 'cheap', '', 'candidate', 1 - least(1, beside_usd / %(dear)s::numeric) FROM mine
      WHERE answered AND %(dear)s::numeric > 0)
  SELECT name, segment, arm, count(x), sum(x), sum(x * x) FROM v WHERE x IS NOT NULL GROUP BY 1, 2, 3"""

ENOUGH = 20
"""Calls from which on usual values are known."""
Tallies = dict[tuple[str, str], dict[str, Tally]]
"""(metric, segment or '') -> arm -> tally"""


def insert(conn: Connection[Any], made: ExperimentRecord) -> bool:
    """Insert an experiment; False if one of the workload runs, or the declaration was there before."""
    values = asdict(made)
    values.pop("figures")
    return conn.execute(_INSERT, values).rowcount == 1


def find(conn: Connection[Any], id: UUID, *, lock: bool = True) -> ExperimentRecord | None:
    """Read an experiment, with `lock` locked until the transaction ends."""
    with conn.cursor(row_factory=class_row(ExperimentRecord)) as cursor:
        query: LiteralString = f"SELECT {_COLUMNS} FROM experiment WHERE id = %s"
        return cursor.execute(query + (" FOR UPDATE" if lock else ""), (id,)).fetchone()


def list_experiments(conn: Connection[Any], workload: str | None = None, limit: int = 200) -> list[ExperimentRecord]:
    """Experiments that run or wait for approval, then the others, newest first."""
    with conn.cursor(row_factory=class_row(ExperimentRecord)) as cursor:
        query: LiteralString = f"""SELECT {_COLUMNS} FROM experiment
            WHERE %(w)s::text IS NULL OR workload = %(w)s
            ORDER BY state IN ('running', 'asked') DESC, id DESC LIMIT %(n)s"""
        return cursor.execute(query, {"w": workload, "n": limit}).fetchall()


def recent(conn: Connection[Any], since: datetime) -> list[ExperimentRecord]:
    """Experiments that run or wait for approval, and those that ended since then."""
    with conn.cursor(row_factory=class_row(ExperimentRecord)) as cursor:
        query: LiteralString = f"""SELECT {_COLUMNS} FROM experiment
            WHERE state IN ('running', 'asked') OR ended_at >= %s ORDER BY id"""
        return cursor.execute(query, (since,)).fetchall()


def open_experiments(conn: Connection[Any]) -> list[ExperimentRecord]:
    """Experiments that run or wait for approval."""
    with conn.cursor(row_factory=class_row(ExperimentRecord)) as cursor:
        query: LiteralString = f"SELECT {_COLUMNS} FROM experiment WHERE state IN ('running', 'asked') ORDER BY id"
        return cursor.execute(query).fetchall()


def lock_running(conn: Connection[Any]) -> list[ExperimentRecord]:
    """Running experiments, each locked; those locked by others are skipped."""
    with conn.cursor(row_factory=class_row(ExperimentRecord)) as cursor:
        query: LiteralString = (
            f"SELECT {_COLUMNS} FROM experiment WHERE state = 'running' ORDER BY id FOR UPDATE SKIP LOCKED"
        )
        return cursor.execute(query).fetchall()


def has_unjudged(conn: Connection[Any]) -> bool:
    """Whether a running experiment compares answers without a judge."""
    query = "SELECT EXISTS (SELECT FROM experiment WHERE state = 'running' AND type = 'shadow' AND judge = '')"
    row = conn.execute(query).fetchone()
    return row is not None and bool(row[0])


def oldest_start(conn: Connection[Any]) -> datetime | None:
    """Start of the oldest running A/B test: its calls are needed for its verdict."""
    row = conn.execute("SELECT min(began_at) FROM experiment WHERE state = 'running' AND type = 'ab'").fetchone()
    return None if row is None else row[0]


def begin(conn: Connection[Any], id: UUID, by: str, reason: str, usual: tuple[float | None, Decimal | None]) -> bool:
    """Start an experiment. `usual`: what counts as slow (ms) and dear (USD). False: another one runs."""
    done = conn.execute(
        """UPDATE experiment SET state = 'running', decided_by = %s, decided_at = now(), decided_reason = %s,
             began_at = now(), slow_ms = %s, dear_usd = %s
           WHERE id = %s AND NOT EXISTS (SELECT 1 FROM experiment o WHERE o.state = 'running'
             AND o.workload = experiment.workload)""",
        (by, reason, *usual, id),
    )
    return done.rowcount == 1


def refuse(conn: Connection[Any], id: UUID, by: str, reason: str) -> None:
    conn.execute(
        """UPDATE experiment SET state = 'refused', decided_by = %s, decided_at = now(), decided_reason = %s
           WHERE id = %s""",
        (by, reason, id),
    )


def end(conn: Connection[Any], id: UUID, by: str, outcome: str, reason: str) -> None:
    conn.execute(
        """UPDATE experiment SET state = 'ended', outcome = %s, outcome_reason = %s, ended_by = %s, ended_at = now()
           WHERE id = %s""",
        (outcome, reason, by, id),
    )


def tallies(conn: Connection[Any], tried: ExperimentRecord) -> Tallies:
    """Tallies of an experiment's calls or pairs."""
    query = _PAIRS if tried.type == "shadow" else _CALLS + _WHOLE
    asked = {"id": str(tried.id), "slow": tried.slow_ms, "dear": tried.dear_usd}
    found: Tallies = {}
    with conn.cursor(row_factory=tuple_row) as cursor:
        for name, segment, arm, count, total, squares in cursor.execute(query, asked).fetchall():
            found.setdefault((name, segment), {})[arm] = Tally(int(count), float(total), float(squares))
    return found


def spent(conn: Connection[Any], tried: ExperimentRecord) -> Decimal:
    """Cost of its own calls, US dollars: second answers as charged (those of killed workers at their bound), or all
    answers of an A/B test's candidate arm."""
    if tried.type != "shadow":
        return _spent_by_arm(conn, tried.id)
    row = conn.execute(
        """SELECT coalesce(sum(cost_usd), 0) FROM (SELECT budget, cost_usd FROM charge_total
             UNION ALL SELECT budget, cost_usd FROM charge_delta) c WHERE budget = %s""",
        (f"experiment/{tried.id}",),
    ).fetchone()
    assert row is not None
    return Decimal(row[0])


def _spent_by_arm(conn: Connection[Any], id: UUID) -> Decimal:
    row = conn.execute(
        """SELECT coalesce(sum(c.cost_usd), 0) FROM call c WHERE c.detail -> 'route' ->> 'experiment' = %s
             AND c.detail -> 'route' ? 'experiment' AND c.detail -> 'route' ->> 'arm' = %s
             AND NOT c.detail -> 'route' ? 'of'""",
        (str(id), CANDIDATE),
    ).fetchone()
    assert row is not None
    return Decimal(row[0])


def usual_limits(conn: Connection[Any], workload: str, since: datetime) -> tuple[float | None, Decimal | None]:
    """(90th percentile of durations in ms, four times the mean cost in US dollars); None: too few calls."""
    row = conn.execute(
        """SELECT percentile_cont(0.9) WITHIN GROUP (ORDER BY duration_ms), 4 * avg(cost_usd) FROM (
             SELECT duration_ms, cost_usd FROM call WHERE workload = %s AND at >= %s AND status = 'ok'
               AND cache NOT IN ('exact', 'semantic') AND NOT detail ? 'of'
               AND coalesce(detail -> 'route' ->> 'arm', '') <> %s ORDER BY at DESC LIMIT 5000) c
           HAVING count(*) >= %s""",
        (workload, since, CANDIDATE, ENOUGH),
    ).fetchone()
    return (None, None) if row is None else (row[0], row[1])


def set_usual_limits(conn: Connection[Any], id: UUID, usual: tuple[float | None, Decimal | None]) -> None:
    """Set what counts as slow and expensive, once."""
    conn.execute("UPDATE experiment SET slow_ms = %s, dear_usd = %s WHERE id = %s AND slow_ms IS NULL", (*usual, id))


def add_look(conn: Connection[Any], id: UUID, seen: tuple[float, float, float, int], figures: dict[str, Any]) -> None:
    """Record an evaluation: (value, low, high, count) of the quality, as a point unless nothing changed; and the
    figures."""
    conn.execute("UPDATE experiment SET figures = %s WHERE id = %s", (Jsonb(figures), id))
    conn.execute(
        """INSERT INTO experiment_look (experiment, value, low, high, count) SELECT %(id)s, %(v)s, %(l)s, %(h)s, %(n)s
           WHERE %(n)s IS DISTINCT FROM (
             SELECT count FROM experiment_look WHERE experiment = %(id)s ORDER BY at DESC LIMIT 1)
           ON CONFLICT DO NOTHING""",
        {"id": id, "v": seen[0], "l": seen[1], "h": seen[2], "n": seen[3]},
    )


def looks(conn: Connection[Any], id: UUID, most: int = 500) -> list[dict[str, Any]]:
    """Recorded evaluations, oldest first, thinned to `most`."""
    return select(
        conn,
        """SELECT at, value, low, high, count FROM (SELECT *, row_number() OVER (ORDER BY at) AS n,
                 count(*) OVER () AS of FROM experiment_look WHERE experiment = %s) l
               WHERE n = of OR n %% greatest(1, of / %s) = 1 OR of <= %s ORDER BY at""",
        (id, most, most),
    )


def pairs(conn: Connection[Any], id: UUID, limit: int = 100) -> list[dict[str, Any]]:
    """The newest pairs of answers, worst first."""
    return select(
        conn,
        """SELECT call_id, beside_call, at, segment, basis, score, contradicted, shown_ms, beside_ms, shown_usd,
                 beside_usd, shown_tokens, beside_tokens, answered, reviewed, said
               FROM experiment_pair WHERE experiment = %s
               ORDER BY score NULLS LAST, at DESC LIMIT %s""",
        (id, limit),
    )


def pair_counts(conn: Connection[Any], id: UUID) -> dict[str, Any]:
    """Counts of pairs: all, compared, contradicted, without a readable verdict, without any verdict, reviewed by
    people, and those reviews that agree."""
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            """SELECT count(*) AS pairs, count(score) AS compared, count(*) FILTER (WHERE contradicted) AS contradicted,
                 count(*) FILTER (WHERE NOT answered) AS unanswered,
                 count(*) FILTER (WHERE said IS NOT NULL AND score IS NULL) AS unread,
                 count(*) FILTER (WHERE basis = 'judge' AND said IS NULL AND score IS NULL) AS unasked,
                 count(reviewed) AS reviewed,
                 count(*) FILTER (WHERE reviewed = (score >= 0.5)) AS agreed
               FROM experiment_pair WHERE experiment = %s""",
            (id,),
        ).fetchone()
    assert row is not None
    return row


def newest_judge_texts(conn: Connection[Any], id: UUID, newest: int) -> list[str | None]:
    """The judge's replies on the newest pairs that were no verdict; None stands for a verdict."""
    rows = select(
        conn,
        """SELECT CASE WHEN score IS NULL THEN said END AS said FROM experiment_pair
           WHERE experiment = %s AND said IS NOT NULL ORDER BY at DESC, call_id DESC LIMIT %s""",
        (id, newest),
    )
    return [row["said"] for row in rows]


def uncompared_pairs(conn: Connection[Any], tried: ExperimentRecord) -> tuple[int, datetime | None, str]:
    """(pairs in a row, up to the newest, whose answers could not be compared; time of the first of them; error code of
    the judge's newest failed call since then)."""
    row = conn.execute(
        """SELECT count(*), min(p.at) FROM experiment_pair p WHERE p.experiment = %(id)s AND p.answered
             AND p.basis <> 'none' AND p.score IS NULL AND p.said IS NULL AND p.at > coalesce((
               SELECT max(at) FROM experiment_pair WHERE experiment = %(id)s
                 AND (said IS NOT NULL OR (basis = 'likeness' AND score IS NOT NULL))), '-infinity')""",
        {"id": tried.id},
    ).fetchone()
    if row is None or row[1] is None or not tried.judge:
        return (0, None, "") if row is None else (row[0], row[1], "")
    failed = conn.execute(
        """SELECT error_code FROM call
           WHERE detail -> 'route' ->> 'experiment' = %s AND detail -> 'route' ? 'experiment'
             AND detail ->> 'feature' = 'experiment/judge' AND status <> 'ok' AND at >= %s - interval '10 minutes'
             ORDER BY at DESC LIMIT 1""",
        (str(tried.id), row[1]),
    ).fetchone()
    return row[0], row[1], (failed[0] if failed is not None else None) or ""


def refused_by_budget(conn: Connection[Any], id: UUID) -> tuple[int, datetime | None]:
    """(second answers in a row, up to the newest, that its budget refused; time of the first of them)."""
    row = conn.execute(
        """WITH mine AS (SELECT at, error_code FROM call
             WHERE detail -> 'route' ->> 'experiment' = %s AND detail -> 'route' ? 'experiment'
               AND detail -> 'route' ? 'of')
           SELECT count(*), min(at) FROM mine WHERE error_code = 'budget_exhausted' AND at > coalesce((
             SELECT max(at) FROM mine WHERE error_code IS DISTINCT FROM 'budget_exhausted'), '-infinity')""",
        (str(id),),
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def review(conn: Connection[Any], id: UUID, call: UUID, kept: bool, by: str) -> bool:
    """What a person says of a pair; False where there is none."""
    return (
        conn.execute(
            "UPDATE experiment_pair SET reviewed = %s, reviewed_by = %s WHERE experiment = %s AND call_id = %s",
            (kept, by, id, call),
        ).rowcount
        == 1
    )
