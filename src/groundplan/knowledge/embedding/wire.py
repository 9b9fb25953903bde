"""The messages of the local service's `POST /embed`, readable without numpy: texts in, raw vectors out.

For callers in the gateway, which send them themselves; `knowledge.service_client.RemoteEmbedder` is the blocking
client. No embedding is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

VECTOR_BYTES = 384 * 4
WORD_BYTES = 384
PATH = b"/embed"
Layers = Literal[0, 3]
"""Number of the model's layers that are computed; 0: all."""
EARLY: Final = 3
"""The first half of the layers: enough for the topic and kind of a question, at half the cost."""


class EmbedRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """1 to 512 texts of any length: no part of a long one is dropped.

    `questions`: the vectors are compared and not stored, so the encoder of questions computes them, faster and within a
    cosine of .998. `places`: words of each text, as (first character, the one after the last), whose vectors within the
    text are returned as well; that encoder is not used then. `most`: the most tokens of each question; only the
    beginning and the end of a longer one are embedded; 0: unlimited. `layers`: the number of layers after which the
    vectors of questions are taken, `EARLY` or 0 for all; vectors after `EARLY` compare only with each other.
    """

    texts: list[str]
    questions: bool = False
    places: list[list[tuple[int, int]]] = []
    most: Annotated[int, msgspec.Meta(ge=0)] = 0
    layers: Layers = 0


class EmbedAnswer(msgspec.Struct, frozen=True):
    """`vectors`: for each text, in order, a unit vector of 384 little-endian float32 (`VECTOR_BYTES`; base64 in JSON),
    as `memoryview(vector).cast("f")` or `numpy.frombuffer(vector, "<f4")` read it. `model`: the model that computed
    them; vectors of different models do not compare. `tokens`: of all texts together; 0 for questions, which are not
    counted. `words`: for each text the requested words one after the other, each 384 signed bytes in the direction of
    its vector."""

    model: str
    vectors: list[bytes]
    tokens: int
    words: list[bytes] = []


_answer = msgspec.json.Decoder(EmbedAnswer).decode


def embed_request(
    texts: Sequence[str],
    *,
    questions: bool = False,
    places: Sequence[Sequence[tuple[int, int]]] = (),
    most: int = 0,
    layers: Layers = 0,
) -> bytes:
    """The body to send to `PATH` of the service announced as `search`."""
    return msgspec.json.encode(EmbedRequest(list(texts), questions, [list(each) for each in places], most, layers))


def embed_answer(body: bytes, texts: int, places: Sequence[Sequence[tuple[int, int]]] = ()) -> EmbedAnswer:
    """Decode the answer for so many texts and their words; raises `msgspec.DecodeError` if it is anything else."""
    answer = _answer(body)
    if len(answer.vectors) != texts or any(len(vector) != VECTOR_BYTES for vector in answer.vectors):
        raise msgspec.DecodeError(f"{texts} vectors of {VECTOR_BYTES} bytes were asked for")
    if [len(each) for each in answer.words] != [len(each) * WORD_BYTES for each in places]:
        raise msgspec.DecodeError(f"vectors of {WORD_BYTES} bytes were asked for, one for each of the places")
    return answer
