"""What transcribing servers answer, as each has it, and what it costs."""

from __future__ import annotations

import pytest
from tests.integration.gateway_stack import deployment

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.gateway.call.exchange import Ask
from groundplan.gateway.surfaces.interface import Codec, Malformed
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
    answered = codec(rates).answer(b'{"text":"well","usage":%b}' % usage, ask())
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
            codec(MINUTES).answer(data, ask(kind))
        return
    answered = codec(MINUTES).answer(data, ask(kind))
    assert (answered.data, answered.usage, answered.kind[:24]) == (text, used, b"content-type: text/plain")
