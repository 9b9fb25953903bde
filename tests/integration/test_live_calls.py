"""Calls are seen as they reach the ledger: by the stream of events, by `groundplan tail`, over a restart of either."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from tests.integration.test_api_control import Control, run_control

from groundplan.api.caller import Caller
from groundplan.api.calls import live
from groundplan.api.calls.live import LiveCalls
from groundplan.api.routes.live import REFRESH_SECONDS, _event, _events
from groundplan.cli import tail as command
from groundplan.cli.client import read_events
from groundplan.cli.tail import format_call
from groundplan.core.errors import Unavailable
from groundplan.core.ids import new_id
from groundplan.identity import service as identity
from groundplan.identity import sessions
from groundplan.ledger import queries
from groundplan.testing.database import Cluster, Database


def put(database: Database, workload: str = "assistant", status: str = "ok", person: str | None = None) -> str:
    """A call in the ledger, as the shipper leaves it."""
    call = new_id()
    with psycopg.connect(database.superuser, autocommit=True) as conn:
        conn.execute(
            """INSERT INTO call (id, at, workload, person_id, endpoint, status, http_status, deployment, cost_usd,
                 reserved_usd, blueprint, epoch, duration_ms, detail)
               VALUES (%s, now(), %s, %s, 'chat.completions', %s, 200, 'local', 0.000123, 0.01, 1, %s, 12.5, '{}')""",
            (call, workload, person, status, new_id()),
        )
    return str(call)


@dataclass
class Watcher:
    """One connection to the live stream, read by a thread."""

    control: Control
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    """The stream has said something: from now on calls are told."""
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, connection: http.client.HTTPConnection) -> None:
        for _, call_id, data in read_events(self._heard(connection.getresponse())):
            self.seen.append((call_id, json.loads(data)))
        self.over.set()

    def _heard(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        for told in response:
            self.begun.set()
            yield told

    def until(self, calls: list[str], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while [call for call, _ in self.seen] != calls:
            assert time.monotonic() < deadline, (self.seen, calls)
            time.sleep(0.02)


@contextmanager
def watching(control: Control, query: str = "", **headers: str) -> Iterator[Watcher]:
    watcher = Watcher(control, query)
    connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=30)
    token = control.home.operator_token.read_text().strip()
    sent = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request("GET", f"/api/calls/live{query}", headers={k: v for k, v in sent.items() if v})
    thread = threading.Thread(target=watcher.run, args=(connection,))
    thread.start()
    try:
        assert watcher.begun.wait(30), "the stream does not begin"
        yield watcher
    finally:
        if connection.sock is not None:
            connection.sock.shutdown(2)
        thread.join(5)
        connection.close()


@pytest.fixture(scope="module")
def database(postgres_cluster: Cluster) -> Iterator[Database]:
    with postgres_cluster.database() as fresh:
        yield fresh


@pytest.fixture(scope="module")
def control(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with run_control(database, tmp_path_factory.mktemp("live")) as found:
        yield found


def test_each_call_is_sent_once_in_order_of_arrival(control: Control, database: Database) -> None:
    with watching(control) as watcher, watching(control, "?status=failed") as other:
        calls = [put(database) for _ in range(5)]
        failed = put(database, status="failed")
        watcher.until([*calls, failed])
        other.until([failed])
        time.sleep(1)
        assert [call for call, _ in watcher.seen] == [*calls, failed], "nothing is told again by a later look"
        assert watcher.seen[0][1]["workload"] == "assistant" and watcher.seen[0][1]["cost_usd"] == "0.000123000000"


def test_a_filter_by_something_unserved_is_refused(control: Control) -> None:
    for name in ("workload", "deployment"):
        found = control.ask("GET", f"/api/calls/live?{name}=asistant")
        assert (found.status, found.code) == (404, f"{name}_unknown")
    found = control.ask("GET", "/api/calls/live?status=error")
    assert found.status == 422 and "refused" in str(found.body), "it says which words there are"


def test_too_many_calls_during_a_break_are_reported_as_skipped(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_PER_LOOK", 3)
    with ConnectionPool(database.urls["control"], min_size=1, max_size=1, open=True) as pool:
        calls, first = LiveCalls(pool), UUID(put(database))
        made = [put(database) for _ in range(2)]
        with pool.connection() as conn:
            few = calls.missed_since(conn, first)
            assert [row["id"] for row in few.rows][-2:] == made and not few.skipped
            made = [*made, put(database)]
            many = calls.missed_since(conn, first)
            assert [row["id"] for row in many.rows] == made and many.skipped


def test_a_slow_client_is_told_that_calls_were_skipped() -> None:
    """As one who pages through what `groundplan tail` prints."""
    nothing: Any = None
    request: Any = Anybody()
    calls, told = LiveCalls(nothing), list[str]()
    calls._thread = threading.current_thread()  # nobody looks

    async def read() -> None:
        async for text in _events(request, nothing, calls, {}, OPERATOR):
            told.append(text.partition("\n")[0])
            if len(told) == 1:
                calls._calls.append((1, {"id": "a"}))
            elif len(told) == 2:
                calls._calls.clear()
                calls._calls.extend((number, {"id": str(number)}) for number in (5, 6))
            elif len(told) == 5:
                calls.stop()

    asyncio.run(read())
    assert told == ["retry: 1000", "id: a", "event: skipped", "id: 5", "id: 6"]


def test_a_call_arriving_during_the_catch_up_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    request: Any = Leaving()
    calls, told = LiveCalls(nothing), list[str]()
    calls._thread = threading.current_thread()  # nobody looks

    def missed(*_: object) -> live.MissedCalls:
        calls._calls.extend([(1, {"id": "a"}), (2, {"id": "b"})])
        calls._number = 2
        return live.MissedCalls([{"id": "a"}], frozenset({"a"}), skipped=False)

    async def read() -> None:
        async for text in _events(request, nothing, calls, {}, OPERATOR):
            told.append(text.partition("\n")[0])

    monkeypatch.setattr("groundplan.api.routes.live._missed", missed)
    asyncio.run(read())
    assert told == ["retry: 1000", "id: a", "id: b"]


def test_a_viewer_of_own_calls_sees_no_others_of_a_workload() -> None:
    row = {"id": "a", "workload": "assistant", "person_id": "ben"}
    assert _event(row, {"workload": "assistant", "person_id": "ben"})
    assert not _event(row, {"workload": "assistant", "person_id": "ana"})


OPERATOR = Caller("operator", None, None, "local operator", operator=True)


class Anybody:
    """A request that goes on."""

    headers: ClassVar[dict[str, str]] = {}

    async def is_disconnected(self) -> bool:
        return False


class Leaving(Anybody):
    """Goes on for a moment."""

    asked = 0

    async def is_disconnected(self) -> bool:
        self.asked += 1
        return self.asked > 3


def test_a_call_that_was_slow_to_become_visible_is_not_missed(control: Control, database: Database) -> None:
    with watching(control) as watcher, psycopg.connect(database.superuser) as slow:
        slow.execute("SELECT 1")
        late = new_id()
        slow.execute(
            """INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint,
                 epoch, detail) VALUES (%s, now(), 'assistant', 'e', 'ok', 200, 0, 0, 1, %s, '{}')""",
            (late, new_id()),
        )
        first = put(database)
        watcher.until([first])
        slow.commit()
        watcher.until([first, str(late)])


def test_a_call_becoming_visible_after_a_break_is_sent_then_and_no_other_twice(database: Database) -> None:
    """Though it came just before the one that was told last, by a transaction that was slow."""
    with (
        ConnectionPool(database.urls["control"], min_size=1, max_size=2, open=True) as pool,
        psycopg.connect(database.superuser) as slow,
    ):
        calls = LiveCalls(pool)
        before = put(database)  # before anybody watches: nobody asked for it
        # when watching began is known but for what a slow database takes to tell the time
        slow.execute("UPDATE call SET shipped_at = shipped_at - interval '1 s' WHERE id = %s", (before,))
        slow.commit()
        with calls.watch():
            number, first = calls.number, put(database)
            slow.execute(
                """INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint,
                     epoch, detail) VALUES (%s, now(), 'assistant', 'e', 'ok', 200, 0, 0, 1, %s, '{}')""",
                (late := new_id(), new_id()),
            )
            last, end = put(database), time.monotonic() + 30
            while [row["id"] for _, row in calls.newer_than(number)] != [first, last]:
                assert time.monotonic() < end, calls.newer_than(number)
                time.sleep(0.02)
        while calls._thread is not None:
            time.sleep(0.02)
        slow.commit()
        then = put(database)
        with pool.connection() as conn:
            missed = calls.missed_since(conn, UUID(last))
            assert [row["id"] for row in missed.rows] == [str(late), then]
            assert missed.ids == {last, str(late), then}
            again = [row["id"] for row in LiveCalls(pool).missed_since(conn, UUID(last)).rows]
        assert {first, str(late), then} <= set(again) and last not in again, "by another process, which cannot know"


def test_a_call_arriving_before_the_first_query_is_sent(database: Database) -> None:
    with ConnectionPool(database.urls["control"], min_size=1, max_size=1, open=True) as pool, ExitStack() as opened:
        calls = LiveCalls(pool)
        with pool.connection():  # so that the first look comes late
            opened.enter_context(calls.watch())
            call = put(database)
        end = time.monotonic() + 30
        while not calls.number:
            assert time.monotonic() < end, "it is not told"
            time.sleep(0.02)
        assert [row["id"] for _, row in calls.newer_than(0)] == [call]


def test_calls_are_sent_although_postgresqls_clock_was_set_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look was by the fast clock, and so did a call arrive that is not told again."""
    ahead, time_of = [timedelta(hours=1)], queries.database_time
    monkeypatch.setattr(queries, "database_time", lambda conn: time_of(conn) + (ahead.pop() if ahead else timedelta()))
    monkeypatch.setattr(live, "MAX_PER_LOOK", 1)
    with psycopg.connect(database.superuser, autocommit=True) as conn:
        conn.execute("UPDATE call SET shipped_at = now() + interval '1 hour' WHERE id = %s", (put(database),))
    with ConnectionPool(database.urls["control"], min_size=1, max_size=1, open=True) as pool:
        calls = LiveCalls(pool)
        with calls.watch():
            end = time.monotonic() + 30
            while ahead:
                assert time.monotonic() < end
                time.sleep(0.02)
            call = put(database)
            while not calls.number:
                assert time.monotonic() < end, "it is not told"
                time.sleep(0.02)
        assert [row["id"] for _, row in calls.newer_than(0)] == [call]


def test_no_call_is_missed_over_a_break(control: Control, database: Database) -> None:
    with watching(control) as watcher:
        first = put(database)
        watcher.until([first])
    missed = [put(database), put(database)]
    with watching(control, Last_Event_ID=first) as watcher:
        watcher.until(missed)
        then = put(database)
        watcher.until([*missed, then])


def test_somebody_without_a_duty_sees_their_own_calls_only(control: Control, database: Database) -> None:
    control.ask("POST", "/api/people", {"email": "eve@acme.example", "name": "Eve"})
    browser = control.sign_in("eve@acme.example")
    with psycopg.connect(database.superuser) as conn:
        row = conn.execute("SELECT id FROM person WHERE email = 'eve@acme.example'").fetchone()
    assert row is not None
    with watching(control, **browser) as watcher:
        put(database)
        own = put(database, person=str(row[0]))
        watcher.until([own])
        assert UUID(watcher.seen[0][0])


def test_signing_out_or_losing_duties_ends_the_stream(control: Control, database: Database) -> None:
    control.ask("POST", "/api/people", {"email": "ida@acme.example", "name": "Ida"})
    with psycopg.connect(database.superuser, autocommit=True) as conn:
        who = identity.find_person(conn, "ida@acme.example").id
        secret = sessions.begin(conn, who, "passkey", datetime.now(UTC))
        browser = {"Authorization": "", "Cookie": f"{sessions.COOKIE}_{control.port}={secret}"}
        conn.execute("INSERT INTO duty (subject, duty, person_id) VALUES ('company', 'finance', %s)", (who,))
        with watching(control, **browser) as watcher:
            first = put(database)
            watcher.until([first])
            conn.execute("DELETE FROM duty WHERE person_id = %s", (who,))
            time.sleep(REFRESH_SECONDS)
            put(database)
            own = put(database, person=str(who))
            watcher.until([first, own])
            assert control.ask("POST", "/api/people/ida@acme.example/sign-out", {}).status == 200
            time.sleep(REFRESH_SECONDS)
            put(database, person=str(who))
            assert watcher.over.wait(10), "the stream ends"
            assert [call for call, _ in watcher.seen] == [first, own]


def test_a_stranger_sees_nothing(control: Control) -> None:
    assert control.ask("GET", "/api/calls/live", Authorization="").status == 401


def start_tail(control: Control, *options: str) -> subprocess.Popen[str]:
    token = control.home.operator_token.read_text().strip()
    url = f"http://127.0.0.1:{control.port}"
    return subprocess.Popen(
        [sys.executable, "-m", "groundplan.cli.main", "tail", *options],
        env={**os.environ, "GROUNDPLAN_URL": url, "GROUNDPLAN_TOKEN": token, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run where it is ignored
        text=True,
    )


def ended(tail: subprocess.Popen[str]) -> None:
    tail.kill()
    tail.communicate()


def first_line(tail: subprocess.Popen[str], put_one: Any) -> tuple[str, list[str]]:
    """A line of the tail, and the calls that were made until it came: it needs a moment to start."""
    assert tail.stdout is not None
    made: list[str] = []
    stop = threading.Event()

    def keep_on() -> None:
        while not stop.wait(0.3):
            made.append(put_one())

    thread = threading.Thread(target=keep_on)
    thread.start()
    told = tail.stdout.readline()
    stop.set()
    thread.join()
    return told, made


def test_the_command_prints_calls_and_ends_on_ctrl_c(control: Control, database: Database) -> None:
    tail = start_tail(control, "--workload", "assistant", "--json")
    try:
        told, made = first_line(tail, lambda: put(database))
        assert json.loads(told)["id"] in made
        tail.send_signal(signal.SIGINT)
        _, err = tail.communicate(timeout=60)
        assert tail.returncode == 0 and "Traceback" not in err
    finally:
        ended(tail)


def test_the_command_exits_cleanly_when_its_output_is_closed(control: Control, database: Database) -> None:
    """As before `| head -1`."""
    tail = start_tail(control, "--json")
    assert tail.stdout is not None and tail.stderr is not None
    with tail.stderr:
        try:
            assert first_line(tail, lambda: put(database))[0]
            tail.stdout.close()
            end = time.monotonic() + 60
            while tail.poll() is None:
                assert time.monotonic() < end, "it goes on for nobody"
                put(database)
                time.sleep(0.1)
            assert (tail.returncode, "Traceback" in tail.stderr.read()) == (0, False)
        finally:
            tail.kill()
            tail.wait()


def test_the_command_prints_no_call_twice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of those that are told again after a restart of the API."""
    rounds = iter([["a", "b"], ["a", "b", "c"]])

    class Restarted:
        def events(self, *_: object) -> Iterator[tuple[str, str, str]]:
            told = next(rounds, None)
            if told is None:
                raise KeyboardInterrupt
            yield from (("message", each, each) for each in told)

    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None))
    with pytest.raises(KeyboardInterrupt):
        command._follow(Restarted(), "/api/calls/live", True)  # type: ignore[arg-type]
    assert capsys.readouterr().out.split() == ["a", "b", "c"]


def test_the_command_connects_again_when_the_control_process_restarts(
    postgres_cluster: Cluster, tmp_path: Path
) -> None:
    with postgres_cluster.database() as fresh, run_control(fresh, tmp_path) as found:
        tail = start_tail(found)
        try:
            assert first_line(tail, lambda: put(fresh))[0]
        except BaseException:
            ended(tail)
            raise
    try:
        log = (tmp_path / "control.log").read_text()
        assert "graceful shutdown exceeded" not in log, "an open stream does not hold up the end of the process"
        _, err = tail.communicate(timeout=60)
        assert tail.returncode == 69 and "connecting again" in err and "Traceback" not in err
    finally:
        ended(tail)


def test_the_command_survives_any_number_of_restarts_without_calls_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, tries = [0.0], list[float]()

    class Quiet:
        def events(self, *_: object) -> Iterator[tuple[str, str, str]]:
            tries.append(now[0])
            now[0] += 3600.0 if len(tries) % 2 and len(tries) < 20 else 0.0
            raise Unavailable("gone", code="not_running", hint="Start it.")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    with pytest.raises(Unavailable):
        command._follow(Quiet(), "/api/calls/live", False)  # type: ignore[arg-type]
    assert len(tries) == 19 + len(command.RECONNECT_DELAYS), "and ends once it is gone"


def test_a_printed_line_has_the_important_fields() -> None:
    call = {
        "at": "2026-11-25T12:00:00.000+00:00", "status": "refused", "error_code": "budget_exhausted", "cache": "none",
        "workload": "assistant", "deployment": None, "prompt_tokens": 0, "completion_tokens": 0,
        "cost_usd": "0.000000000000", "duration_ms": 1.2, "id": "x",
    }  # fmt: skip
    assert "  $0.0000002  " in format_call({**call, "cost_usd": "0.000000200000"}), "whatever it cost is no nothing"
    assert "refused budget_exhausted  assistant" in format_call(call) and format_call(call).endswith("1 ms  x")
    assert format_call({**call, "at": "2026-11-25T12:00:00.000+02:00"}).startswith("10:00:00Z  "), (
        "as the console has it"
    )
    assert format_call({**call, "status": "ok", "error_code": None})[11:20] == "ok       "
    assert format_call({**call, "status": "ok", "error_code": None, "cache": "exact"})[11:20] == "ok exact "
    assert format_call({**call, "status": "cancelled", "error_code": None})[11:20] == "cancelled"


def test_events_are_parsed_as_the_sse_standard_says() -> None:
    raw = b": hello\n\nretry: 5\n\nid: 7\ndata: a\ndata: b\n\nevent: skipped\ndata: {}\r\n\r\ndata: cut"
    assert list(read_events(raw.splitlines(keepends=True))) == [("message", "7", "a\nb"), ("skipped", "7", "{}")]


def test_calls_are_sent_although_no_thread_was_available_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectionPool(database.urls["control"], min_size=1, max_size=1, open=True) as pool:
        calls = LiveCalls(pool)

        def none_left(_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as threads:
            threads.setattr(threading.Thread, "start", none_left)
            for _ in range(live.MAX_WATCHERS):
                with pytest.raises(RuntimeError), calls.watch():
                    pass
        calls.require_room()
        with calls.watch():
            call, end = put(database), time.monotonic() + 30
            while not calls.number:
                assert time.monotonic() < end, "it is not told"
                time.sleep(0.02)
            assert [row["id"] for _, row in calls.newer_than(0)] == [call]
