"""The shipper's metrics, for the scrape that a gateway worker answers. One thread, loopback, a token."""

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

from groundplan.core.endpoints import announce_retrying, withdraw
from groundplan.core.home import Home
from groundplan.gateway.telemetry.content_writer import ContentWriter
from groundplan.gateway.telemetry.exposition import Family, single_sample
from groundplan.gateway.telemetry.scrape import ANSWER_SECONDS, SERVICE, SHIPPER
from groundplan.gateway.telemetry.trace_export import TraceExport
from groundplan.gateway.telemetry.worker_families import process_families

_P = "groundplan_shipper_"
RETRY_SECONDS = 0.2


@dataclass(slots=True)
class ShippingProgress:
    """Progress of the shipping loop, updated after each round."""

    rounds: int = 0
    last_round_at: float = 0.0
    """Monotonic seconds of the last round that PostgreSQL accepted; 0 before the first."""

    def record_round(self) -> None:
        self.rounds += 1
        self.last_round_at = time.monotonic()


class ShipperMetrics:
    """Serves the shipper's metrics to scrapes while it is open."""

    def __init__(
        self, home: Home, progress: ShippingProgress, content: ContentWriter, traces: TraceExport | None
    ) -> None:
        self._home = home
        self._progress = progress
        self._content = content
        self._traces = traces
        self._started = time.monotonic()
        self._stop = threading.Event()

    def families(self) -> list[Family]:
        progress = self._progress
        age = time.monotonic() - (progress.last_round_at or self._started)
        lost, rejected = (self._traces.lost, self._traces.rejected) if self._traces is not None else (0, 0)
        return [
            single_sample(
                f"{_P}rounds_total", "counter", "Rounds over the journals that PostgreSQL accepted.", progress.rounds
            ),
            single_sample(
                f"{_P}age_seconds", "gauge", "Time since the last accepted round: how old the ledger is.", round(age, 3)
            ),
            single_sample(
                f"{_P}content_lost_total",
                "counter",
                "Calls whose content could not be kept for lack of room.",
                self._content.lost,
            ),
            single_sample(f"{_P}traces_lost_total", "counter", "Calls whose spans no collector accepted.", lost),
            single_sample(
                f"{_P}spans_rejected_total", "counter", "Spans that the collector left out of a request.", rejected
            ),
            *process_families(),
        ]

    def open(self) -> None:
        token, families = secrets.token_hex(32), self.families

        class Handler(BaseHTTPRequestHandler):
            timeout = ANSWER_SECONDS  # any process on this machine may connect, and each connection has a thread

            def do_GET(self) -> None:
                given = self.headers.get("authorization", "")
                good = secrets.compare_digest(given.encode("latin-1"), f"Bearer {token}".encode())
                body = msgspec.msgpack.encode(families()) if good else b""
                self.send_response(200 if good else 401)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Log no requests."""

        self._server: socketserver.BaseServer = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        announce_retrying(self._home, f"{SERVICE}{SHIPPER}", url, token, self._stop)

    def _serve(self) -> None:
        """Serve until closed, also after the system refused a wait for a moment, as for lack of memory."""
        while True:
            with suppress(OSError):
                self._server.serve_forever()
            if self._stop.wait(RETRY_SECONDS):
                return

    def close(self) -> None:
        self._stop.set()
        withdraw(self._home, f"{SERVICE}{SHIPPER}")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
