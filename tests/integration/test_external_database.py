"""`up` on somebody else's PostgreSQL: a server of its own, an ordinary login that owns its database, nothing more."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from tests.acceptance.stack import Answer, Stack, Upstream, init_workspace, wait_until
from tests.integration.nursery import run_command
from tests.made_database import copy_database

from groundplan.cli.startup import Startup
from groundplan.core.errors import Conflict
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.runtime.migrate import LAST_UNRELEASED, head, migrate
from groundplan.runtime.postgres import SUPERUSER, EmbeddedPostgres
from groundplan.testing.database import FAST

LOGIN, PASSWORD, DATABASE = "acme_app", "an ordinary password", "acme_ai"
GRACE_SECONDS = 6


@dataclass(frozen=True)
class Server:
    """A running server that Groundplan did not start, and its administrator's view of it."""

    postgres: EmbeddedPostgres

    @property
    def dsn(self) -> str:
        port = self.postgres.superuser_url("postgres").rpartition(":")[2].partition("/")[0]
        return f"host=127.0.0.1 port={port} user={LOGIN} password='{PASSWORD}' dbname={DATABASE}"

    @property
    def url(self) -> str:
        port = self.postgres.superuser_url("postgres").rpartition(":")[2].partition("/")[0]
        return f"postgresql://{LOGIN}:{quote(PASSWORD)}@127.0.0.1:{port}/{DATABASE}"

    def administer(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.postgres.superuser_url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def give_database(self, attributes: str, owner: str = LOGIN, extension: bool = True) -> None:
        self.administer(f"CREATE ROLE {LOGIN} LOGIN NOSUPERUSER NOCREATEDB {attributes} PASSWORD '{PASSWORD}'")
        self.administer(f"CREATE DATABASE {DATABASE} OWNER {owner}")
        if extension:
            self.administer("CREATE EXTENSION vector", DATABASE)

    def take_database(self) -> None:
        """As if none had been given; whoever is still connected is cut off."""
        self.administer(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        roles = self.administer(
            f"SELECT rolname FROM pg_roles WHERE rolname LIKE '{DATABASE}\\_%' OR rolname = '{LOGIN}'"
        )
        for (role,) in roles:
            self.administer(f"DROP ROLE {role}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = Home(tmp_path_factory.mktemp("server"))
    home.create()
    copy_database(home.root)
    with EmbeddedPostgres(home, tuning=FAST) as postgres:
        postgres.start()
        yield Server(postgres)


@dataclass(frozen=True)
class Setup:
    server: Server
    stack: Stack
    upstream: Upstream

    def up_fails(self) -> subprocess.CompletedProcess[str]:
        """`up` where it ends by itself."""
        place = ("--workspace", str(self.stack.workspace), "--home", str(self.stack.home))
        told = ("up", *place, "--port", "0", "--control-port", "0")
        return run_command(told, {**os.environ, **self.stack.environment}, 120)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    made = Upstream(tmp_path_factory.mktemp("upstream"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def workspace(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = init_workspace(tmp_path_factory.mktemp("declared") / "workspace", upstream)
    declared = made / "assistant.yaml"
    text = declared.read_text()
    assert "kind: workload\n" in text
    declared.write_text(text.replace("kind: workload\n", f"kind: workload\ngrace: {GRACE_SECONDS}s\n"))
    return made


@pytest.fixture
def setup(server: Server, upstream: Upstream, workspace: Path, tmp_path: Path) -> Iterator[Setup]:
    environment = {"UPSTREAM_KEY": "sk-local-upstream", "GROUNDPLAN_DATABASE_URL": server.dsn}
    stack = Stack(tmp_path, workspace, environment=environment)
    try:
        yield Setup(server, stack, upstream)
    finally:
        stack.stop()
        if server.postgres.pid is None:
            server.postgres.start()
        server.take_database()


def spent(stack: Stack, calls: int) -> Decimal:
    """What `calls` calls cost, once the ledger has them all."""
    wait_until(lambda: stack.calls_in_ledger() == calls, 60, f"{calls} calls in the ledger")
    cost = stack.cli("cost")
    assert cost["open_reservations"] == 0
    return Decimal(cost["total_usd"])


def test_everything_works_on_an_external_database_and_survives_its_absence(setup: Setup) -> None:
    setup.server.give_database("CREATEROLE")
    stack, before = setup.stack, len(setup.upstream.counted())
    stack.start()
    assert not (stack.home / "postgres").exists()
    key = stack.key()
    assert [stack.chat(key, max_tokens=10).status for _ in range(5)] == [200] * 5
    each = spent(stack, 5) / 5
    assert each > 0
    verified = wait_until(lambda: (v := stack.cli("audit", "verify"))["entries"] >= 7 and v, 60, "calls in the log")
    assert verified["ok"]
    assert stack.cli("doctor", code=None)
    ((tables,),) = setup.server.administer(
        f"SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tableowner = '{LOGIN}'", DATABASE
    )
    assert isinstance(tables, int) and tables > 20

    stack.stop()
    stack.start()
    assert stack.cli("status")["blueprint"] == 1
    assert stack.chat(key, max_tokens=10).status == 200
    assert spent(stack, 6) == each * 6

    fresh = "SELECT 1 FROM gateway WHERE state = 'live' AND heartbeat_at > now() - interval '0.4 s'"
    wait_until(lambda: setup.server.administer(fresh, DATABASE), 60, "live policy was confirmed just now")
    stack.retries_unreachable, stopped = False, time.monotonic()
    setup.server.postgres.stop()
    assert stack.chat(key, max_tokens=10).status == 200
    codes: list[str] = []

    def cut_off() -> Answer | None:
        answer = stack.chat(key, max_tokens=10)
        codes.append("" if answer.status == 200 else answer.code)
        return answer if codes[-1] == "policy_lease_expired" else None

    refused = wait_until(cut_off, GRACE_SECONDS + 30, "a refusal")
    # what the gateway held of the budget may be used up before its grace is: that is no exhausted budget
    assert set(codes) <= {"", "budget_unreachable", "policy_lease_expired"}
    assert (refused.status, refused.code) == (503, "policy_lease_expired")
    assert time.monotonic() - stopped >= GRACE_SECONDS
    assert "PostgreSQL" in refused.body["error"]["hint"] and "retry-after" in refused.headers
    setup.server.postgres.start()
    wait_until(lambda: stack.chat(key, max_tokens=10).status == 200, 60, "calls are served again")
    served = len(setup.upstream.counted()) - before
    assert spent(stack, served) == each * served
    assert stack.cli("audit", "verify")["ok"]

    stack.stop()
    keys = stack.home / "keys"
    keys.rename(keys.with_name("kept"))  # as in a HOME that is made anew for a database that is left
    failed = setup.up_fails()
    assert failed.returncode == 75 and "[keys_differ]" in failed.stderr and f"in the place of {keys}" in failed.stderr

    setup.server.administer(f"ALTER DATABASE {DATABASE} RENAME TO kept")  # and another, empty one is named by mistake
    setup.server.administer(f"CREATE DATABASE {DATABASE} OWNER {LOGIN}")
    setup.server.administer("CREATE EXTENSION vector", DATABASE)
    failed = setup.up_fails()
    setup.server.administer("DROP DATABASE kept")
    assert failed.returncode == 75 and "[database_differs]" in failed.stderr, failed.stderr
    # with the same keys and workspace another installation's has the same signature, but is not of the same moment
    assert len((stack.home / "database").read_text().split()) == 2
    settings = dataclasses.replace(load_settings({}), database_url=setup.server.dsn)
    nothing: Any = None
    with pytest.raises(Conflict, match="database_differs"):  # nor is it by a reload, after it was named in a file
        Startup(Home(stack.home), settings, None, False, nothing).replacement_groups(nothing, nothing, 1)


@pytest.mark.parametrize(
    ("attributes", "owner", "extension", "code"),
    [
        ("NOCREATEROLE", LOGIN, True, "database_roles"),
        ("CREATEROLE", LOGIN, False, "database_extension"),
        ("NOCREATEROLE", SUPERUSER, False, "database_rights"),
    ],
)
def test_a_login_that_lacks_rights_is_told_all_that_an_administrator_must_run(
    setup: Setup, attributes: str, owner: str, extension: bool, code: str
) -> None:
    setup.server.give_database(attributes, owner, extension)
    failed = setup.up_fails()
    assert failed.returncode == 77, failed.stderr
    assert f"[{code}]" in failed.stderr and PASSWORD not in failed.stderr
    statements = failed.stderr.partition(f"As an administrator, in {DATABASE}: ")[2]
    setup.server.administer(" ".join(statements.split()), DATABASE)
    if code == "database_rights":  # it lacked what both others did
        setup.stack.start()
        assert setup.stack.chat(setup.stack.key()).status == 200
    else:
        migrate(setup.server.url)  # which is what was refused


@pytest.mark.parametrize(
    ("schema", "code", "known"),
    [
        ("9999_future", "schema_newer", head()),
        ("0417_uses_of_tools_are_no_calls", "schema_unreleased", LAST_UNRELEASED),
    ],
)
def test_a_database_of_another_program_is_refused_and_left_as_it_is(
    setup: Setup, schema: str, code: str, known: str
) -> None:
    setup.server.give_database("CREATEROLE")
    migrate(setup.server.url)
    setup.server.administer(f"UPDATE alembic_version SET version_num = '{schema}'", DATABASE)
    failed = setup.up_fails()
    assert failed.returncode == 75, failed.stderr
    assert code in failed.stderr and schema in failed.stderr and known in " ".join(failed.stderr.split())
    assert setup.server.administer("SELECT version_num FROM alembic_version", DATABASE) == [(schema,)]


def test_a_server_that_is_not_there_is_named_without_its_password(setup: Setup) -> None:
    setup.server.give_database("CREATEROLE")
    setup.server.postgres.stop()
    failed = setup.up_fails()
    assert failed.returncode == 69, failed.stderr
    assert "database_unavailable" in failed.stderr and PASSWORD not in failed.stderr
