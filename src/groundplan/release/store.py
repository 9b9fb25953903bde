"""The SQL of blueprints, of the live tables they set, and of kills that a rollback must not revive. No rules."""

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

from groundplan.blueprint.artifact import decode, decode_prompts, decode_workload
from groundplan.blueprint.model import Blueprint, Term, Workload
from groundplan.catalog.levels import sensitivity_rank
from groundplan.catalog.loader import load_served
from groundplan.catalog.workspace import Workspace, enclosing_jurisdictions
from groundplan.release.prompts import ServedPrompts

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


_MAX_BLUEPRINTS = 8
_blueprints: OrderedDict[str, Blueprint] = OrderedDict()
"""The blueprints that were used last, by digest."""
_cache_lock = Lock()


def load_blueprint(conn: Connection[Any], number: int | None = None) -> Blueprint | None:
    """A decoded blueprint, the newest where no number is given; None where there is none. Cached: every request needs
    it, and it may have many megabytes."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        query = "SELECT number, digest FROM blueprint WHERE %(n)s::int IS NULL OR number = %(n)s"
        row = cursor.execute(query + " ORDER BY number DESC LIMIT 1", {"n": number}).fetchone()
        if row is None:
            return None
        found_number, digest = row
        with _cache_lock:
            if digest in _blueprints:
                _blueprints.move_to_end(digest)
                return _blueprints[digest]
        (body,) = cursor.execute("SELECT body FROM blueprint WHERE number = %s", (found_number,)).fetchone() or (b"",)
    blueprint = decode(bytes(body))
    with _cache_lock:
        _blueprints[digest] = blueprint
        while len(_blueprints) > _MAX_BLUEPRINTS:
            _blueprints.popitem(last=False)
    return blueprint


_MAX_WORKSPACES = 4
_workspaces: OrderedDict[tuple[str, datetime], Workspace] = OrderedDict()
"""The workspaces that were used last, by (signature, creation time) of their blueprints. The pair is unique, also among
other installations, and where a number is used again after the database was restored to an earlier moment."""


def load_workspace(conn: Connection[Any], number: int) -> Workspace | None:
    """The parsed workspace that a blueprint was made from; None where there is none. Cached: pages that refresh
    themselves and background tasks need it every few seconds, and thousands of workloads are megabytes."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        query = "SELECT signature, created_at FROM blueprint WHERE number = %s"
        key: tuple[str, datetime] | None = cursor.execute(query, (number,)).fetchone()
    if key is None:
        return None
    with _cache_lock:
        if key in _workspaces:
            _workspaces.move_to_end(key)
            return _workspaces[key]
    workspace = load_served(source_files(conn, number) or {})
    with _cache_lock:
        _workspaces[key] = workspace
        while len(_workspaces) > _MAX_WORKSPACES:
            _workspaces.popitem(last=False)
    return workspace


def source_files(conn: Connection[Any], number: int) -> dict[str, str] | None:
    """The files that a blueprint was made from; None where there is none."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT sources FROM blueprint WHERE number = %s", (number,)).fetchone()
    return None if row is None else dict(row[0])


def lock_releases(conn: Connection[Any]) -> None:
    """Take the release lock: wait for other releasing transactions, and hold it until this transaction ends."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (RELEASE_LOCK,))


def newest_blueprint(conn: Connection[Any]) -> StoredBlueprint | None:
    return _fetch_one(conn, _ROW + " ORDER BY number DESC LIMIT 1", ())


def blueprint_by_number(conn: Connection[Any], number: int) -> StoredBlueprint | None:
    return _fetch_one(conn, _ROW + " WHERE number = %s", (number,))


@dataclass(frozen=True, slots=True)
class BlueprintOrigin:
    """When a blueprint was made, by whom and why."""

    number: int
    created_at: datetime
    created_by: str
    reason: str
    changes_files: bool
    """Whether its declared files differ from those of the blueprint before."""


def origins_since(conn: Connection[Any], number: int) -> list[BlueprintOrigin]:
    """The origins of blueprint `number` and of all later ones, the oldest first."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            """SELECT number, created_at, created_by, reason, sources <> lag(sources) OVER (ORDER BY number)
               FROM blueprint WHERE number >= %s - 1 ORDER BY number""",
            (number,),
        ).fetchall()
    return [
        BlueprintOrigin(at, when, by, why, declares is not False)
        for at, when, by, why, declares in rows
        if at >= number
    ]


def signature(conn: Connection[Any], number: int) -> str | None:
    """The signature of blueprint `number`, which no other installation produces; None where there is none."""
    row = conn.execute("SELECT signature FROM blueprint WHERE number = %s", (number,)).fetchone()
    return None if row is None else str(row[0])


def identity(conn: Connection[Any], number: int) -> str | None:
    """Signature and creation time of blueprint `number`, unique together: an installation with the same keys may
    produce the same signature. None where there is none."""
    row = conn.execute(
        """SELECT signature || ' ' || to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
           FROM blueprint WHERE number = %s""",
        (number,),
    ).fetchone()
    return None if row is None else str(row[0])


def newest_key_id(conn: Connection[Any]) -> str | None:
    """The id of the key that signed the newest blueprint; None where there is none."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT key_id FROM blueprint ORDER BY number DESC LIMIT 1").fetchone()
    return None if row is None else str(row[0])


def prompts_since(conn: Connection[Any], number: int) -> Iterator[tuple[ServedPrompts, str]]:
    """Yield (served prompts, signature) of all blueprints after `number`, the oldest first, read one after another."""
    with conn.cursor("prompts_since", row_factory=tuple_row) as cursor:
        cursor.itersize = 10
        cursor.execute(
            """SELECT body, created_at, created_by, reason, signature FROM blueprint WHERE number > %s
               ORDER BY number""",
            (number,),
        )
        for body, at, by, reason, signed in cursor:
            yield ServedPrompts(decode_prompts(bytes(body)), at, by, reason), signed


def workload_history(conn: Connection[Any], name: str) -> Iterator[tuple[int, Workload | None, datetime, str]]:
    """Yield (number, the workload in it, created at, reason) of all blueprints, the newest first, read one after
    another: there may be thousands, of some megabytes each."""
    with conn.cursor("of_workload", row_factory=tuple_row) as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT number, body, created_at, reason FROM blueprint ORDER BY number DESC")
        for number, body, at, reason in cursor:
            yield number, decode_workload(bytes(body), name), at, reason


def iter_newest_first(conn: Connection[Any], most: int = 500) -> Iterator[tuple[Blueprint, datetime]]:
    """Yield (blueprint, created at) of the newest `most`, read one after another."""
    # a server-side cursor: a caller that stops early just closes it (ending a stream early cancels what runs then)
    with conn.cursor("newest_first", row_factory=tuple_row) as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT body, created_at FROM blueprint ORDER BY number DESC LIMIT %s", (most,))
        for body, at in cursor:
            yield decode(bytes(body)), at


def insert_blueprint(conn: Connection[Any], stored: StoredBlueprint) -> None:
    """Store a blueprint and notify every gateway when the transaction commits."""
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
    """Replace all grants to read sources, each (source, reader, last day or None); applies from the next search."""
    conn.execute("DELETE FROM source_grant")
    with conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO source_grant (source, reader, until) VALUES (%s, %s, %s) ON CONFLICT (source, reader)
               DO UPDATE SET until = CASE WHEN source_grant.until IS NULL OR excluded.until IS NULL THEN NULL
                 ELSE greatest(source_grant.until, excluded.until) END""",
            list(grants),
        )


def set_workload_needs(conn: Connection[Any], workloads: Iterable[Workload]) -> None:
    """Replace what each workload requires of the content that it is given; applies from the next search."""
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
                    ["|".join(enclosing_jurisdictions(each)) for each in item.residency],
                )
                for item in workloads
            ],
        )


def set_glossary(conn: Connection[Any], terms: Iterable[Term]) -> None:
    """Replace the title and synonyms of every term; searches use them from the next seconds on."""
    conn.execute("DELETE FROM glossary_term")
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO glossary_term (name, said) VALUES (%s, %s)",
            [(term.name, [term.title, *term.synonyms]) for term in terms if term.synonyms],
        )


def killed_since(conn: Connection[Any], at: datetime) -> dict[str, str]:
    """Scope -> reason of every kill since `at` that has not been lifted."""
    rows = conn.execute(
        "SELECT scope, reason FROM kill_switch WHERE lifted_at IS NULL AND at > %s ORDER BY at", (at,)
    ).fetchall()
    return {str(row[0]): str(row[1]) for row in rows}


def _fetch_one(conn: Connection[Any], query: LiteralString, parameters: tuple[Any, ...]) -> StoredBlueprint | None:
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query, parameters).fetchone()
    return StoredBlueprint(**{**row, "body": bytes(row["body"])}) if row else None
