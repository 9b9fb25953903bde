"""Where the database is, for each role; one way to open a connection that fails in our words, one to read rows by name.

Contains no SQL and no pool: each part owns its statements (its `store.py`) and its connections. Starting the embedded
server and migrating are the runtime's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, get_args
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.last_known_address import LastKnownAddress
from groundplan.core.settings import Settings, resolve_secret

Role = Literal["owner", "control", "gateway", "shipper", "search"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""`owner` migrates and backs up; the others own nothing, are not superuser and do not bypass row-level security."""

DATABASE: Final = "groundplan"
"""Name of the database in the embedded server; an external one may have any name."""

_SERVICE: Final = re.compile(r"definition of service|service file")
"""In what the client's library says of a service that it does not find."""

_NOTICED: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""That a server is gone which never said so (a failover, a machine that lost its power) is known within half a minute:
whoever listens would learn it after two hours, and whoever asked after a quarter of one."""

_LET_GO: Final = {
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
    "idle_in_transaction_session_timeout": "5min",
}
"""Asked of the server for each session. What a machine had locked that is gone without a word, it keeps for two hours
otherwise, and what a process had that stands still, for as long as that does: meanwhile other replicas wait for it."""

_AS_WRITTEN: Final = {
    "timezone": "UTC",  # of which days, and the times of rows, are
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "row_security": "on",
    "default_transaction_isolation": r"read\ committed",
    "idle_session_timeout": "0",
}
"""How statements are meant, and read, whatever is usual on a server or for a login: with other styles of dates nothing
is read at all, and what waits for a lock is to see what was written before it."""

_ALONE: Final = {
    "hostaddr": "127.0.0.1",
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "disable",
    "target_session_attrs": "any",
    "client_encoding": "UTF8",
}
"""How the embedded server is reached."""


def _options(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def role_name(database: str, role: Role) -> str:
    """The PostgreSQL role behind `role` in a database of that name."""
    return f"{database}_{role}"


def database_url(home: Home, settings: Settings, role: Role) -> str:
    """A libpq URI for `role`; it carries the password of the embedded server, so it is never logged.

    Raises `Unavailable` (`database_not_running`) where the embedded server of this HOME has not been started, and
    `Invalid` (`database_url`) where GROUNDPLAN_DATABASE_URL is malformed or names no database, or what `external_dsn`
    raises.
    """
    if settings.database_url is not None:
        return external_url(external_dsn(settings.database_url), role)
    try:
        port = int((home.postgres / "port").read_text())
        passwords = json.loads((home.postgres / "roles.json").read_bytes())
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"no database runs for {home.root}",
            code="database_not_running",
            hint="Start it with `groundplan up`, or check --home.",
        ) from error
    return embedded_url(port, role_name(DATABASE, role), str(passwords[role]), DATABASE)


def embedded_url(port: int, user: str, password: str, database: str) -> str:
    """The URI of a server on this machine's loopback, whatever libpq is told of others by the environment (PGSSLMODE,
    PGHOSTADDR, PGOPTIONS)."""
    asked = {"application_name": user, **_ALONE, "options": _options(_AS_WRITTEN)}
    return (
        f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{port}/{quote(database, safe='')}"
        f"?{urlencode(asked, quote_via=quote)}"
    )


def external_dsn(named: str) -> str:
    """What GROUNDPLAN_DATABASE_URL names: a DSN, or with `file:PATH` the one that this file holds now. A password that
    is changed there is asked for by whatever starts afterwards, as at a reload.

    Raises `Invalid` (`secret_unreadable`, `secret_missing`).
    """
    return resolve_secret(named) if named.startswith("file:") else named


def external_url(dsn: str, role: Role) -> str:
    """`dsn` (URI or keywords) as the role; `owner` stays the user that the DSN names."""
    parameters = dsn_parameters(dsn)
    given = str(parameters.get("options") or "")
    let_go = {name: value for name, value in _LET_GO.items() if name not in given}
    wanted = [_options(let_go | _AS_WRITTEN)]
    if role != "owner":
        wanted.append(f"-c role={role_name(str(parameters['dbname']), role)}")
    parameters |= {"options": " ".join([*([given] if given else []), *wanted]), "client_encoding": "UTF8"}
    for name, value in {"application_name": f"groundplan_{role}", **_NOTICED}.items():
        parameters.setdefault(name, value)
    return "postgresql:///?" + urlencode({key: str(value) for key, value in parameters.items()}, quote_via=quote)


def dsn_parameters(dsn: str) -> dict[str, Any]:
    """The libpq parameters of a DSN; `dbname` is always there.

    Raises `Invalid` without repeating the DSN, since it may hold a password.
    """
    try:
        parameters = {key: value for key, value in conninfo_to_dict(dsn).items() if value not in (None, "")}
    except psycopg.ProgrammingError:
        parameters = {}
    if not parameters.get("dbname"):
        raise Invalid(
            "the database URL is malformed or names no database",
            code="database_url",
            hint="Write GROUNDPLAN_DATABASE_URL like postgresql://user@host:5432/groundplan, or file:PATH of a file "
            "that holds one.",
        )
    return parameters


def connect(
    url: str, *, autocommit: bool = False, timeout: int = 10, kind: type[LastKnownAddress] = LastKnownAddress
) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection within `timeout` seconds, or `Unavailable` (`database_unavailable`); `Invalid` where something
    before PostgreSQL does not take what is asked for (`database_pooled`), and for a service that is not found
    (`database_url`)."""
    try:
        return kind.connect(url, autocommit=autocommit, connect_timeout=timeout)
    except psycopg.OperationalError as error:
        if "unsupported startup parameter" in str(error):  # in PgBouncer's words, unless it is told to drop them
            raise pooled_error(
                f"what stands before PostgreSQL refuses what is asked for: {first_line(error)}"
            ) from error
        if _SERVICE.search(str(error)) is not None:
            raise Invalid(
                f"the database cannot be reached: {first_line(error)}",
                code="database_url",
                hint="It is looked for in ~/.pg_service.conf, or in the file that PGSERVICEFILE names; PGSERVICE or "
                "GROUNDPLAN_DATABASE_URL says which one.",
            ) from error
        raise Unavailable(
            f"the database cannot be reached: {first_line(error)}",
            code="database_unavailable",
            hint="Check that PostgreSQL runs and admits this user; `groundplan doctor` tests it.",
            retry_after=1.0,
        ) from error


def prepare_long_session(connection: psycopg.Connection[Any]) -> None:
    """Have a session take its time, whatever is usual on this server, and make tables where every role finds them: a
    schema that is named after its login comes first otherwise, and the roles have none of that name."""
    connection.execute("SET statement_timeout = 0")
    connection.execute("SET idle_session_timeout = 0")
    connection.execute(
        "SELECT set_config('search_path', concat_ws(', ', 'public', nullif(current_setting('search_path'), '')), false)"
    )


def pooled_error(message: str) -> Invalid:
    """That something stands before PostgreSQL which does not pass on what this program needs."""
    return Invalid(
        message,
        code="database_pooled",
        hint="Name PostgreSQL itself in GROUNDPLAN_DATABASE_URL. A pooler such as PgBouncer keeps neither roles, "
        "nor the locks and notices of a session, by which replicas keep out of each other's way.",
    )


def select(
    conn: psycopg.Connection[Any], query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[dict[str, Any]]:
    """All rows of a query, each by the names of its columns. `query` holds no values: those are `parameters`."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


@contextmanager
def translate_database_errors(what: str, code: str, hint: str) -> Iterator[None]:
    """What PostgreSQL refuses, as where its disk is full, in our words: raises `Unavailable` (`code`)."""
    try:
        yield
    except psycopg.Error as error:
        raise Unavailable(f"{what}: {first_line(error)}", code=code, hint=hint) from error


def first_line(error: BaseException) -> str:
    """The first line of a database error, for a message that stays on one line."""
    return (str(error).strip().splitlines() or [error.__class__.__name__])[0]
