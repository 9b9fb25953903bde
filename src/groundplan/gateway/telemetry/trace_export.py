"""Sends the spans of calls, and GenAI metrics of them, to an OpenTelemetry collector: OTLP over HTTP, from a thread
beside the shipping.

Best effort: what a slow or absent collector does not take in time is dropped and counted; the ledger has every call in
any case. Calls are sent again after a crash of the shipper, with the same ids. Needs `groundplan[otel]`, which is
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
from groundplan.gateway.telemetry.spans import spans, wanted

MOST_CALLS = 5_000
"""That wait to be sent; about 10 MB."""
AT_ONCE = 100
"""Calls in one request."""
INTERVAL_S = 0.5
METRICS_S = 5.0
"""Between two sendings of metrics."""
TRACES_PATH, METRICS_PATH = "/v1/traces", "/v1/metrics"
SEND_SECONDS = 5.0
log = get_logger()


class TraceExport:
    """Takes ended calls, sends their spans. `close` sends what waits, for a moment."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        """Raises `Invalid` (`otel_missing`) where the extra is not installed."""
        self._otel = _sdk()
        self._convert, self._exporter = self._otel.Converter().convert, self._otel.exporter(url, headers, SEND_SECONDS)
        self._metrics = GenAiMetrics()
        self._counting = threading.Lock()
        """Whoever looks at the metrics sees whole calls."""
        self._counted = self._sent = 0
        """Calls in the metrics, and how many of them the collector knows of."""
        self._instance, self._began = str(new_id()), time.time_ns()
        self._told_metrics = 0.0
        place = metrics_url(url)
        self._gauge = None if place is None else self._otel.metric_exporter(place, headers, SEND_SECONDS)
        self._waiting: deque[tuple[UUID, CallState]] = deque()
        self.lost = 0
        """Calls whose spans were dropped."""
        self._told_lost = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    @classmethod
    def declared(cls, settings: Settings) -> TraceExport | None:
        """As the settings say; None where traces go nowhere, or cannot: that is told in the log."""
        if settings.otlp_url is None:
            return None
        try:
            given = resolve_secret(settings.otlp_headers) if settings.otlp_headers else ""
            return cls(settings.otlp_url, header_lines(given))
        except Invalid as error:
            log.error("traces are not sent", problem=str(error))
            return None

    def offer(self, calls: Iterable[CallState], epoch: UUID) -> None:
        """Take ended calls over. Never waits for a collector, and never fails: the ledger comes first."""
        for call in calls:
            if self._gauge is not None:
                with self._counting:
                    self._metrics.count(call)
                    self._counted += 1
            if len(self._waiting) < MOST_CALLS:
                self._waiting.append((epoch, call))
            else:
                self.lost += 1

    def close(self) -> None:
        self._stop.set()
        self._thread.join(SEND_SECONDS)
        self.lost += len(self._waiting)
        self._waiting.clear()
        self._tell_lost()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._send()
            if time.monotonic() - self._told_metrics > METRICS_S:
                self._tell()
        self._send()
        self._tell()
        self._exporter.shutdown()

    def _tell(self) -> None:
        """All metrics since the start, where there is anything new in them: what one sending loses the next one has."""
        self._told_metrics = time.monotonic()
        if self._gauge is None or self._counted == self._sent:
            return
        try:
            with self._counting:
                counted = self._counted
                found = self._otel.counted(self._metrics, self._instance, self._began, time.time_ns())
            if self._gauge.export(found).name == "SUCCESS":
                self._sent = counted
        except Exception as error:  # noqa: BLE001 -- the thread's boundary
            log.warning("metrics cannot be sent", problem=error.__class__.__name__)

    def _send(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            if not self._export(batch):
                self.lost += len(batch)
                break
        self._tell_lost()

    def _tell_lost(self) -> None:
        if self.lost > self._told_lost:
            log.warning("traces were dropped", calls=self.lost - self._told_lost)
            self._told_lost = self.lost

    def _export(self, batch: Sequence[tuple[UUID, CallState]]) -> bool:
        try:
            found = [self._convert(epoch, span) for epoch, call in batch if wanted(call) for span in spans(call)]
            return not found or bool(self._exporter.export(found).name == "SUCCESS")
        except Exception as error:  # noqa: BLE001 -- the thread's boundary
            log.warning("spans cannot be sent", problem=error.__class__.__name__)
            return False


def header_lines(text: str) -> dict[str, str]:
    """`name: value` of each line. Raises `Invalid` (`otlp_headers`), without the value."""
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
    """Where metrics go: beside the traces, at a collector's usual paths. None: its address has other ones."""
    return url.removesuffix(TRACES_PATH) + METRICS_PATH if url.endswith(TRACES_PATH) else None


def _sdk() -> Any:
    """The module that speaks with the SDK. Raises `Invalid`."""
    try:
        from groundplan.gateway.telemetry import otel  # noqa: PLC0415 -- an optional extra and heavy
    except ImportError as error:
        raise Invalid(
            "traces need OpenTelemetry, which is not installed",
            code="otel_missing",
            hint="pip install 'groundplan[otel]', or leave GROUNDPLAN_OTLP_URL out.",
        ) from error
    return otel
