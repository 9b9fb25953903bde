"""Embeds texts by a declared deployment, through the gateway (`knowledge.gateway_client`). Decides no fallback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.knowledge import gateway_client
from groundplan.knowledge.index.model import Embedding
from groundplan.knowledge.model import Vectors

BATCH: Final = 64
_MAX_BYTES: Final = 200_000
"""Most bytes of texts in one call: well below a gateway's limit."""


class _Row(msgspec.Struct, frozen=True):
    index: int
    embedding: list[float]


class _Rows(msgspec.Struct, frozen=True):
    data: list[_Row]


_rows = msgspec.json.Decoder(_Rows)


class DeployedEmbedder:
    """An `Embedder` of one deployment. Threads may share it."""

    def __init__(self, home: Home, embedding: Embedding, seconds: float = 60.0) -> None:
        """`seconds`: the time limit of one call."""
        self._home, self._embedding, self._seconds = home, embedding, seconds

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit-length row of the declared dimension per text, in order.

        Raises `Unavailable` (index_embedding) with the reason from the gateway or the deployment.
        """
        vectors = [self._embed_batch(batch) for batch in _split_batches(texts)]
        return np.concatenate(vectors) if vectors else np.zeros((0, self._embedding.dimension), np.float32)

    def _embed_batch(self, texts: Sequence[str]) -> Vectors:
        body = {"model": self._embedding.deployment, "input": list(texts)}
        try:
            data = gateway_client.post_to_gateway(
                self._home, self._embedding.workload, "/embeddings", body, self._seconds
            )
            rows = sorted(_rows.decode(data).data, key=lambda row: row.index)
        except Unavailable as error:
            raise self._unavailable(error.message) from error
        except msgspec.DecodeError as error:
            raise self._unavailable("its answer has no vectors") from error
        wanted = self._embedding.dimension
        lengths = {len(row.embedding) for row in rows}
        if len(rows) != len(texts) or lengths != {wanted}:
            raise self._unavailable(
                f"{len(rows)} vectors of length {', '.join(map(str, sorted(lengths)))} came for {len(texts)} texts of "
                f"{wanted} dimensions"
            )
        vectors = np.array([row.embedding for row in rows], dtype=np.float32)
        sizes = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(vectors).all() or not sizes.all():
            raise self._unavailable("a vector has no direction")
        return np.asarray(vectors / sizes, dtype=np.float32)

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(
            f"{self._embedding.deployment} does not embed: {reason}",
            code="index_embedding",
            hint=f"Look at the calls of workload {self._embedding.workload}; search goes on by words meanwhile.",
            retry_after=5.0,
        )


def _split_batches(texts: Sequence[str]) -> list[list[str]]:
    """The texts in order, in batches that one call may carry."""
    parts: list[list[str]] = []
    size = 0
    for text in texts:
        own = len(text.encode())
        if not parts or len(parts[-1]) == BATCH or size + own > _MAX_BYTES:
            parts.append([])
            size = 0
        # some providers refuse an empty text
        parts[-1].append(text or " ")
        size += own
    return parts
