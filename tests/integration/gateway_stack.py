"""A gateway worker as a real process on a real database, with scripted upstreams in the test's own loop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from tests.closing import close
from tests.integration.nursery import Worker, fork_worker

from groundplan.blueprint import artifact
from groundplan.blueprint.model import Blueprint, Budget, Deployment, Grounding, Rates, Site, Workload
from groundplan.core.audit.keys import create_keys, load_private
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.gateway.telemetry.scrape import SERVICE as METRICS
from groundplan.testing.database import Database
from groundplan.testing.scripted import ScriptedModel, start

RATES = Rates(input=0, output=10 * PICO)
"""10 USD per million tokens of output: 20 tokens cost 0.0002 USD."""


PATIENT: dict[str, Any] = {"first_token_ms": 10_000, "idle_ms": 5_000, "connect_ms": 5_000}
"""Timeouts of an upstream that is to answer: on a busy machine it may take seconds."""
HASTY: dict[str, Any] = {"first_token_ms": 1000, "idle_ms": 500, "connect_ms": 500}
"""Timeouts of an upstream that does not answer."""
UNREACHABLE_TRIES = 8
Result = TypeVar("Result")
SEGMENT = 1 << 19
"""Bytes of a journal segment; each worker preallocates two and makes them durable before it serves."""


def deployment(name: str, port: int, **more: Any) -> Deployment:
    settings: dict[str, Any] = {"rates": RATES, "site": f"site-{name}", **PATIENT, **more}
    return Deployment(
        name=name, model=f"scripted/{name}", upstream_model=f"up-{name}",
        url=f"http://127.0.0.1:{port}/v1", **settings,
    )  # fmt: skip


def workload(name: str, deployments: list[str], **more: Any) -> Workload:
    settings: dict[str, Any] = {
        "stage": "pilot", "sensitivity": "internal", "audience": "employees", "residency": [], "budgets": ["all"],
        **more,
    }  # fmt: skip
    return Workload(name=name, purpose="test", deployments=deployments, **settings)


def blueprint(
    number: int, deployments: list[Deployment], workloads: list[Workload], limit: int = 1000 * PICO
) -> Blueprint:
    return Blueprint(
        number=number,
        company="acme",
        separation="solo",
        sites=[Site(name=f"site-{d.name}", type="cloud", jurisdiction="EU") for d in deployments],
        deployments=deployments,
        sources=[],
        workloads=workloads,
        budgets=[Budget(name="all", covers="company", limit=limit, period="total")],
        placements=[],
    )


GROUNDING = Grounding(sources=["handbook"], passages=2, max_bytes=2000)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@dataclass
class Stack:
    """One HOME, its database, and its worker processes on one listening socket."""

    home: Home
    database: Database
    listening: socket.socket
    workers: list[Worker | subprocess.Popen[bytes]] = field(default_factory=list)
    at_words: tuple[bytes, Callable[[], None]] | None = None
    """Words of an answer, and what is called once they have come."""
    _connection: psycopg.Connection[Any] | None = None

    @property
    def port(self) -> int:
        port: int = self.listening.getsockname()[1]
        return port

    def apply(self, applied: Blueprint, *, signed: bool = True, number: int | None = None) -> None:
        """Store and announce a blueprint. `number`: the number to store it under, by default its own."""
        body = artifact.encode(applied)
        signature = artifact.sign(body if signed else body + b" ", load_private(self.home, "blueprint"))

        def insert(connection: psycopg.Connection[Any]) -> None:
            connection.execute(
                "INSERT INTO blueprint (number, body, digest, signature, key_id, sources, created_by, reason) "
                "VALUES (%s, %s, %s, %s, 'k', '{}', 'operator', 'test')",
                (number or applied.number, body, artifact.digest(body), signature),
            )
            connection.execute("SELECT pg_notify('groundplan_blueprint', %s)", (str(number or applied.number),))

        self._as_control(insert)

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query as superuser."""
        return self._with_connection(lambda connection: _rows(connection.execute(statement.encode(), parameters)))

    def reported_labels(self) -> list[tuple[Any, ...]]:
        """The distinct (feature, ticket) of all calls."""
        return self.sql("SELECT DISTINCT detail ->> 'feature', detail ->> 'ticket' FROM call ORDER BY 1, 2")

    def _with_connection(self, work: Callable[[psycopg.Connection[Any]], Result]) -> Result:
        """Use a connection that is reused: connecting takes longer than most queries."""
        if self._connection is not None:
            try:
                return work(self._connection)
            except psycopg.OperationalError:
                if not self._connection.broken:
                    raise
            self._connection.close()  # the connection was terminated
        self._connection = psycopg.connect(self.database.superuser, autocommit=True, prepare_threshold=None)
        return work(self._connection)

    def _as_control(self, work: Callable[[psycopg.Connection[Any]], Result]) -> Result:
        """Work in one transaction with only the rights of the control process."""
        role = sql.Identifier(urlsplit(self.database.urls["control"]).username or "")

        def limited(connection: psycopg.Connection[Any]) -> Result:
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL ROLE {}").format(role))
                return work(connection)

        return self._with_connection(limited)

    def lock_heartbeats(self) -> psycopg.Connection[Any]:
        """Lock the table that every heartbeat writes, until the returned connection is closed."""
        connection = psycopg.connect(self.database.superuser)
        connection.execute("LOCK TABLE gateway IN ACCESS EXCLUSIVE MODE")
        return connection

    def sql_admin(self, statement: str) -> None:
        """Run a statement as superuser, from another database of the server."""
        other = self.database.superuser.replace(f"/{self.database.name}?", "/postgres?")
        with psycopg.connect(other, autocommit=True) as connection:
            connection.execute(statement.encode())

    def policy(self, kind: str, subject: str, statement: str, *parameters: Any) -> int:
        """Change live policy as the control process does; returns the number of the change."""

        def change(connection: psycopg.Connection[Any]) -> int:
            connection.execute(statement.encode(), parameters)
            row = connection.execute("SELECT next_policy_number(%s, %s, true)", (kind, subject)).fetchone()
            assert row is not None
            return int(row[0])

        return self._as_control(change)

    def pids_behind(self, number: int | None = None) -> list[int]:
        """Pids of running workers that have not acknowledged live policy up to `number`, by default the newest."""
        rows = self.sql("SELECT pid, policy_ack, (SELECT number FROM policy_epoch) FROM gateway WHERE state = 'live'")
        return [pid for pid, ack, newest in rows if ack < (newest if number is None else number) and _runs(pid)]

    async def wait_until_acknowledged(self, number: int | None = None, seconds: float = 30) -> None:
        """Wait until every running worker has acknowledged live policy up to `number`, by default the newest."""
        end = time.monotonic() + seconds
        while behind := self.pids_behind(number):
            assert time.monotonic() < end, behind
            await asyncio.sleep(0.02)

    def person(self, email: str) -> str:
        person = str(new_id())
        self.policy("person", email, "INSERT INTO person (id, email, name) VALUES (%s, %s, 'P')", person, email)
        return person

    def key(self, workload_name: str = "assistant", person: str | None = None, acts: bool = False) -> str:
        key = f"gp_{os.urandom(16).hex()}"
        number = self.policy(
            "key",
            workload_name,
            "INSERT INTO api_key (id, hash, prefix, workload, person_id, acts_for_others, created_by) "
            "VALUES (%s, %s, 'gp_', %s, %s, %s, 'operator')",
            *(new_id(), hashlib.sha256(key.encode()).digest(), workload_name, person, acts),
        )
        if len(self.workers) > 1 or self._has_services():
            time.sleep(0.35)  # by then a worker is connected to its services
        end = time.monotonic() + 30
        while behind := self.pids_behind(number):
            assert time.monotonic() < end, behind
            time.sleep(0.02)
        return key

    def _has_services(self) -> bool:
        """Whether there is any service that a worker connects to; the metrics endpoint is none."""
        return any(not each.name.startswith(METRICS) for each in (self.home.run / "endpoints.d").glob("*"))

    def start(self, count: int = 1) -> None:
        log = (self.home.logs / "gateway.log").open("ab")
        for slot in range(count):
            fd = self.listening.fileno()
            environment = {**os.environ, "GROUNDPLAN_DATABASE_URL": self.database.dsn}
            arguments = ["--home", str(self.home.root), "--slot", str(slot), "--segment-bytes", str(SEGMENT)]
            self.workers.append(fork_worker(arguments, fd, log.fileno(), environment))
        log.close()

    async def wait_until_ready(self, number: int = 1, seconds: float = 60) -> None:
        """Wait until every worker serves the blueprint `number`."""
        end = time.monotonic() + seconds
        while True:
            rows = self.sql("SELECT ready, blueprint FROM gateway WHERE state = 'live'")
            if len(rows) >= len(self.workers) and all(ready and n == number for ready, n in rows):
                return
            assert time.monotonic() < end, (rows, (self.home.logs / "gateway.log").read_text()[-3000:])
            self.sql(
                "NOTIFY groundplan_policy"
            )  # a notified worker reports its state at once, otherwise with its next heartbeat
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self._close()

    def kill(self) -> None:
        """Kill the workers, which saves a third of a second each compared with `stop`."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
        for worker in self.workers:
            worker.wait()
        self._close()

    def _close(self) -> None:
        self.listening.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def post(self, path: str, key: str | None, body: Any, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask("POST", path, key, data, **headers)

    async def ask(self, method: str, path: str, key: str | None, data: bytes = b"", **headers: str) -> Reply:
        """The answer; retried while a busy PostgreSQL does not answer in time what is left of a budget, as the refusal
        asks for."""
        for _ in range(UNREACHABLE_TRIES):
            reply = await self._ask(method, path, key, data, **headers)
            if reply.status != 503 or b'"budget_unreachable"' not in reply.body:
                break
        return reply

    async def _ask(self, method: str, path: str, key: str | None, data: bytes, **headers: str) -> Reply:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(data)}", "connection: close"]
        lines += [f"authorization: Bearer {key}"] if key else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        raw = b""
        try:
            if self.at_words is not None:
                words, react = self.at_words
                while words not in raw and (more := await asyncio.wait_for(reader.read(1 << 16), 30)):
                    raw += more
                if words in raw:
                    react()
            raw += await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()
            with suppress(OSError):  # the worker may be gone
                await writer.wait_closed()
        return parse_reply(raw)

    async def chat(self, key: str | None, text: str = "hello there", **more: Any) -> Reply:
        headers = more.pop("headers", {})
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 20, **more}
        return await self.post("/v1/chat/completions", key, body, **headers)

    async def ask_once(self, key: str, text: str = "hello there") -> Reply:
        """The answer to a chat call, without retries."""
        body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 20})
        return await self._ask("POST", "/v1/chat/completions", key, body.encode())


def _rows(cursor: psycopg.Cursor[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []


def _runs(pid: int) -> bool:
    """Whether a process exists and is neither dead nor stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TtZX"
    except (OSError, IndexError):
        return False


def parse_reply(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = unchunk(body)
    return Reply(int(first.split(" ")[1]), headers, body)


def unchunk(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        out, data = out + rest[:length], rest[length + 2 :]
    return out


def parse_events(body: bytes) -> list[Any]:
    """The parsed data of each event; `[DONE]` as text."""
    texts = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


@asynccontextmanager
async def scripted_upstream(name: str) -> AsyncIterator[tuple[ScriptedModel, int]]:
    """A scripted model in this loop, and its port."""
    model = ScriptedModel(name)
    listener, server, port = await start(model)
    try:
        yield model, port
    finally:
        await close(listener, server)


@asynccontextmanager
async def installation(database: Database, folder: Path) -> AsyncIterator[Stack]:
    """A HOME with keys and a listening socket; apply a blueprint and `start` workers. They are killed at the end; a
    test of how workers stop calls `stop` itself."""
    home = Home(folder / "home")
    home.create()
    create_keys(home)
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    stack = Stack(home, database, listening)
    try:
        yield stack
    finally:
        await asyncio.to_thread(stack.kill)
