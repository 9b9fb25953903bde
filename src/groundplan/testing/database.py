"""Real databases for tests: one embedded server, and from it any number of fresh, migrated databases in milliseconds.

The server runs without fsync: what a test of durability needs is the `EmbeddedPostgres` itself. Not used by the
product.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from psycopg import Connection, OperationalError, errors, sql

from groundplan.core.database import DATABASE, ROLES, Role, connect, database_url, embedded_url, role_name
from groundplan.core.home import Home
from groundplan.core.settings import Settings, load_settings
from groundplan.runtime.migrate import migrate
from groundplan.runtime.postgres import SUPERUSER, EmbeddedPostgres

FAST: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    # of its 4,096 rounds a connection spends most of its computing on its password, and tests make thousands
    "scram_iterations": "1",
}
"""Server settings for tests that do not crash the server."""
_ENDING_SECONDS = 60.0
"""For sessions that are told to end; the server itself waits five seconds for them."""


@dataclass(frozen=True, slots=True)
class Database:
    """A fresh database. `urls` has one address per role (`owner`, `control`, `gateway`, `shipper`, `search`).

    `dsn` is for a `Settings.database_url` or GROUNDPLAN_DATABASE_URL of a process under test: its user owns the
    database and may act as every role. `superuser` sees past row-level security.
    """

    name: str
    urls: dict[Role, str]
    dsn: str
    superuser: str

    def settings(self, home: Path) -> Settings:
        """Settings of a process on this database, with its files in `home`."""
        return dataclasses.replace(load_settings({}), home=home, database_url=self.dsn)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server with a migrated database that others are copied from."""

    home: Home
    port: int
    superuser_password: str

    def superuser_url(self, database: str) -> str:
        return embedded_url(self.port, SUPERUSER, self.superuser_password, database)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """A fresh migrated database that is dropped at the end, whoever is still connected."""
        name = f"t_{secrets.token_hex(6)}"
        roles = {role: role_name(name, role) for role in ROLES if role != "owner"}
        with connect(self.superuser_url("postgres"), autocommit=True) as admin:
            owner = sql.Identifier(role_name(DATABASE, "owner"))
            # by its files: half of the computing of writing each page to the log as well
            create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY FILE_COPY")
            admin.execute(create.format(sql.Identifier(name), owner, sql.Identifier(DATABASE)))
            # A DSN's roles are named after its database; these have the rights of the template's.
            made = sql.SQL(
                "CREATE ROLE {own} NOLOGIN IN ROLE {rights}; GRANT {own} TO {owner} WITH INHERIT FALSE, SET TRUE"
            )
            admin.execute(
                sql.SQL("; ").join(
                    made.format(own=sql.Identifier(own), rights=sql.Identifier(role_name(DATABASE, role)), owner=owner)
                    for role, own in roles.items()
                )
            )
            try:
                yield self._describe(name)
            finally:
                try:
                    _drop(admin, name, roles.values())
                except OperationalError:  # a server that was stopped meanwhile, and runs again
                    with connect(self.superuser_url("postgres"), autocommit=True) as again:
                        _drop(again, name, roles.values())

    def _describe(self, name: str) -> Database:
        settings = dataclasses.replace(load_settings({}), database_url=None)
        template = {role: database_url(self.home, settings, role) for role in ROLES}
        urls = {role: url.replace(f"/{DATABASE}?", f"/{name}?") for role, url in template.items()}
        return Database(name, urls, urls["owner"].partition("?")[0], self.superuser_url(name))


def _drop(admin: Connection[Any], name: str, roles: Iterable[str]) -> None:
    """However long sessions that are told to end take."""
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    deadline = time.monotonic() + _ENDING_SECONDS
    while True:
        try:
            admin.execute(drop)
        except errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
        else:
            break
    admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.SQL(", ").join(map(sql.Identifier, roles))))


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A server with its files in `folder`, ready to hand out databases; stopped and deleted at the end."""
    home = Home(folder)
    home.create()
    server = EmbeddedPostgres(home, tuning=FAST)
    try:
        server.start()
        migrate(database_url(home, dataclasses.replace(load_settings({}), database_url=None), "owner"))
        found = found_cluster(folder)
        _set_superuser_again(found)
        yield found
    finally:
        server.remove()


def _set_superuser_again(cluster: Cluster) -> None:
    """With the rounds of this server's settings; the other roles are set at each start."""
    with connect(cluster.superuser_url("postgres"), autocommit=True) as admin:
        password, name = cluster.superuser_password.encode(), SUPERUSER.encode()
        verifier = admin.pgconn.encrypt_password(password, name, b"scram-sha-256").decode()
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(SUPERUSER), sql.Literal(verifier)))


def found_cluster(folder: Path) -> Cluster:
    """The server that another process runs in `folder`."""
    home = Home(folder)
    passwords = json.loads((home.postgres / "roles.json").read_bytes())
    return Cluster(home, int((home.postgres / "port").read_text()), str(passwords["superuser"]))
