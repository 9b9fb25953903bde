"""Vectors of a declared deployment, asked of the gateway like any other call: metered, budgeted, audited, and refused.

The gateway's address is what `up` announces; the key is the control process's own for the index, in a file of HOME that
only this user reads. Blocking, for ingestion and the search service. Makes no key and decides no fallback.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import numpy as np

from groundplan.core.errors import Unavailable
from groundplan.core.home import Home, write_atomically
from groundplan.knowledge.index.model import Embedding
from groundplan.knowledge.model import Vectors

BATCH: Final = 64
_MOST_BYTES: Final = 200_000
"""Of texts in one call: well below what a gateway takes."""


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The gateway key of the index, its id, and the workload that it is for."""

    id: str
    workload: str
    secret: str

    def write(self, home: Home) -> None:
        """Keep it for the processes of this HOME."""
        body = {"id": self.id, "workload": self.workload, "secret": self.secret}
        write_atomically(key_file(home), json.dumps(body).encode())


def key_file(home: Home) -> Path:
    """Where the key is."""
    return home.keys / "index-service.json"


def read_key(home: Home) -> ServiceKey | None:
    """The key that was made last; None where there is none yet."""
    try:
        body = json.loads(key_file(home).read_bytes())
        return ServiceKey(str(body["id"]), str(body["workload"]), str(body["secret"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Row(msgspec.Struct, frozen=True):
    index: int
    embedding: list[float]


class _Rows(msgspec.Struct, frozen=True):
    data: list[_Row]


_rows = msgspec.json.Decoder(_Rows)


class Deployed:
    """An `Embedder` of one deployment. Threads may share it."""

    def __init__(self, home: Home, embedding: Embedding, seconds: float = 60.0) -> None:
        """`seconds`: for one call."""
        self._home, self._embedding, self._seconds = home, embedding, seconds

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit-length row of the declared dimension per text, in order.

        Raises `Unavailable` (index_embedding) with what the gateway or the deployment said.
        """
        done = [self._some(part) for part in _parts(texts)]
        return np.concatenate(done) if done else np.zeros((0, self._embedding.dimension), np.float32)

    def _some(self, texts: Sequence[str]) -> Vectors:
        try:
            rows = sorted(_rows.decode(self._asked(texts)).data, key=lambda row: row.index)
        except msgspec.DecodeError as error:
            raise self._away("its answer has no vectors") from error
        wanted = self._embedding.dimension
        lengths = {len(row.embedding) for row in rows}
        if len(rows) != len(texts) or lengths != {wanted}:
            raise self._away(
                f"{len(rows)} vectors of length {', '.join(map(str, sorted(lengths)))} came for {len(texts)} texts of "
                f"{wanted} dimensions"
            )
        vectors = np.array([row.embedding for row in rows], dtype=np.float32)
        sizes = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(vectors).all() or not sizes.all():
            raise self._away("a vector has no direction")
        return np.asarray(vectors / sizes, dtype=np.float32)

    def _asked(self, texts: Sequence[str]) -> bytes:
        key, gateway = read_key(self._home), _gateway(self._home)
        if key is None or key.workload != self._embedding.workload:
            raise self._away("the index has no key for its workload yet")
        if gateway is None:
            raise self._away("no gateway runs")
        parts = urlsplit(gateway)
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=self._seconds)
        headers = {"Authorization": f"Bearer {key.secret}", "Content-Type": "application/json"}
        body = msgspec.json.encode({"model": self._embedding.deployment, "input": list(texts)})
        try:
            connection.request("POST", f"{parts.path}/embeddings", body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._away(f"the gateway does not answer ({error.__class__.__name__})") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise self._away(_told(answer.status, data))
        return data

    def _away(self, reason: str) -> Unavailable:
        return Unavailable(
            f"{self._embedding.deployment} does not embed: {reason}",
            code="index_embedding",
            hint=f"Look at the calls of workload {self._embedding.workload}; search goes on by words meanwhile.",
            retry_after=5.0,
        )


def _parts(texts: Sequence[str]) -> list[list[str]]:
    """In order, so many together as one call may carry."""
    parts: list[list[str]] = []
    size = 0
    for text in texts:
        own = len(text.encode())
        if not parts or len(parts[-1]) == BATCH or size + own > _MOST_BYTES:
            parts.append([])
            size = 0
        # an empty text is refused by some providers, and means nothing anyway
        parts[-1].append(text or " ")
        size += own
    return parts


def _gateway(home: Home) -> str | None:
    try:
        return str(json.loads((home.run / "up.json").read_bytes())["gateway"]).rstrip("/")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _told(status: int, data: bytes) -> str:
    try:
        told: Any = json.loads(data)["error"]
        return f"{told['message']} ({told.get('code') or status})"
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {status}"
