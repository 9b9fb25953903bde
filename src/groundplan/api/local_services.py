"""Calls to the local services of this `up`, which announce themselves in HOME. JSON both ways; nothing is retried."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from groundplan.core.endpoints import lookup
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home


def post_local(home: Home, name: str, path: str, body: Any, timeout: float = 30.0) -> Any:
    """The decoded response of the service `name`. Raises `Unavailable` if it does not run or responds with an
    error."""
    endpoint = lookup(home, name)
    if endpoint is None:
        raise _unavailable(name, "is not running")
    parts = urlsplit(endpoint.url)
    base = parts.path.rstrip("/").removesuffix("/v1")
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
    headers = {"Authorization": f"Bearer {endpoint.token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", base + path, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        status, payload = answer.status, answer.read()
        value = json.loads(payload) if payload else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unavailable(name, f"does not answer ({error.__class__.__name__})") from error
    finally:
        connection.close()
    if status >= 400:
        raise _unavailable(name, f"answered {status}")
    return value


def _unavailable(name: str, what: str) -> Unavailable:
    return Unavailable(
        f"the local service {name} {what}",
        code="service_unavailable",
        hint=f"See HOME/logs/{name}.log.",
        retry_after=1.0,
    )
