"""Spans of real calls arrive at a real OTLP receiver, with names that the conventions know, and nothing private."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as WireMetric
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from tests.closing import close
from tests.integration.gateway_stack import blueprint, deployment, installation, scripted_upstream, workload

from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.journal.recovery import CallState, EpochState
from groundplan.gateway.journal.shipper import Shipper
from groundplan.gateway.telemetry import genai_metrics
from groundplan.gateway.telemetry.collector_answer import Answer, read_answer
from groundplan.gateway.telemetry.content_writer import ContentWriter
from groundplan.gateway.telemetry.genai_metrics import (
    BOUNDS,
    DURATION,
    FIRST_CHUNK,
    FIRST_TOKEN,
    TOKENS,
    UNITS,
    GenAiMetrics,
)
from groundplan.gateway.telemetry.shipper_metrics import ShipperMetrics, ShippingProgress
from groundplan.gateway.telemetry.spans import call_spans, is_traced
from groundplan.gateway.telemetry.trace_export import BATCH_CALLS, TraceExport, metrics_url, parse_headers
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement, Usage
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UPSTREAM_KEY = "sk-upstream-0123456789abcdef"

CONVENTIONS = frozenset(
    {
        "error.type", "gen_ai.data_source.id", "gen_ai.operation.name", "gen_ai.provider.name",
        "gen_ai.request.max_tokens", "gen_ai.request.model",
        "gen_ai.request.stream", "gen_ai.response.finish_reasons", "gen_ai.response.id",
        "gen_ai.response.model", "gen_ai.response.time_to_first_chunk", "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
        "gen_ai.usage.reasoning.output_tokens", "http.response.status_code", "server.address", "server.port",
    }
)  # fmt: skip
"""Attributes of inference, embeddings and retrieval spans: open-telemetry/semantic-conventions-genai at 953276ff, in
model/gen-ai/spans.yaml and registry.yaml (Apache-2.0); error.type, http.* and server.* are general conventions."""
OPERATIONS = frozenset({"chat", "text_completion", "embeddings", "retrieval"})
PROVIDERS = frozenset(
    {
        "anthropic", "aws.bedrock", "azure.ai.inference", "azure.ai.openai", "cohere", "deepseek", "gcp.gemini",
        "gcp.gen_ai", "gcp.vertex_ai", "groq", "ibm.watsonx.ai", "mistral_ai", "openai", "perplexity", "x_ai",
    }
)  # fmt: skip
"""Values of gen_ai.operation.name and gen_ai.provider.name in the same registry."""


METRICS = {
    "gen_ai.client.operation.duration": "s", "gen_ai.client.operation.time_to_first_chunk": "s",
    "gen_ai.client.token.usage": "{token}", "gen_ai.server.time_to_first_token": "s",
}  # fmt: skip
"""Histograms of clients and servers and their units, in model/gen-ai/metrics.yaml at the same commit."""
METRIC_ATTRIBUTES = frozenset(
    {
        "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model",
        "gen_ai.token.type", "error.type", "server.address", "server.port",
    }
)  # fmt: skip


@dataclass
class Receiver:
    """Collects what is posted to it, as a collector does."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    counted: list[bytes] = field(default_factory=list)
    """What came to the address of metrics."""
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    answer: bytes = b""
    """The body of its answers, in protobuf."""
    answer_headers: dict[str, str] = field(default_factory=dict)
    refused: int = 0

    def spans(self) -> list[WireSpan]:
        found: list[WireSpan] = []
        for body in self.bodies:
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                named = {a.key: a.value.string_value for a in resource.resource.attributes}
                assert named["service.name"] == "groundplan-gateway"
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def metrics(self) -> dict[str, WireMetric]:
        """The newest of each name."""
        request = ExportMetricsServiceRequest.FromString(self.counted[-1])
        (resource,) = request.resource_metrics
        named = {a.key: a.value.string_value for a in resource.resource.attributes}
        assert named["service.name"] == "groundplan-gateway" and named["service.instance.id"]
        return {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}

    def until(self, count: int, seconds: float = 60) -> list[WireSpan]:
        end = time.monotonic() + seconds
        while len(self.spans()) < count:
            assert time.monotonic() < end, [span.name for span in self.spans()]
            time.sleep(0.05)
        return self.spans()


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if found.status == 200:
                (found.counted if self.path == "/v1/metrics" else found.bodies).append(body)
                found.headers.append({name.lower(): value for name, value in self.headers.items()})
            else:
                found.refused += 1
            self.send_response(found.status)
            answer = {"content-type": "application/x-protobuf", "content-length": str(len(found.answer))}
            for name, value in (answer | found.answer_headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.answer)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(f"http://127.0.0.1:{server.server_address[1]}/v1/traces")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attributes(span: WireSpan) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


async def test_spans_of_real_calls_reach_a_collector(database: Database, tmp_path: Path) -> None:
    secret = tmp_path / "headers"
    secret.write_text("x-api-key: collector-secret\n")
    (tmp_path / "upstream").write_text(UPSTREAM_KEY)
    async with scripted_upstream("one") as (one, port_one), scripted_upstream("two") as (_, port_two):
        async with installation(database, tmp_path) as stack:
            place = deployment("one", port_one, key=f"file:{tmp_path / 'upstream'}")
            named = msgspec.structs.replace(place, model="openai/gpt-x")
            places = [named, deployment("two", port_two)]
            stack.apply(blueprint(1, places, [workload("assistant", ["one", "two"])]))
            stack.start()
            await stack.wait_until_ready()
            key = stack.key()
            one.script = Script(mode="error", status=503)
            assert (await stack.chat(key, headers={"traceparent": PARENT, "tracestate": "v=1"})).status == 200
            assert (await stack.chat(key, "a secret question")).status == 200
            not_sampled = PARENT[:-2] + "00"
            assert (await stack.chat(key, headers={"traceparent": not_sampled}, stream=True)).status == 200
            with receiver() as collector:
                settings = load_settings(
                    {"GROUNDPLAN_OTLP_URL": collector.url, "GROUNDPLAN_OTLP_HEADERS": f"file:{secret}"}
                )
                traces = TraceExport.from_settings(settings)
                assert traces is not None
                with psycopg.connect(database.urls["shipper"], autocommit=True) as conn:
                    Shipper(stack.home, traces=traces).run_round(conn)
                found = collector.until(2)
                traces.close()
                end = time.monotonic() + 60
                while not collector.counted:  # they are sent last
                    assert time.monotonic() < end, "the metrics do not come"
                    await asyncio.sleep(0.05)
                found = collector.spans()
                assert collector.headers[0]["x-api-key"] == "collector-secret"
                check_metrics(collector.metrics())
                text = b"".join((*collector.bodies, *collector.counted))
    check(found, text, key)


def check(found: list[WireSpan], text: bytes, key: str) -> None:
    calls = [span for span in found if span.kind == WireSpan.SPAN_KIND_SERVER]
    assert len(calls) == 2, "one caller does not want its call traced"
    traced = next(span for span in calls if span.trace_id.hex() == PARENT[3:35])
    assert traced.parent_span_id.hex() == PARENT[36:52]
    below = [span for span in found if span.trace_id == traced.trace_id and span is not traced]
    assert all(span.parent_span_id == traced.span_id for span in below)
    assert {span.name for span in below} >= {"identify", "admit", "serve", "chat gpt-x", "chat two"}
    first, second = sorted(
        (span for span in below if span.name.startswith("chat ")), key=lambda s: s.start_time_unix_nano
    )
    assert attributes(first)["error.type"] == "503" and first.status.code == first.status.STATUS_CODE_ERROR
    assert attributes(first)["gen_ai.provider.name"] == "openai"
    assert attributes(second)["gen_ai.usage.output_tokens"] > 0
    for span in below:
        slack = 2_000_000
        assert traced.start_time_unix_nano - slack <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= traced.end_time_unix_nano + slack
    assert len({(span.trace_id, span.span_id) for span in found}) == len(found)
    for span in found:
        for name, value in attributes(span).items():
            assert name in CONVENTIONS or name.startswith("groundplan."), name
            if name == "gen_ai.operation.name":
                assert value in OPERATIONS
    for kept in (key, UPSTREAM_KEY, "secret question", "collector-secret"):
        assert kept.encode() not in text


def check_metrics(found: dict[str, WireMetric]) -> None:
    """Every attempt is counted, also of the call that is not traced, under the conventions' names and units."""
    assert {name: metric.unit for name, metric in found.items()} == METRICS == UNITS
    points = {name: list(metric.histogram.data_points) for name, metric in found.items()}
    told = [({a.key: a.value.string_value for a in p.attributes}, p) for p in points[DURATION]]
    for attributes, point in [
        *told,
        *(({a.key: a.value.string_value for a in p.attributes}, p) for p in points[TOKENS]),
    ]:
        known = {name for name in attributes if not name.startswith("groundplan.")}
        assert known <= METRIC_ATTRIBUTES and {"gen_ai.operation.name", "gen_ai.provider.name"} <= known
        assert sum(point.bucket_counts) == point.count and point.sum >= point.min * point.count > 0
    failed = [p.count for attributes, p in told if attributes.get("error.type") == "503"]
    good = [p.count for attributes, p in told if attributes["groundplan.deployment"] == "two"]
    assert failed == [3] and good == [3], "three calls, each tried at one and answered by two"
    (first,), (shown,) = points[FIRST_CHUNK], points[FIRST_TOKEN]
    assert first.count == shown.count == 1, "one call was streamed, by `two` after `one` had failed"
    assert 0 < first.sum <= shown.sum < 5
    kinds = [a.value.string_value for p in points[TOKENS] for a in p.attributes if a.key == "gen_ai.token.type"]
    assert sorted(kinds) == ["input", "output"]


def test_a_histogram_has_the_conventions_buckets_and_a_bounded_number_of_series() -> None:
    metrics = GenAiMetrics()
    metrics.count_call(ended(output=5))
    (duration,) = [series for (name, _), series in metrics.series.items() if name == DURATION]
    assert duration.buckets.index(1) == 0 and duration.total == 0.009 and len(duration.buckets) == 15
    sizes = sorted(
        (series.total, series.buckets.index(1)) for (name, _), series in metrics.series.items() if name == TOKENS
    )
    assert sizes == [(3, 1), (5, 2)] and BOUNDS[TOKENS][:3] == (1, 4, 16)
    for number in range(genai_metrics.MOST_SERIES):
        metrics.count_call(ended(model=f"x/{number}"))
    assert len(metrics.series) == genai_metrics.MOST_SERIES + 2  # one more of each metric, for all others
    assert sum(s.count for (name, _), s in metrics.series.items() if name == DURATION) == genai_metrics.MOST_SERIES + 1


def test_input_and_output_stay_apart_beyond_the_bounded_number_of_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genai_metrics, "MOST_SERIES", 0)
    metrics = GenAiMetrics()
    for model in ("x/a", "x/b"):
        metrics.count_call(ended(model=model, output=5))
    tokens = {
        dict(labels)["gen_ai.token.type"]: s.total for (name, labels), s in metrics.series.items() if name == TOKENS
    }
    assert tokens == {"input": 6, "output": 10}


def test_the_time_to_first_chunk_is_recorded_for_completed_streams() -> None:
    for outcome, chunk, counted in (("ok", 4000, 1), ("ok", 0, 0), ("failed", 4000, 0)):
        metrics, call = GenAiMetrics(), ended()
        settled = call.attempts[0].settlement
        assert settled is not None
        call.attempts[0].settlement = msgspec.structs.replace(settled, outcome=outcome, first_chunk_us=chunk)
        metrics.count_call(call)
        named = {name: series for (name, _), series in metrics.series.items()}
        assert (named[FIRST_TOKEN].count if FIRST_TOKEN in named else 0) == counted
        assert (named[FIRST_CHUNK].total if FIRST_CHUNK in named else 0) == chunk / 1e6
        found = call_spans(call)[-1].attributes
        assert found.get("gen_ai.response.time_to_first_chunk") == (chunk / 1e6 or None)


def test_metrics_are_sent_beside_traces_or_not_at_all() -> None:
    assert metrics_url("http://c:4318/v1/traces") == "http://c:4318/v1/metrics"
    assert metrics_url("https://c/otlp/spans") is None


@asynccontextmanager
async def listening_upstream() -> AsyncIterator[tuple[list[dict[bytes, bytes]], int]]:
    """A scripted model that notes the headers of each request, and its port."""
    model, seen = ScriptedModel("one"), []
    loop = asyncio.get_running_loop()

    async def noted(request: Request, response: Response) -> None:
        seen.append(dict(request.headers))
        await model.handle(request, response)

    server = Server(noted, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    yield seen, listener.sockets[0].getsockname()[1]
    await close(listener, server)


async def test_the_callers_trace_goes_on_to_the_upstream(database: Database, tmp_path: Path) -> None:
    async with listening_upstream() as (seen, port), installation(database, tmp_path) as stack:
        stack.apply(blueprint(1, [deployment("one", port)], [workload("assistant", ["one"])]))
        stack.start()
        await stack.wait_until_ready()
        key = stack.key()
        await stack.chat(key, headers={"traceparent": PARENT, "tracestate": "v=1", "baggage": "user=ben"})
        await stack.chat(key, headers={"traceparent": "nonsense"})
        await stack.chat(key)
    sent = seen[0][b"traceparent"].decode()
    assert sent[:36] == PARENT[:36] and sent[36:52] != PARENT[36:52] and sent.endswith("-01")
    assert seen[0][b"tracestate"] == b"v=1" and b"baggage" not in seen[0]
    assert b"traceparent" not in seen[1] and b"traceparent" not in seen[2]


def ended(trace: str = "", model: str = "mistral/large", **more: Any) -> CallState:
    state, call = EpochState(), new_id().bytes
    charge = [Charge("b", "total", 5)]
    state.apply(Reservation(call, 0, 1000, "w", "p", "k", "embeddings", "d", "s", model, 1, 5, charge), 1)
    state.apply(Settlement(call, 0, 1010, 3, "ok", 200, Usage(input=3, **more), False, [], 9000, 500, 200, 4000), 1)
    steps = [("identify", 100), ("admit", 300), ("ground", 450), ("serve", 9_900)]
    sources = [("doc", "a.md", 1, 2)]
    end = (10_000, 9_000, steps, sources, False, trace)
    state.apply(Finish(call, 1011, "w", "p", "k", "embeddings", "ok", 200, "", "d", "none", 1, *end), 1)
    return next(iter(state.calls.values()))


def test_retrieval_and_classes_of_tokens_have_the_conventions_names() -> None:
    found = call_spans(ended(cache_read=2, cache_write=1, reasoning=0))
    retrieval = next(span for span in found if span.name.startswith("retrieval"))
    assert retrieval.attributes["gen_ai.operation.name"] == "retrieval" and retrieval.kind == "client"
    attempt = found[-1]
    assert attempt.attributes["gen_ai.provider.name"] in PROVIDERS
    assert attempt.attributes["gen_ai.usage.cache_read.input_tokens"] == 2
    assert (attempt.end - attempt.start, attempt.start - found[0].start) == (9_000_000, 500_000)
    for span in found:
        assert {n for n in span.attributes if not n.startswith("groundplan.")} <= CONVENTIONS


def test_a_call_that_was_cut_off_by_a_crash_has_spans_too() -> None:
    state, call = EpochState(), new_id().bytes
    state.apply(
        Reservation(call, 0, 1000, "w", "p", "k", "responses", "d", "s", "m", 1, 5, [Charge("b", "total", 5)]), 1
    )
    crashed = state.settle_crashed()
    assert [span.error for span in call_spans(crashed[0])] == ["crashed", "crashed"]


def test_each_span_of_a_call_has_an_id_of_its_own() -> None:
    """Also of a step that is made more than once: a cache is looked into for a key, then for an answer."""
    call = ended()
    assert call.finish is not None
    steps = [("identify", 1), ("cache", 2), ("admit", 3), ("cache", 4), ("tool a", 5), ("tool a", 6), ("settle", 7)]
    call.finish = msgspec.structs.replace(call.finish, steps=steps)
    found = call_spans(call)
    assert len({span.id for span in found}) == len(found) == len(steps) + 2
    assert [span.attributes["groundplan.step"] for span in found[1:-1]] == [name for name, _ in steps]


def test_the_callers_sampling_decision_is_respected() -> None:
    assert is_traced(ended()) and is_traced(ended(PARENT))
    assert not is_traced(ended(PARENT[:-2] + "02"))


def test_an_unavailable_collector_costs_only_spans() -> None:
    with receiver() as collector:
        collector.status = 400
        traces = TraceExport(collector.url, {})
        traces.enqueue([ended() for _ in range(BATCH_CALLS + 50)], new_id())
        traces.close()
        assert traces.lost == BATCH_CALLS + 50 and not collector.bodies, "also of what still waited at the end"


@pytest.mark.parametrize(
    ("status", "retry_after", "answer"),
    [
        (200, "", Answer(is_accepted=True)), (202, "5", Answer(is_accepted=True)),
        (302, "", Answer(problem="HTTP 302")), (413, "5", Answer(problem="HTTP 413")),
        (503, "", Answer(problem="HTTP 503", retry_after=0.0)), (429, "9", Answer(problem="HTTP 429", retry_after=9.0)),
        (429, "86400", Answer(problem="HTTP 429", retry_after=60.0)),
        (502, "Thu, 03 Dec 2026 07:00:00 GMT", Answer(problem="HTTP 502", retry_after=0.0)),
    ],
)  # fmt: skip
def test_an_answer_says_whether_the_same_may_be_sent_again(status: int, retry_after: str, answer: Answer) -> None:
    assert read_answer(status, retry_after, 0, "") == answer


def test_spans_wait_for_a_collector_that_asks_for_a_pause() -> None:
    """As one that has too much to do, or that is being replaced."""
    with receiver() as collector:
        collector.status, collector.answer_headers = 429, {"retry-after": "9"}
        traces, begun = TraceExport(collector.url, {}), time.monotonic()
        traces.enqueue([ended(), ended(PARENT[:-2] + "00")], new_id())
        end = begun + 60
        while not traces._resume_at:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert collector.refused == 1 and traces._resume_at >= begun + 9
        collector.status, traces._resume_at = 200, 0.0
        collector.until(1)
        traces.close()
        found = collector.spans()
        assert len(found) == len(call_spans(ended())) and traces.lost == 0


def test_what_a_collector_does_not_take_is_counted_whatever_its_status_looks_like() -> None:
    with receiver() as collector:
        collector.status, collector.answer_headers = 302, {"location": "/login"}
        traces = TraceExport(collector.url, {})
        traces.enqueue([ended()], new_id())
        traces.close()
        assert (traces.lost, traces.rejected) == (1, 0)
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = 3
        collector.status, collector.answer_headers, collector.answer = 200, {}, answer.SerializeToString()
        traces = TraceExport(collector.url, {})
        traces.enqueue([ended()], new_id())
        traces.close()
        assert (traces.lost, traces.rejected) == (0, 3)
        shipper = ShipperMetrics(Home(Path()), ShippingProgress(), ContentWriter(Home(Path()), ""), traces)
        shown = {each.name: each.samples[0].value for each in shipper.families()}
        assert shown["groundplan_shipper_spans_rejected_total"] == 3


def test_a_collector_that_refuses_for_hours_fills_no_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver() as collector:
        collector.status = 400
        traces = TraceExport(collector.url, {})
        traces._stop.set()
        traces._thread.join(60)
        traces._span_exporter = traces._otel.span_exporter(collector.url, {}, 5.0)
        for _ in range(5):
            traces.enqueue([ended()], new_id())
            traces._send_waiting()
            traces._export_metrics()
            traces._log_lost()
    told = [each.getMessage() for each in caplog.records if each.name.startswith("groundplan")]
    assert told == [f"the collector does not accept all {what}: HTTP 400" for what in ("spans", "metrics")]
    assert capsys.readouterr().err.count("traces were dropped") == 1 and traces.lost == 5


def test_an_inconsistent_call_never_fails_the_shipper() -> None:
    with receiver() as collector:
        traces = TraceExport(collector.url, {})
        traces.enqueue([ended("00-z1"), CallState(new_id().bytes, 1)], new_id())
        traces.close()
        assert traces.lost == 2 and not collector.bodies


def test_metrics_cover_whole_calls_even_if_calls_end_meanwhile() -> None:
    """Calls end in the thread that ships them: a series that began meanwhile broke off the sending."""
    with receiver() as collector:
        traces = TraceExport(collector.url, {})
        told, later, grown = traces._otel.metrics_data, list[threading.Thread](), list[int]()

        def counted(metrics: GenAiMetrics, *given: Any) -> Any:
            before = len(metrics.series)
            later.append(threading.Thread(target=traces.enqueue, args=([ended(model="x/later")], new_id())))
            later[-1].start()
            later[-1].join(0.2)
            grown.append(len(metrics.series) - before)
            return told(metrics, *given)

        traces._otel = SimpleNamespace(metrics_data=counted)
        traces.enqueue([ended()], new_id())
        traces.close()
        later[0].join(10)
        assert grown[0] == 0 and len(collector.metrics()) == 2
        assert len(traces._metrics.series) == 4


def test_headers_are_lines_and_are_never_repeated_in_an_error() -> None:
    assert parse_headers("Authorization: Bearer x\nx-b:  2 ") == {"authorization": "Bearer x", "x-b": "2"}
    with pytest.raises(Invalid) as caught:
        parse_headers("a: 1\nhunter2")
    assert "hunter2" not in str(caught.value) and "line 2" in str(caught.value)


def test_nothing_is_imported_without_declared_traces() -> None:
    assert TraceExport.from_settings(load_settings({})) is None
    assert (
        TraceExport.from_settings(
            load_settings({"GROUNDPLAN_OTLP_URL": "http://x", "GROUNDPLAN_OTLP_HEADERS": "env:NO_"})
        )
        is None
    )
