"""The scripted model's other endpoints: moderation, rerank, images, speech and transcription.

Answers depend only on the bytes of the request, and usage is exact. They fail in the same ways as its JSON answers.
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
from groundplan.testing.scripted_stream import TypedEvents, stream

_encode = msgspec.json.Encoder().encode
CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
BYTES_PER_SECOND = 32_000
"""Rate at which audio is counted: 16 bit at 16 kHz."""
_BROKEN_BODIES = {
    "malformed": b'{"data":[',
    "empty": b"{}",
    "error_event": b'{"error":{"message":"something went wrong"}}',
    "wrong_type": b"<html></html>",
}


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How to answer: the mode, `pause` seconds between pieces, the event `at` which a stream fails, fields that replace
    those of the `last` event, and a `usage` that replaces the answer's."""

    mode: str
    pause: float
    at: int | None = None
    last: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


def embedding(text: str, encoding: str) -> list[float] | str:
    """An embedding of 16 numbers that depend on the text only."""
    raw = hashlib.sha512(text.encode()).digest()
    numbers = [(value - 2**31) / 2**31 for value in struct.unpack(">16I", raw)]
    return base64.b64encode(struct.pack("<16f", *numbers)).decode() if encoding == "base64" else numbers


async def answer_task(target: bytes, request: Request, response: Response, options: TaskOptions) -> None:
    """Answer one request as `how` says."""
    mode = options.mode
    if mode == "slow":
        await asyncio.sleep(2.0)
    size = 0
    if request.stream is not None:
        request_body, size = await _form(request)
    else:
        request_body = msgspec.json.decode(request.body)
    events = _event_stream(target, request_body, size)
    if events is not None:
        events.events[-1] |= options.last or {}
        await stream(response, events, mode, options.pause, options.at)
        return
    if target == _SPEECH:
        await _send_speech(request_body, response, mode, options.pause)
        return
    body = _transcript(request_body, size) if target in _TRANSCRIPTION_PATHS else TASKS[target](request_body)
    if options.usage is not None and body.startswith(b"{"):
        body = _encode({**msgspec.json.decode(body), "usage": options.usage})
    if mode in _BROKEN_BODIES:
        response.send(200, _BROKEN_BODIES[mode])
    elif mode == "cut":
        response.write(body[: len(body) // 2], response.start(200, b"content-type: application/json\r\n"))
    elif body.startswith(b"{"):
        response.send(200, body)
    else:
        response.send(200, body, content_type=b"content-type: text/plain; charset=utf-8\r\n")


def _moderation(request_body: dict[str, Any]) -> bytes:
    """Flag texts with the word `attack` as violence."""
    given = request_body["input"] if isinstance(request_body["input"], list) else [request_body["input"]]
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
    return _encode({"id": "modr-1", "model": request_body.get("model", "scripted"), "results": results})


def _rerank(request_body: dict[str, Any]) -> bytes:
    """Rank documents by how many words of the query they contain."""
    wanted = set(re.findall(r"\w+", request_body["query"].lower()))
    texts = [each if isinstance(each, str) else str(each.get("text", "")) for each in request_body["documents"]]
    scores = [len(wanted & set(re.findall(r"\w+", text.lower()))) / max(1, len(wanted)) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: -scores[index])[: request_body.get("top_n") or len(texts)]
    tokens = sum(len(text.split()) for text in texts) + len(request_body["query"].split())
    results: list[dict[str, Any]] = [{"index": index, "relevance_score": scores[index]} for index in order]
    if request_body.get("return_documents"):
        results = [{**each, "document": {"text": texts[each["index"]]}} for each in results]
    return _encode(
        {"id": "rr-1", "model": request_body["model"], "results": results, "usage": {"total_tokens": tokens}}
    )


def _event_stream(target: bytes, request_body: dict[str, Any], size: int) -> TypedEvents | None:
    """The events of a streamed answer; None where it is not streamed."""
    streams = request_body.get("stream") in (True, "true")
    if target == _TRANSCRIPTION_PATHS[0] and streams and "whisper" not in request_body["model"]:
        return _transcript_stream(request_body, size)
    if target in _IMAGE_STREAMS and streams:
        return _image_stream(request_body, _IMAGE_STREAMS[target])
    if target == _SPEECH and request_body.get("stream_format") == "sse":
        return _speech_stream(request_body)
    return None


def _images(request_body: dict[str, Any]) -> bytes:
    """One pixel for each image, coloured by the prompt; usage in tokens is reported for models with `token` in their
    name."""
    count = int(request_body.get("n") or 1)
    answer: dict[str, Any] = {"created": 0, "data": [{"b64_json": _image(request_body)} for _ in range(count)]}
    if "token" in str(request_body.get("model", "")):
        answer["usage"] = _image_usage(request_body, 50 * count)
    return _encode(answer)


def _image(request_body: dict[str, Any], shade: int = 0) -> str:
    return base64.b64encode(_pixel(zlib.crc32(str(request_body.get("prompt", "")).encode()) ^ shade)).decode()


def _image_usage(request_body: dict[str, Any], made: int) -> dict[str, Any]:
    words = len(str(request_body.get("prompt", "")).split())
    details = {"text_tokens": words, "image_tokens": 0}
    total = words + made
    return {"input_tokens": words, "output_tokens": made, "total_tokens": total, "input_tokens_details": details}


def _image_stream(request_body: dict[str, Any], name: str) -> TypedEvents:
    """The stream of an image: ten tokens for each partial image and fifty for the final one."""
    partial = int(request_body.get("partial_images") or 0)
    size, quality = request_body.get("size") or "auto", request_body.get("quality") or "auto"
    looks = {"background": "opaque", "created_at": 0, "output_format": "png", "quality": quality, "size": size}
    events: list[dict[str, Any]] = [
        {"type": f"{name}.partial_image", "b64_json": _image(request_body, at + 1), "partial_image_index": at, **looks}
        for at in range(partial)
    ]
    usage = _image_usage(request_body, 50 + 10 * partial)
    events.append({"type": f"{name}.completed", "b64_json": _image(request_body), "usage": usage, **looks})
    return TypedEvents(events)


def _pixel(color: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + color.to_bytes(4, "big")[:3])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def _sound(text: str) -> list[bytes]:
    sound = b"".join(bytes([ord(c) % 256]) * 100 for c in text)
    return [sound[at : at + 4000] for at in range(0, len(sound), 4000)]


def _speech_stream(request_body: dict[str, Any]) -> TypedEvents:
    """Speech as events, with a token for each word and ten for each piece of sound."""
    pieces, words = _sound(request_body["input"]), len(request_body["input"].split())
    events: list[dict[str, Any]] = [
        {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()} for piece in pieces
    ]
    made = 10 * len(pieces)
    usage = {"input_tokens": words, "output_tokens": made, "total_tokens": words + made}
    return TypedEvents([*events, {"type": "speech.audio.done", "usage": usage}])


async def _send_speech(request_body: dict[str, Any], response: Response, mode: str, pause: float) -> None:
    """Send a hundred bytes of sound for each character, in pieces."""
    head = response.start(200, b"content-type: audio/mpeg\r\n")
    pieces = [] if mode == "empty" else _sound(request_body["input"])
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
    """Read a form; return its fields and the total size of its files in bytes."""
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


def _transcript(fields: dict[str, Any], size: int) -> bytes:
    """A transcript that says how long the audio was."""
    seconds = -(-size // BYTES_PER_SECOND)
    text = f"I heard {size} bytes."
    kind = fields.get("response_format", "json")
    if kind in ("text", "srt", "vtt"):
        return text.encode()
    answer: dict[str, Any] = {"text": text, "usage": {"type": "duration", "seconds": seconds}}
    if kind == "verbose_json":
        answer |= {"task": "transcribe", "language": "english", "duration": float(seconds), "segments": [], "words": []}
    return _encode(answer)


def _transcript_stream(fields: dict[str, Any], size: int) -> TypedEvents:
    """The stream of a transcript, with fifty tokens a second. Models named whisper do not stream."""
    answer = msgspec.json.decode(_transcript({**fields, "response_format": "json"}, size))
    words, into = answer["text"].split(" "), 50 * answer["usage"]["seconds"]
    events: list[dict[str, Any]] = [{"type": "transcript.text.delta", "delta": f"{word} "} for word in words]
    usage = {"type": "tokens", "input_tokens": into, "output_tokens": len(words), "total_tokens": into + len(words)}
    return TypedEvents([*events, {"type": "transcript.text.done", "text": answer["text"], "usage": usage}], named=False)


_SPEECH = b"/v1/audio/speech"
_TRANSCRIPTION_PATHS = (b"/v1/audio/transcriptions", b"/v1/audio/translations")
_IMAGE_STREAMS = {b"/v1/images/generations": "image_generation", b"/v1/images/edits": "image_edit"}
TASKS = {
    b"/v1/moderations": _moderation,
    b"/v1/rerank": _rerank,
    b"/v1/images/generations": _images,
    b"/v1/images/edits": _images,
    b"/v1/images/variations": _images,
    _SPEECH: _images,
    **dict.fromkeys(_TRANSCRIPTION_PATHS, _images),
}
"""Path -> function that makes its body; speech and transcription have their own code in `answer_task`."""
