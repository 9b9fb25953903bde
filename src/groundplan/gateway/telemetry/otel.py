"""Converts our spans and counts to those of the OpenTelemetry SDK; its exporters. Imported where traces are declared.

The SDK's tracers and meters are not used: ids, times and sums are known already.
"""

from __future__ import annotations

import importlib.metadata
from uuid import UUID

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
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

from groundplan.gateway.telemetry.genai_metrics import BOUNDS, DESCRIPTIONS, UNITS, GenAiMetrics, Labels, Series
from groundplan.gateway.telemetry.spans import CLIENT, SERVER, Span

SERVICE = "groundplan-gateway"
_VERSION = importlib.metadata.version("groundplan")
_SCOPE = InstrumentationScope("groundplan.gateway", _VERSION)
_KINDS = {SERVER: SpanKind.SERVER, CLIENT: SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def span_exporter(url: str, headers: dict[str, str], seconds: float) -> OTLPSpanExporter:
    """Return an exporter that sends spans to `url`, retrying for at most `seconds`."""
    return OTLPSpanExporter(endpoint=url, headers=headers, timeout=seconds)


def metric_exporter(url: str, headers: dict[str, str], seconds: float) -> OTLPMetricExporter:
    """The same for metrics."""
    return OTLPMetricExporter(endpoint=url, headers=headers, timeout=seconds)


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
