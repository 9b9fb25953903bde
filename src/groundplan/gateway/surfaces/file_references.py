"""Where requests name files by id, and how a file is written in their place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.http.strict_json import DECODE_ERRORS

PDF = "application/pdf"
IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
_INTO = ("content", "output", "source")
"""Fields of messages, items and parts that may hold parts; nothing else is looked into, such as what a function was
called with."""
_encode = msgspec.json.Encoder().encode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
Change = Callable[[dict[str, Any]], dict[str, Any]]
"""A part with its file in it, or as it is."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file with its content in base64."""

    name: str
    kind: str
    """media type"""
    data: str

    @property
    def url(self) -> str:
        return f"data:{self.kind};base64,{self.data}"

    def check(self, kinds: Collection[str]) -> None:
        """Raise `Invalid` where it is none of these."""
        if self.kind not in kinds:
            raise Invalid(
                f"the file {self.name[:80]!r} is {self.kind}",
                code="file_kind",
                hint=f"Name one that is: {', '.join(sorted(kinds))}; or send text as text.",
            )

    def image_url(self) -> str:
        """Raises `Invalid`."""
        self.check(IMAGES)
        return self.url


def written(raw: msgspec.Raw, change: Change) -> msgspec.Raw:
    """A list of messages or items in which files stand in the place of their ids; the others keep their bytes. Raises
    `Invalid`."""
    try:
        made = [_changed(msgspec.json.decode(each), change) if _may_name(bytes(each)) else each for each in _list(raw)]
        return msgspec.Raw(_encode(made))
    except DECODE_ERRORS as error:
        raise Invalid(
            f"the body has a file in what cannot be read: {error}",
            code="body_not_json",
            hint="Send JSON that is nested less, with numbers of usual size.",
        ) from error


def _may_name(raw: bytes) -> bool:
    """A name may be written with escapes."""
    return b"file_id" in raw or b"\\u" in raw


def _changed(value: Any, change: Change) -> Any:
    if isinstance(value, list):
        return [_changed(each, change) for each in value]
    if not isinstance(value, dict):
        return value
    return change({name: _changed(each, change) if name in _INTO else each for name, each in value.items()})


def file_of(files: Mapping[str, NamedFile], id: object) -> NamedFile | None:
    """The file of this id. What was not looked at when a request was read may have anything for one."""
    return files.get(id) if isinstance(id, str) else None


def without(part: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in names}


def given_twice(what: str) -> Invalid:
    return Invalid(
        f"{what} is given by an id and otherwise, too",
        code="file_twice",
        hint="Send its file_id, or its content; never an address.",
    )
