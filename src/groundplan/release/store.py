"""The SQL of blueprints, and of what a rollback must not revive. No rules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import Jsonb

from groundplan.blueprint.artifact import decode, prompts_in, workload_in
from groundplan.blueprint.model import Blueprint, Term, Workload
from groundplan.catalog.levels import sensitivity_rank
from groundplan.catalog.loader import load_served
from groundplan.catalog.workspace import Workspace, containing
from groundplan.release.prompts import Served

RELEASE_LOCK = 0x6770_7265_6C65_6101
"""Advisory lock key: one release at a time in a database."""

_ROW: LiteralString = """SELECT number, body, digest, signature, key_id, sources, created_at, created_by, reason,
  rollback_of, genesis FROM blueprint"""


@dataclass(frozen=True, slots=True)
class StoredBlueprint:
    """A blueprint as stored; `sources` are the files that it was made from."""

    number: int
    body: bytes
    digest: str
    signature: str
    key_id: str
    sources: Mapping[str, str]
    created_at: datetime
    created_by: str
    reason: str
    rollback_of: int | None
    genesis: bool


_KEPT = 8
_kept: OrderedDict[str, Blueprint] = OrderedDict()
"""The blueprints that were asked for last, by digest."""
_keeping = Lock()


def decoded(conn: Connection[Any], number: int | None = None) -> Blueprint | None:
    """A blueprint, the newest where no number is given; None where there is none. It is asked for with every request,
    and may have many megabytes: they are read once."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        query = "SELECT number, digest FROM blueprint WHERE %(n)s::int IS NULL OR number = %(n)s"
        row = cursor.execute(query + " ORDER BY number DESC LIMIT 1", {"n": number}).fetchone()
        if row is None:
            return None
        found_number, digest = row
        with _keeping:
            if digest in _kept:
                _kept.move_to_end(digest)
                return _kept[digest]
        (body,) = cursor.execute("SELECT body FROM blueprint WHERE number = %s", (found_number,)).fetchone() or (b"",)
    found = decode(bytes(body))
    with _keeping:
        _kept[digest] = found
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return found


_WORKSPACES = 4
_workspaces: OrderedDict[tuple[str, datetime], Workspace] = OrderedDict()
"""Those that were asked for last, by signature and moment of their blueprints, which together no other one has: not one
of another installation, nor one that has its number after the database went back to an earlier moment."""


def workspace(conn: Connection[Any], number: int) -> Workspace | None:
    """The files that a blueprint was made from, read and parsed once: pages that renew themselves, and looks beside the
    requests, ask every few seconds, and those of thousands of workloads are megabytes. None where there is none."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        query = "SELECT signature, created_at FROM blueprint WHERE number = %s"
        made: tuple[str, datetime] | None = cursor.execute(query, (number,)).fetchone()
    if made is None:
        return None
    with _keeping:
        if made in _workspaces:
            _workspaces.move_to_end(made)
            return _workspaces[made]
    found = load_served(sources(conn, number) or {})
    with _keeping:
        _workspaces[made] = found
        while len(_workspaces) > _WORKSPACES:
            _workspaces.popitem(last=False)
    return found


def sources(conn: Connection[Any], number: int) -> dict[str, str] | None:
    """The files that a blueprint was made from; None where there is none."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT sources FROM blueprint WHERE number = %s", (number,)).fetchone()
    return None if row is None else dict(row[0])


def lock(conn: Connection[Any]) -> None:
    """Wait until no other transaction releases; held until this one ends."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (RELEASE_LOCK,))


def newest(conn: Connection[Any]) -> StoredBlueprint | None:
    return _one(conn, _ROW + " ORDER BY number DESC LIMIT 1", ())


def by_number(conn: Connection[Any], number: int) -> StoredBlueprint | None:
    return _one(conn, _ROW + " WHERE number = %s", (number,))


@dataclass(frozen=True, slots=True)
class Made:
    """When a blueprint was made, by whom, and why."""

    number: int
    at: datetime
    by: str
    reason: str
    declares: bool
    """Whether other files were declared by it than before."""


def made_since(conn: Connection[Any], number: int) -> list[Made]:
    """Blueprint `number` and those after it, the oldest first."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            """SELECT number, created_at, created_by, reason, sources <> lag(sources) OVER (ORDER BY number)
               FROM blueprint WHERE number >= %s - 1 ORDER BY number""",
            (number,),
        ).fetchall()
    return [Made(at, when, by, why, declares is not False) for at, when, by, why, declares in rows if at >= number]


def signature(conn: Connection[Any], number: int) -> str | None:
    """Of blueprint `number`, which no other installation makes; None where there is none."""
    row = conn.execute("SELECT signature FROM blueprint WHERE number = %s", (number,)).fetchone()
    return None if row is None else str(row[0])


def identity(conn: Connection[Any], number: int) -> str | None:
    """What no other blueprint has: the signature of blueprint `number`, which with the same keys one of another
    installation may have, and its moment; None where there is none."""
    row = conn.execute(
        """SELECT signature || ' ' || to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
           FROM blueprint WHERE number = %s""",
        (number,),
    ).fetchone()
    return None if row is None else str(row[0])


def newest_key_id(conn: Connection[Any]) -> str | None:
    """Of the key that signed the newest blueprint; None where there is none."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT key_id FROM blueprint ORDER BY number DESC LIMIT 1").fetchone()
    return None if row is None else str(row[0])


def prompts_since(conn: Connection[Any], number: int) -> Iterator[tuple[Served, str]]:
    """(what was served of prompts, the signature) of all blueprints after `number`, the oldest first, read as they are
    asked for."""
    with conn.cursor("prompts_since", row_factory=tuple_row) as cursor:
        cursor.itersize = 10
        cursor.execute(
            """SELECT body, created_at, created_by, reason, signature FROM blueprint WHERE number > %s
               ORDER BY number""",
            (number,),
        )
        for body, at, by, reason, signed in cursor:
            yield Served(prompts_in(bytes(body)), at, by, reason), signed


def of_workload(conn: Connection[Any], name: str) -> Iterator[tuple[int, Workload | None, datetime, str]]:
    """(number, the workload in it, when, why) of all blueprints, the newest first, read as they are asked for: there
    may be thousands, of some megabytes each."""
    with conn.cursor("of_workload", row_factory=tuple_row) as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT number, body, created_at, reason FROM blueprint ORDER BY number DESC")
        for number, body, at, reason in cursor:
            yield number, workload_in(bytes(body), name), at, reason


def newest_first(conn: Connection[Any], most: int = 500) -> Iterator[tuple[Blueprint, datetime]]:
    """(blueprint, when) of the newest so many, read as they are asked for."""
    # a cursor of the server's: whoever stops early just closes it (ending a stream early cancels what runs then)
    with conn.cursor("newest_first", row_factory=tuple_row) as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT body, created_at FROM blueprint ORDER BY number DESC LIMIT %s", (most,))
        for body, at in cursor:
            yield decode(bytes(body)), at


def insert(conn: Connection[Any], stored: StoredBlueprint) -> None:
    """Store a blueprint and tell every gateway when the transaction commits."""
    conn.execute(
        """INSERT INTO blueprint (number, body, digest, signature, key_id, sources, created_at, created_by, reason,
             rollback_of, genesis) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            stored.number,
            stored.body,
            stored.digest,
            stored.signature,
            stored.key_id,
            Jsonb(dict(stored.sources)),
            stored.created_at,
            stored.created_by,
            stored.reason,
            stored.rollback_of,
            stored.genesis,
        ),
    )
    conn.execute("SELECT pg_notify('groundplan_blueprint', %s)", (str(stored.number),))


def set_source_grants(conn: Connection[Any], grants: Iterable[tuple[str, str, str | None]]) -> None:
    """(source, reader, last day or None): who reads a source by a grant, exactly these; holds from the next search."""
    conn.execute("DELETE FROM source_grant")
    with conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO source_grant (source, reader, until) VALUES (%s, %s, %s) ON CONFLICT (source, reader)
               DO UPDATE SET until = CASE WHEN source_grant.until IS NULL OR excluded.until IS NULL THEN NULL
                 ELSE greatest(source_grant.until, excluded.until) END""",
            list(grants),
        )


def set_workload_needs(conn: Connection[Any], workloads: Iterable[Workload]) -> None:
    """What each workload asks of the content that it is given, exactly these; holds from the next search."""
    conn.execute("DELETE FROM workload_need")
    with conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO workload_need (workload, purposes, sensitivity, quality_floor, scanned, residency)
               VALUES (%s, %s, %s, %s, %s, %s)""",
            [
                (
                    item.name,
                    item.needs.purposes,
                    sensitivity_rank(item.sensitivity),
                    item.needs.quality,
                    item.needs.scanned,
                    ["|".join(containing(each)) for each in item.residency],
                )
                for item in workloads
            ],
        )


def set_glossary(conn: Connection[Any], terms: Iterable[Term]) -> None:
    """What is said for each term besides itself, exactly these; searched along from the next seconds on."""
    conn.execute("DELETE FROM glossary_term")
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO glossary_term (name, said) VALUES (%s, %s)",
            [(term.name, [term.title, *term.synonyms]) for term in terms if term.synonyms],
        )


def killed_since(conn: Connection[Any], at: datetime) -> dict[str, str]:
    """Scope -> reason of every kill since `at` that still holds."""
    rows = conn.execute(
        "SELECT scope, reason FROM kill_switch WHERE lifted_at IS NULL AND at > %s ORDER BY at", (at,)
    ).fetchall()
    return {str(row[0]): str(row[1]) for row in rows}


def _one(conn: Connection[Any], query: LiteralString, parameters: tuple[Any, ...]) -> StoredBlueprint | None:
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query, parameters).fetchone()
    return StoredBlueprint(**{**row, "body": bytes(row["body"])}) if row else None
