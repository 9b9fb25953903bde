"""The connector of an e-mail archive, an mbox file or a maildir: each message is a document. Attachments are not read.

With `participants`, only the sender and the recipients of a message may read it; a parser in a confined process
determines them. A message never replaces another one, whatever id it states.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from groundplan.core.errors import Invalid, TooLarge, Unavailable
from groundplan.knowledge.parsing.email import PARTICIPANTS
from groundplan.knowledge.parsing.model import MAX_BYTES, Job, Refused, Table
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.sources import mail_box
from groundplan.knowledge.sources.errors import document_gone
from groundplan.knowledge.sources.model import Change, Content, Cursor, FolderRules


class MailConnector:
    """The connector of an archive. Keys are made of the messages' ids, so that compacting the archive keeps them."""

    is_complete = True

    def __init__(self, path: Path, *, participants: bool = False) -> None:
        self._path = path
        self._sandbox = Sandbox() if participants else None
        self._places: dict[str, mail_box.MessagePlace] = {}

    def close(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()

    def tables(self) -> Sequence[Table]:
        return ()

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """Every message in the order of keys. Raises `Unavailable` if the archive cannot be read."""
        try:
            self._places = _places_by_key(mail_box.message_places(self._path))
        except FileNotFoundError as error:
            raise Unavailable(
                f"there is no archive {self._path}", code="source_missing",
                hint="Check `path` of the connector; its documents stay as they were.",
            ) from error  # fmt: skip
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"{self._path} cannot be read as an archive: {error}", code="source_missing",
                hint="Check that it is an mbox file or a maildir, and its rights; its documents stay as they were.",
            ) from error  # fmt: skip
        for key in sorted(self._places):
            yield Change(key, self._places[key].digest[:32])

    def read(self, key: str) -> Content:
        place = self._places.get(key)
        if place is None:
            raise document_gone()
        if place.length > MAX_BYTES:
            raise TooLarge(
                f"it is larger than {MAX_BYTES >> 20} MiB", code="document_too_large",
                hint="Keep its attachments beside the archive.",
            )  # fmt: skip
        data = mail_box.read_message(place)
        if data is None:
            raise Unavailable("the archive changed meanwhile", code="source_missing", hint="It is tried again.")
        if not self._path.is_dir():
            data = mail_box.unquote_mbox(data)
        return Content(data, media="eml", governed_values=self._readers(key, data))

    def _readers(self, key: str, data: bytes) -> dict[str, object]:
        """The readers of a message. Raises `Invalid` if its sender and recipients are not certain."""
        if self._sandbox is None:
            return {}
        outcome = self._sandbox.parse(Job(key=key, data=mail_box.message_head(data), media="eml"))
        if isinstance(outcome, Refused):
            raise Invalid(outcome.message, code=outcome.code, hint=outcome.hint)
        return {"readers": outcome.told.get(PARTICIPANTS, [])}

    def folder_rules(self, key: str) -> Sequence[FolderRules]:  # noqa: ARG002 -- an archive has no folders
        return ()


def _places_by_key(places: Iterator[mail_box.MessagePlace]) -> dict[str, mail_box.MessagePlace]:
    """Messages by key: of several with the same id the oldest gets it, the others get their digests appended."""
    by_key: dict[str, mail_box.MessagePlace] = {}
    for place in places:
        name = re.sub(r"[^A-Za-z0-9@._+-]", "_", place.name).lstrip(".")
        key = f"{name}.eml"
        if key in by_key and by_key[key].digest != place.digest:
            key = f"{name}.{place.digest[:16]}.eml"
        by_key.setdefault(key, place)
    return by_key
