"""The messages of the local service's `POST /embed`, readable without numpy: texts in, raw vectors out.

For callers in the gateway, which send them themselves; `knowledge.remote.embed` is the blocking client. No embedding
is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

VECTOR_BYTES = 384 * 4
PATH = b"/embed"


class EmbedRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """1 to 512 texts of any length: no part of a long one is dropped. `questions`: they are compared and not kept, so
    that the encoder of questions computes them, faster and within a cosine of .998."""

    texts: list[str]
    questions: bool = False


class EmbedAnswer(msgspec.Struct, frozen=True):
    """`vectors`: for each text, in order, 384 little-endian float32 of unit length together (`VECTOR_BYTES`; base64
    in JSON), as `memoryview(vector).cast("f")` or `numpy.frombuffer(vector, "<f4")` read them. `model` names what
    made them: vectors of different models do not compare. `tokens`: of all texts together."""

    model: str
    vectors: list[bytes]
    tokens: int


_answer = msgspec.json.Decoder(EmbedAnswer).decode


def embed_request(texts: Sequence[str], *, questions: bool = False) -> bytes:
    """The body to send to `PATH` of the service announced as `search`."""
    return msgspec.json.encode(EmbedRequest(list(texts), questions))


def embed_answer(body: bytes, texts: int) -> EmbedAnswer:
    """The answer about so many texts; raises `msgspec.DecodeError` for anything else."""
    answer = _answer(body)
    if len(answer.vectors) != texts or any(len(vector) != VECTOR_BYTES for vector in answer.vectors):
        raise msgspec.DecodeError(f"{texts} vectors of {VECTOR_BYTES} bytes were asked for")
    return answer
