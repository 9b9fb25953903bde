"""Texts around sound and images: transcripts with segments, subtitles, revised prompts, forms, and what is demanded."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from groundplan.blueprint.model import Guardrails
from groundplan.core.errors import Invalid
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.guard import media
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces import image_forms
from groundplan.gateway.surfaces.moderations import MODERATIONS
from groundplan.gateway.surfaces.transcriptions import SAMPLES
from groundplan.gateway.surfaces.upload import MAX_KEPT_BYTES, Upload
from groundplan.governance.guardrails.guard import Findings, Guard, checked_answer, checked_text
from groundplan.governance.guardrails.masks import Masks
from groundplan.governance.guardrails.window import Refused

EMAIL, SECRET = "ana@acme.example", "sk-" + "proj-" + "abcdefghijklmnopqrstuvwx"
GUARD = Guard.of(Guardrails(input={"personal_data": "mask"}, output={"personal_data": "mask", "secrets": "block"}))


def out(text: str) -> str:
    return checked_answer(GUARD, text, Masks(), Findings())


def into(text: str) -> str:
    return checked_text(GUARD, text, Masks(), Findings())


def ask(**more: Any) -> Ask:
    settings: dict[str, Any] = {"fields": {}, "model": "m", "messages": 1, "query": "", "stream": False, **more}
    return Ask(include_usage=False, cap=None, copies=1, size=0, **settings)


def test_a_transcript_is_checked_with_its_segments_and_loses_the_times_of_its_words() -> None:
    plain = {"text": "hello there", "segments": [{"id": 0, "text": "hello there"}], "words": [{"word": "hello"}]}
    assert media.check_transcript(plain, out) is plain
    segments = [{"id": 0, "text": "write to"}, {"id": 1, "text": f" {EMAIL} soon"}]
    made = media.check_transcript(
        {"text": f"write to {EMAIL} soon", "segments": segments, "words": [{"word": EMAIL}]}, out
    )
    assert EMAIL not in str(made) and "words" not in made and made["segments"][0] == segments[0]
    spelled = {"logprobs": [{"token": EMAIL, "bytes": [97], "logprob": -0.1}]}
    made = media.check_transcript({"text": f"write to {EMAIL} soon", **spelled}, out)
    assert EMAIL not in str(made) and "logprobs" not in made
    assert media.check_transcript(kept := {"text": "hello", "logprobs": [{"token": "hello"}]}, out) is kept
    made = media.check_transcript({"text": EMAIL, "segments": [{"id": 0, "text": EMAIL, "tokens": [5, 6]}]}, out)
    assert made["segments"] == [{"id": 0, "text": "[email]", "tokens": []}]
    across = [{"text": "write to ana@ac"}, {"text": "me.example soon"}]
    made = media.check_transcript({"text": f"write to {EMAIL} soon", "segments": across}, out)
    assert "segments" not in made and EMAIL not in made["text"]
    with pytest.raises(Refused):
        media.check_transcript({"text": f"use {SECRET}"}, out)


WORDS = [{"word": "write"}, {"word": EMAIL, "speaker_id": "S1"}]


@pytest.mark.parametrize(
    "more",
    [
        {"segments": [{"id": 0, "text": f"write to {EMAIL} soon", "tokens": [5], "words": WORDS}]},
        {"speaker_segments": [{"id": 1, "speaker_id": "S1", "text": f"write to {EMAIL} soon", "words": WORDS}]},
        {"speaker_segments": [{"id": 1, "text": "write to ana@ac"}, {"id": 2, "text": "me.example soon"}]},
        {"segments": [{"text": "call me: 4111 1111", "speaker": "A"}, {"text": "1111 1111 yes", "speaker": "A"}]},
        {"diarization": {"utterances": [{"transcript": f"to {EMAIL}", "words": WORDS}]}},
    ],
)
def test_what_a_transcript_says_again_is_checked_wherever_it_stands(more: dict[str, Any]) -> None:
    """As speaches, Fireworks and Together tell it."""
    told = {"duration": 3.5, "language": "english", "x_groq": {"id": "req_1"}}
    made = media.check_transcript({"text": f"write to {EMAIL} soon, 4111 1111 1111 1111", **told, **more}, out)
    said = str(made)
    assert not any(each in said for each in (EMAIL, "ana@ac", "1111 1111", "'tokens': [5]", "word"))
    assert told.items() <= made.items() and ("segments" not in more or len(made.get("segments", [])) in (0, 1))


def test_subtitles_are_checked_also_across_their_times() -> None:
    times = "1\n00:00:00,000 --> 00:00:02,000\nhello there\n"
    assert media.check_plain_transcript(times, out) == times
    assert EMAIL not in media.check_plain_transcript(times.replace("hello there", f"write to {EMAIL}"), out)
    card = "1\n00:00:00,000 --> 00:00:02,000\nmy card is 4111 1111\n\n2\n00:00:02,000 --> 00:00:04,000\n1111 1111 yes\n"
    assert "4111 1111" not in media.check_plain_transcript(card, out) and "yes" in media.check_plain_transcript(
        card, out
    )


def test_a_revised_prompt_is_text() -> None:
    body = {"created": 1, "data": [{"b64_json": "AA"}, {"revised_prompt": "a house"}]}
    assert media.check_revised_prompts(body, out) is body
    made = media.check_revised_prompts({"data": [{"b64_json": "AA", "revised_prompt": f"for {EMAIL}"}]}, out)
    assert EMAIL not in str(made) and made["data"][0]["b64_json"] == "AA"


@pytest.mark.parametrize(
    ("endpoint", "asked", "rules", "kinds"),
    [
        ("images.generations", {}, {"output": {"secrets": "block"}}, ["image"]),
        ("images.generations", {}, {"input": {"secrets": "block"}}, []),
        ("images.edits", {"images": 1}, {"input": {"secrets": "block"}}, ["image"]),
        ("images.variations", {}, {"grounded": True}, ["image"]),
        ("audio.transcriptions", {}, {"input": {"secrets": "block"}}, ["audio"]),
        ("audio.translations", {}, {"output": {"secrets": "block"}}, []),
        ("audio.speech", {}, {"output": {"secrets": "block"}}, []),
        ("audio.speech", {}, {"schema": "{}"}, ["audio"]),
        ("chat.completions", {"images": 2}, {"deny_input": ["x"]}, ["image"]),
        ("chat.completions", {"audio_kib": 2}, {"max_input_bytes": 10}, ["audio"]),
        ("chat.completions", {"needs": frozenset({"file"})}, {"input": {"secrets": "block"}}, ["file"]),
        ("chat.completions", {"images": 2}, {"output": {"secrets": "block"}}, []),
        ("embeddings", {}, {"input": {"secrets": "block"}, "output": {"secrets": "block"}}, []),
        ("embeddings", {"parsed": ["a", [7]]}, {"input": {"secrets": "block"}}, ["tokens"]),
        ("completions", {"parsed": [[7, 8]]}, {"presidio_input": "block"}, ["tokens"]),
        ("completions", {"parsed": ["a"]}, {"input": {"secrets": "block"}}, []),
        ("completions", {"fields": {"prompt_embeds": b'"AA"'}}, {"input": {"secrets": "block"}}, ["tokens"]),
    ],
)
def test_what_no_check_can_look_at_is_named(
    endpoint: str, asked: dict[str, Any], rules: dict[str, Any], kinds: list[str]
) -> None:
    found = media.unchecked_refusals(Guard.of(Guardrails(**rules)), ask(**asked), endpoint)
    assert [each.kind for each in found] == kinds
    declared = Guardrails(**rules, unchecked=["audio", "image", "file", "tokens"])
    assert media.unchecked_refusals(Guard.of(declared), ask(**asked), endpoint) == []
    assert media.unchecked_refusals(Guard.of(Guardrails()), ask(**asked), endpoint) == []


def test_an_image_that_is_to_be_moderated_is_one() -> None:
    parts = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    request = Request(0.0, body=msgspec.json.encode({"input": parts}))
    found = media.unchecked_refusals(GUARD, MODERATIONS.read(request), MODERATIONS.name)
    assert [each.kind for each in found] == ["image"]


class Sent:
    """A body on its way."""

    def __init__(self, body: bytes) -> None:
        self._rest = body

    async def read(self) -> bytes:
        data, self._rest = self._rest[:60_000], self._rest[60_000:]
        return data


def form(*parts: tuple[str, str | None, bytes], whole: bool = True) -> Request:
    """A request with a form: (field, name of a file, value). `whole`: it has an end."""
    body = b"".join(
        b'--cut\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (name.encode(), b"" if file is None else b'; filename="%b"' % file.encode(), value)
        for name, file, value in parts
    )

    request = Request(0.0)
    request.method, request.stream = b"POST", Sent(body + b"--cut--\r\n" * whole)  # type: ignore[assignment]
    request.headers = {b"content-type": b"multipart/form-data; boundary=cut"}
    return request


async def test_texts_of_a_form_are_masked_and_none_may_come_after_its_large_files() -> None:
    upload = Upload(frozenset({"model"}))
    await upload.begin(form(("prompt", None, f"for {EMAIL}".encode()), ("file", "a.wav", b"x"), ("model", None, b"m")))
    media.check_form_texts(upload, into)
    sent = b"".join([piece async for piece in upload.pieces("up", b"b", {})])
    assert EMAIL.encode() not in sent and b"for <email_1>" in sent and sent.count(b'name="prompt"') == 1
    large = (("file", "a.wav", b"x" * (MAX_KEPT_BYTES + 1)), ("prompt", None, f"for {EMAIL}".encode()))
    late = Upload(frozenset({"model"}))
    await late.begin(form(*large))
    media.check_form_texts(late, into)
    with pytest.raises(Invalid) as caught:
        [piece async for piece in late.pieces("up", b"b", {})]
    assert caught.value.code == "field_after_file"


async def test_a_field_that_is_there_several_times_is_looked_at_each_time() -> None:
    """Put together, one value hid in the other, and all of them became the same."""
    card, upload = "4111 1111 1111 1111", Upload(frozenset({"model"}))
    said = [("keywords[]", None, each.encode()) for each in (card, "9", f"for {EMAIL}", "é")]
    await upload.begin(form(*said, ("file", "a.wav", b"x")))
    assert upload.texts == [card, "9", f"for {EMAIL}", "é"]
    media.check_form_texts(upload, into)
    sent = b"".join([piece async for piece in upload.pieces("up", b"b", {})]).decode()
    assert card not in sent and EMAIL not in sent and sent.count('name="keywords[]"') == 4
    assert (
        sent.count("\r\n\r\n9\r\n") == 1 and "é" in sent and upload.texts[1] == "9" and EMAIL not in str(upload.texts)
    )


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", ["N", "Model", "N[]", "Image", "URL", "Image_URL"])
async def test_a_field_of_a_form_is_written_in_small_letters(name: str, large: bool) -> None:
    """To parsers of forms in .NET, and to many in Go, `N` is `n`."""
    upload = Upload(frozenset({"model", "n", "image_url"}), (1, frozenset({"image"})))
    file, field = ("image", "a.png", b"x" * (MAX_KEPT_BYTES + 1 if large else 1)), (name, None, b"10")
    with pytest.raises(Invalid, match=f"'{name.removesuffix('[]')}' is ") as caught:
        await upload.begin(form(file, field))
        [piece async for piece in upload.pieces("up", b"b", {})]
    assert caught.value.code == "duplicate_key" and upload.whole is not large


@pytest.mark.parametrize("name", ["images", "image_urls[]", "ref_images[0]", "svg[model]"])
async def test_what_is_refused_before_a_large_image_is_refused_behind_it(name: str) -> None:
    upload = Upload(image_forms._DECISIVE_FIELDS, (1, frozenset({"image"})))
    await upload.begin(form(("image", "a.png", b"x" * (MAX_KEPT_BYTES + 1)), (name, None, b"http://127.0.0.1/")))
    with pytest.raises(Invalid) as caught:
        [piece async for piece in upload.pieces("up", b"b", {})]
    assert caught.value.code == "field_after_file"


@pytest.mark.parametrize(
    ("name", "value"), [("n", b"10"), ("prompt", f"for {EMAIL}".encode()), ("url", b"http://127.0.0.1/a.wav")]
)
async def test_a_field_that_the_edge_of_what_is_kept_cuts_is_read_whole(name: str, value: bytes) -> None:
    """Its beginning was kept and its end passed on, so that it was neither read, nor checked, nor refused."""
    upload = Upload(frozenset({"model", "n"}))
    parts = (
        ("model", None, b"m"),
        ("file", "a.wav", b"x" * (MAX_KEPT_BYTES - 1)),
        (name, None, value),
        ("b", None, b"2"),
    )
    if name == "url":
        with pytest.raises(Invalid, match="url is not supported"):
            await upload.begin(form(*parts))
        return
    await upload.begin(form(*parts))
    assert upload.fields[name] == value.decode() and "b" not in upload.fields and not upload.whole
    media.check_form_texts(upload, into)
    upload.texts_first = False
    sent = b"".join([piece async for piece in upload.pieces("up", b"b", {})])
    assert EMAIL.encode() not in sent and sent.count(b'name="%b"' % name.encode()) == 1 and b'name="b"' in sent


@pytest.mark.parametrize("first", [True, False])
async def test_samples_of_speakers_are_sound_and_may_be_as_large(first: bool) -> None:
    """OpenAI takes four of ten seconds each, as texts; all fields together have less room."""
    sample, upload = b"data:audio/wav;base64," + b"A" * 700_000, Upload(frozenset({"model"}), samples=SAMPLES)
    samples = tuple(("known_speaker_references[]", None, sample) for _ in range(4))
    file, model = ("file", "a.wav", b"x" * (MAX_KEPT_BYTES + 1)), ("model", None, b"m")
    await upload.begin(form(*((model, *samples, file) if first else (model, file, *samples))))
    media.check_form_texts(upload, into)
    sent = b"".join([piece async for piece in upload.pieces("up", b"b", {})])
    assert sent.count(sample) == 4 and set(upload.fields) <= {"model"} and upload.size < MAX_KEPT_BYTES + 200_000
    many = Upload(frozenset(), samples=SAMPLES)
    await many.begin(form(*(samples * 6)))
    with pytest.raises(Invalid, match="fields are too large"):
        [piece async for piece in many.pieces("up", b"b", {})]


async def test_a_long_name_of_a_file_keeps_its_ending() -> None:
    """By which OpenAI knows what sound it is."""
    upload = Upload(frozenset())
    await upload.begin(form(("file", "ä" * 300 + ".recording.mp3", b"x")))
    sent = b"".join([piece async for piece in upload.pieces("up", b"b", {})]).decode()
    assert '.mp3"' in sent and "ä" * 188 in sent and "ä" * 200 not in sent
