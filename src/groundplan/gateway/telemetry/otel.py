"""Converts our spans and counts to those of the OpenTelemetry SDK; its exporters. Imported where traces are declared.

The SDK's tracers and meters are not used: ids, times and sums are known already.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any
from uuid import UUID

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from groundplan.gateway.telemetry.collector_answer import Answer, read_answer
from groundplan.gateway.telemetry.genai_metrics import BOUNDS, DESCRIPTIONS, UNITS, GenAiMetrics, Labels, Series
from groundplan.gateway.telemetry.spans import CLIENT, SERVER, Span

SERVICE = "groundplan-gateway"
_VERSION = importlib.metadata.version("groundplan")
_SCOPE = InstrumentationScope("groundplan.gateway", _VERSION)
_KINDS = {SERVER: SpanKind.SERVER, CLIENT: SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class _Collector(requests.Session):
    """Keeps what the collector said last: an exporter only says whether it takes that for success, as it does with a
    redirect, and with spans that were rejected."""

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        self.response: requests.Response | None = None
        self.problem = "it could not be encoded"
        self.was_asked = False

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        self.response, self.was_asked = None, True
        options["allow_redirects"] = False  # a redirected POST may become a GET, with nothing in it
        try:
            self.response = super().send(request, **options)
        except requests.RequestException as error:
            self.problem = error.__class__.__name__
            raise
        return self.response


class Exporter:
    """Sends to one URL of a collector, trying again for `seconds` at most."""

    def __init__(
        self, exporter: type[OTLPSpanExporter | OTLPMetricExporter], url: str, headers: dict[str, str], seconds: float
    ) -> None:
        self._collector = _Collector()
        self._exporter = exporter(endpoint=url, headers=headers, timeout=seconds, session=self._collector)
        self._rejected = _rejected_spans if exporter is OTLPSpanExporter else _rejected_points

    def send(self, data: Any) -> Answer:
        self._collector.forget()
        self._exporter.export(data)
        response = self._collector.response
        if response is None:
            return Answer(problem=self._collector.problem, retry_after=0.0 if self._collector.was_asked else None)
        rejected = _parse_rejected(response, self._rejected)
        return read_answer(response.status_code, response.headers.get("retry-after", ""), *rejected)

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _parse_rejected(response: requests.Response, parse: Callable[[bytes], tuple[int, str]]) -> tuple[int, str]:
    """Return how many spans or points an answer says were rejected, and why; nothing where it is not OTLP."""
    return parse(response.content) if "protobuf" in response.headers.get("content-type", "") else (0, "")


def _rejected_spans(content: bytes) -> tuple[int, str]:
    part = ExportTraceServiceResponse.FromString(content).partial_success
    return part.rejected_spans, part.error_message


def _rejected_points(content: bytes) -> tuple[int, str]:
    part = ExportMetricsServiceResponse.FromString(content).partial_success
    return part.rejected_data_points, part.error_message


def span_exporter(url: str, headers: dict[str, str], seconds: float) -> Exporter:
    """Return an exporter that sends spans to `url`."""
    return Exporter(OTLPSpanExporter, url, headers, seconds)


def metric_exporter(url: str, headers: dict[str, str], seconds: float) -> Exporter:
    """The same for metrics."""
    return Exporter(OTLPMetricExporter, url, headers, seconds)


def metrics_data(metrics: GenAiMetrics, instance: str, began: int, now: int) -> MetricsData:
    """Return all histograms since `began`; times are nanoseconds since the epoch."""
    found = []
    for name in BOUNDS:
        points = [
            _point(name, labels, series, began, now)
            for (metric, labels), series in metrics.series.items()
            if metric == name
        ]
        if points:
            found.append(
                Metric(name, DESCRIPTIONS[name], UNITS[name], Histogram(points, AggregationTemporality.CUMULATIVE))
            )
    resource = Resource({"service.name": SERVICE, "service.version": _VERSION, "service.instance.id": instance})
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(_SCOPE, found, "")], "")])


def _point(name: str, labels: Labels, series: Series, began: int, now: int) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=dict(labels), start_time_unix_nano=began, time_unix_nano=now, count=series.count, sum=series.total,
        bucket_counts=list(series.buckets), explicit_bounds=BOUNDS[name], min=series.least, max=series.most,
    )  # fmt: skip


class Converter:
    """Converts spans, with one resource for each gateway worker, known by its journal epoch."""

    def __init__(self) -> None:
        self._resources: dict[UUID, Resource] = {}

    def convert(self, epoch: UUID, span: Span) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace, span.id, remote=False),
            parent=None if span.parent is None else _context(span.trace, span.parent, remote=span.kind == SERVER),
            resource=self._resource(epoch),
            attributes=dict(span.attributes),
            kind=_KINDS.get(span.kind, SpanKind.INTERNAL),
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=_SCOPE,
        )

    def _resource(self, epoch: UUID) -> Resource:
        found = self._resources.get(epoch)
        if found is None:
            named = {"service.name": SERVICE, "service.version": _VERSION, "service.instance.id": str(epoch)}
            found = self._resources[epoch] = Resource(named)
        return found


def _context(trace: bytes, span: bytes, *, remote: bool) -> SpanContext:
    return SpanContext(int.from_bytes(trace, "big"), int.from_bytes(span, "big"), remote, _SAMPLED)
