"""Forms with files: any cut of the bytes gives the same parts; what is malformed or too large is told."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.core.errors import Invalid
from groundplan.gateway.http.multipart import Data, End, Event, FormReader, Part, form_events, is_form, shorten_filename

TYPE = b"multipart/form-data; boundary=xyz"


SOUND = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: audio/wav\r\n\r\nx\r\n'


def form(*parts: tuple[str, bytes, str | None]) -> bytes:
    out = b""
    for name, data, filename in parts:
        more = "" if filename is None else f'; filename="{filename}"'
        out += f'--xyz\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"
    return out + b"--xyz--\r\n"


def read_form(raw: bytes, cuts: list[int]) -> list[tuple[Part, bytes]]:
    reader = FormReader(TYPE)
    found: list[Event] = []
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    for a, b in itertools.pairwise(places):
        found += reader.feed(raw[a:b])
    assert reader.complete
    parts: list[tuple[Part, bytes]] = []
    for event in found:
        if isinstance(event, Part):
            parts.append((event, b""))
        elif isinstance(event, Data):
            parts[-1] = (parts[-1][0], parts[-1][1] + event.data)
    assert sum(isinstance(event, End) for event in found) == len(parts)
    return parts


@settings(deadline=None)
@given(
    data=st.binary(max_size=300).filter(lambda b: b"--xyz" not in b),
    near=st.sampled_from([b"", b"\r\n", b"\r\n--", b"\r\n--xy", b"\r\n-\r\n--x"]),
    cuts=st.lists(st.integers(0, 700), max_size=30),
)
def test_any_cut_of_the_bytes_gives_the_same_parts(data: bytes, near: bytes, cuts: list[int]) -> None:
    raw = form(("model", b"whisper", None), ("file", data + near, "a.wav"))
    parts = read_form(raw, cuts)
    assert [(part.name, part.filename, body) for part, body in parts] == [
        ("model", None, b"whisper"),
        ("file", "a.wav", data + near),
    ]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("name=file; filename=a.wav; filename*=utf-8''a.wav", "a.wav"),
        ("name=file; filename=\"=?utf-8?B?w6Qud2F2?=\"; filename*=utf-8''%C3%A4.wav", "ä.wav"),
        ("name=\"file\"; filename*=UTF-8'de'%22a%0D%0Ab.wav", '"a\r\nb.wav'),
        ('name="file"; filename="x filename*=utf-8.wav"', "x filename*=utf-8.wav"),
    ],
)
def test_a_files_name_is_read_as_clients_write_it(disposition: str, name: str) -> None:
    """By its end an upstream knows what a sound is: of two names OpenAI's client for .NET writes the first without."""
    raw = f"--xyz\r\nContent-Disposition: form-data; {disposition}\r\n\r\nx\r\n--xyz--\r\n".encode()
    assert [(part.name, part.filename, body) for part, body in read_form(raw, [])] == [("file", name, b"x")]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"nonsense", "form_malformed"),
        (form(("", b"x", None)), "form_malformed"),
        (form(("a\r\nb", b"x", None)), "form_malformed"),
        (form(*[("a", b"", None)] * 65), "form_parts"),
        (SOUND + b"--xyz\r\nContent-Type: text/plain\r\n\r\nx\r\n--xyz--\r\n", "form_malformed"),
        (form(("a", bytes(300_000), None)), "form_fields"),
    ],
)
def test_malformed_or_too_large_forms_are_refused(raw: bytes, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        FormReader(TYPE).feed(raw)
    assert caught.value.code == code


def test_no_part_contains_data_of_the_one_before() -> None:
    (sound, _), (model, _), *more = read_form(SOUND + form(("model", b"m", None), *[("a", b"", None)] * 62), [])
    assert (sound.filename, sound.content_type, model.filename, model.content_type) == ("a", b"audio/wav", None, b"")
    assert len(more) == 62, "as many parts as a form may have"


def test_nothing_in_a_files_name_ends_a_line() -> None:
    assert shorten_filename("a\r\nX: y\x00\u2028.wav") == "aX: y.wav"
    assert len(name := shorten_filename("a" * 500 + ".wav")) == 200 and name.endswith("a.wav")


async def test_a_form_that_ends_early_is_refused() -> None:
    pieces = [SOUND[:60], SOUND[60:], b""]

    async def next_piece() -> bytes:
        return pieces.pop(0)

    stream: Any = SimpleNamespace(read=next_piece)
    with pytest.raises(Invalid, match="ends early"):
        [event async for event in form_events(stream, TYPE)]


def test_only_multipart_forms_are_accepted() -> None:
    assert is_form(TYPE) and not is_form(b"application/json") and not is_form(None)
    for kind in (None, b"application/json", b"multipart/form-data"):
        with pytest.raises(Invalid):
            FormReader(kind)
