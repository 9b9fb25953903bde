"""Checkpoints: size and root of the log as a C2SP tlog-checkpoint in a C2SP signed note, with Ed25519 signatures.

A witness adds a C2SP tlog-cosignature (`cosignature/v1`), which says when it saw that the log continues.
Does not read or write files, and does not decide which key is trusted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from groundplan.core.errors import Invalid

_ED25519 = b"\x01"
_COSIGNATURE = b"\x04"
_SIGNATURE_BYTES = 64
_DASH = "\u2014 "
_LATEST = 1 << 37
"""Seconds since 1970; later times are out of range and not accepted."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """States that the first `size` entries of the log `origin` have the Merkle root `root` (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The signed text, with its final newline."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note: who (`name`), which key (`key_id`, 4 bytes) and the signature."""

    name: str
    key_id: bytes
    signature: bytes

    def by(self, key: VerifierKey) -> bool:
        """Whether the line names this key as its signer."""
        return self.name == key.name and self.key_id == key.id

    def encode(self) -> str:
        """The line as it stands in a note, with its end."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A signed text. `text` ends with a newline."""

    text: str
    signatures: tuple[Signature, ...]

    def signed_by(self, key: VerifierKey) -> bool:
        """Whether this key has signed the text."""
        return not key.cosigns and any(
            _holds(key.public, line.signature, self.text) for line in self.signatures if line.by(key)
        )

    def cosigned(self, witness: VerifierKey) -> datetime | None:
        """When this witness signed the text (its newest signature); None where it has not."""
        times = [
            seconds
            for line in self.signatures
            if line.by(witness) and len(line.signature) == 8 + _SIGNATURE_BYTES
            for seconds in [int.from_bytes(line.signature[:8], "big")]
            if seconds < _LATEST and _holds(witness.public, line.signature[8:], _cosigned_text(self.text, seconds))
        ]
        return datetime.fromtimestamp(max(times), UTC) if witness.cosigns and times else None

    def with_signature(self, line: Signature) -> Note:
        """The note with a further signature, which replaces an older one by the same key."""
        kept = tuple(old for old in self.signatures if (old.name, old.key_id) != (line.name, line.key_id))
        return Note(self.text, (*kept, line))

    def encode(self) -> bytes:
        """The note as it stands in a file."""
        return f"{self.text}\n{''.join(line.encode() for line in self.signatures)}".encode()


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key (32 bytes) with the name that it signs under. `cosigns`: it belongs to a witness."""

    name: str
    public: bytes
    cosigns: bool = False

    @property
    def id(self) -> bytes:
        """The 4 bytes by which a signature line names the key."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._kind + self.public).digest()[:4]

    def encode(self) -> str:
        """`name+id+key`, the format's text form of a key."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self._kind + self.public).decode()}"

    @property
    def _kind(self) -> bytes:
        return _COSIGNATURE if self.cosigns else _ED25519


def _holds(public: bytes, signature: bytes, text: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def log_origin(public: bytes) -> str:
    """The name of a log: derived from its first public key, so that no two logs share one."""
    return f"groundplan/audit/{hashlib.sha256(public).hexdigest()[:16]}"


def parse_key(text: str) -> VerifierKey:
    """Parse `name+id+key`. Raises `Invalid` (`verifier_key`)."""
    try:
        name, id, encoded = text.strip().rsplit("+", 2) if text.count("+") == 2 else text.strip().split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        found = VerifierKey(name, key[1:], cosigns=key[:1] == _COSIGNATURE)
        if key[:1] not in (_ED25519, _COSIGNATURE) or len(key) != 33 or not name or found.id.hex() != id:
            raise ValueError("name, id and key do not belong together")
    except (ValueError, binascii.Error) as error:
        raise Invalid(
            f"not the public key of a log: {error}",
            code="verifier_key",
            hint="Give the content of log.pub: name+id+key, or 32 raw bytes.",
        ) from error
    return found


def sign(text: str, key: Ed25519PrivateKey, name: str) -> Note:
    """Return a note of the text with one signature."""
    id = VerifierKey(name, key.public_key().public_bytes_raw()).id
    return Note(text, (Signature(name, id, key.sign(text.encode())),))


def cosign(text: str, key: Ed25519PrivateKey, name: str, at: datetime) -> Signature:
    """Return a witness's cosignature of a checkpoint that it saw at `at` (whole seconds)."""
    id = VerifierKey(name, key.public_key().public_bytes_raw(), cosigns=True).id
    seconds = int(at.timestamp())
    return Signature(name, id, seconds.to_bytes(8, "big") + key.sign(_cosigned_text(text, seconds).encode()))


def _cosigned_text(text: str, seconds: int) -> str:
    return f"cosignature/v1\ntime {seconds}\n{text}"


def parse_note(data: bytes) -> Note:
    """Parse a note; unknown kinds of signatures are kept. Raises `Invalid` (`note`)."""
    try:
        text, separator, tail = data.decode().rpartition("\n\n")
        if not separator or not tail.endswith("\n"):
            raise ValueError("no signature lines")
        return Note(f"{text}\n", tuple(parse_signature(line) for line in tail[:-1].split("\n")))
    except (ValueError, binascii.Error) as error:
        raise Invalid(f"not a signed note: {error}", code="note", hint="Restore the checkpoint from a copy.") from error


def parse_signature(line: str) -> Signature:
    """Parse a signature line without its line end. Raises `ValueError`."""
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    data = base64.b64decode(encoded, validate=True)
    if not line.startswith(_DASH) or not name or len(data) < 5:
        raise ValueError("a signature line is malformed")
    return Signature(name, data[:4], data[4:])


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the checkpoint in a note's text; extension lines are allowed. Raises `Invalid` (`checkpoint`)."""
    lines = text.split("\n")
    try:
        origin, size, root = lines[0], lines[1], base64.b64decode(lines[2], validate=True)
        if not origin or lines[-1] or not size.isascii() or not size.isdigit() or size != str(int(size)):
            raise ValueError("name and size are malformed")
        if len(root) != 32:
            raise ValueError("the root is not 32 bytes long")
    except (ValueError, IndexError, binascii.Error) as error:
        raise Invalid(f"not a checkpoint: {error}", code="checkpoint", hint="Restore it from a copy.") from error
    return Checkpoint(origin, int(size), root)
