"""Every name of a span, a metric and an attribute is one of OpenTelemetry's conventions, or one of ours that is here.

A new name that is in neither fails: look it up in the conventions first, and add it here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from benchmarks.genai_conventions import compare_names, example_call
from tests.unit.test_gateway_pipeline import Rig, rig

from groundplan.core.ids import new_id
from groundplan.gateway import telemetry
from groundplan.gateway.call import facts_api, pipeline
from groundplan.gateway.journal.recovery import CallState, EpochState
from groundplan.gateway.mcp import endpoint
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.realtime import conversation
from groundplan.gateway.telemetry.conventions import OPERATIONS, PROVIDERS, provider_and_model
from groundplan.gateway.telemetry.genai_metrics import GenAiMetrics
from groundplan.gateway.telemetry.spans import call_spans
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement, Usage
from groundplan.testing.metrics import families
from groundplan.testing.scripted import Script

__all__ = ["rig"]

ATTRIBUTES = frozenset(
    {
        "gen_ai.agent.description", "gen_ai.agent.id", "gen_ai.agent.name", "gen_ai.agent.version",
        "gen_ai.conversation.id", "gen_ai.data_source.id", "gen_ai.embeddings.dimension.count",
        "gen_ai.evaluation.explanation", "gen_ai.evaluation.name", "gen_ai.evaluation.score.label",
        "gen_ai.evaluation.score.value", "gen_ai.input.messages", "gen_ai.operation.name", "gen_ai.output.messages",
        "gen_ai.output.type", "gen_ai.prompt.name", "gen_ai.provider.name", "gen_ai.request.choice.count",
        "gen_ai.request.encoding_formats", "gen_ai.request.frequency_penalty", "gen_ai.request.max_tokens",
        "gen_ai.request.model", "gen_ai.request.presence_penalty", "gen_ai.request.seed",
        "gen_ai.request.stop_sequences", "gen_ai.request.stream", "gen_ai.request.temperature",
        "gen_ai.request.top_k", "gen_ai.request.top_p", "gen_ai.response.finish_reasons", "gen_ai.response.id",
        "gen_ai.response.model", "gen_ai.response.time_to_first_chunk", "gen_ai.retrieval.documents",
        "gen_ai.retrieval.query.text", "gen_ai.system_instructions", "gen_ai.token.type",
        "gen_ai.tool.call.arguments", "gen_ai.tool.call.id", "gen_ai.tool.call.result", "gen_ai.tool.definitions",
        "gen_ai.tool.description", "gen_ai.tool.name", "gen_ai.tool.type",
        "gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.workflow.name",
    }
)  # fmt: skip
"""All that are not deprecated: model/gen-ai/registry.yaml of open-telemetry/semantic-conventions-genai at 953276ff
(Apache-2.0)."""
MEMBERS = {
    "gen_ai.operation.name": {
        "chat", "create_agent", "embeddings", "execute_tool", "generate_content", "invoke_agent", "invoke_workflow",
        "retrieval", "text_completion",
    },
    "gen_ai.provider.name": {
        "anthropic", "aws.bedrock", "azure.ai.inference", "azure.ai.openai", "cohere", "deepseek", "gcp.gemini",
        "gcp.gen_ai", "gcp.vertex_ai", "groq", "ibm.watsonx.ai", "mistral_ai", "openai", "perplexity", "x_ai",
    },
    "gen_ai.token.type": {"input", "output"},
}  # fmt: skip
"""Values of enumerations in the same file."""
METRICS = {
    "gen_ai.client.operation.duration": "s",
    "gen_ai.client.operation.time_per_output_chunk": "s",
    "gen_ai.client.operation.time_to_first_chunk": "s",
    "gen_ai.client.token.usage": "{token}",
    "gen_ai.server.request.duration": "s",
    "gen_ai.server.time_per_output_token": "s",
    "gen_ai.server.time_to_first_token": "s",
}
"""Metric -> unit, histograms all: model/gen-ai/metrics.yaml at the same commit."""
GENERAL = frozenset(
    {"error.type", "http.response.status_code", "service.instance.id", "service.name", "service.version"}
)
"""Of the general conventions: open-telemetry/semantic-conventions, model/{error,http,service}."""
OWN = frozenset(
    f"groundplan.{name}"
    for name in (
        "attempt", "blueprint", "cache", "call.id", "connect_ms", "cost_usd", "deployment", "endpoint", "first_byte_ms",
        "outcome", "passages", "site", "status", "step", "workload",
    )
)  # fmt: skip
"""What the conventions have no attribute for."""
OWN_OPERATIONS = {"messages.count_tokens", "moderations", "rerank", "responses.input_tokens"}
"""What they have no operation for; those that are not theirs are the endpoint's own name."""
REQUIRED = {
    **{name: {"gen_ai.provider.name"} for name in ("chat", "text_completion", "embeddings", "generate_content")},
    "retrieval": set[str](),
    "execute_tool": {"gen_ai.tool.name"},
}
"""Operation -> attributes that its spans need, in model/gen-ai/spans.yaml at the same commit."""
OTHERS = {"groundplan.gateway", "endpoints.d", "counters.d", "transcript.text", "response.output_item.added"}
"""The scope of instrumentation, folders, and events of upstreams whose texts are kept."""
DOTTED = re.compile(r"[a-z_]+(\.[a-z0-9_]+)+")
KNOWN = {
    "attributes": ATTRIBUTES,
    "metrics": {name: (unit, "histogram") for name, unit in METRICS.items()},
    "members": MEMBERS,
}


def endpoints() -> set[str]:
    """The names of all interfaces under which calls are in the ledger."""
    assert pipeline and conversation and facts_api and endpoint, "what declares interfaces is imported"
    found, waiting = set[str](), [Interface]
    while waiting:
        for each in waiting.pop().__subclasses__():
            waiting.append(each)
            if each.__module__.startswith("groundplan.") and "name" in vars(each):
                found.add(each.name)
    return found


def test_what_a_call_has_been_told_of_is_known() -> None:
    found = compare_names(KNOWN)
    assert {name: told for name, told in found.items() if name.startswith(("unknown", "wrong")) and told} == {}
    assert set(found["of_general_conventions"]) <= GENERAL
    assert set(found["our_own"]) == OWN, "the example has all of ours"


def test_every_endpoint_has_the_conventions_operation_or_one_that_is_listed() -> None:
    found = endpoints()
    assert {"chat.completions", "images.edits", "audio.speech", "realtime", "rerank", "search", "mcp"} <= found
    assert OPERATIONS.keys() <= found, "an operation of an endpoint that is not there"
    operations = {OPERATIONS.get(name, name) for name in found}
    assert operations - MEMBERS["gen_ai.operation.name"] == OWN_OPERATIONS
    assert not OWN_OPERATIONS & MEMBERS["gen_ai.operation.name"]


def test_providers_have_the_conventions_names() -> None:
    assert set(PROVIDERS.values()) <= MEMBERS["gen_ai.provider.name"]
    assert provider_and_model("mistral/large") == ("mistral_ai", "large") and provider_and_model("own/m") == (
        "own",
        "m",
    )


def test_every_name_that_is_written_down_is_known() -> None:
    """Also those that no example reaches: all dotted names in the modules that make spans and metrics."""
    known = ATTRIBUTES | METRICS.keys() | GENERAL | OWN | MEMBERS["gen_ai.provider.name"] | endpoints() | OTHERS
    found: dict[str, set[str]] = {}
    for file in sorted(Path(telemetry.__path__[0]).glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        found[file.name] = {text for text in texts if DOTTED.fullmatch(text)}
    assert {"gen_ai.usage.input_tokens", "groundplan.site"} <= found["spans.py"]
    assert "gen_ai.token.type" in found["genai_metrics.py"] and "service.name" in found["otel.py"]
    assert {file: names - known for file, names in found.items() if names - known} == {}


def test_metrics_are_told_with_the_conventions_attributes() -> None:
    metrics = GenAiMetrics()
    metrics.count_call(example_call())
    labels = [label for _, each in metrics.series for label in each]
    assert {name for name, _ in labels} <= ATTRIBUTES | GENERAL | OWN
    assert {value for name, value in labels if name == "gen_ai.token.type"} == MEMBERS["gen_ai.token.type"]
    operations = [span.attributes.get("gen_ai.operation.name") for span in call_spans(example_call())]
    assert {"chat", "retrieval"} <= set(operations) <= MEMBERS["gen_ai.operation.name"] | {None}


async def test_what_prometheus_reads_is_ours_or_has_the_conventions_name(rig: Rig) -> None:
    assert (await rig.chat(stream=True)).status == 200
    rig.one.script = Script(mode="error", status=503)
    assert (await rig.chat()).status == 200
    units = {"s": "seconds", "{token}": "tokens"}
    written = {f"{name.replace('.', '_')}_{units[unit]}" for name, unit in METRICS.items()}
    attributes = {name.replace(".", "_") for name in ATTRIBUTES}
    found = families(rig.gateway)
    theirs = {family.name for family in found if not family.name.startswith(("groundplan_", "process_"))}
    assert theirs == {"gen_ai_server_time_to_first_token_seconds"} <= written
    told = [sample.labels for family in found for sample in family.samples]
    told += [series.labels for family in found for series in family.series]
    of_genai = {name for labels in told for name, _ in labels if name.startswith("gen_ai")}
    assert {"gen_ai_operation_name", "gen_ai_request_model"} <= of_genai <= attributes


def call_with(*records: Reservation | Settlement | Finish) -> CallState:
    state = EpochState()
    for record in records:
        state.apply(record)
    return next(iter(state.calls.values()))


def ended(endpoint: str, steps: list[tuple[str, int]], code: str = "", cache: str = "none") -> CallState:
    """A call that asked no model."""
    status, number = ("refused", 404) if code else ("ok", 200)
    end = (endpoint, status, number, code, "", cache, 1, 10_000, 9_000, steps)
    return call_with(Finish(new_id().bytes, 1011, "w", "p", "k", *end, []))


def test_every_span_of_an_operation_has_what_the_conventions_require() -> None:
    calls = [
        example_call(), ended("chat.completions", [("identify", 1), ("cache", 2)], cache="exact"),
        ended("chat.completions", [("identify", 1)], "budget_exhausted"), ended("search", [("ground", 9)]),
        ended("mcp", [("identify", 1), ("tool crm/lookup", 9)]), ended("mcp", [("tool crm/lookup", 9)], "killed"),
    ]  # fmt: skip
    spans = [span for call in calls for span in call_spans(call)]
    lacking = [
        (span.name, name)
        for span in spans
        for name in REQUIRED.get(str(span.attributes.get("gen_ai.operation.name")), ())
        if name not in span.attributes
    ]
    assert lacking == []
    failed = [span for span in spans if "error.type" in span.attributes]
    assert all(span.error == span.attributes["error.type"] for span in failed)
    assert {"execute_tool crm/lookup", "chat w"} <= {span.name for span in failed}


def test_a_call_names_the_model_that_answered_it() -> None:
    call, usage = new_id().bytes, Usage()
    records: list[Reservation | Settlement] = []
    for number, (model, purpose, outcome) in enumerate(
        [("a/first", "", "failed"), ("b/second", "", "ok"), ("c/judge", "guardrail", "ok")]
    ):
        made = ("chat.completions", "d", "s", model, 1, 5, [Charge("b", "t", 5)], False, purpose)
        records.append(Reservation(call, number, 1000, "w", "p", "k", *made))
        records.append(Settlement(call, number, 1010, 3, outcome, 200, usage, False, [], 9000))
    for known, answered in ((records, ("b", "second")), (records[:2], ("a", "first")), (records[4:], ("c", "judge"))):
        attributes = call_spans(call_with(*known))[0].attributes
        assert (attributes["gen_ai.provider.name"], attributes["gen_ai.request.model"]) == answered


async def test_a_stream_that_fails_before_its_first_chunk_is_one_in_its_spans(rig: Rig) -> None:
    """Without the attribute the conventions take a request for one that is not streamed."""
    rig.one.script, rig.two.script = Script(mode="error", status=503), Script(tokens=2)
    assert (await rig.chat(stream=True)).status == (await rig.chat()).status == 200
    records = await rig.records()
    calls = [[each for each in records if each.call == call] for call in dict.fromkeys(each.call for each in records)]
    for call, streamed in zip(calls, (True, None), strict=True):
        spans = [span for span in call_spans(call_with(*call)) if "gen_ai.request.model" in span.attributes]
        assert [span.attributes["groundplan.outcome"] for span in spans[1:]] == ["not_billed", "ok"]
        assert [span.attributes.get("gen_ai.request.stream") for span in spans] == [streamed] * 3


@pytest.mark.parametrize(
    ("step", "code", "name", "tool"),
    [
        ("tool crm/lookup_order", "", "execute_tool crm/lookup_order", "crm/lookup_order"),
        ("tool search", "", "execute_tool search", "search"),
        ("tool crm/prompt:greet", "", "prompt crm/prompt:greet", None),
        ("tool crm/resource:crm://notes/ben", "", "resource crm", None),
        ("tool ben's number is 7", "tool_unknown", "tool", None),
        ("tool resource:crm://notes/ben", "resource_unknown", "tool", None),
    ],
)
def test_a_use_of_a_tool_shows_what_is_declared_and_no_text_of_its_caller(
    step: str, code: str, name: str, tool: str | None
) -> None:
    whole, used = call_spans(ended("mcp", [(step, 9)], code))
    assert (used.name, used.kind, used.attributes.get("gen_ai.tool.name")) == (name, "internal", tool)
    assert whole.name == "mcp w" and "gen_ai.operation.name" not in whole.attributes
    assert "ben" not in f"{used.name} {used.attributes} {whole.attributes}"
