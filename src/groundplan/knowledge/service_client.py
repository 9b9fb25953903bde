"""The local knowledge service seen from another process of the same HOME: embeddings for ingestion, and search.

Plain blocking HTTP to the address that the service announced; not for the request path of the gateway.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import msgspec
import numpy as np

from groundplan.core.endpoints import Endpoint, lookup
from groundplan.core.errors import GroundplanError, Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.knowledge.embedding.wire import PATH, embed_answer, embed_request
from groundplan.knowledge.model import DIMENSION, Vectors

SEARCH = "search"
EMBEDDINGS = "embeddings"
_BATCH = 64
_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 60.0


class RemoteEmbedder:
    """An `Embedder` that asks the local service, waiting up to `patience` seconds for it to come up, unless it is to
    `stop`."""

    def __init__(self, home: Home, patience: float = 60.0, stop: Callable[[], bool] = lambda: False) -> None:
        self._home = home
        self._patience = patience
        self._stop = stop

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As `Encoder.embed`. Raises `Unavailable` (knowledge_service) where the service does not answer."""
        rows = [
            row for start in range(0, len(texts), _BATCH) for row in self._embed_batch(texts[start : start + _BATCH])
        ]
        return np.stack(rows) if rows else np.zeros((0, DIMENSION), dtype=np.float32)

    def _embed_batch(self, texts: Sequence[str]) -> list[Vectors]:
        endpoint = wait_for_service(self._home, SEARCH, self._patience, self._stop)
        reply = post_json(endpoint, PATH.decode(), embed_request(texts))
        try:
            answer = embed_answer(reply, len(texts))
        except msgspec.DecodeError as error:
            raise _unavailable(f"its answer is not understood: {error}") from error
        return [np.frombuffer(vector, dtype="<f4").astype(np.float32) for vector in answer.vectors]


def wait_for_service(home: Home, name: str, patience: float, stop: Callable[[], bool] = lambda: False) -> Endpoint:
    """The announced service, after waiting for at most `patience` seconds, or until it is to `stop`; else `Unavailable`
    (knowledge_service)."""
    deadline = time.monotonic() + patience
    while (found := lookup(home, name)) is None:
        if time.monotonic() >= deadline or stop():
            raise _unavailable("it is not running")
        time.sleep(_POLL_SECONDS)
    return found


def post_json(endpoint: Endpoint, path: str, body: bytes) -> bytes:
    """The body of the answer to a POST of JSON; an error answer is raised as `Invalid` or `Unavailable`."""
    address = urlsplit(endpoint.url)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=_ANSWER_SECONDS)
    headers = {"Authorization": f"Bearer {endpoint.token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", address.path + path, body, headers)
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(str(error) or error.__class__.__name__) from error
    finally:
        connection.close()
    if response.status != 200:
        raise _error_of(response.status, data)
    return data


def _error_of(status: int, data: bytes) -> GroundplanError:
    """The error that the service told, as ours."""
    try:
        told = msgspec.json.decode(data)["error"]
        kind = Invalid if status < 500 else Unavailable
        return kind(told["message"], code=told["code"], hint=told["hint"], retry_after=told.get("retry_after"))
    except (msgspec.DecodeError, KeyError, TypeError):
        return _unavailable(f"it answered with status {status}")


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(
        f"the local knowledge service cannot be used: {reason}",
        code="knowledge_service",
        hint="See HOME/logs/search.log; `groundplan up` starts it again within a second.",
        retry_after=1.0,
    )
