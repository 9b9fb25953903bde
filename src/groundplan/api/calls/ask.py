"""Sends one question to the gateway of this machine through its OpenAI API, as any client would.

Used by the demo and by `groundplan ask`; needs a key. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

from groundplan.core.errors import Exhausted, GroundplanError, Invalid, Unavailable

KEY_WAIT_SECONDS = 3.0
ANSWER_SECONDS = 180.0
LIVE_SECONDS = 5.0


def ask_once(gateway: str, key: str, workload: str, question: str, **options: Any) -> dict[str, Any]:
    """The body of the answer. Retried for three seconds where the gateways do not know the key yet."""
    body: dict[str, Any] = {"model": workload, "messages": [{"role": "user", "content": question}]}
    body.update({name: value for name, value in options.items() if value is not None})
    deadline = time.monotonic() + KEY_WAIT_SECONDS
    while True:
        status, value = post_chat(gateway, key, body)
        if status == 200:
            return value
        if status != 401 or time.monotonic() > deadline:
            raise gateway_error(status, value)
        time.sleep(0.05)


def post_chat(gateway: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """(status, body) of one chat completion. Raises `Unavailable` where nothing answers."""
    return post(f"{gateway}/chat/completions", key, body)


def post(
    url: str, key: str, body: dict[str, Any], *, person: str | None = None, seconds: float = ANSWER_SECONDS
) -> tuple[int, dict[str, Any]]:
    """(status, JSON) of one request to a gateway, on behalf of a `person` (e-mail address) where one is named. Raises
    `Unavailable` where nothing answers."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    headers |= {} if person is None else {"groundplan-on-behalf-of": person}
    return _send("POST", url, json.dumps(body).encode(), headers, seconds)


def require_answering(gateway: str) -> None:
    """Raise `Unavailable` where no worker says within five seconds that it runs: one that is stopped takes a call and
    lets it wait for minutes."""
    parts = urlsplit(gateway)
    _send("GET", f"{parts.scheme}://{parts.netloc}/livez", None, {}, LIVE_SECONDS)


def _send(
    method: str, url: str, body: bytes | None, headers: dict[str, str], seconds: float
) -> tuple[int, dict[str, Any]]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=seconds)
    try:
        connection.request(method, parts.path, body, headers)
        response = connection.getresponse()
        value = json.loads(response.read())
        return response.status, value if isinstance(value, dict) else {}
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(
            f"the gateway at {parts.netloc} does not answer: {error.__class__.__name__}", code="gateway_unreachable",
            hint="`groundplan status` shows the gateway workers.",
        ) from error  # fmt: skip
    finally:
        connection.close()


def error_body(value: dict[str, Any]) -> dict[str, Any]:
    """The error of a response. Its message repeats the hint, for clients that show only the message; removed here."""
    error: dict[str, Any] = value.get("error") or {}
    message, hint = error.get("message"), error.get("hint")
    return {**error, "message": message.removesuffix(f". {hint}")} if isinstance(message, str) and hint else error


def gateway_error(status: int, value: dict[str, Any]) -> GroundplanError:
    """The error of the gateway for a call that it did not answer, with the id of the call, if there is one."""
    error = error_body(value)
    call = f" This was call {error['call_id']}." if error.get("call_id") else ""
    kind = Exhausted if status == 429 else Unavailable if status >= 500 else Invalid
    return kind(
        str(error.get("message") or f"the gateway answered {status}"),
        code=str(error.get("code") or "gateway"),
        hint=f"{error.get('hint') or ''}{call}".strip(),
    )
