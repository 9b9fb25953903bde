"""What the scripted model does besides talking: it moderates, sorts documents, draws, speaks and listens.

All of it is decided by the bytes that it is sent, and its usage is exact. It fails in the ways of its JSON answers.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import msgspec

from groundplan.gateway.http import multipart
from groundplan.gateway.http.server import Request, Response
from groundplan.testing.scripted_stream import Typed, stream

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


@dataclass(frozen=True, slots=True)
class How:
    """The mode, the seconds between pieces, where a stream goes wrong, fields that its last event has instead, and the
    usage of an answer that is none."""

    mode: str
    pause: float
    at: int | None = None
    last: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


def vector(text: str, encoding: str) -> list[float] | str:
    """An embedding: 16 numbers that depend on the text only."""
    raw = hashlib.sha512(text.encode()).digest()
    numbers = [(value - 2**31) / 2**31 for value in struct.unpack(">16I", raw)]
    return base64.b64encode(struct.pack("<16f", *numbers)).decode() if encoding == "base64" else numbers


async def perform(target: bytes, request: Request, response: Response, how: How) -> None:
    """Answer one request as `how` says."""
    mode = how.mode
    if mode == "slow":
        await asyncio.sleep(2.0)
    size = 0
    if request.stream is not None:
        asked, size = await _form(request)
    else:
        asked = msgspec.json.decode(request.body)
    told = _told(target, asked, size)
    if told is not None:
        told.events[-1] |= how.last or {}
        await stream(response, told, mode, how.pause, how.at)
        return
    if target == _SPEECH:
        await _speak(asked, response, mode, how.pause)
        return
    body = _heard(asked, size) if target in _LISTENING else TASKS[target](asked)
    if how.usage is not None and body.startswith(b"{"):
        body = _encode({**msgspec.json.decode(body), "usage": how.usage})
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


def _told(target: bytes, asked: dict[str, Any], size: int) -> Typed | None:
    """The events of what is streamed; None: it is not."""
    streams = asked.get("stream") in (True, "true")
    if target == _LISTENING[0] and streams and "whisper" not in asked["model"]:
        return _hearing(asked, size)
    if target in _SHOWN and streams:
        return _showing(asked, _SHOWN[target])
    if target == _SPEECH and asked.get("stream_format") == "sse":
        return _speaking(asked)
    return None


def _drawn(asked: dict[str, Any]) -> bytes:
    """One pixel for each image, coloured by the prompt; tokens are told of models whose name says so."""
    count = int(asked.get("n") or 1)
    answer: dict[str, Any] = {"created": 0, "data": [{"b64_json": _image(asked)} for _ in range(count)]}
    if "token" in str(asked.get("model", "")):
        answer["usage"] = _image_usage(asked, 50 * count)
    return _encode(answer)


def _image(asked: dict[str, Any], shade: int = 0) -> str:
    return base64.b64encode(_pixel(zlib.crc32(str(asked.get("prompt", "")).encode()) ^ shade)).decode()


def _image_usage(asked: dict[str, Any], made: int) -> dict[str, Any]:
    words = len(str(asked.get("prompt", "")).split())
    details = {"text_tokens": words, "image_tokens": 0}
    total = words + made
    return {"input_tokens": words, "output_tokens": made, "total_tokens": total, "input_tokens_details": details}


def _showing(asked: dict[str, Any], name: str) -> Typed:
    """An image while it is made: ten tokens for each time that it is shown, and fifty for it."""
    partial = int(asked.get("partial_images") or 0)
    size, quality = asked.get("size") or "auto", asked.get("quality") or "auto"
    looks = {"background": "opaque", "created_at": 0, "output_format": "png", "quality": quality, "size": size}
    events: list[dict[str, Any]] = [
        {"type": f"{name}.partial_image", "b64_json": _image(asked, at + 1), "partial_image_index": at, **looks}
        for at in range(partial)
    ]
    usage = _image_usage(asked, 50 + 10 * partial)
    events.append({"type": f"{name}.completed", "b64_json": _image(asked), "usage": usage, **looks})
    return Typed(events)


def _pixel(color: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + color.to_bytes(4, "big")[:3])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def _sound(text: str) -> list[bytes]:
    sound = b"".join(bytes([ord(c) % 256]) * 100 for c in text)
    return [sound[at : at + 4000] for at in range(0, len(sound), 4000)]


def _speaking(asked: dict[str, Any]) -> Typed:
    """The same in events: a token for each word, and ten for each piece of sound."""
    pieces, words = _sound(asked["input"]), len(asked["input"].split())
    events: list[dict[str, Any]] = [
        {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()} for piece in pieces
    ]
    made = 10 * len(pieces)
    usage = {"input_tokens": words, "output_tokens": made, "total_tokens": words + made}
    return Typed([*events, {"type": "speech.audio.done", "usage": usage}])


async def _speak(asked: dict[str, Any], response: Response, mode: str, pause: float) -> None:
    """A hundred bytes of sound for each character, in pieces."""
    head = response.start(200, b"content-type: audio/mpeg\r\n")
    pieces = [] if mode == "empty" else _sound(asked["input"])
    for number, piece in enumerate(pieces):
        if mode == "cut" and number * 2 >= len(pieces):
            return
        response.write(piece, head)
        head = b""
        if response.is_write_paused:
            await response.drain()
        await asyncio.sleep(pause)
    response.end(head=head)


async def _form(request: Request) -> tuple[dict[str, Any], int]:
    """The fields of a form, and how many bytes its files have."""
    assert request.stream is not None
    fields: dict[str, Any] = {}
    part, size = None, 0
    async for event in multipart.form_events(request.stream, request.headers.get(b"content-type")):
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


def _hearing(fields: dict[str, Any], size: int) -> Typed:
    """The transcript while it is heard, fifty tokens a second. A model named whisper has no streams."""
    answer = msgspec.json.decode(_heard({**fields, "response_format": "json"}, size))
    words, into = answer["text"].split(" "), 50 * answer["usage"]["seconds"]
    events: list[dict[str, Any]] = [{"type": "transcript.text.delta", "delta": f"{word} "} for word in words]
    usage = {"type": "tokens", "input_tokens": into, "output_tokens": len(words), "total_tokens": into + len(words)}
    return Typed([*events, {"type": "transcript.text.done", "text": answer["text"], "usage": usage}], named=False)


_SPEECH = b"/v1/audio/speech"
_LISTENING = (b"/v1/audio/transcriptions", b"/v1/audio/translations")
_SHOWN = {b"/v1/images/generations": "image_generation", b"/v1/images/edits": "image_edit"}
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
