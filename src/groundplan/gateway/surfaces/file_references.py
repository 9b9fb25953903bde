"""Replaces file ids in requests by the contents of the files. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.http.strict_json import DECODE_ERRORS

PDF = "application/pdf"
IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
_NESTED_FIELDS = ("content", "output", "source")
"""Fields of messages, items and parts that may hold parts; nothing else is searched, such as the arguments of a
function call."""
_encode = msgspec.json.Encoder().encode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
PartReplacement = Callable[[dict[str, Any]], dict[str, Any]]
"""Returns a part with its file inlined, or unchanged."""


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
        """Raise `Invalid` where the media type is none of `kinds`."""
        if self.kind not in kinds:
            raise Invalid(
                f"the file {self.name[:80]!r} is {self.kind}",
                code="file_kind",
                hint=f"Name one that is: {', '.join(sorted(kinds))}; or send text as text.",
            )

    def image_url(self) -> str:
        """The data URL of an image. Raises `Invalid` where the file is no image."""
        self.check(IMAGES)
        return self.url


def with_files_inlined(raw: msgspec.Raw, change: PartReplacement) -> msgspec.Raw:
    """A list of messages or items with `change` applied to each part that may name a file; the others keep their bytes.
    Raises `Invalid`."""
    try:
        made = [
            _replace_parts(msgspec.json.decode(each), change) if _may_name_file(bytes(each)) else each
            for each in _list(raw)
        ]
        return msgspec.Raw(_encode(made))
    except DECODE_ERRORS as error:
        raise Invalid(
            f"the body has a file in what cannot be read: {error}",
            code="body_not_json",
            hint="Send JSON that is nested less, with numbers of usual size.",
        ) from error


def _may_name_file(raw: bytes) -> bool:
    """Whether JSON may contain the name `file_id`, perhaps written with escapes."""
    return b"file_id" in raw or b"\\u" in raw


def _replace_parts(value: Any, change: PartReplacement) -> Any:
    if isinstance(value, list):
        return [_replace_parts(each, change) for each in value]
    if not isinstance(value, dict):
        return value
    return change(
        {name: _replace_parts(each, change) if name in _NESTED_FIELDS else each for name, each in value.items()}
    )


def find_file(files: Mapping[str, NamedFile], id: object) -> NamedFile | None:
    """The file with this id; None where there is none. `id` is unchecked input and may be of any type."""
    return files.get(id) if isinstance(id, str) else None


def without_fields(part: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in names}


def file_given_twice(what: str) -> Invalid:
    return Invalid(
        f"{what} is given by an id and otherwise, too",
        code="file_twice",
        hint="Send its file_id, or its content; never an address.",
    )
