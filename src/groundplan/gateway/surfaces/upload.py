"""Form uploads that are sent on to an upstream while they arrive, so that their size costs no memory.

Fields that decide about a call must come before the bulk of its files, except those that make it no dearer (the name of
the chosen model, the format of the answer). The rest is passed on part by part, with the upstream's name of the model.
What was passed on is gone: a form that is larger than what is kept can be tried only once. Where an `awaited` field may
come behind the bulk of the files, the form is received completely first, with its files on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from groundplan.core.errors import Invalid, Unavailable
from groundplan.gateway.files.blobs import RETRY_SECONDS
from groundplan.gateway.http.multipart import Data, End, Event, Part, form_events, form_stream, shorten_filename
from groundplan.gateway.http.strict_json import check_name_spelling
from groundplan.gateway.surfaces.body import REDIRECTING_FIELDS
from groundplan.gateway.surfaces.stored_form import FormStore, StoredData
from groundplan.gateway.upstream.connection import UpstreamFailure

if TYPE_CHECKING:
    from groundplan.blueprint.model import Deployment
    from groundplan.gateway.http.server import Request

MAX_KEPT_BYTES = 1 << 20
"""Bytes of a form's beginning that are kept: a form that is not larger can be tried again, with fields in any order."""
ONE_FILE = (1, frozenset({"file"}))
_MIN_KEPT_PIECE = 4096
"""Smaller kept pieces are joined with what follows."""
_Result = TypeVar("_Result")


class Upload:
    """A form of which the beginning was read. `decisive` are the fields that must be in it, where they are there;
    `late` says how many files there may be in all, and in which fields, where some come behind it; `samples` are fields
    that are no files and have sound, which is passed on like one."""

    def __init__(
        self,
        decisive: frozenset[str],
        late: tuple[int, frozenset[str]] = ONE_FILE,
        samples: frozenset[str] = frozenset(),
        named: object = None,
        awaited: frozenset[str] = frozenset(),
    ) -> None:
        """`named`: the model, where the request's path names it: then the form's own is left out. `awaited`: fields
        that a form may name behind its bulk."""
        self._decisive = decisive
        self._samples = samples
        self._late = late
        self._read_names = decisive | REDIRECTING_FIELDS | samples | late[1]
        """Names that no other spelling of may pass: to some parsers of forms `N` is `n`."""
        self._named = named if isinstance(named, str) else ""
        self._awaited = awaited
        self._kept: list[Event | StoredData] = []
        self._store: FormStore | None = None
        self._rest: AsyncIterator[Event] | None = None
        self._consumed = False
        self.fields: dict[str, str] = {}
        """Text fields that were read, the last value of each name."""
        self.texts: list[str] = []
        """The values of all text fields that were read."""
        self.files: list[str] = []
        """Names of the file fields that were read."""
        self.size = 0
        """Bytes that are kept in memory."""
        self.texts_first = False
        """Whether text fields may come in the kept beginning only, since they were checked."""
        self.owes_model = False
        """Whether the form must name a model and has not yet."""
        self.owes_image: frozenset[str] = frozenset()
        """Fields of which one must have an image, where none of them has one yet."""

    async def begin(self, request: Request, folder: Path | None = None) -> None:
        """Read the beginning that is kept; where an awaited field is not in it, read the whole form, its files into
        `folder`. Raises `Invalid`, `Unavailable`."""
        rest = form_events(form_stream(request), request.headers.get(b"content-type"), self._samples)
        part: Part | None = None
        value = b""
        async for event in rest:
            if isinstance(event, Data) and self._store is not None and not self._is_text(part):
                await self._keep_on_disk(self._store, event.data)
                continue
            self._keep(event)
            if isinstance(event, Part):
                part, value = self._begin_part(event), b""
            elif isinstance(event, Data):
                self.size += len(event.data)
                value += event.data if self._is_text(part) else b""
            elif part is not None and self._is_text(part):
                self._field(part.name, value)
                self.texts.append(self.fields[part.name])
            is_full = self.size > MAX_KEPT_BYTES and self._store is None
            # not within a text field, which would be lost
            if is_full and (isinstance(event, End) or not self._is_text(part)) and not await self._store_files(folder):
                self._rest = rest
                break
        if self._store is not None:
            await _on_disk(self._store.flush())
        if self._named:
            self.fields["model"] = self._named

    def _begin_part(self, part: Part) -> Part:
        """Note a part of the form. Raises `Invalid`."""
        self._check_spelling(part.name)
        if part.filename is not None:
            self.files.append(part.name)
        return part

    async def _store_files(self, folder: Path | None) -> bool:
        """Whether further files are written into `folder`, as an awaited field may come behind them; False: they are
        sent on while they arrive, also where the disk has no room."""
        known = self.fields.keys() | ({"model"} if self._named else set())
        if folder is None or self._awaited <= known:
            return False
        try:
            self._store = await FormStore.create(folder)
        except OSError:
            return False
        return True

    async def _keep_on_disk(self, store: FormStore, data: bytes) -> None:
        stored, before = await _on_disk(store.append(data)), self._kept[-1]
        if isinstance(before, StoredData):
            self._kept[-1] = StoredData(before.start, before.size + stored.size)
        else:
            self._kept.append(stored)

    def _is_text(self, part: Part | None) -> bool:
        return part is not None and part.filename is None and part.name not in self._samples

    def _keep(self, event: Event) -> None:
        before = self._kept[-1] if self._kept else None
        if isinstance(event, Data) and isinstance(before, Data) and len(before.data) < _MIN_KEPT_PIECE:
            self._kept[-1] = Data(before.data + event.data)
        else:
            self._kept.append(event)

    def _check_spelling(self, name: str) -> None:
        """Raise `Invalid` for the name of a field that is one that is read here, but for capital letters."""
        check_name_spelling({name, _stem(name)}, self._read_names)

    def _field(self, name: str, value: bytes) -> None:
        stem = _stem(name)
        if stem in REDIRECTING_FIELDS or (stem != name and stem in self._decisive):  # to some parsers `n[]` is `n`
            raise Invalid(f"{name} is not supported", code="field_unsupported", hint=f"Leave {name} out.")
        if name in self._decisive and name in self.fields:
            raise Invalid(f"{name} is there twice", code="field_twice", hint="Send each field once.")
        try:
            self.fields[name] = value.decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"{name} is not UTF-8", code="body_encoding", hint="Send text in UTF-8.") from error

    def flag(self, name: str) -> bool:
        """The value of a boolean field; False where there is none. Raises `Invalid`."""
        text = self.fields.get(name, "false").lower()
        if text not in ("true", "false"):
            raise Invalid(f"{name} is neither true nor false", code="body_invalid", hint="Send true or false.")
        return text == "true"

    def number(self, name: str, usual: int) -> int:
        """The value of an integer field, `usual` where there is none. Raises `Invalid`."""
        text = self.fields.get(name)
        if text is None:
            return usual
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise Invalid(f"{name} is not a whole number", code="body_invalid", hint="Send digits only.")
        return int(text)

    def reword(self, change: Callable[[str], str]) -> None:
        """Replace the value of each text field that was read by `change` of it."""
        kept, self._kept, self.texts = self._kept, [], []
        part: Part | None = None
        value = b""
        for event in kept:
            if isinstance(event, Part):
                part, value = event if self._is_text(event) else None, b""
            elif part is not None and isinstance(event, Data):
                value += event.data
                continue
            elif part is not None:
                self.fields[part.name] = text = change(value.decode())
                self.texts.append(text)
                self._kept.append(Data(text.encode()))
                part = None
            self._kept.append(event)

    def close(self) -> None:
        """Give up what is kept, in memory and on disk, once the call has ended."""
        self._kept = []
        if self._store is not None:
            self._store.close()

    @property
    def passed_on(self) -> bool:
        """Whether more than is kept was sent to an upstream, so that it cannot be sent to another."""
        return self._consumed

    @property
    def whole(self) -> bool:
        """Whether the whole form is kept, so that it can be sent again."""
        return self._rest is None

    @property
    def in_memory(self) -> bool:
        """Whether the whole form is kept in memory, so that it has a digest."""
        return self._rest is None and self._store is None

    def digest(self) -> bytes:
        """A digest of what is kept in memory: of the whole form where all of it is, independent of its boundary."""
        made = hashlib.sha256(self._named.encode())
        for event in self._kept:
            data = event.data if isinstance(event, Data) else repr(event).encode()
            made.update(data if isinstance(event, Data) else b"\0%d\0%b" % (len(data), data))
        return made.digest()

    async def pieces(self, model: str, boundary: bytes, may: Mapping[str, Container[str]]) -> AsyncIterator[bytes]:
        """The form for an upstream. `may`: allowed values of decisive fields behind what is kept. Raises `Invalid`."""
        if self._consumed:
            raise UpstreamFailure("refused", "the upload was passed on already", sent=False)
        skipped = False
        for event in self._kept:
            skipped = (isinstance(event, Part) and event.name == "model") or (skipped and not isinstance(event, Part))
            if skipped:
                continue
            if isinstance(event, StoredData):
                async for piece in self._stored(event):
                    yield piece
            else:
                yield _encoded_part(event, boundary)
        if self._rest is not None:
            self._consumed, self._kept = True, []
            async for event in self._later(self._rest, may):
                yield _encoded_part(event, boundary)
        yield b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n' % (boundary, model.encode())
        yield b"--%b--\r\n" % boundary

    async def _stored(self, event: StoredData) -> AsyncIterator[bytes]:
        """Bytes that are on disk, in pieces. Raises `Unavailable`."""
        if self._store is None:
            raise AssertionError("nothing was stored")
        try:
            async for piece in self._store.read(event):
                yield piece
        except OSError as error:
            raise _disk_failed(error) from error

    async def _later(self, rest: AsyncIterator[Event], may: Mapping[str, Container[str]]) -> AsyncIterator[Event]:
        """The events behind what is kept, without the model. Raises `Invalid`."""
        part: Part | None = None
        """The decisive field that is being read."""
        value = b""
        async for event in rest:
            if isinstance(event, Part):
                part, value = self._check_late(event, may), b""
            if part is None:
                yield event
            elif isinstance(event, Data):
                value += event.data
            elif isinstance(event, End) and part.name == "model" and self._named:
                continue
            elif isinstance(event, End):
                self._field(part.name, value)
                if self.fields[part.name] not in may[part.name]:
                    raise _field_too_late(part.name)
                for each in (part, Data(value), event) if part.name != "model" else ():
                    yield each
        self._check_end()

    def _check_late(self, part: Part, may: Mapping[str, Container[str]]) -> Part | None:
        """The part if it is a decisive field. Raises `Invalid` for a field that may not come so late, and for too many
        files."""
        name = part.name
        self._check_spelling(name)
        if part.filename is not None:
            self._add_file(name)
            return None
        decides = name in self._decisive or _stem(name) in self._decisive or name in REDIRECTING_FIELDS
        if name in self._samples or not (self.texts_first or decides):
            return None
        if name == "model" and self._named:
            return part
        if name not in may or name in self.fields or (self.texts_first and name != "model"):
            raise _field_too_late(name)
        return part

    def _check_end(self) -> None:
        """Raises `Invalid` if the complete form lacks the required model or image."""
        if self.owes_model and "model" not in self.fields:
            raise model_missing()
        if self.owes_image and self.owes_image.isdisjoint(self.files):
            raise image_missing()

    def _add_file(self, name: str) -> None:
        most, fields = self._late
        self.files.append(name)
        if name not in fields:
            raise file_unsupported(name, fields)
        if len(self.files) > most:
            raise Invalid(f"the form has more than {most} files", code="files_range", hint="Send fewer.")


async def _on_disk(work: Awaitable[_Result]) -> _Result:
    """Raises `Unavailable` where the disk fails."""
    try:
        return await work
    except OSError as error:
        raise _disk_failed(error) from error


def _disk_failed(error: OSError) -> Unavailable:
    hint = "Try again; if that does not help, whoever runs the gateway looks at its disk."
    message = f"the form cannot be kept until it has arrived: {error.strerror or error}"
    return Unavailable(message, code="files_unavailable", hint=hint, retry_after=RETRY_SECONDS)


def _stem(name: str) -> str:
    """The name of a field without its brackets: that of an object of which `name` is a member, or of a list."""
    return name.partition("[")[0]


def _field_too_late(name: str) -> Invalid:
    return Invalid(
        f"{name} comes after a large file", code="field_after_file", hint=f"Put {name} before the file in the form."
    )


def accepting_uploads(deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
    """The deployments that a form can be sent on to while it arrives. Raises `Invalid`."""
    found = tuple(d for d in deployments if d.http == 1 and not (d.proxy or "").startswith("https:"))
    if not found:
        hint = "Declare one with http: 1, behind no proxy that is itself reached by https."
        raise Invalid("no deployment takes uploads", code="upload_http2", hint=hint)
    return found


def model_missing() -> Invalid:
    hint = "Put model into the form, before the file where that is large and several models may be meant."
    return Invalid("the form names no model", code="model_missing", hint=hint)


def file_unsupported(name: str, fields: Iterable[str]) -> Invalid:
    hint = f"Send files in: {', '.join(sorted(fields))}."
    return Invalid(f"a file in {name[:60]} is not supported", code="field_unsupported", hint=hint)


def image_missing() -> Invalid:
    return Invalid("the form has no image", code="file_missing", hint="Send a file in the field `image`.")


def _encoded_part(event: Event, boundary: bytes) -> bytes:
    if isinstance(event, Data):
        return event.data
    if isinstance(event, End):
        return b"\r\n"
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"' % (boundary, event.name.encode())
    if event.filename is not None:
        name = shorten_filename(event.filename.replace('"', "").replace("\\", ""))
        head += b'; filename="%b"' % (name or "file").encode()
        kind = event.content_type  # only that of a file: a text was read as UTF-8, whatever encoding it names
        if kind and len(kind) < 100 and kind.isascii() and kind.decode("ascii").isprintable():
            head += b"\r\nContent-Type: " + kind
    return head + b"\r\n\r\n"
