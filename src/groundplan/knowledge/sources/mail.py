"""An archive of e-mail, an mbox file or a maildir: each message is a document. Attachments are only named.

With `participants`, whoever wrote or received a message may read it, and nobody else.
"""

from __future__ import annotations

import hashlib
import mailbox
import re
from collections.abc import Iterator, Sequence
from email.utils import getaddresses
from pathlib import Path

from groundplan.core.errors import NotFound, Unavailable
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.sources.model import Around, Change, Content, Cursor


class Mail:
    """Keys are made of the message's own id, so that a message keeps its place when the archive is packed anew."""

    whole = True

    def __init__(self, path: Path, *, participants: bool = False) -> None:
        self._path, self._participants = path, participants
        self._box: mailbox.Mailbox[mailbox.mboxMessage] | mailbox.Mailbox[mailbox.MaildirMessage] | None = None
        self._places: dict[str, str] = {}

    def close(self) -> None:
        if self._box is not None:
            self._box.close()
            self._box = None

    def tables(self) -> Sequence[Table]:
        return ()

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """Every message in the order of keys. Raises `Unavailable` where there is no archive."""
        if not self._path.exists():
            raise Unavailable(
                f"there is no archive {self._path}", code="source_missing",
                hint="Check `path` of the connector; its documents stay as they were.",
            )  # fmt: skip
        self.close()
        self._box = (
            mailbox.Maildir(self._path, create=False) if self._path.is_dir() else mailbox.mbox(self._path, create=False)
        )
        versions: dict[str, str] = {}
        for place in self._box.iterkeys():
            data = self._box.get_bytes(place)
            digest = hashlib.sha256(data).hexdigest()
            key = self._key(data, digest)
            versions[key] = digest[:32]
            self._places[key] = place
        for key in sorted(versions):
            yield Change(key, versions[key])

    @staticmethod
    def _key(data: bytes, digest: str) -> str:
        head = data.split(b"\n\n", 1)[0].split(b"\r\n\r\n", 1)[0]
        match = re.search(rb"^message-id:\s*<([^>\s]{1,200})>", head, re.IGNORECASE | re.MULTILINE)
        name = match[1].decode("ascii", "replace") if match else digest[:32]
        return re.sub(r"[^A-Za-z0-9@._+-]", "_", name).lstrip(".") + ".eml"

    def read(self, key: str) -> Content:
        place = self._places.get(key)
        if self._box is None or place is None:
            raise NotFound("it went away meanwhile", code="document_gone", hint="Nothing needs to be done.")
        message = self._box[place]
        told: dict[str, object] = {}
        if self._participants:
            fields = [str(value) for name in ("from", "to", "cc", "bcc") for value in message.get_all(name, [])]
            told["readers"] = sorted({address.lower() for _, address in getaddresses(fields) if "@" in address})
        return Content(self._box.get_bytes(place), media="eml", told=told)

    def around(self, key: str) -> Sequence[Around]:  # noqa: ARG002 -- an archive has no folders
        return ()
