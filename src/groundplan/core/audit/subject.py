"""Encrypts personal fields of the log under one key per person, so that erasure destroys a key and no proof.

A sealed field is `sealed:<person uuid>:<base64url>`. AES-SIV is deterministic: the same text of the same person gives
the same token, so sealed fields can still be compared. The person's id itself stays: it says nothing once the person
row is gone. Does not decide what is personal, and keeps no key in memory longer than a call.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from psycopg import Connection

from groundplan.core.audit.keys import load_wrapping
from groundplan.core.audit.store import insert_subject_key, subject_key
from groundplan.core.errors import Invalid, NotFound
from groundplan.core.home import Home

PREFIX = "sealed:"
_ERASED = "erased"


@dataclass(frozen=True, slots=True)
class SubjectKeys:
    """The per-person keys, each wrapped by the key of HOME and stored in PostgreSQL."""

    wrapping: bytes

    @classmethod
    def of(cls, home: Home) -> SubjectKeys:
        """With the wrapping key of `home`; raises `Unavailable`."""
        return cls(load_wrapping(home))

    def seal(self, conn: Connection[Any], person: UUID, text: str) -> str:
        """Encrypt `text` into a token that only this person's key opens; after an erasure, return a token that nothing
        opens."""
        key = self._key(conn, person, create=True)
        if key is None:
            return f"{PREFIX}{person}:{_ERASED}"
        sealed = AESSIV(key).encrypt(b"=" + text.encode(), [person.bytes])  # the cipher takes no empty text
        return f"{PREFIX}{person}:{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"

    def unseal(self, conn: Connection[Any], token: str) -> str | None:
        """Decrypt a token; None where the person was erased. Raises `Invalid` (`sealed_token`), `NotFound`."""
        person, data = _parse_token(token)
        key = self._key(conn, person, create=False)
        if key is None or data is None:
            return None
        try:
            return AESSIV(key).decrypt(data, [person.bytes])[1:].decode()
        except InvalidTag as error:
            raise _token_error(token) from error

    def _key(self, conn: Connection[Any], person: UUID, *, create: bool) -> bytes | None:
        subject = str(person)
        wrapped = subject_key(conn, subject)
        if wrapped is None and create:
            fresh = AESSIV(self.wrapping).encrypt(secrets.token_bytes(64), [b"subject", person.bytes])
            insert_subject_key(conn, subject, fresh)
            wrapped = subject_key(conn, subject)
        if wrapped is None:
            raise NotFound(
                f"there is no key of {subject}",
                code="subject_key",
                hint="The log and the database are of different HOMEs.",
            )
        if not wrapped:
            return None
        try:
            return AESSIV(self.wrapping).decrypt(wrapped, [b"subject", person.bytes])
        except InvalidTag as error:
            raise Invalid(
                f"the key of {subject} was wrapped by another HOME",
                code="subject_key",
                hint="Restore keys/subject.key of the HOME that this database belongs to.",
            ) from error


def _token_error(token: str) -> Invalid:
    return Invalid(
        f"no sealed field: {token[:60]!r}", code="sealed_token", hint="Give a token as it stands in the log."
    )


def _parse_token(token: str) -> tuple[UUID, bytes | None]:
    head, _, data = token.removeprefix(PREFIX).partition(":")
    try:
        person = UUID(head)
        if not token.startswith(PREFIX) or not data:
            raise ValueError("not sealed")
        if data == _ERASED:
            return person, None
        return person, base64.b64decode(data + "=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise _token_error(token) from error
