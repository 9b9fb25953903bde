"""`groundplan ask`: one question to a workload through the gateway's OpenAI API, as one of its people.

The key is made for this question, carries that person's permissions and is revoked afterwards.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit
from groundplan.core.errors import Exhausted, GroundplanError, Invalid, Unavailable


def ask(
    question: str,
    workload: Annotated[str, typer.Option("--workload", help="Whom to ask.")],
    person: Annotated[str | None, typer.Option("--as", help="E-mail of the person who asks.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask, and say what the answer rests on and what it cost."""
    client = ControlClient.connect(home)
    gateway = client.get("/api/status")["addresses"]["gateway"]
    with key_for(client, workload, person) as key:
        value = ask_once(gateway, key, workload, question, max_tokens)
    emit(value, as_json, answer_text(value))


@contextmanager
def key_for(client: ControlClient, workload: str, person: str | None) -> Iterator[str]:
    """A key for one question; revoked at the end."""
    made = client.post("/api/keys", {"workload": workload, "user": person, "days": 1})
    try:
        yield str(made["key"])
    finally:
        client.delete(f"/api/keys/{made['id']}")


def ask_once(gateway: str, key: str, workload: str, question: str, max_tokens: int | None = None) -> dict[str, Any]:
    """The answer's body. A key that the gateways have not heard of yet is tried again for three seconds."""
    body: dict[str, Any] = {"model": workload, "messages": [{"role": "user", "content": question}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    deadline = time.monotonic() + 3.0
    while True:
        status, value = _post(gateway, key, body)
        if status == 200:
            return value
        if status != 401 or time.monotonic() > deadline:
            raise _error(status, value)
        time.sleep(0.05)


def _post(gateway: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    parts = urlsplit(gateway)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=180)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body).encode(), headers)
        response = connection.getresponse()
        value = json.loads(response.read())
        return response.status, value if isinstance(value, dict) else {}
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(
            f"the gateway {gateway} does not answer: {error.__class__.__name__}", code="gateway_unreachable",
            hint="`groundplan status` shows the gateway workers.",
        ) from error  # fmt: skip
    finally:
        connection.close()


def _error(status: int, value: dict[str, Any]) -> GroundplanError:
    told = value.get("error") or {}
    kind = Exhausted if status == 429 else Unavailable if status >= 500 else Invalid
    return kind(
        str(told.get("message") or f"the gateway answered {status}"),
        code=str(told.get("code") or "gateway"),
        hint=str(told.get("hint") or ""),
    )


def answer_text(value: dict[str, Any]) -> str:
    """The answer with its passages and its receipt, for people."""
    facts = value.get("groundplan") or {}
    lines = [str(value["choices"][0]["message"]["content"]).strip(), ""]
    for source in facts.get("sources") or ():
        lines.append(f"  from {source_place(source)}")
    lines.append(
        f"  {facts.get('model')} at {facts.get('site')}, {facts.get('cost_usd')} USD, call {facts.get('call_id')}"
    )
    return "\n".join(lines)


def source_place(source: dict[str, Any]) -> str:
    """`path, lines 3-7` of a cited passage."""
    return f"{source.get('path')}, lines {source.get('start_line')}-{source.get('end_line')}"
