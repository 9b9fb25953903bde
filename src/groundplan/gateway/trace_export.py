"""Sends the spans of calls to an OpenTelemetry collector: OTLP over HTTP, from a thread beside the shipping.

Best effort: what a slow or absent collector does not take in time is dropped and counted; the ledger has every call in
any case. Calls are sent again after a crash of the shipper, with the same ids. Needs `groundplan[otel]`, which is
imported only where traces are declared.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from groundplan.core.errors import Invalid
from groundplan.core.settings import Settings, resolve_secret
from groundplan.gateway.recovery import CallState
from groundplan.gateway.spans import Span, spans, wanted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

MOST_SPANS = 20_000
"""That wait to be sent; about 10 MB."""
AT_ONCE = 512
INTERVAL_S = 0.5
SEND_SECONDS = 5.0
log = structlog.get_logger()


class TraceExport:
    """Takes ended calls, sends their spans. `close` sends what waits, for a moment."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        """Raises `Invalid` (`otel_missing`) where the extra is not installed."""
        self._convert, self._exporter = _sdk(url, headers)
        self._waiting: deque[tuple[UUID, Span]] = deque()
        self.lost = 0
        """Spans that were dropped."""
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
        """Take ended calls over. Never waits."""
        for call in calls:
            if wanted(call):
                found = spans(call)
                if len(self._waiting) + len(found) > MOST_SPANS:
                    self.lost += len(found)
                else:
                    self._waiting.extend((epoch, span) for span in found)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(SEND_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._send()
        self._send()
        self._exporter.shutdown()

    def _send(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            if not self._export([self._convert(epoch, span) for epoch, span in batch]):
                self.lost += len(batch)
                break
        if self.lost > self._told_lost:
            log.warning("traces were dropped", spans=self.lost - self._told_lost)
            self._told_lost = self.lost

    def _export(self, batch: Sequence[ReadableSpan]) -> bool:
        try:
            return bool(self._exporter.export(batch).name == "SUCCESS")
        except Exception as error:  # noqa: BLE001 -- the exporter's own boundary: it may raise anything of its transport
            log.warning("the collector cannot be reached", problem=error.__class__.__name__)
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


def _sdk(url: str, headers: dict[str, str]) -> tuple[Any, Any]:
    """(a function from (epoch, span) to the SDK's span, its exporter)"""
    try:
        from groundplan.gateway import otel  # noqa: PLC0415 -- an optional extra, and heavy
    except ImportError as error:
        raise Invalid(
            "traces need OpenTelemetry, which is not installed",
            code="otel_missing",
            hint="pip install 'groundplan[otel]', or leave GROUNDPLAN_OTLP_URL out.",
        ) from error
    return otel.Converter().convert, otel.exporter(url, headers, SEND_SECONDS)
