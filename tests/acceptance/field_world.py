"""One installation for all complaints of the field: every kind of deployment behind one counting upstream, a second one
that takes over, and a look into its ledger.

Each test makes a key of its own, with a budget of its own; what an upstream does is set by the test that uses it.
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
"""Of what breaks: it is given up soon. All others have the time that a busy machine takes."""
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
BEHIND = """SELECT count(*) n FROM gateway
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
class World:
    stack: Stack
    one: Upstream
    two: Upstream
    _asking: psycopg.Connection[dict[str, Any]] | None = None

    def control_api(self, method: str, path: str, body: Any = None) -> Any:
        token = (self.stack.home / "operator.token").read_text().strip()
        answer = request(self.stack.control_port, method, path, body, {"authorization": f"Bearer {token}"})
        assert answer.status < 300, answer.body
        return answer.body

    def key(self, workload: str = "assistant", budget: Decimal | None = None, user: str | None = None) -> str:
        """A new key that every worker knows."""
        asked = {"workload": workload, "user": user, "budget": None if budget is None else f"{budget} USD/total"}
        key = str(self.control_api("POST", "/api/keys", asked)["key"])
        wait_until(lambda: self.sql(BEHIND) == [{"n": 0}], 30, "every worker knows it")
        return key

    def post(self, key: str, path: str, body: Any, **headers: str) -> Answer:
        """Asked again where the database was too slow to say whether there is room: that refuses nobody for good."""
        sent = {"authorization": f"Bearer {key}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        while (answer := request(self.stack.port, "POST", path, body, sent)).status == 503 and unreachable(answer.code):
            pass
        return answer

    def sql(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """As who sees everything, over a connection that is kept: to be let in takes longer than to look."""
        if self._asking is not None:
            try:
                return _rows(self._asking.execute(statement.encode(), parameters))
            except psycopg.OperationalError:
                if not self._asking.broken:
                    raise
            self._asking.close()  # the server was restarted
        url = EmbeddedPostgres(Home(self.stack.home)).superuser_url(DATABASE)
        self._asking = psycopg.connect(url, autocommit=True, row_factory=dict_row, prepare_threshold=None)
        return _rows(self._asking.execute(statement.encode(), parameters))

    def close(self) -> None:
        if self._asking is not None:
            self._asking.close()

    def attempts(self, call: str, ended: int = 1) -> list[dict[str, Any]]:
        """The attempts of a call as the ledger has them, once there are so many."""

        def found() -> list[dict[str, Any]] | None:
            rows = self.sql("SELECT * FROM attempt WHERE call_id = %s::uuid AND state <> 'open' ORDER BY number", call)
            return rows if len(rows) >= ended else None

        rows: list[dict[str, Any]] = wait_until(found, 60, f"{ended} attempts of {call} are in the ledger")
        return rows

    def spent(self, key: str, calls: int) -> Decimal:
        """What a key's calls cost together, once so many that reached an upstream are in the ledger."""

        def found() -> Decimal | None:
            ((row),) = self.sql(
                "SELECT count(DISTINCT a.call_id) calls, coalesce(sum(a.cost_usd), 0) cost FROM attempt a"
                " JOIN call c ON c.id = a.call_id JOIN api_key k ON k.id = c.key_id"
                " WHERE k.hash = sha256(%s::bytea) AND a.state <> 'open'",
                key.encode(),
            )
            return (Decimal(row["cost"]),) if row["calls"] >= calls else None  # type: ignore[return-value]

        (cost,) = wait_until(found, 60, f"{calls} calls of the key are in the ledger")
        return Decimal(cost)

    def settled(self) -> bool:
        """Whether every attempt that an upstream counted is in the ledger, with its end."""
        counted = {*self.one.counted(), *self.two.counted()}
        rows = self.sql("SELECT call_id, number FROM attempt WHERE state <> 'open'")
        return counted <= {f"{row['call_id']}-{row['number']}" for row in rows}


@contextlib.contextmanager
def world(folder: Path, workers: int = 2) -> Iterator[World]:
    one, two = Upstream(folder / "one"), Upstream(folder / "two")
    stack = Stack(folder, declare(folder / "workspace", one, two), workers)
    try:
        one.start()
        two.start()
        stack.start()
        made = World(stack, one, two)
        yield made
        made.close()
    finally:
        stack.stop()
        one.stop()
        two.stop()


def _rows(cursor: psycopg.Cursor[dict[str, Any]]) -> list[dict[str, Any]]:
    return cursor.fetchall() if cursor.description else []


def unreachable(code: str) -> bool:
    """Whether a refusal says that it is not known whether there is room."""
    return code in ("budget_unreachable", "limit_unreachable")


class Caller:
    """One client that keeps its connection; made anew where the gateway closed it."""

    def __init__(self, port: int, key: str) -> None:
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def chat(self, text: str, **more: Any) -> int:
        """The status of a chat call that was read to its end, and that the database was not too slow for."""
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 20, **more}
        while True:
            self._connection.request("POST", "/v1/chat/completions", json.dumps(body), self._headers)
            answer = self._connection.getresponse()
            data = answer.read()
            if answer.status != 503 or not unreachable(json.loads(data)["error"]["code"]):
                return answer.status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def reported(shape: dict[str, int]) -> dict[str, Any]:
    """A shape (each token once, in its finest class) as OpenAI reports it: totals that include their classes."""
    into = sum(shape.get(name, 0) for name in ("input", "cache_read", "cache_write", "input_audio"))
    out = sum(shape.get(name, 0) for name in ("output", "reasoning", "output_audio"))
    details = {"cached_tokens": "cache_read", "cache_write_tokens": "cache_write", "audio_tokens": "input_audio"}
    return {
        "prompt_tokens": into,
        "completion_tokens": out,
        "total_tokens": into + out,
        "prompt_tokens_details": {told: shape.get(name, 0) for told, name in details.items()},
        "completion_tokens_details": {
            "reasoning_tokens": shape.get("reasoning", 0),
            "audio_tokens": shape.get("output_audio", 0),
        },
    }


def price(shape: dict[str, int]) -> Decimal:
    """By hand: each token once, at the price of its class; the whole call at the long ones beyond 10,000."""
    into = sum(shape.get(name, 0) for name in ("input", "cache_read", "cache_write", "input_audio"))
    rates = LONG if into > 10_000 else PRICES
    total = sum((count * Decimal(rates[name]) / 1_000_000 for name, count in shape.items()), Decimal(0))
    return total.quantize(PICO, ROUND_CEILING) + 7 * PICO
