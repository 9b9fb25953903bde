"""What the shipper tells about itself, for the scrape that a gateway worker answers. One thread, loopback, a token."""

from __future__ import annotations

import secrets
import socketserver
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from groundplan.core.endpoints import announce_at_last, withdraw
from groundplan.core.home import Home
from groundplan.gateway.telemetry.content_writer import ContentWriter
from groundplan.gateway.telemetry.exposition import Family, single
from groundplan.gateway.telemetry.metrics import process_families
from groundplan.gateway.telemetry.scrape import ANSWER_SECONDS, SERVICE, SHIPPER
from groundplan.gateway.telemetry.trace_export import TraceExport

_P = "groundplan_shipper_"
AGAIN_SECONDS = 0.2


@dataclass(slots=True)
class Progress:
    """What the shipping loop notes after each round."""

    rounds: int = 0
    at: float = 0.0
    """Monotonic seconds of the last round that PostgreSQL took; 0 before the first."""

    def round(self) -> None:
        self.rounds += 1
        self.at = time.monotonic()


class ShipperMetrics:
    """`open` it, and the next scrape tells of the shipper, too."""

    def __init__(self, home: Home, progress: Progress, content: ContentWriter, traces: TraceExport | None) -> None:
        self._home = home
        self._progress = progress
        self._content = content
        self._traces = traces
        self._began = time.monotonic()
        self._stop = threading.Event()

    def families(self) -> list[Family]:
        progress = self._progress
        age = time.monotonic() - (progress.at or self._began)
        lost = self._traces.lost if self._traces is not None else 0
        return [
            single(f"{_P}rounds_total", "counter", "Looks at the journals that PostgreSQL took.", progress.rounds),
            single(f"{_P}age_seconds", "gauge", "Since the last such look: how old the ledger is.", round(age, 3)),
            single(f"{_P}content_lost_total", "counter", "Calls whose content found no room.", self._content.lost),
            single(f"{_P}traces_lost_total", "counter", "Calls whose spans no collector took.", lost),
            *process_families(),
        ]

    def open(self) -> None:
        token, families = secrets.token_hex(32), self.families

        class Handler(BaseHTTPRequestHandler):
            timeout = ANSWER_SECONDS  # anybody on this machine may connect, and has a thread

            def do_GET(self) -> None:
                given = self.headers.get("authorization", "")
                good = secrets.compare_digest(given.encode("latin-1"), f"Bearer {token}".encode())
                body = msgspec.msgpack.encode(families()) if good else b""
                self.send_response(200 if good else 401)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing is told of requests."""

        self._server: socketserver.BaseServer = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._answer, name="metrics", daemon=True)
        self._thread.start()
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        announce_at_last(self._home, f"{SERVICE}{SHIPPER}", url, token, self._stop)

    def _answer(self) -> None:
        """Until the end, also where the system refuses to wait for a moment, as for want of memory."""
        while True:
            with suppress(OSError):
                self._server.serve_forever()
            if self._stop.wait(AGAIN_SECONDS):
                return

    def close(self) -> None:
        self._stop.set()
        withdraw(self._home, f"{SERVICE}{SHIPPER}")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
