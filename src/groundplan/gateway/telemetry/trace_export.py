"""Sends the spans of calls, and their GenAI metrics, to an OpenTelemetry collector: OTLP over HTTP, from a thread
beside the shipping.

Best effort: calls wait while a collector is slow or away, as many as there is room for; further ones, and what it
refuses, are dropped and counted. The ledger has every call in any case. Calls are sent again after a crash of the
shipper, with the same ids. Needs `groundplan[otel]`, which is
imported only where traces are declared.
"""

from __future__ import annotations

import logging
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
from groundplan.gateway.failure_log import FailureLog
from groundplan.gateway.journal.recovery import CallState
from groundplan.gateway.telemetry.collector_answer import MAX_PAUSE_S, Answer
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
LOST_INTERVAL_S = 60.0
"""Least time between two log lines on dropped calls."""
log = get_logger()
_log = logging.getLogger(__name__)


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
        self.rejected = 0
        """Spans that the collector left out of what it accepted."""
        self._logged_lost, self._lost_logged_at = 0, float("-inf")
        self._span_failures, self._metric_failures = FailureLog(_log), FailureLog(_log)
        self._failed_in_a_row, self._resume_at = 0, 0.0
        """Requests that may be sent again, and when that may be (monotonic seconds)."""
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
            if not is_traced(call):
                continue
            if len(self._waiting) < MAX_WAITING_CALLS:
                self._waiting.append((epoch, call))
            else:
                self.lost += 1

    def close(self) -> None:
        self._stop.set()
        self._thread.join(SEND_SECONDS)
        self.lost += len(self._waiting)
        self._log_lost(at_once=True)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            if time.monotonic() >= self._resume_at:
                self._send_waiting()
            self._log_lost()
            if time.monotonic() > max(self._resume_at, self._metrics_exported_at + METRICS_INTERVAL_S):
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
            answer = self._metric_exporter.send(found)
        except Exception as error:  # noqa: BLE001 -- the thread's boundary
            answer = Answer(problem=error.__class__.__name__)
        if answer.is_accepted:
            self._calls_exported = counted
        if answer.problem:
            self._metric_failures.record_failure("the collector does not accept all metrics: %s", answer.problem)
        else:
            self._metric_failures.record_success()

    def _send_waiting(self) -> None:
        """Send what waits. A batch stays at the front until the collector has answered, and where it may be sent
        again, until then."""
        while self._waiting:
            batch = [self._waiting[place] for place in range(min(BATCH_CALLS, len(self._waiting)))]
            answer = self._export_spans(batch)
            if answer.problem:
                self._span_failures.record_failure("the collector does not accept all spans: %s", answer.problem)
            else:
                self._span_failures.record_success()
            if answer.retry_after is not None:
                self._pause(answer.retry_after)
                return
            self._failed_in_a_row, self.rejected = 0, self.rejected + answer.rejected
            for _ in batch:
                self._waiting.popleft()
            if not answer.is_accepted:
                self.lost += len(batch)
                return

    def _pause(self, seconds: float) -> None:
        """Send nothing for this long, or longer the more requests have failed in a row."""
        self._failed_in_a_row += 1
        pause = max(seconds, min(MAX_PAUSE_S, INTERVAL_S * 2.0 ** min(self._failed_in_a_row, 10)))
        self._resume_at = time.monotonic() + pause

    def _log_lost(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self.lost > self._logged_lost and (at_once or now >= self._lost_logged_at + LOST_INTERVAL_S):
            log.warning("traces were dropped", calls=self.lost - self._logged_lost)
            self._logged_lost, self._lost_logged_at = self.lost, now

    def _export_spans(self, batch: Sequence[tuple[UUID, CallState]]) -> Answer:
        try:
            answer: Answer = self._span_exporter.send(
                [self._convert(epoch, span) for epoch, call in batch for span in call_spans(call)]
            )
        except Exception as error:  # noqa: BLE001 -- the thread's boundary
            return Answer(problem=error.__class__.__name__)
        return answer


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
