"""One installation for all complaints of the field: every kind of deployment behind one counting upstream, a second
upstream as the fallback, and access to the ledger.

Each test creates a key of its own with a budget of its own, and sets how the upstreams that it uses behave.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from groundplan.core.database import DATABASE
from groundplan.core.home import Home
from groundplan.runtime.postgres import EmbeddedPostgres
from tests.acceptance.stack import Answer, Stack, Upstream, request, wait_until

WORKER, SHIPPER = "groundplan.gateway.app", "groundplan.gateway.journal.shipper"
INPUT, OUTPUT = Decimal("0.000001"), Decimal("0.00001")
"""USD for a token of `one` and `two`."""
COMPANY = """kind: company
name: field
format: 1
separation: solo
caps: {people: unlimited, calls_per_day: unlimited}
owners: {business: you@company.example, product: you@company.example, architecture: you@company.example,
  engineering: you@company.example, operations: you@company.example, security: you@company.example,
  finance: you@company.example, data: you@company.example, compliance: you@company.example}
---
kind: person
name: you
email: you@company.example
---
kind: team
name: field
members: [you]
---
kind: budget
name: field
covers: team/field
limit: 1000 USD/month
---
kind: limit
name: thousand
covers: workload/limited
tokens: 1000/month
---
kind: site
name: here
type: private
jurisdiction: EU
"""
DEPLOYMENT = """---
kind: deployment
name: {name}
site: here
model: scripted-{name}
upstream_model: scripted
url: {url}
{more}
"""
SHORT = "\ntimeouts: {connect: 1s, first_token: 1s, idle: 600ms}"
"""Timeouts of the deployment that breaks. All others have the defaults, which a busy machine may need."""
PLAIN = "price: {input: 1 USD/Mtok, output: 10 USD/Mtok}\ncontext: 64k"
DEAR = """price: {input: 0.123456789 USD/Mtok, output: 10.000000001 USD/Mtok, cache_read: 0.0123456789 USD/Mtok,
  cache_write: 0.154320986 USD/Mtok, reasoning: 12.5 USD/Mtok, input_audio: 40.0000003 USD/Mtok,
  output_audio: 80.7 USD/Mtok, request: 0.000000000007 USD,
  long: {above: 10k, input: 0.25 USD/Mtok, output: 15 USD/Mtok, cache_read: 0.025 USD/Mtok}}
context: 64k"""
DEPLOYMENTS = {
    "one": PLAIN,
    "breaks": PLAIN + SHORT,
    "two": PLAIN,
    "dear": DEAR,
    "claude": "api: anthropic\n" + DEAR,
    "generated": PLAIN + "\nbilling_on_cancel: generated",
    "full": PLAIN + "\nbilling_on_cancel: full",
    "drain": PLAIN + "\nbilling_on_cancel: drain",
    "vectors": "type: embeddings\nprice: {input: 1 USD/Mtok, output: 0 USD/Mtok}\ncontext: 8k",
    "judge": "type: moderation\nprice: {input: 0 USD/Mtok, output: 0 USD/Mtok, request: 0.001 USD}",
    "sorter": "type: rerank\nprice: {input: 1 USD/Mtok, output: 0 USD/Mtok, request: 0.01 USD}",
    "painter": "type: images\nprice: {input: 0 USD/Mtok, output: 0 USD/Mtok, images: {any: 0.01 USD}}",
    "voice": "type: speech\nprice: {input: 0 USD/Mtok, output: 0 USD/Mtok, characters: 15 USD}",
    "ear": "type: transcription\naudio: 10s\nprice: {input: 0 USD/Mtok, output: 0 USD/Mtok, minute: 0.06 USD}",
}
WORKLOAD = """---
kind: workload
name: {name}
purpose: What users of gateways complain about
audience: employees
stage: pilot
sensitivity: internal
team: field
owners: {{business: you@company.example}}
limits: {{max_output: 600, deadline: 20s, attempts: 4}}
{more}
"""
WORKLOADS = {
    "assistant": "deployments: [one]\nembeddings: [vectors]\nalso: [judge, sorter, painter, voice, ear]",
    "exact": "deployments: [dear, claude]",
    "safe": "deployments: [breaks]\nfallbacks: [two]\nreliability: {on_broken_stream: resume}",
    "limited": "deployments: [one]",
    "cached": "deployments: [one]\ncache: {answers: exact, ttl: 1h, scope: person}",
    "generated": "deployments: [generated]",
    "full": "deployments: [full]",
    "drain": "deployments: [drain]",
}
WORKERS_BEHIND = """SELECT count(*) n FROM gateway
    WHERE state = 'live' AND ready AND host <> 'batch' AND policy_ack < (SELECT number FROM policy_epoch)"""
PICO = Decimal("0.000000000001")
PRICES = {
    "input": "0.123456789", "output": "10.000000001", "cache_read": "0.0123456789", "cache_write": "0.154320986",
    "reasoning": "12.5", "input_audio": "40.0000003", "output_audio": "80.7",
}  # fmt: skip
LONG = PRICES | {"input": "0.25", "output": "15", "cache_read": "0.025"}
SHAPES: dict[str, dict[str, int]] = {
    "plain": {"input": 1234, "output": 77},
    "cache_read": {"input": 34, "cache_read": 1200, "output": 77},
    "all_cached": {"cache_read": 1234, "output": 1},
    "cache_write": {"input": 34, "cache_write": 1200, "output": 77},
    "both_caches": {"input": 1, "cache_read": 701, "cache_write": 333, "output": 5},
    "reasoning": {"input": 100, "output": 7, "reasoning": 293},
    "only_reasoning": {"input": 100, "reasoning": 300},
    "audio_in": {"input": 11, "input_audio": 89, "output": 3},
    "audio_out": {"input": 11, "output": 3, "output_audio": 97},
    "everything": {
        "input": 101, "cache_read": 203, "cache_write": 307, "input_audio": 11, "output": 13, "reasoning": 17,
        "output_audio": 19,
    },
    "just_short": {"input": 1000, "cache_read": 9000, "output": 100},
    "just_long": {"input": 1001, "cache_read": 9000, "output": 100},
    "long_everything": {
        "input": 9000, "cache_read": 2000, "cache_write": 333, "input_audio": 7, "output": 13, "reasoning": 17,
    },
}  # fmt: skip
"""Tokens of a call, each once, in its finest class."""
NORMAL: dict[str, Any] = {"mode": "ok", "tokens": 20}


def declare(folder: Path, one: Upstream, two: Upstream) -> Path:
    folder.mkdir(parents=True)
    (folder / "company.yaml").write_text(COMPANY)
    texts = [
        DEPLOYMENT.format(name=name, url=(two if name == "two" else one).url, more=more)
        for name, more in DEPLOYMENTS.items()
    ]
    texts += [WORKLOAD.format(name=name, more=more) for name, more in WORKLOADS.items()]
    (folder / "rest.yaml").write_text("".join(texts).removeprefix("---\n"))
    return folder


@dataclass
class FieldInstallation:
    stack: Stack
    one: Upstream
    two: Upstream
    _connection: psycopg.Connection[dict[str, Any]] | None = None

    def control_api(self, method: str, path: str, body: Any = None) -> Any:
        token = (self.stack.home / "operator.token").read_text().strip()
        answer = request(self.stack.control_port, method, path, body, {"authorization": f"Bearer {token}"})
        assert answer.status < 300, answer.body
        return answer.body

    def key(self, workload: str = "assistant", budget: Decimal | None = None, user: str | None = None) -> str:
        """A new key that every worker knows."""
        body = {"workload": workload, "user": user, "budget": None if budget is None else f"{budget} USD/total"}
        key = str(self.control_api("POST", "/api/keys", body)["key"])
        wait_until(lambda: self.sql(WORKERS_BEHIND) == [{"n": 0}], 30, "every worker knows it")
        return key

    def post(self, key: str, path: str, body: Any, **headers: str) -> Answer:
        """Retried while the database was too slow to say whether the budget has room: that is not a final refusal."""
        sent_headers = {
            "authorization": f"Bearer {key}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        while (
            answer := request(self.stack.port, "POST", path, body, sent_headers)
        ).status == 503 and is_unreachable_code(answer.code):
            pass
        return answer

    def sql(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run a query as superuser, over a connection that is reused: connecting takes longer than the query."""
        if self._connection is not None:
            try:
                return _rows(self._connection.execute(statement.encode(), parameters))
            except psycopg.OperationalError:
                if not self._connection.broken:
                    raise
            self._connection.close()  # the server was restarted
        url = EmbeddedPostgres(Home(self.stack.home)).superuser_url(DATABASE)
        self._connection = psycopg.connect(url, autocommit=True, row_factory=dict_row, prepare_threshold=None)
        return _rows(self._connection.execute(statement.encode(), parameters))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def attempts(self, call: str, least: int = 1) -> list[dict[str, Any]]:
        """The ended attempts of a call in the ledger, once there are at least `least`."""

        def ended_attempts() -> list[dict[str, Any]] | None:
            rows = self.sql("SELECT * FROM attempt WHERE call_id = %s::uuid AND state <> 'open' ORDER BY number", call)
            return rows if len(rows) >= least else None

        rows: list[dict[str, Any]] = wait_until(ended_attempts, 60, f"{least} attempts of {call} are in the ledger")
        return rows

    def spent(self, key: str, calls: int) -> Decimal:
        """The total cost of a key's calls, once `calls` of them that reached an upstream are in the ledger."""

        def cost_once_complete() -> Decimal | None:
            ((row),) = self.sql(
                "SELECT count(DISTINCT a.call_id) calls, coalesce(sum(a.cost_usd), 0) cost FROM attempt a"
                " JOIN call c ON c.id = a.call_id JOIN api_key k ON k.id = c.key_id"
                " WHERE k.hash = sha256(%s::bytea) AND a.state <> 'open'",
                key.encode(),
            )
            return (Decimal(row["cost"]),) if row["calls"] >= calls else None  # type: ignore[return-value]

        (cost,) = wait_until(cost_once_complete, 60, f"{calls} calls of the key are in the ledger")
        return Decimal(cost)

    def all_attempts_settled(self) -> bool:
        """Whether every attempt that an upstream counted is in the ledger and has ended."""
        counted = {*self.one.counted(), *self.two.counted()}
        rows = self.sql("SELECT call_id, number FROM attempt WHERE state <> 'open'")
        return counted <= {f"{row['call_id']}-{row['number']}" for row in rows}


@contextlib.contextmanager
def run_field_installation(folder: Path, workers: int = 2) -> Iterator[FieldInstallation]:
    one, two = Upstream(folder / "one"), Upstream(folder / "two")
    stack = Stack(folder, declare(folder / "workspace", one, two), workers)
    try:
        one.start()
        two.start()
        stack.start()
        installation = FieldInstallation(stack, one, two)
        yield installation
        installation.close()
    finally:
        stack.stop()
        one.stop()
        two.stop()


def _rows(cursor: psycopg.Cursor[dict[str, Any]]) -> list[dict[str, Any]]:
    return cursor.fetchall() if cursor.description else []


def is_unreachable_code(code: str) -> bool:
    """Whether the error code says that the gateway could not find out whether there is room."""
    return code in ("budget_unreachable", "limit_unreachable")


class Client:
    """A client that keeps its connection; it reconnects if the gateway closed it."""

    def __init__(self, port: int, key: str) -> None:
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def chat(self, text: str, **more: Any) -> int:
        """The status of a chat call, read to its end; retried while the database is too slow."""
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 20, **more}
        while True:
            self._connection.request("POST", "/v1/chat/completions", json.dumps(body), self._headers)
            answer = self._connection.getresponse()
            data = answer.read()
            if answer.status != 503 or not is_unreachable_code(json.loads(data)["error"]["code"]):
                return answer.status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def openai_usage(shape: dict[str, int]) -> dict[str, Any]:
    """A shape (each token once, in its finest class) as OpenAI reports usage: with totals that include the classes."""
    input_tokens = sum(shape.get(name, 0) for name in ("input", "cache_read", "cache_write", "input_audio"))
    output_tokens = sum(shape.get(name, 0) for name in ("output", "reasoning", "output_audio"))
    details = {"cached_tokens": "cache_read", "cache_write_tokens": "cache_write", "audio_tokens": "input_audio"}
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {openai_name: shape.get(name, 0) for openai_name, name in details.items()},
        "completion_tokens_details": {
            "reasoning_tokens": shape.get("reasoning", 0),
            "audio_tokens": shape.get("output_audio", 0),
        },
    }


def price(shape: dict[str, int]) -> Decimal:
    """The expected cost: each token once, at the price of its class; all at the long-context prices beyond 10,000."""
    input_tokens = sum(shape.get(name, 0) for name in ("input", "cache_read", "cache_write", "input_audio"))
    rates = LONG if input_tokens > 10_000 else PRICES
    total = sum((count * Decimal(rates[name]) / 1_000_000 for name, count in shape.items()), Decimal(0))
    return total.quantize(PICO, ROUND_CEILING) + 7 * PICO
