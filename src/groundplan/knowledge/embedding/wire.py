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
"""Of the model that are computed; 0: all."""
EARLY: Final = 3
"""What the first half of them tells of a question: its topic and its kind, at half the price."""


class EmbedRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """1 to 512 texts of any length: no part of a long one is dropped. `questions`: they are compared and not kept, so
    that the encoder of questions computes them, faster and within a cosine of .998. `places`: words of each text, as
    (first character, the one after the last), whose vectors within the text are wanted, too; then not by that encoder.
    `most` tokens of each question: of a longer one only its beginning and its end are embedded; 0: all of it. `layers`:
    after how many of the model's the vectors of questions are wanted, `EARLY` or 0: all; those compare only with each
    other.
    """

    texts: list[str]
    questions: bool = False
    places: list[list[tuple[int, int]]] = []
    most: Annotated[int, msgspec.Meta(ge=0)] = 0
    layers: Layers = 0


class EmbedAnswer(msgspec.Struct, frozen=True):
    """`vectors`: for each text, in order, 384 little-endian float32 of unit length together (`VECTOR_BYTES`; base64
    in JSON), as `memoryview(vector).cast("f")` or `numpy.frombuffer(vector, "<f4")` read them. `model` names what
    made them: vectors of different models do not compare. `tokens`: of all texts together; 0 of questions, which are
    not counted. `words`: for each text the asked words one after the other, each 384 signed bytes in the direction of
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
    """The answer about so many texts and words of them; raises `msgspec.DecodeError` for anything else."""
    answer = _answer(body)
    if len(answer.vectors) != texts or any(len(vector) != VECTOR_BYTES for vector in answer.vectors):
        raise msgspec.DecodeError(f"{texts} vectors of {VECTOR_BYTES} bytes were asked for")
    if [len(each) for each in answer.words] != [len(each) * WORD_BYTES for each in places]:
        raise msgspec.DecodeError(f"vectors of {WORD_BYTES} bytes were asked for, one for each of the places")
    return answer
