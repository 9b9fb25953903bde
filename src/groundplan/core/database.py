"""URLs of the database for each role, connections that raise Groundplan's errors, and queries that return dicts.

Contains no statements and no pool: each package owns its SQL (its `store.py`) and its connections. Starting the
embedded server and migrating are the runtime's job.
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
"""`owner` migrates and backs up; the others own nothing, are no superusers and do not bypass row-level security."""

DATABASE: Final = "groundplan"
"""Name of the database in the embedded server; an external one may have any name."""

_SERVICE_ERROR: Final = re.compile(r"definition of service|service file")
"""Matches libpq's message about a service that it does not find."""

_CLIENT_KEEPALIVES: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Client-side keepalives: a server that disappeared without closing the connection (a failover, a loss of power) is
noticed within half a minute. By default a listening connection would notice after two hours, and a waiting query after
15 minutes."""

_SERVER_TIMEOUTS: Final = {
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
    "idle_in_transaction_session_timeout": "5min",
}
"""Session settings that make the server release locks of a client that disappeared (by default after two hours) or that
is suspended (by default never), since other replicas wait for them."""

_SESSION_DEFAULTS: Final = {
    "timezone": "UTC",  # days and times of rows are in UTC
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "row_security": "on",
    "default_transaction_isolation": r"read\ committed",
    "idle_session_timeout": "0",
}
"""Session settings that the statements rely on, whatever the defaults of a server or a login: dates in another style
could not be read, and a statement that waited for a lock must see what was committed before it."""

_EMBEDDED_PARAMETERS: Final = {
    "hostaddr": "127.0.0.1",
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "disable",
    "target_session_attrs": "any",
    "client_encoding": "UTF8",
}
"""Connection parameters of the embedded server."""


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
    """The URI of a server on this machine's loopback; overrides libpq's environment variables (PGSSLMODE, PGHOSTADDR,
    PGOPTIONS)."""
    asked = {"application_name": user, **_EMBEDDED_PARAMETERS, "options": _options(_SESSION_DEFAULTS)}
    return (
        f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{port}/{quote(database, safe='')}"
        f"?{urlencode(asked, quote_via=quote)}"
    )


def external_dsn(named: str) -> str:
    """The DSN in GROUNDPLAN_DATABASE_URL or, for `file:PATH`, the current content of that file. A password changed
    there is used by every process that starts afterwards, as at a reload.

    Raises `Invalid` (`secret_unreadable`, `secret_missing`).
    """
    return resolve_secret(named) if named.startswith("file:") else named


def external_url(dsn: str, role: Role) -> str:
    """`dsn` (URI or keywords) as the role; `owner` stays the user that the DSN names."""
    parameters = dsn_parameters(dsn)
    given = str(parameters.get("options") or "")
    let_go = {name: value for name, value in _SERVER_TIMEOUTS.items() if name not in given}
    wanted = [_options(let_go | _SESSION_DEFAULTS)]
    if role != "owner":
        wanted.append(f"-c role={role_name(str(parameters['dbname']), role)}")
    parameters |= {"options": " ".join([*([given] if given else []), *wanted]), "client_encoding": "UTF8"}
    for name, value in {"application_name": f"groundplan_{role}", **_CLIENT_KEEPALIVES}.items():
        parameters.setdefault(name, value)
    return "postgresql:///?" + urlencode({key: str(value) for key, value in parameters.items()}, quote_via=quote)


def dsn_parameters(dsn: str) -> dict[str, Any]:
    """The libpq parameters of a DSN; `dbname` is always present.

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
    """Connect within `timeout` seconds. Raises `Unavailable` (`database_unavailable`), or `Invalid` where a pooler in
    front of PostgreSQL refuses a parameter (`database_pooled`) or a service is not found (`database_url`)."""
    try:
        return kind.connect(url, autocommit=autocommit, connect_timeout=timeout)
    except psycopg.OperationalError as error:
        if "unsupported startup parameter" in str(error):  # in PgBouncer's words, unless it is told to drop them
            raise pooled_error(
                f"what stands before PostgreSQL refuses what is asked for: {first_line(error)}"
            ) from error
        if _SERVICE_ERROR.search(str(error)) is not None:
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
    """Lift the server's time limits for this session and put `public` first in its search path, so that tables are
    created where every role finds them: a schema named after the login would come first otherwise."""
    connection.execute("SET statement_timeout = 0")
    connection.execute("SET idle_session_timeout = 0")
    connection.execute(
        "SELECT set_config('search_path', concat_ws(', ', 'public', nullif(current_setting('search_path'), '')), false)"
    )


def pooled_error(message: str) -> Invalid:
    """The error for a pooler in front of PostgreSQL that does not support what this program needs."""
    return Invalid(
        message,
        code="database_pooled",
        hint="Name PostgreSQL itself in GROUNDPLAN_DATABASE_URL. A pooler such as PgBouncer keeps neither roles, "
        "nor the locks and notices of a session, by which replicas keep out of each other's way.",
    )


def select(
    conn: psycopg.Connection[Any], query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[dict[str, Any]]:
    """All rows of a query as dicts by column name. `query` is constant text; values go into `parameters`."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


@contextmanager
def translate_database_errors(what: str, code: str, hint: str) -> Iterator[None]:
    """Convert errors of PostgreSQL, such as a full disk, to `Unavailable` with `what` happened, `code` and `hint`."""
    try:
        yield
    except psycopg.Error as error:
        raise Unavailable(f"{what}: {first_line(error)}", code=code, hint=hint) from error


def first_line(error: BaseException) -> str:
    """The first line of a database error, for a message that stays on one line."""
    return (str(error).strip().splitlines() or [error.__class__.__name__])[0]
