"""Security events reach a SIEM: each once its entry is in the log, again where it is not known whether it arrived."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from psycopg_pool import ConnectionPool

from groundplan.api.audit import siem, siem_store
from groundplan.api.context import Services
from groundplan.api.genesis import prepare_home
from groundplan.api.release import Releases
from groundplan.core.audit import store as audit_store
from groundplan.core.database import database_url
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.ledger import finding_store
from groundplan.testing.clock import ManualClock
from groundplan.testing.database import Database


class Receiver(ThreadingHTTPServer):
    """Takes events, unless it is told to refuse them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.status = 200
        self.meanwhile: Callable[[], object] = bool
        """What goes on while it takes some."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.append(self.headers.get("Authorization", ""))
        self.server.meanwhile()
        if self.server.status == 200:
            self.server.events += [json.loads(line) for line in body.splitlines()]
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def services(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setenv("SIEM_TOKEN", "s3cret")
    home, clock = Home(tmp_path / "home"), ManualClock()
    prepare_home(home)
    settings = dataclasses.replace(database.settings(home.root), siem_token="env:SIEM_TOKEN")
    url = database_url(home, settings, "control")
    with ConnectionPool(url, min_size=1, max_size=2, open=True) as pool:
        yield Services(home, settings, None, False, Releases(home, clock, False), pool, clock)


def record_entries(services: Services, *actions: str, **detail: str) -> None:
    """Entries as the log has them, each with its place."""
    with services.transaction() as conn:
        for action in actions:
            entry = audit_store.record(
                conn, action=action, actor=f"person:{new_id()}", subject="workload/assistant", detail=detail
            )
            audit_store.assign_indexes(conn, [entry], audit_store.next_leaf(conn))


def to(services: Services, url: str) -> Services:
    return dataclasses.replace(services, settings=dataclasses.replace(services.settings, siem_url=url))


def test_events_are_sent_once_and_wait_for_a_siem_that_is_away(services: Services, receiver: Receiver) -> None:
    ours = to(services, f"http://127.0.0.1:{receiver.server_port}/in")
    record_entries(services, "login", "key.created", "kill")
    record_entries(services, "call", status="ok")
    record_entries(services, "call", status="refused")
    receiver.status = 503
    assert siem.send_new_events(ours) == 0 and receiver.events == []
    with services.transaction() as conn:
        (told,) = finding_store.list_findings(conn, kinds=[siem.KIND])
        assert "answered 503" in told["message"]
    receiver.status = 200
    assert siem.send_new_events(ours) == 4
    assert siem.send_new_events(ours) == 0, "what arrived is not sent again"
    with services.transaction() as conn:
        assert finding_store.list_findings(conn, kinds=[siem.KIND]) == []
    kinds = [(each["class_uid"], each["severity_id"], each["status_id"]) for each in receiver.events]
    assert kinds == [(3002, 1, 1), (3001, 1, 1), (6003, 4, 1), (6003, 3, 2)]
    assert [each["metadata"]["sequence"] for each in receiver.events] == [0, 1, 2, 4], (
        "calls that were answered are none"
    )
    for each in receiver.events:
        assert (
            each["type_uid"] == each["class_uid"] * 100 + each["activity_id"] and each["metadata"]["version"] == "1.3.0"
        )
    assert set(receiver.tokens) == {"Bearer s3cret"}


def test_a_slow_siem_takes_no_connection_away_and_gets_nothing_twice(services: Services, receiver: Receiver) -> None:
    ours, seen = to(services, f"http://127.0.0.1:{receiver.server_port}/in"), list[Any]()

    def meanwhile() -> None:
        with ExitStack() as stack:
            for _ in range(2):  # all that the pool has
                stack.enter_context(services.pool.connection(timeout=2))
            seen.append(True)
        seen.append(siem.send_new_events(ours))

    receiver.meanwhile = meanwhile
    record_entries(services, "login", "kill")
    assert siem.send_new_events(ours) == 2 and seen == [True, 0] and len(receiver.events) == 2
    receiver.meanwhile = bool
    record_entries(services, "kill")
    with services.transaction() as conn:  # whoever sent it is gone, or PostgreSQL's clock was fast then
        conn.execute("UPDATE siem_position SET claimed_at = now() - interval '61 seconds'")
    assert siem.send_new_events(ours) == 1
    record_entries(services, "kill")
    with services.transaction() as conn:
        conn.execute("UPDATE siem_position SET claimed_at = now() + interval '1 day'")
    assert siem.send_new_events(ours) == 1


def test_whoever_began_before_another_one_claimed_sends_nothing_twice(services: Services) -> None:
    with services.transaction() as late, services.transaction() as conn:
        late.execute("SELECT now()")
        conn.execute("SELECT pg_sleep(0.002)")
        assert siem_store.claim_position(conn) is not None
        conn.commit()
        assert siem_store.claim_position(late) is None


def test_syslog_frames_carry_the_same_events(services: Services) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        record_entries(services, "kill", "login")
        got: list[bytes] = []

        def take() -> None:
            peer, _ = listener.accept()
            with peer:
                while piece := peer.recv(65_536):
                    got.append(piece)

        thread = threading.Thread(target=take)
        thread.start()
        assert siem.send_new_events(to(services, f"syslog+tcp://127.0.0.1:{listener.getsockname()[1]}")) == 2
        thread.join(60)
    data, frames = b"".join(got), []
    while data:
        length, _, rest = data.partition(b" ")
        frames.append(rest[: int(length)])
        data = rest[int(length) :]
    assert [frame[: frame.index(b">") + 1] for frame in frames] == [b"<106>", b"<110>"], (
        "audit, critical and informational"
    )
    assert json.loads(frames[0].split(b" - ", 3)[-1].split(b" - ")[-1])["message"] == "kill workload/assistant"


@pytest.mark.parametrize(
    "url", ["http://siem.example/in", "syslog+tcp://siem.example:514", "https://", "syslog+tls://h", "file:///x"]
)
def test_events_leave_this_machine_only_encrypted(services: Services, url: str) -> None:
    with pytest.raises(Invalid, match="GROUNDPLAN_SIEM_URL"):
        siem.send_new_events(to(services, url))
