"""Large forms whose files come before the fields that decide about the call: they arrive completely first, on disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.gateway_stack import deployment
from tests.unit.test_guard_media import Sent, form

from groundplan.core.errors import Invalid, Unavailable
from groundplan.gateway.guard import media
from groundplan.gateway.surfaces import stored_form
from groundplan.gateway.surfaces.image_forms import IMAGE_EDITS, MAX_LATE_PROMPT_BYTES
from groundplan.gateway.surfaces.transcriptions import SAMPLES
from groundplan.gateway.surfaces.upload import MAX_KEPT_BYTES, Upload

LARGE = bytes(range(256)) * (3 << 12)
"""Three MiB, of which no two pieces of a kilobyte at other places than multiples of 256 are alike."""
MODEL = frozenset({"model"})


async def sent(upload: Upload) -> bytes:
    return b"".join([piece async for piece in upload.pieces("up", b"b", {})])


def part(name: str, filename: str, data: bytes) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return head.encode() + data + b"\r\n"


@pytest.mark.parametrize("named", [None, "painter"])
async def test_what_comes_behind_a_large_file_is_known_before_anything_is_sent(
    tmp_path: Path, named: str | None
) -> None:
    """A file each before, across and behind the edge of what is kept, with fields between them."""
    parts = (
        ("image", "a.png", b"first"), ("image", "b.png", LARGE), ("n", None, b"2"), ("mask", "c.png", LARGE[::-1]),
        ("model", None, b"painter"),
    )  # fmt: skip
    awaited = MODEL | {"n"}
    upload = Upload(awaited, (4, frozenset({"image", "mask"})), named=named, awaited=awaited)
    await upload.begin(form(*parts), tmp_path)
    assert upload.fields == {"n": "2", "model": "painter"} and upload.files == ["image", "image", "mask"]
    assert upload.whole and not upload.in_memory and upload.size < MAX_KEPT_BYTES + (1 << 20)
    assert not list(tmp_path.iterdir()), "it has no name"
    once, again = await sent(upload), await sent(upload)
    images = part("image", "a.png", b"first") + part("image", "b.png", LARGE)
    field = b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n2\r\n'
    model = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nup\r\n--b--\r\n'
    assert once == again == images + field + part("mask", "c.png", LARGE[::-1]) + model


async def test_a_form_that_names_its_model_first_is_sent_on_while_it_arrives(tmp_path: Path) -> None:
    for named, parts in ((None, [("model", None, b"m")]), ("m", [])):
        upload = Upload(MODEL, named=named, awaited=MODEL)
        await upload.begin(form(*parts, ("file", "a.wav", LARGE)), tmp_path)
        assert not upload.whole and upload.fields == {"model": "m"}


async def test_samples_of_speakers_go_onto_the_disk_like_files(tmp_path: Path) -> None:
    sample = b"data:audio/wav;base64," + b"A" * 700_000
    samples = tuple(("known_speaker_references[]", None, sample) for _ in range(4))
    upload = Upload(MODEL, samples=SAMPLES, awaited=MODEL)
    await upload.begin(form(("file", "a.wav", LARGE), *samples, ("model", None, b"m")), tmp_path)
    assert upload.texts == ["m"] and upload.size < MAX_KEPT_BYTES + (1 << 20)
    assert (await sent(upload)).count(sample) == 4


async def test_texts_behind_a_large_file_are_checked_and_changed(tmp_path: Path) -> None:
    """Of a form that is sent on while it arrives, they would come too late."""
    upload = Upload(MODEL, awaited=MODEL)
    parts = (("prompt", None, b"first"), ("file", "a.wav", LARGE), ("prompt", None, b"last"), ("model", None, b"m"))
    await upload.begin(form(*parts), tmp_path)
    media.check_form_texts(upload, str.upper)
    whole = await sent(upload)
    assert upload.texts == ["FIRST", "LAST", "M"] and whole.count(LARGE) == 1
    assert b"\r\n\r\nFIRST\r\n" in whole and b"\r\n\r\nLAST\r\n" in whole and b"last" not in whole


async def test_a_file_named_model_is_not_sent_in_place_of_the_models_name(tmp_path: Path) -> None:
    upload = Upload(MODEL, awaited=MODEL)
    await upload.begin(form(("file", "a.wav", LARGE), ("model", "m.txt", LARGE)), tmp_path)
    assert (await sent(upload)).count(LARGE) == 1


async def test_a_form_that_breaks_off_leaves_nothing_open(tmp_path: Path) -> None:
    upload = Upload(MODEL, awaited=MODEL)
    with pytest.raises(Invalid, match="ends early"):
        await upload.begin(form(("file", "a.wav", LARGE), whole=False), tmp_path)
    assert open_below(tmp_path)
    upload.close()
    upload.close()
    assert not open_below(tmp_path)


async def test_a_text_is_sent_on_in_the_encoding_in_which_it_was_checked() -> None:
    """Some servers read a field in the encoding that it names itself: a text that was checked would be another one
    there."""
    request = form(("prompt", None, b"h\0i\0"), ("file", "a.wav", b"x"), ("model", None, b"m"))
    assert request.stream is not None
    body = await request.stream.read()
    typed = b'name="prompt"\r\nContent-Type: text/plain; charset=utf-16le\r\n'
    body = body.replace(b'name="prompt"\r\n', typed).replace(b'"a.wav"\r\n', b'"a.wav"\r\nContent-Type: audio/wav\r\n')
    request.stream = Sent(body)  # type: ignore[assignment]
    upload = Upload(MODEL)
    await upload.begin(request)
    passed_on = await sent(upload)
    assert b"utf-16" not in passed_on and b"Content-Type: audio/wav" in passed_on


@pytest.mark.parametrize("name", ["model[]", "model[name]", "n[0]", "api_base[]"])
@pytest.mark.parametrize("size", [1, MAX_KEPT_BYTES + 1])
async def test_a_field_that_decides_is_no_list(name: str, size: int) -> None:
    """To some parsers of forms `n[]` is `n`."""
    decisive = MODEL | {"n"}
    upload = Upload(decisive)
    parts = (("model", None, b"m"), (name, None, b"9"), ("file", "a.wav", bytes(size)))
    with pytest.raises(Invalid) as caught:
        await upload.begin(form(*parts))
    assert caught.value.code == "field_unsupported"


def open_below(folder: Path) -> list[str]:
    """Files of a folder that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them is closed
            found.append(str(each.readlink()))
    return [each for each in found if each.startswith(str(folder))]


async def test_a_client_that_leaves_while_its_file_is_created_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, created, may_end = stored_form._unnamed_file, threading.Event(), threading.Event()

    def create_slowly(folder: Path) -> int:
        descriptor = create(folder)
        created.set()
        assert may_end.wait(30)
        return descriptor

    monkeypatch.setattr(stored_form, "_unnamed_file", create_slowly)
    beginning = asyncio.create_task(stored_form.FormStore.create(tmp_path))
    assert await asyncio.to_thread(created.wait, 30) and open_below(tmp_path)
    beginning.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    async with asyncio.timeout(30):
        while open_below(tmp_path):  # noqa: ASYNC110 -- no event tells it
            await asyncio.sleep(0.01)


async def test_without_room_on_the_disk_a_form_is_sent_on_as_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    upload = Upload(MODEL, awaited=MODEL)
    await upload.begin(form(("file", "a.wav", LARGE), ("model", None, b"m")), tmp_path)
    assert not upload.whole
    with pytest.raises(Invalid) as caught:
        await sent(upload)
    assert caught.value.code == "field_after_file"


async def test_a_disk_that_fails_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    request = form(("file", "a.wav", LARGE), ("model", None, b"m"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", full)
        with pytest.raises(Unavailable, match="No space left") as caught:
            await Upload(MODEL, awaited=MODEL).begin(request, tmp_path)
    assert caught.value.code == "files_unavailable"
    upload = Upload(MODEL, awaited=MODEL)
    await upload.begin(form(("file", "a.wav", LARGE), ("model", None, b"m")), tmp_path)
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    with pytest.raises(Unavailable, match="shorter"):
        await sent(upload)


@pytest.mark.parametrize(
    ("name", "value", "may"),
    [
        ("n", "1", True), ("n", "2", False), ("stream", "true", False), ("prompt", "x" * MAX_LATE_PROMPT_BYTES, True),
        ("prompt", "x" * (MAX_LATE_PROMPT_BYTES + 1), False), ("num_images", "1", False),
    ],
)  # fmt: skip
async def test_an_edit_that_is_not_stored_may_name_behind_its_images_what_costs_no_more(
    name: str, value: str, may: bool
) -> None:
    request = form(("model", None, b"painter"), ("image", "a.png", LARGE))
    upload = request.upload_state = Upload(MODEL)
    await upload.begin(request)
    late = IMAGE_EDITS.allowed_late_fields(IMAGE_EDITS.read(request), deployment("painter", 1, kind="images"))
    assert (value in late.get(name, ())) is may
