"""Sends the spans of calls, and their GenAI metrics, to an OpenTelemetry collector: OTLP over HTTP, from a thread
beside the shipping.

Best effort: what a slow or absent collector does not accept in time is dropped and counted; the ledger has every call
in any case. Calls are sent again after a crash of the shipper, with the same ids. Needs `groundplan[otel]`, which is
imported only where traces are declared.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from groundplan.core.errors import Invalid
from groundplan.core.ids import new_id
from groundplan.core.logger import get_logger
from groundplan.core.settings import Settings, resolve_secret
from groundplan.gateway.journal.recovery import CallState
from groundplan.gateway.telemetry.genai_metrics import GenAiMetrics
from groundplan.gateway.telemetry.spans import call_spans, is_traced

MAX_WAITING_CALLS = 5_000
"""Calls that may wait to be sent; about 10 MB."""
BATCH_CALLS = 100
"""Calls in one request."""
INTERVAL_S = 0.5
METRICS_INTERVAL_S = 5.0
"""Interval between two exports of metrics."""
TRACES_PATH, METRICS_PATH = "/v1/traces", "/v1/metrics"
SEND_SECONDS = 5.0
log = get_logger()


class TraceExport:
    """Takes ended calls and sends their spans. `close` sends what waits, for a moment."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        """Raises `Invalid` (`otel_missing`) where the extra is not installed."""
        self._otel = _load_otel()
        self._convert, self._span_exporter = (
            self._otel.Converter().convert,
            self._otel.span_exporter(url, headers, SEND_SECONDS),
        )
        self._metrics = GenAiMetrics()
        self._metrics_lock = threading.Lock()
        """Held while calls are counted, so that an export sees whole calls."""
        self._calls_counted = self._calls_exported = 0
        """Calls counted in the metrics, and how many of them were exported."""
        self._instance, self._began = str(new_id()), time.time_ns()
        self._metrics_exported_at = 0.0
        place = metrics_url(url)
        self._metric_exporter = None if place is None else self._otel.metric_exporter(place, headers, SEND_SECONDS)
        self._waiting: deque[tuple[UUID, CallState]] = deque()
        self.lost = 0
        """Calls whose spans were dropped."""
        self._logged_lost = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    @classmethod
    def from_settings(cls, settings: Settings) -> TraceExport | None:
        """Return an export as configured; None where traces are off, or cannot be sent, which is logged."""
        if settings.otlp_url is None:
            return None
        try:
            given = resolve_secret(settings.otlp_headers) if settings.otlp_headers else ""
            return cls(settings.otlp_url, parse_headers(given))
        except Invalid as error:
            log.error("traces are not sent", problem=str(error))
            return None

    def enqueue(self, calls: Iterable[CallState], epoch: UUID) -> None:
        """Queue ended calls. Never waits for a collector, and never fails: the ledger comes first."""
        for call in calls:
            if self._metric_exporter is not None:
                with self._metrics_lock:
                    self._metrics.count_call(call)
                    self._calls_counted += 1
            if len(self._waiting) < MAX_WAITING_CALLS:
                self._waiting.append((epoch, call))
            else:
                self.lost += 1

    def close(self) -> None:
        self._stop.set()
        self._thread.join(SEND_SECONDS)
        self.lost += len(self._waiting)
        self._waiting.clear()
        self._log_lost()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._send_waiting()
            if time.monotonic() - self._metrics_exported_at > METRICS_INTERVAL_S:
                self._export_metrics()
        self._send_waiting()
        self._export_metrics()
        self._span_exporter.shutdown()

    def _export_metrics(self) -> None:
        """Export all metrics since the start, if any changed: cumulative, so what one export loses the next one has."""
        self._metrics_exported_at = time.monotonic()
        if self._metric_exporter is None or self._calls_counted == self._calls_exported:
            return
        try:
            with self._metrics_lock:
                counted = self._calls_counted
                found = self._otel.metrics_data(self._metrics, self._instance, self._began, time.time_ns())
            if self._metric_exporter.export(found).name == "SUCCESS":
                self._calls_exported = counted
        except Exception as error:  # noqa: BLE001 -- the thread's boundary
            log.warning("metrics cannot be sent", problem=error.__class__.__name__)

    def _send_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_CALLS, len(self._waiting)))]
            if not self._export_spans(batch):
                self.lost += len(batch)
                break
        self._log_lost()

    def _log_lost(self) -> None:
        if self.lost > self._logged_lost:
            log.warning("traces were dropped", calls=self.lost - self._logged_lost)
            self._logged_lost = self.lost

    def _export_spans(self, batch: Sequence[tuple[UUID, CallState]]) -> bool:
        try:
            found = [
                self._convert(epoch, span) for epoch, call in batch if is_traced(call) for span in call_spans(call)
            ]
            return not found or bool(self._span_exporter.export(found).name == "SUCCESS")
        except Exception as error:  # noqa: BLE001 -- the thread's boundary
            log.warning("spans cannot be sent", problem=error.__class__.__name__)
            return False


def parse_headers(text: str) -> dict[str, str]:
    """Parse `name: value` lines. Raises `Invalid` (`otlp_headers`), without the value."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, colon, value = line.partition(":")
        if not colon or not name.strip().replace("-", "").isalnum() or not value.isprintable():
            raise Invalid(
                f"line {number} of the OTLP headers is not `name: value`", code="otlp_headers",
                hint="Write one header on each line of what GROUNDPLAN_OTLP_HEADERS refers to.",
            )  # fmt: skip
        found[name.strip().lower()] = value.strip()
    return found


def metrics_url(url: str) -> str | None:
    """Return the URL for metrics, beside the traces at a collector's usual paths; None where `url` has another path."""
    return url.removesuffix(TRACES_PATH) + METRICS_PATH if url.endswith(TRACES_PATH) else None


def _load_otel() -> Any:
    """Import the module that uses the SDK. Raises `Invalid`."""
    try:
        from groundplan.gateway.telemetry import otel  # noqa: PLC0415 -- an optional extra and heavy
    except ImportError as error:
        raise Invalid(
            "traces need OpenTelemetry, which is not installed",
            code="otel_missing",
            hint="pip install 'groundplan[otel]', or leave GROUNDPLAN_OTLP_URL out.",
        ) from error
    return otel
