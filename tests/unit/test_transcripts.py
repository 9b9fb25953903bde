"""What transcribing servers answer, as each has it, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.audio import TranscriptionStreamEvent
from tests.integration.gateway_stack import deployment
from tests.integration.sdk_types import parse_strictly
from tests.unit.call_rig import Stream
from tests.unit.raw_upstream import STREAM_HEAD, encode_events, raw_upstream_rig
from tests.unit.test_gateway_further_attempts import EAR, send_audio_form

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.sse import DONE, EventReader
from groundplan.gateway.surfaces.codec import Codec, Malformed
from groundplan.gateway.surfaces.transcriptions import TRANSCRIPTIONS
from groundplan.gateway.surfaces.upload import Upload
from groundplan.ledger.model import Usage

MINUTES = Rates(input=0, output=0, minute=PICO // 100)
TOKENS = Rates(input=PICO, output=10 * PICO)
VOXTRAL = b'{"prompt_audio_seconds":203,"prompt_tokens":4,"total_tokens":3264,"completion_tokens":635}'


def ask(kind: str = "json") -> Ask:
    upload = Upload(frozenset())
    upload.fields["response_format"] = kind
    return Ask(
        fields={}, model="auto", messages=1, query="", stream=False, include_usage=False, cap=None, copies=1, size=0,
        upload=upload,
    )  # fmt: skip


def codec(rates: Rates) -> Codec:
    place = deployment("ear", 1, kind="transcription", audio_seconds=1800, rates=rates)
    return TRANSCRIPTIONS.codec(place)


@pytest.mark.parametrize(
    ("rates", "usage", "used"),
    [
        (MINUTES, b'{"type":"duration","seconds":9}', Usage(seconds=9)),
        (MINUTES, b'{"seconds":8.5}', Usage(seconds=9)),
        (MINUTES, VOXTRAL, Usage(input=2629, output=635, seconds=203)),
        (TOKENS, VOXTRAL, Usage(input=2629, output=635, seconds=203)),
        (MINUTES, b'{"prompt_audio_seconds":null,"prompt_tokens":4,"completion_tokens":6}', None),
        (TOKENS, b'{"prompt_tokens":100,"completion_tokens":6,"total_tokens":106}', Usage(input=100, output=6)),
        (TOKENS, b'{"type":"tokens","input_tokens":7,"output_tokens":2}', Usage(input=7, output=2)),
        (TOKENS, b'{"type":"duration","seconds":9}', None),
        (MINUTES, b'{"prompt_audio_seconds":-1}', None),
    ],
)
def test_what_was_heard_costs_what_is_reported_of_it(rates: Rates, usage: bytes, used: Usage | None) -> None:
    answered = codec(rates).parse_answer(b'{"text":"well","usage":%b}' % usage, ask())
    assert answered.usage == used


@pytest.mark.parametrize(
    ("kind", "data", "text", "used"),
    [
        ("text", b"well\n", b"well\n", None),
        ("text", b'{"text":"w\\u00e9ll","usage":{"type":"duration","seconds":9}}', "wéll".encode(), Usage(seconds=9)),
        ("text", b"{a brace}", b"{a brace}", None),
        ("text", b'{"well":1}', b'{"well":1}', None),
        ("srt", b"1\n00:00:00,000 --> 00:00:02,000\nwell\n", b"1\n00:00:00,000 --> 00:00:02,000\nwell\n", None),
        ("text", b'{"error":{"message":"busy","code":429}}', None, None),
        ("vtt", b' {"error":"out of memory"}', None, None),
        ("text", b"\xff\xfe", None, None),
    ],
)
def test_a_transcript_as_text_is_text(kind: str, data: bytes, text: bytes | None, used: Usage | None) -> None:
    """vLLM answers JSON all the same, and some tell an error with status 200."""
    if text is None:
        with pytest.raises(Malformed):
            codec(MINUTES).parse_answer(data, ask(kind))
        return
    answered = codec(MINUTES).parse_answer(data, ask(kind))
    assert (answered.data, answered.usage, answered.kind[:24]) == (text, used, b"content-type: text/plain")


def said(*told: dict[str, Any]) -> list[bytes]:
    return [json.dumps(each).encode() for each in told]


def vllm(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "trsc-1", "object": "transcription.chunk", "choices": [{"delta": {"content": text}}], **more}


USED = {"prompt_audio_seconds": 3, "prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}
MISTRAL = said(
    {"type": "transcription.language", "audio_language": "en"},
    {"type": "transcription.text.delta", "text": "Hello, "},
    {"type": "transcription.segment", "text": "Hello, there.", "start": 0.5, "end": 1.5, "speaker_id": "speaker_1"},
    {"type": "transcription.text.delta", "text": "there."},
    {"type": "transcription.done", "model": "voxtral-mini-2507", "text": "Hello, there.", "usage": USED},
)
VLLM = said(
    vllm("Hello, "), vllm("there."), vllm(""),
    {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("rates", "told", "used"),
    [
        (MINUTES, MISTRAL, Usage(input=8, output=4, seconds=3)),
        (TOKENS, MISTRAL, Usage(input=8, output=4, seconds=3)),
        (TOKENS, [*VLLM, DONE], Usage(input=8, output=4)),
        (MINUTES, [*VLLM, DONE], None),
        (MINUTES, [*VLLM[:2], DONE], None),
        (MINUTES, said({"text": "Hello,"}, {"text": "there."}), None),
        (MINUTES, said({"text": "Hello,", "segments": []}, {"text": " there."}, {"text": ""}), None),
    ],
)
def test_a_transcript_that_others_tell_otherwise_is_told_as_openai_does(
    rates: Rates, told: list[bytes], used: Usage | None
) -> None:
    relay = codec(rates).new_relay(ask())
    out = b"".join(relay.feed(each) for each in told)
    assert relay.complete and relay.usage == used and relay.output_bytes == len("Hello, there.")
    told = EventReader().feed(out + relay.closing_events(b'{"cost_usd":"0"}'))
    found = [parse_strictly(TranscriptionStreamEvent, each.decode()) for each in told]
    assert "".join(each.delta for each in found if each.type == "transcript.text.delta") == "Hello, there."
    assert (found[-1].type, found[-1].text) == ("transcript.text.done", "Hello, there.")
    speakers = [each.speaker for each in found if each.type == "transcript.text.segment"]
    assert speakers == ["speaker_1"] * (b"speaker_1" in out)


def test_a_transcript_of_silence_is_complete_and_empty() -> None:
    relay = codec(TOKENS).new_relay(ask())
    assert b"".join(relay.feed(each) for each in (*VLLM[2:], DONE)) == b""
    assert relay.complete and relay.usage == Usage(input=8, output=4)
    (last,) = EventReader().feed(relay.closing_events(b'{"cost_usd":"0"}'))
    found = parse_strictly(TranscriptionStreamEvent, last.decode())
    assert (found.type, found.text) == ("transcript.text.done", "")


@pytest.mark.parametrize("told", [[DONE], VLLM[:1], MISTRAL[:3], []])
def test_a_transcript_that_has_not_ended_is_not_complete(told: list[bytes]) -> None:
    relay = codec(MINUTES).new_relay(ask())
    for each in told:
        relay.feed(each)
    assert not relay.complete


def test_an_error_in_the_words_of_others_is_one() -> None:
    relay = codec(MINUTES).new_relay(ask())
    relay.feed(VLLM[0])
    with pytest.raises(Malformed, match="reported an error"):
        relay.feed(b'{"error":{"message":"CUDA out of memory","type":"InternalServerError","code":500}}')


async def test_a_transcript_of_a_vllm_reaches_who_asked_for_it(tmp_path: Path) -> None:
    sent = STREAM_HEAD + encode_events(*VLLM, DONE)
    async with raw_upstream_rig(tmp_path, sent, more={"one": EAR | {"rates": TOKENS, "max_output_tokens": 50}}) as rig:
        reply = await send_audio_form(rig, 100, ("stream", "true"))
        (first, second, done) = told = Stream(reply).events
        assert reply.status == 200 and [each["type"][16:] for each in told] == ["delta", "delta", "done"]
        assert first["delta"] + second["delta"] == done["text"] == "Hello, there."
        assert done["groundplan"]["cost_usd"] == "0.000048000000" and not rig.gateway.health._failures
        await rig.books()
