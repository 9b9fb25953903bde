"""Calls of many kinds through one installation, and all reports of them agree field by field: the answer, the ledger,
the receipt, the list of calls, the audit log, metrics, spans, the SIEM and every sum of costs.
"""

from __future__ import annotations

import csv
import json
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from psycopg.rows import dict_row

from groundplan.core.database import connect, database_url
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.ledger.rollup_store import is_call
from tests.acceptance.stack import Answer, Stack, Upstream, request, wait_until

pytestmark = pytest.mark.timeout(200)
COMPANY = """kind: company
name: views
format: 1
separation: enforced
caps: {people: unlimited, calls_per_day: unlimited}
owners: {business: you@v.example, product: you@v.example, architecture: you@v.example, engineering: you@v.example,
  operations: you@v.example, security: you@v.example, finance: you@v.example, data: you@v.example,
  compliance: you@v.example}
---
kind: person
name: ana
email: ana@v.example
---
kind: team
name: red
members: [you@v.example, ana]
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: budget
name: company
covers: company
limit: 100 USD/month
---
kind: budget
name: red
covers: team/red
limit: 100 USD/day
timezone: Asia/Tokyo
---
kind: budget
name: poor
covers: workload/poor
limit: 0.000001 USD/month
"""
TOKENS = (
    "price: {input: 0.370000001 USD/Mtok, output: 10.00001 USD/Mtok, cache_read: 0.041111111 USD/Mtok}\ncontext: 8k"
)
NOTHING = "price: {input: 0 USD/Mtok, output: 0 USD/Mtok, "
DEPLOYMENTS = {
    "one": TOKENS,
    "shaky": TOKENS,
    "claude": f"api: anthropic\n{TOKENS}",
    "vectors": "type: embeddings\nprice: {input: 0.021 USD/Mtok, output: 0 USD/Mtok}\ncontext: 8k",
    "sorter": f"type: rerank\n{NOTHING}request: 0.01 USD}}",
    "painter": f"type: images\n{NOTHING}images: {{any: 0.010000000001 USD}}}}",
    "voice": f"type: speech\n{NOTHING}characters: 15.3 USD}}",
    "nightly": "serves: [batches]\ncontext: 8k\nprice: {input: 0.1 USD/Mtok, output: 0.4 USD/Mtok, "
    "batch: {input: 0.05 USD/Mtok, output: 0.2 USD/Mtok}}",
}
WORKLOADS = {
    "talk": "deployments: [one]\nembeddings: [vectors]\nalso: [sorter, painter, voice]",
    "claude": "deployments: [claude]",
    "cached": "deployments: [one]\ncache: {answers: exact, ttl: 1h}",
    "fragile": "deployments: [shaky]\nfallbacks: [one]",
    "poor": "deployments: [one]",
    "guarded": "deployments: [one]\nguardrails: {output: {deny: [falcon]}}",
    "archive": "deployments: [nightly]",
}
CHAT, LINES = "/v1/chat/completions", 3


def declare(folder: Path, main: Upstream, flaky: Upstream) -> Path:
    folder.mkdir(parents=True)
    texts = [COMPANY.removesuffix("\n")]
    for name, more in DEPLOYMENTS.items():
        url = (flaky if name == "shaky" else main).url
        texts.append(
            f"kind: deployment\nname: {name}\nsite: here\nmodel: v/{name}\nupstream_model: {name}\nurl: {url}\n{more}"
        )
    for name, more in WORKLOADS.items():
        texts.append(
            f"kind: workload\nname: {name}\npurpose: A part\naudience: employees\nstage: pilot\nteam: red\n"
            f"owners: {{business: you@v.example}}\nlimits: {{max_output: 64}}\n{more}"
        )
    (folder / "company.yaml").write_text("\n---\n".join(texts) + "\n")
    return folder


class TelemetryReceiver:
    """An HTTP server that receives traces (OTLP) and events for the SIEM."""

    def __init__(self) -> None:
        self.posted: dict[str, list[bytes]] = defaultdict(list)
        posted = self.posted

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posted[self.path].append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        for body in list(self.posted["/v1/traces"]):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    kinds = {each.key: each.value.WhichOneof("value") for each in span.attributes}
                    yield span, {each.key: getattr(each.value, kinds[each.key] or "") for each in span.attributes}

    def events(self) -> set[str]:
        """Ids of the entries that the SIEM received."""
        lines = b"\n".join(self.posted["/siem"]).splitlines()
        return {json.loads(line)["metadata"]["uid"] for line in lines if line.strip()}


@dataclass
class Installation:
    stack: Stack
    receiver: TelemetryReceiver
    answers: list[tuple[Answer, dict[str, str]]] = field(default_factory=list)
    """Complete answers, each with the headers of its request."""
    ids: set[str] = field(default_factory=set)
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    attempts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    charges: list[dict[str, Any]] = field(default_factory=list)
    audited: dict[str, dict[str, Any]] = field(default_factory=dict)

    def key(self, workload: str, **more: Any) -> dict[str, Any]:
        created: dict[str, Any] = self.stack.control("POST", "/api/keys", {"workload": workload, **more}).body
        self.stack.wait_until_effective(created["effective"])
        return created

    def ask(self, key: dict[str, Any], path: str, body: Any, **more: str) -> Answer:
        request_headers = {
            "authorization": f"Bearer {key['key']}",
            **{name.replace("_", "-"): v for name, v in more.items()},
        }
        answer = request(self.stack.port, "POST", path, body, request_headers)
        self.answers.append((answer, request_headers))
        self.ids.add(answer.headers["groundplan-call-id"])
        return answer

    def get_api(self, path: str) -> Any:
        reply = self.stack.control("GET", path)
        assert reply.status == 200, (path, reply.body)
        return reply.body

    def read_records(self) -> None:
        """Read the ledger and the audit log, once they have every call."""
        url = database_url(Home(self.stack.home), load_settings({}), "control")
        with connect(url) as conn, conn.cursor(row_factory=dict_row) as rows:

            def all_written() -> bool:
                self.calls = {str(row["id"]): row for row in rows.execute("SELECT * FROM call").fetchall()}
                ended = "SELECT id::text, body FROM audit_entry WHERE action = 'call' AND leaf_index IS NOT NULL"
                entries = rows.execute(ended).fetchall()
                self.audited = {row["id"]: json.loads(bytes(row["body"]))["detail"] for row in entries}
                conn.rollback()
                return self.ids <= self.calls.keys() and self.audited.keys() == self.calls.keys()

            wait_until(all_written, 60, "every call is in the ledger and in the audit log")
            for row in rows.execute("SELECT * FROM attempt ORDER BY call_id, number").fetchall():
                self.attempts.setdefault(str(row["call_id"]), []).append(row)
            self.charges = rows.execute("SELECT * FROM charge").fetchall()


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 40, **more}


def make_calls(installation: Installation, flaky: Upstream) -> None:
    """Make each kind of call, and calls that are refused at each step."""
    keys = {name: installation.key(name) for name in WORKLOADS}
    ana, other, revoked = (
        installation.key("talk", user="ana@v.example", tags=["web"]),
        keys["talk"],
        installation.key("talk"),
    )
    acting = installation.key("talk", acts_for_others=True)
    revocation = installation.stack.control("DELETE", f"/api/keys/{revoked['id']}").body
    installation.stack.wait_until_effective(revocation["effective"])
    headers = {"groundplan_feature": "mail", "groundplan_ticket": "SUP-1"}
    for number in range(2):
        for key in (ana, keys["talk"]):
            for stream in (False, True):
                installation.ask(key, CHAT, chat(f"what is it {number}", stream=stream), **headers)
        installation.ask(keys["talk"], "/v1/responses", {"model": "auto", "input": "tell me", "max_output_tokens": 40})
        installation.ask(
            keys["talk"], "/v1/completions", {"model": "auto", "prompt": "tell me", "max_tokens": 40}, **headers
        )
        installation.ask(keys["cached"], CHAT, chat("the same"))
        installation.ask(keys["talk"], CHAT, chat("once"), idempotency_key="k")
        flaky.control(mode="error", status=500, times=1)
        installation.ask(keys["fragile"], CHAT, chat("are you there", stream=number == 1), **headers)
    message = {"model": "auto", "max_tokens": 40, "messages": [{"role": "user", "content": "hello"}]}
    installation.ask(keys["claude"], "/v1/messages", message, anthropic_version="2023-06-01")
    installation.ask(acting, CHAT, chat("for her"), groundplan_on_behalf_of="ana@v.example")
    installation.ask(keys["talk"], "/v1/embeddings", {"model": "auto", "input": ["one", "two words"]})
    installation.ask(keys["talk"], "/v1/rerank", {"model": "sorter", "query": "q", "documents": ["a q", "b"]})
    installation.ask(keys["talk"], "/v1/images/generations", {"model": "painter", "prompt": "a house", "n": 2})
    installation.ask(keys["talk"], "/v1/audio/speech", {"model": "voice", "input": "say it", "voice": "alloy"})
    installation.ask(keys["talk"], CHAT, chat("how much"), groundplan_estimate="1")
    refused = [
        installation.ask(keys["poor"], CHAT, chat("no money")),
        installation.ask(keys["guarded"], CHAT, chat("the falcon flies")),
        installation.ask(keys["talk"], CHAT, chat("too dear"), groundplan_max_cost_usd="0.00000001"),
        installation.ask(keys["talk"], CHAT, {**chat("which"), "model": "nobody's"}),
        installation.ask(revoked, CHAT, chat("still there?")),
        installation.ask(other, CHAT, chat("as her"), groundplan_on_behalf_of="ana@v.example"),
        installation.ask(acting, CHAT, chat("as nobody"), groundplan_on_behalf_of="eve@v.example"),
    ]
    assert [each.code for each in refused] == [
        "budget_exhausted", "guardrail_deny", "cost_per_call", "model_not_found", "key_revoked", "on_behalf_of_denied",
        "person_unknown",
    ]  # fmt: skip
    run_batch(installation, keys["archive"]["key"], headers)


def run_batch(installation: Installation, key: str, extra: dict[str, str]) -> None:
    lines = [
        {"custom_id": f"c{n}", "method": "POST", "url": CHAT, "body": chat(f"line {n} of it")} for n in range(LINES)
    ]
    headers = {name.replace("_", "-"): value for name, value in extra.items()}
    with OpenAI(base_url=f"http://127.0.0.1:{installation.stack.port}/v1", api_key=key, max_retries=8) as client:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        file = client.files.create(file=("calls.jsonl", data), purpose="batch")
        order = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", extra_headers=headers
        )  # fmt: skip
        wait_until(lambda: client.batches.retrieve(order.id).status == "completed", 90, "the batch is over")
        output = str(client.batches.retrieve(order.id).output_file_id)
        for line in map(json.loads, client.files.content(output).text.splitlines()):
            installation.answers.append((Answer(200, {}, line["response"]["body"]), headers))
            installation.ids.add(line["response"]["body"]["groundplan"]["call_id"])


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder, receiver = tmp_path_factory.mktemp("views"), TelemetryReceiver()
    main, flaky = Upstream(folder / "main"), Upstream(folder / "flaky")
    environment = {"GROUNDPLAN_OTLP_URL": f"{receiver.url}/v1/traces", "GROUNDPLAN_SIEM_URL": f"{receiver.url}/siem"}
    # a single worker, whose cache has its own answers at once
    stack = Stack(folder, declare(folder / "workspace", main, flaky), workers=1, environment=environment)
    try:
        for upstream in (main, flaky):
            upstream.start()
            upstream.control(tokens=9, cache_read=5)
        stack.start()
        created = Installation(stack, receiver)
        make_calls(created, flaky)
        created.read_records()
        yield created
    finally:
        stack.stop()
        main.stop()
        flaky.stop()
        receiver.server.shutdown()
        receiver.server.server_close()


def usd(values: Any) -> Decimal:
    return sum(map(Decimal, values), Decimal(0))


def groundplan_facts(answer: Answer) -> dict[str, Any]:
    """The `groundplan` object of an answer, also of a stream."""
    if isinstance(answer.body, dict):
        return dict(answer.body.get("groundplan") or {})
    lines = [line.removeprefix("data: ") for line in answer.body.decode("latin-1").splitlines()]
    objects = [json.loads(line) for line in lines if line.startswith('{"')]
    return next((each["groundplan"] for each in reversed(objects) if each.get("groundplan")), {})


def test_answers_agree_with_the_ledger(installation: Installation) -> None:
    for answer, request_headers in installation.answers:
        facts = groundplan_facts(answer)
        call = installation.calls[facts.get("call_id") or answer.headers["groundplan-call-id"]]
        assert answer.status == call["http_status"]
        for name in ("feature", "ticket"):
            assert call["detail"].get(name) == request_headers.get(f"groundplan-{name}")
        cached = call["cache"] == "exact"  # the answer says where it was made originally
        for name in ("workload", "deployment", "blueprint", "cache", *(() if cached else ("model", "site"))):
            assert facts.get(name, call[name]) == call[name]
        cost = answer.headers.get("groundplan-cost-usd", facts.get("cost_usd"))
        is_speech = answer.headers.get("content-type") == "audio/mpeg"  # the response begins before the call is settled
        assert Decimal(cost or 0) == call["cost_usd"] or is_speech
        assert cost is not None or is_speech or not installation.attempts.get(str(call["id"])), (
            "the cost is also told if the answer is refused"
        )
    statuses = Counter(call["status"] for call in installation.calls.values())
    assert statuses["ok"] > 20 and statuses["refused"] >= 6


def test_the_costs_of_call_attempts_parts_and_charges_agree(installation: Installation) -> None:
    for id, call in installation.calls.items():
        mine = installation.attempts.get(id, [])
        assert usd(each["cost_usd"] for each in mine) == call["cost_usd"] <= call["reserved_usd"]
        assert sum(each["usage"].get("input", 0) for each in mine) == call["prompt_tokens"]
        for each in mine:
            parts = sum(amount for _, amount in (each["parts"] or {}).values())
            assert parts == each["cost_usd"].scaleb(12)
    budgets = {(row["budget"], row["period"]): row for row in installation.get_api("/api/cost")["budgets"]}
    for key in {(each["budget"], each["period"]) for each in installation.charges}:
        spent = usd(each["cost_usd"] for each in installation.charges if (each["budget"], each["period"]) == key)
        assert Decimal(budgets[key]["spent_usd"]) == spent <= Decimal(budgets[key]["limit_usd"])


def test_receipt_list_and_audit_log_agree(installation: Installation) -> None:
    listed = {call["id"]: call for call in installation.get_api("/api/calls?limit=100")["calls"]}
    assert listed.keys() == installation.calls.keys() == installation.audited.keys()
    reasons: set[str] = set()
    for id, call in installation.calls.items():
        receipt, entry, why = (
            installation.get_api(f"/api/calls/{id}"),
            installation.audited[id],
            installation.get_api(f"/api/why/{id}"),
        )
        reasons |= set(why["because"])
        assert {**receipt, **listed[id]} == receipt == why["facts"]
        assert (receipt["feature"], receipt["ticket"]) == tuple(call["detail"].get(n) for n in ("feature", "ticket"))
        for name in ("workload", "endpoint", "status", "http_status", "cost_usd", "reserved_usd", "blueprint", "cache"):
            assert receipt[name] == entry[name], name
        assert (entry["error_code"] or None, entry["key"]) == (receipt["error_code"], receipt["key_id"])
        for mine, theirs in zip(receipt["attempts"], entry["attempts"], strict=True):
            same = ("number", "deployment", "site", "model", "state", "outcome", "reserved_usd", "cost_usd")
            assert [mine[name] for name in same] == [theirs[name] for name in same]
            assert usd(term["cost_usd"] for term in mine["terms"]) == Decimal(mine["cost_usd"])
    assert "It was estimated, as its caller asked, and not made." in reasons
    repetitions = ("the same question", "the request with the same Idempotency-Key")
    assert {f"It is the answer that {which} got before; no model was asked." for which in repetitions} <= reasons
    unsuccessful = {id for id, call in installation.calls.items() if call["status"] != "ok"}
    wait_until(
        lambda: unsuccessful <= installation.receiver.events(), 30, "the SIEM receives every call that was not answered"
    )
    assert not (installation.calls.keys() - unsuccessful) & installation.receiver.events()


def test_every_sum_of_costs_equals_that_of_the_calls(installation: Installation, tmp_path: Path) -> None:
    total = usd(call["cost_usd"] for call in installation.calls.values())
    call_count = sum(call["status"] != "refused" and is_call(call["endpoint"]) for call in installation.calls.values())
    cost = installation.get_api("/api/cost")
    assert (Decimal(cost["total_usd"]), cost["calls"]) == (total, call_count) and total > 0
    assert usd(row["total_usd"] for row in cost["by_workload"]) == total
    for path, name in (("days?days=2", "days"), ("features", "features"), ("people", "people")):
        rows = installation.get_api(f"/api/cost/{path}")[name]
        assert (usd(row["cost_usd"] for row in rows), sum(row["calls"] for row in rows)) == (total, call_count), path
    for by in ("term", "team", "site", "deployment", "model", "tier", "basis", "feature", "person", "tag", "source"):
        book = installation.get_api(f"/api/cost/book?by={by}&lines=true")
        sums = {Decimal(book["total_usd"]), *(usd(row["cost_usd"] for row in book[n]) for n in ("sums", "lines"))}
        assert sums == {total}, by
    installation.stack.cli("cost", "export", str(tmp_path / "focus.csv"))
    rows = list(csv.DictReader((tmp_path / "focus.csv").read_text().splitlines()))
    assert usd(row["BilledCost"] for row in rows) == total


def metric_samples(installation: Installation, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Label values -> value of a metric, without zeros."""
    token = (installation.stack.home / "operator.token").read_text().strip()
    text = request(installation.stack.port, "GET", "/metrics", None, {"authorization": f"Bearer {token}"}).body.decode()
    samples: dict[tuple[str, ...], float] = defaultdict(float)
    for inner, value in re.findall(rf"^groundplan_gateway_{name}{{(.*)}} (\S+)$", text, re.MULTILINE):
        label_values = dict(re.findall(r'(\w+)="([^"]*)"', inner))
        samples[tuple(label_values[label] for label in labels)] += float(value)
    return {key: count for key, count in samples.items() if count}


def count_keys(keys: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    return {key: float(number) for key, number in Counter(keys).items()}


def test_metrics_and_spans_agree_with_the_ledger(installation: Installation) -> None:
    calls, attempts = installation.calls.values(), [each for mine in installation.attempts.values() for each in mine]
    counted = metric_samples(installation, "calls_total", "endpoint", "workload", "deployment", "status", "code")
    names = ("endpoint", "workload", "deployment", "status", "http_status")
    assert counted == count_keys(tuple(str(call[name] or "") for name in names) for call in calls)
    timed = metric_samples(installation, "call_duration_seconds_count", "workload")
    assert timed == count_keys((c["workload"],) for c in calls if c["status"] == "ok" and c["duration_ms"] is not None)
    timed = metric_samples(installation, "attempt_duration_seconds_count", "deployment")
    assert timed == count_keys((each["deployment"],) for each in attempts if each["duration_ms"] is not None)
    cost = metric_samples(installation, "cost_usd_total", "workload", "deployment")
    for key, amount in cost.items():
        mine = usd(each["cost_usd"] for each in attempts if (each["workload"], each["deployment"]) == key)
        assert abs(Decimal(amount) - mine) < Decimal("1e-12")
    assert abs(usd(cost.values()) - usd(each["cost_usd"] for each in attempts)) < Decimal("1e-11")

    def every_call_has_a_span() -> bool:
        return sum("groundplan.call.id" in attributes for _, attributes in installation.receiver.spans()) == len(
            installation.calls
        )

    wait_until(every_call_has_a_span, 30, "every call has its span")
    for _, attributes in installation.receiver.spans():
        if (id := attributes.get("groundplan.call.id")) is not None:
            call = installation.calls[id]
            in_span = (
                attributes["groundplan.status"],
                attributes["http.response.status_code"],
                attributes["groundplan.cost_usd"],
            )
            assert in_span == (call["status"], call["http_status"], float(call["cost_usd"]))
            assert attributes.get("error.type") == (call["error_code"] or None)
    attempt_spans = sum("groundplan.attempt" in attributes for _, attributes in installation.receiver.spans())
    assert attempt_spans == len(attempts)
