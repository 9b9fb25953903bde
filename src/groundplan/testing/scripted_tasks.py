"""What the scripted model does besides talking: it moderates, sorts documents, draws, speaks and listens.

All of it is decided by the bytes that it is sent, and its usage is exact. It fails in the ways of its JSON answers.
"""

from __future__ import annotations

import asyncio
import base64
import re
import struct
import zlib
from typing import Any

import msgspec

from groundplan.gateway.http import multipart
from groundplan.gateway.http.server import Request, Response

_encode = msgspec.json.Encoder().encode
CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
BYTES_PER_SECOND = 32_000
"""Of the audio that it listens to: as 16 bit at 16 kHz."""
_BROKEN = {
    "malformed": b'{"data":[',
    "empty": b"{}",
    "error_event": b'{"error":{"message":"something went wrong"}}',
    "wrong_type": b"<html></html>",
}


async def perform(target: bytes, request: Request, response: Response, how: tuple[str, float]) -> None:
    """Answer one request in the mode and with the pause between pieces that `how` says."""
    mode, pause = how
    if mode == "slow":
        await asyncio.sleep(2.0)
    if request.stream is not None:
        fields, size = await _form(request)
        if target == _LISTENING[0] and fields.get("stream") == "true" and "whisper" not in fields["model"]:
            await _hear(fields, size, response, mode, pause)
            return
        body = _heard(fields, size) if target in _LISTENING else _drawn(fields)
    else:
        asked: dict[str, Any] = msgspec.json.decode(request.body)
        if target == _SPEECH:
            await _speak(asked, response, mode, pause)
            return
        body = TASKS[target](asked)
    if mode in _BROKEN:
        response.send(200, _BROKEN[mode])
    elif mode == "cut":
        response.write(body[: len(body) // 2], response.start(200, b"content-type: application/json\r\n"))
    elif body.startswith(b"{"):
        response.send(200, body)
    else:
        response.send(200, body, content_type=b"content-type: text/plain; charset=utf-8\r\n")


def _moderated(asked: dict[str, Any]) -> bytes:
    """Whatever has the word `attack` in it is violence."""
    given = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    texts = [each if isinstance(each, str) else str(each.get("text", "")) for each in given]
    results = []
    for text in texts:
        found = "attack" in text.lower()
        results.append(
            {
                "flagged": found,
                "categories": {name: found and name == "violence" for name in CATEGORIES},
                "category_scores": {name: 0.9 if found and name == "violence" else 0.01 for name in CATEGORIES},
                "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
            }
        )
    return _encode({"id": "modr-1", "model": asked.get("model", "scripted"), "results": results})


def _ranked(asked: dict[str, Any]) -> bytes:
    """By how many words of the query a document has."""
    wanted = set(re.findall(r"\w+", asked["query"].lower()))
    texts = [each if isinstance(each, str) else str(each.get("text", "")) for each in asked["documents"]]
    scores = [len(wanted & set(re.findall(r"\w+", text.lower()))) / max(1, len(wanted)) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: -scores[index])[: asked.get("top_n") or len(texts)]
    tokens = sum(len(text.split()) for text in texts) + len(asked["query"].split())
    results: list[dict[str, Any]] = [{"index": index, "relevance_score": scores[index]} for index in order]
    if asked.get("return_documents"):
        results = [{**each, "document": {"text": texts[each["index"]]}} for each in results]
    return _encode({"id": "rr-1", "model": asked["model"], "results": results, "usage": {"total_tokens": tokens}})


def _drawn(asked: dict[str, Any]) -> bytes:
    """One pixel for each image, coloured by the prompt; tokens are told of models whose name says so."""
    prompt = str(asked.get("prompt", ""))
    image = base64.b64encode(_pixel(zlib.crc32(prompt.encode()))).decode()
    count = int(asked.get("n") or 1)
    answer: dict[str, Any] = {"created": 0, "data": [{"b64_json": image} for _ in range(count)]}
    if "token" in str(asked.get("model", "")):
        words, made = len(prompt.split()), 50 * count
        details = {"text_tokens": words, "image_tokens": 0}
        answer["usage"] = {
            "input_tokens": words,
            "output_tokens": made,
            "total_tokens": words + made,
            "input_tokens_details": details,
        }
    return _encode(answer)


def _pixel(color: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + color.to_bytes(4, "big")[:3])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


async def _speak(asked: dict[str, Any], response: Response, mode: str, pause: float) -> None:
    """A hundred bytes of sound for each character, in pieces."""
    sound = b"".join(bytes([ord(c) % 256]) * 100 for c in asked["input"])
    head = response.start(200, b"content-type: audio/mpeg\r\n")
    pieces = [sound[at : at + 4000] for at in range(0, len(sound), 4000)]
    if mode == "empty":
        pieces = []
    for number, piece in enumerate(pieces):
        if mode == "cut" and number * 2 >= len(pieces):
            return
        response.write(piece, head)
        head = b""
        if response.full:
            await response.drained()
        await asyncio.sleep(pause)
    response.end(head=head)


async def _form(request: Request) -> tuple[dict[str, Any], int]:
    """The fields of a form, and how many bytes its files have."""
    assert request.stream is not None
    fields: dict[str, Any] = {}
    part, size = None, 0
    async for event in multipart.events(request.stream, request.headers.get(b"content-type")):
        if isinstance(event, multipart.Part):
            part = event
        elif isinstance(event, multipart.Data) and part is not None:
            if part.filename is not None:
                size += len(event.data)
            else:
                fields[part.name] = fields.get(part.name, "") + event.data.decode()
    return fields, size


def _heard(fields: dict[str, Any], size: int) -> bytes:
    """What it says is how long it was."""
    seconds = -(-size // BYTES_PER_SECOND)
    text = f"I heard {size} bytes."
    kind = fields.get("response_format", "json")
    if kind in ("text", "srt", "vtt"):
        return text.encode()
    answer: dict[str, Any] = {"text": text, "usage": {"type": "duration", "seconds": seconds}}
    if kind == "verbose_json":
        answer |= {"task": "transcribe", "language": "english", "duration": float(seconds), "segments": [], "words": []}
    return _encode(answer)


async def _hear(fields: dict[str, Any], size: int, response: Response, mode: str, pause: float) -> None:
    """The transcript while it is heard, fifty tokens a second. A model named whisper has no streams."""
    answer = msgspec.json.decode(_heard({**fields, "response_format": "json"}, size))
    words, into = answer["text"].split(" "), 50 * answer["usage"]["seconds"]
    events: list[dict[str, Any]] = [{"type": "transcript.text.delta", "delta": f"{word} "} for word in words]
    usage = {"type": "tokens", "input_tokens": into, "output_tokens": len(words), "total_tokens": into + len(words)}
    events.append({"type": "transcript.text.done", "text": answer["text"], "usage": usage})
    head = response.start(200, b"content-type: text/event-stream\r\n")
    for number, told in enumerate(events):
        if mode == "cut" and number * 2 >= len(events):
            return
        response.write(b"data: %b\n\n" % _encode(told), head)
        head = b""
        await asyncio.sleep(pause)
    response.end()


_SPEECH = b"/v1/audio/speech"
_LISTENING = (b"/v1/audio/transcriptions", b"/v1/audio/translations")
TASKS = {
    b"/v1/moderations": _moderated,
    b"/v1/rerank": _ranked,
    b"/v1/images/generations": _drawn,
    b"/v1/images/edits": _drawn,
    b"/v1/images/variations": _drawn,
    _SPEECH: _drawn,
    **dict.fromkeys(_LISTENING, _drawn),
}
"""Paths; those that take forms, and speech, are answered otherwise."""
