"""Facts older than the hot window as Parquet, one folder for each kind and one file a day, in any store of fsspec; a
day of many calls is several, and what comes of one that has left, such as of a gateway that was cut off for weeks, is a
further file of it.

A day, or a part of one, is copied, written, read back, also from the store, and compared (bytes, rows and cost, to the
picodollar) before its rows are deleted, all in one transaction; whatever breaks off leaves the rows where they are, and
the next time writes the same file again. Sums (`rollup_store`) stay in the database. DuckDB reads the files, and so
does anything else that reads Parquet.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from psycopg import Connection

from groundplan.core.audit.archive_store import Range
from groundplan.core.errors import Conflict, Invalid
from groundplan.core.file_store import is_local, open_file, resolve_store, unreadable_error
from groundplan.core.file_store import put_file as _put
from groundplan.core.scratch import scratch_folder
from groundplan.ledger import archive_store

DAYS_PER_ROUND: Final = 31
"""Days that are archived in one round."""
MAX_PART_ROWS: Final = 100_000
"""Most calls or attempts of a part, so that its transaction takes only seconds: in tables that are updated all the
time, such as budgets, PostgreSQL cleans up only versions older than the oldest transaction."""
_TYPES: Final = {
    "uuid": "UUID", "timestamp with time zone": "TIMESTAMPTZ", "text": "VARCHAR", "numeric": "DECIMAL(38,12)",
    "bigint": "BIGINT", "integer": "INTEGER", "boolean": "BOOLEAN", "double precision": "DOUBLE", "jsonb": "VARCHAR",
    "text[]": "VARCHAR",
}  # fmt: skip


_ENTRY: Final = {
    "id": "UUID", "at": "TIMESTAMPTZ", "action": "VARCHAR", "actor": "VARCHAR", "subject": "VARCHAR", "detail": "JSON",
    "acting": "JSON",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """The result of archiving a day, or a part of it; `more`: the day has further facts to archive."""

    day: date
    calls: int
    attempts: int
    charges: int
    cost: Decimal
    more: bool


def archive_day(conn: Connection[Any], url: str, day: date, most: int = MAX_PART_ROWS) -> ArchiveResult:
    """Write the rows that are there of one day to `url` and delete them, in the caller's transaction: those that came
    first, where there are more than `most` calls or attempts.

    Raises `Conflict` (`archive_differs`) where what was written is not what was read, (`archive_taken`) where the
    facts of another installation are there, and `Invalid` where the store cannot be written.
    """
    archive_store.lock_day(conn, day)
    counts: dict[str, int] = {}
    digest = hashlib.sha256()
    cost, part, until = Decimal(0), archive_store.next_part(conn, day), archive_store.part_end(conn, day, most)
    with scratch_folder("groundplan-archive-") as folder, _duckdb() as duck:
        duck.execute("SET threads = 1")  # as quick, beside calls, and with more of them it takes 400 MB for each
        for table in archive_store.TABLES:
            text, file = folder / f"{table}.csv", folder / f"{table}.parquet"
            archive_store.copy_out(conn, table, day, text, until)
            _to_parquet(duck, text, file, archive_store.column_types(conn, table))
            counts[table] = int(_one(duck, "SELECT count(*) FROM read_parquet(?)", file))
            if table == "attempts":
                cost = Decimal(_one(duck, "SELECT coalesce(sum(cost_usd), 0) FROM read_parquet(?)", file))
            with file.open("rb") as written:
                while block := written.read(1 << 20):
                    digest.update(block)
            name = archive_store.part_path(table, day, part)
            _check_own(conn, duck, url, name, file, folder / "before.parquet", table)
            _put(url, name, file)
    if cost != archive_store.day_cost(conn, day, until):
        raise Conflict(
            f"the files of {day} say ${cost}, the ledger says otherwise",
            code="archive_differs",
            hint="Nothing was deleted. Try again; if it persists, check the disk.",
        )
    archive_store.record_part(conn, day, url, counts, cost, digest.hexdigest(), part, until)
    archive_store.delete_archived(conn, day, part)
    return ArchiveResult(day, counts["calls"], counts["attempts"], counts["charges"], cost, until is not None)


class ArchivedPart(NamedTuple):
    """The location of an archived part of a day."""

    day: date
    url: str
    part: int = 0


def query_facts(
    days: Iterable[tuple[date, str] | ArchivedPart], statement: str
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns, and rows, of a SELECT over the views `calls`, `attempts` and `charges` of archived `days`,
    each with the URL that it left for and its part: only what the ledger noted as archived is read, wherever it is.
    `at` is a word of DuckDB's own and needs quotes, so calls and attempts have their `day`, UTC, as well. Raises
    `Invalid`."""
    kept = [ArchivedPart(*each) for each in days]
    with scratch_folder("groundplan-archive-") as folder, _duckdb() as duck:
        import duckdb  # noqa: PLC0415 -- an extra, which is there

        try:
            for table in archive_store.TABLES:
                places = _fetch_files(kept, table, folder)
                names = ", ".join("'" + place.replace("'", "''") + "'" for place in places)
                # files of before a column was added lack it: there it is null
                columns = "*" if table == "charges" else '*, "at"::DATE AS day'
                duck.execute(
                    f"CREATE VIEW {table} AS SELECT {columns} FROM read_parquet([{names}], union_by_name = true)"
                )
            found = duck.execute(statement)
            heads = [each[0] for each in found.description or ()]
            return heads, found.fetchall()
        except duckdb.Error as error:
            raise Invalid(
                f"the archive does not answer that: {str(error).strip().splitlines()[0][:300]}",
                code="archive_query",
                hint='Write a SELECT over calls, attempts and charges in words of DuckDB: "at" in quotes, or day.',
            ) from error


def query_entries(ranges: Sequence[Range], statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns, and rows, of a SELECT over `entries`, those of the audit log in files of `ranges`: `id`,
    `"at"`, its `day` (UTC), `action`, `actor`, `subject`, and `detail` and `acting` as JSON. Raises `Invalid`,
    `NotFound`."""
    with scratch_folder("groundplan-archive-") as folder, _duckdb() as duck:
        import duckdb  # noqa: PLC0415 -- an extra, which is there

        places = [_local_copy(of.url, of.file, folder / f"{of.first}.gz") for of in ranges]
        names = ", ".join("'" + place.replace("'", "''") + "'" for place in places)
        columns = ", ".join(f"'{name}': '{kind}'" for name, kind in _ENTRY.items())
        try:
            duck.execute(
                f"""CREATE VIEW entries AS SELECT *, "at"::DATE AS day FROM read_json([{names}],
                      format = 'newline_delimited', compression = 'gzip', columns = {{{columns}}})"""
            )
            found = duck.execute(statement)
            return [each[0] for each in found.description or ()], found.fetchall()
        except duckdb.Error as error:
            raise Invalid(
                f"the archive does not answer that: {str(error).strip().splitlines()[0][:300]}",
                code="archive_query",
                hint="Write a SELECT over entries in words of DuckDB: \"at\" in quotes, or day, detail ->> 'status'.",
            ) from error


def _local_copy(url: str, name: str, copy: Path) -> str:
    """The local path of a file: its own in a folder, else that of a copy."""
    store, root = resolve_store(url)
    if is_local(store):
        return f"{root.rstrip('/')}/{name}"
    with open_file(url, name) as source, copy.open("wb") as kept:
        shutil.copyfileobj(source, kept)
    return str(copy)


def list_unlisted_part(conn: Connection[Any]) -> bool:
    """Store the ids of one part that was archived before ids were listed, from its files, in the caller's transaction;
    False where there was none. Raises `Invalid` where they cannot be read."""
    if (part := archive_store.oldest_unlisted(conn)) is None:
        return False
    archive_store.lock_day(conn, part[0])
    kept = [ArchivedPart(*part)]
    archive_store.list_facts(
        conn,
        kept[0].day,
        kept[0].part,
        [row[0] for row in query_facts(kept, "SELECT id FROM calls")[1]],
        query_facts(kept, "SELECT call_id, number FROM attempts")[1],
        query_facts(kept, _CHARGED)[1],
    )
    return True


_CHARGED: Final = """SELECT a.epoch, c.budget, c.period, sum(c.cost_usd) FROM charges c
    JOIN attempts a ON a.call_id = c.call_id AND a.number = c.attempt GROUP BY 1, 2, 3"""


def _duckdb() -> Any:
    try:
        import duckdb  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise Invalid(
            "archives need an optional package", code="extra_missing", hint="pip install 'groundplan[economics]'"
        ) from error
    duck = duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'")
    return duck


def _to_parquet(duck: Any, text: Path, file: Path, types: dict[str, str]) -> None:
    columns = ", ".join(f"'{name}': '{_TYPES[kind]}'" for name, kind in types.items())
    duck.execute(
        f"COPY (SELECT * FROM read_csv('{text}', header = true, nullstr = '\\N', quote = '\"', escape = '\"',"
        f" columns = {{{columns}}})) TO '{file}' (FORMAT parquet, COMPRESSION zstd)"
    )


def _one(duck: Any, statement: str, file: Path) -> Any:
    row = duck.execute(statement, [str(file)]).fetchone()
    return row[0]


_IDS: Final = {
    "calls": ("id",),
    "attempts": ("call_id", "number"),
    "charges": ("call_id", "attempt", "budget", "period"),
}


def _check_own(conn: Connection[Any], duck: Any, url: str, name: str, file: Path, before: Path, table: str) -> None:
    """Raise `Conflict` where the store has a file of that name with facts that this ledger lacks. A file that an
    interrupted run of this ledger left contains only its own facts, even if it went further into the day."""
    import duckdb  # noqa: PLC0415 -- an extra, which is there

    store, root = resolve_store(url)
    try:
        if not store.exists(place := f"{root.rstrip('/')}/{name}"):
            return
        with store.open(place, "rb") as source, before.open("wb") as kept:
            shutil.copyfileobj(source, kept)
    except Exception as error:  # every store has errors of its own, which are no OSError
        raise unreadable_error(name, url, error) from error
    ids = ", ".join(_IDS[table])
    beside = f"SELECT {ids} FROM read_parquet(?) EXCEPT SELECT {ids} FROM read_parquet(?)"
    try:
        others = duck.execute(beside, [str(before), str(file)]).fetchall()
    except duckdb.Error:  # half a file: it is written anew
        return
    if others and (strange := len(others) - archive_store.count_existing(conn, table, others)):
        raise Conflict(
            f"{name} at {url} has {strange} facts that are not of this ledger",
            code="archive_taken",
            hint="Give each installation a folder of its own (GROUNDPLAN_ARCHIVE_URL). Nothing was deleted.",
        )


def _fetch_files(days: Iterable[ArchivedPart], table: str, folder: Path) -> list[str]:
    """Return local files of one kind, one for each part of a day; files of remote stores are copied."""
    target = folder / table
    target.mkdir()
    found = []
    for day, url, part in days:
        store, root = resolve_store(url)
        name = archive_store.part_path(table, day, part)
        place = f"{root.rstrip('/')}/{name}"
        local = is_local(store)
        try:
            if local and not Path(place).is_file():
                raise FileNotFoundError(place)
            if not local:
                place = str(target / Path(name).name)
                with store.open(f"{root.rstrip('/')}/{name}", "rb") as source, Path(place).open("wb") as kept:
                    shutil.copyfileobj(source, kept)
        except Exception as error:  # every store has errors of its own, which are no OSError
            raise unreadable_error(name, url, error) from error
        found.append(place)
    return found
