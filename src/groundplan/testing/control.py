"""One call of the control API, as a demo makes it: with the operator's token, or as somebody who signed in."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


def exchange(control: int, method: str, path: str, by: str | Mapping[str, str], body: Any = None) -> Any:
    """`by`: a token, or the headers of a session. Raises ValueError on a refusal."""
    connection = http.client.HTTPConnection("127.0.0.1", control, timeout=30)
    try:
        signed = {"authorization": f"Bearer {by}"} if isinstance(by, str) else by
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {**signed, "content-type": "application/json"})
        reply = connection.getresponse()
        answer = json.loads(reply.read() or b"null")
        if reply.status >= 400:
            raise ValueError(f"{path}: {answer}")
        return answer
    finally:
        connection.close()


def port_of_url(url: str) -> int:
    port = urlsplit(url).port
    if port is None:
        raise ValueError(f"{url} has no port")
    return port
