"""Where workers bring things: who shows the token is served for as long as it lasts, and nobody else stays."""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from groundplan.core.endpoints import Endpoint, lookup
from groundplan.core.home import Home
from groundplan.gateway import frame_server
from groundplan.gateway.frame_server import LENGTH, FrameServer
from groundplan.gateway.telemetry import shipper_metrics
from groundplan.gateway.telemetry.content_writer import ContentWriter
from groundplan.gateway.telemetry.shipper_metrics import ShipperMetrics, ShippingProgress


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


@pytest.fixture
def came(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What was brought to a desk that is open."""
    monkeypatch.setattr(frame_server, "TOKEN_SECONDS", 0.2)
    found = list[bytes]()
    opened = FrameServer(home, "desk", lambda connection: found.extend(opened.frames(connection, 100)), lambda: None)
    opened.open()
    yield found
    opened.close()


def connected(place: Endpoint | None) -> socket.socket:
    assert place is not None
    return socket.create_connection(("127.0.0.1", int(place.url.rpartition(":")[2])), timeout=10)


def test_who_shows_no_token_is_sent_away(home: Home, came: list[bytes]) -> None:
    for shown in (b"", b"x" * 10, b"x" * frame_server.TOKEN_BYTES):
        with connected(lookup(home, "desk")) as silent:
            silent.sendall(shown)
            assert silent.recv(1) == b""
    assert not came


def test_a_worker_that_has_nothing_to_say_stays(home: Home, came: list[bytes]) -> None:
    place = lookup(home, "desk")
    with connected(place) as worker:
        assert place is not None
        worker.sendall(place.token.encode())
        time.sleep(0.5)
        worker.sendall(LENGTH.pack(5) + b"hello")
        end = time.monotonic() + 10
        while not came:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert came == [b"hello"]


@pytest.mark.parametrize(
    ("of", "name", "error"),
    [
        (socket.socket, "accept", OSError(errno.EMFILE, "Too many open files")),
        (threading.Thread, "start", RuntimeError("can't start new thread")),
    ],
)
def test_a_worker_that_cannot_be_taken_now_is_taken_later(
    home: Home, came: list[bytes], monkeypatch: pytest.MonkeyPatch, of: type, name: str, error: Exception
) -> None:
    """As where the process may have no more files, or threads, for a moment."""
    whole, fails = getattr(of, name), [True]

    def failing(self: Any) -> Any:
        if fails:
            fails.clear()
            raise error
        return whole(self)

    place = lookup(home, "desk")
    assert place is not None
    connected(place).close()  # whom the thread waits for already
    monkeypatch.setattr(of, name, failing)
    end = time.monotonic() + 10
    while not came:
        assert time.monotonic() < end, "nobody is taken any more"
        with connected(place) as worker, suppress(OSError):
            worker.sendall(place.token.encode() + LENGTH.pack(5) + b"hello")
            time.sleep(0.3)
    assert not fails


def test_who_asks_the_shipper_for_nothing_is_sent_away(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper_metrics, "ANSWER_SECONDS", 0.2)
    told = ShipperMetrics(home, ShippingProgress(), ContentWriter(home, ""), None)
    told.open()
    try:
        with connected(lookup(home, "gateway-metrics-shipper")) as silent:
            assert silent.recv(1) == b""
    finally:
        told.close()


def test_the_shipper_is_asked_again_after_the_system_would_not_wait(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where memory is short for a moment."""
    whole, fails = socketserver.BaseServer.serve_forever, [True]

    def failing(self: socketserver.BaseServer) -> None:
        if fails:
            fails.clear()
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        whole(self)

    monkeypatch.setattr(socketserver.BaseServer, "serve_forever", failing)
    told = ShipperMetrics(home, ShippingProgress(), ContentWriter(home, ""), None)
    told.open()
    try:
        with connected(lookup(home, "gateway-metrics-shipper")) as asking:
            asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert asking.recv(100).startswith(b"HTTP/1.0 401")
    finally:
        told.close()
    assert not fails
