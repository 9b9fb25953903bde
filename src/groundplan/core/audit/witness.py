"""A witness: signs a checkpoint of a log only if the log continues what the witness signed before (C2SP tlog-witness).

It keeps the newest checkpoint of each log as a file and sees sizes and hashes, never an entry. `request_cosignature` is
the log's side. This module does not listen (`witness_server.py`) and does not decide which witness is trusted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from groundplan.core.audit.checkpoint import (
    Checkpoint,
    Note,
    Signature,
    VerifierKey,
    cosign,
    parse_checkpoint,
    parse_key,
    parse_note,
    parse_signature,
)
from groundplan.core.audit.merkle import verify_consistency
from groundplan.core.audit.proof import consistency_proof
from groundplan.core.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from groundplan.core.home import write_atomically

FOLDER = "witnessed"
MAX_HASHES = 63
MAX_BYTES = 64 << 10
WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class CosignRequest:
    """An `add-checkpoint` request: the size that the log believes was signed last, the proof, and the checkpoint."""

    old: int
    hashes: tuple[bytes, ...]
    note: Note

    def encode(self) -> bytes:
        """The body of the request."""
        lines = [f"old {self.old}\n", *(f"{base64.b64encode(hash).decode()}\n" for hash in self.hashes), "\n"]
        return "".join(lines).encode() + self.note.encode()


def parse_request(body: bytes) -> CosignRequest:
    """Parse the body of a request. Raises `Invalid` (`witness_request`, `note`)."""
    head, separator, note = body.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
        word, _, number = first.partition(" ")
        hashes = tuple(base64.b64decode(line, validate=True) for line in lines)
        if word != "old" or number != str(int(number)) or not separator or len(hashes) > MAX_HASHES:
            raise ValueError("malformed")
        if int(number) < 0 or any(len(hash) != 32 for hash in hashes):
            raise ValueError("malformed")
    except (ValueError, binascii.Error) as error:
        raise Invalid(
            "no request to a witness", code="witness_request", hint="Send `old N`, hashes, an empty line, the note."
        ) from error
    return CosignRequest(int(number), hashes, parse_note(note))


class Witness:
    """One witness with its name and key. Safe to use from several threads."""

    def __init__(self, folder: Path, name: str, key: Ed25519PrivateKey, logs: Sequence[VerifierKey] = ()) -> None:
        """`folder` keeps the signed checkpoints; `logs` are the keys of the logs that may ask."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._name = name
        self._key = key
        self._logs = list(logs)
        self._one = threading.Lock()

    @property
    def public(self) -> VerifierKey:
        """The key that verifies this witness's signatures."""
        return VerifierKey(self._name, self._key.public_key().public_bytes_raw(), cosigns=True)

    def add(self, seen: CosignRequest, at: datetime | None = None) -> Signature:
        """Sign the checkpoint. Raises `NotFound` (`witness_log`: unknown log), `Denied` (`witness_signature`),
        `Conflict` (`witness_old`: another size was signed last; `retry` names it in the hint), `Invalid`
        (`witness_proof`: the log does not continue what was signed)."""
        point = parse_checkpoint(seen.note.text)
        known = [key for key in self._logs if key.name == point.origin]
        if not known:
            raise NotFound(
                f"this witness does not know the log {point.origin}", code="witness_log", hint="Add its key."
            )
        if not any(seen.note.signed_by(key) for key in known):
            raise Denied("the log has not signed this", code="witness_signature", hint="Send the newest checkpoint.")
        with self._one:
            self._check(seen, point)
            line = cosign(seen.note.text, self._key, self._name, at or datetime.now(UTC))
            write_atomically(self._file(point.origin), seen.note.with_signature(line).encode(), 0o644)
        return line

    def newest(self, origin: str) -> Checkpoint | None:
        """The checkpoint of a log that was signed last."""
        path = self._file(origin)
        return parse_checkpoint(parse_note(path.read_bytes()).text) if path.exists() else None

    def _check(self, seen: CosignRequest, point: Checkpoint) -> None:
        last = self.newest(point.origin)
        size = 0 if last is None else last.size
        if seen.old != size:
            raise Conflict(f"{size}", code="witness_old", hint="Prove from this size on.")
        if point.size < seen.old or (seen.old == 0 and seen.hashes):
            raise Invalid("the log was cut", code="witness_proof", hint="A log only grows.")
        if last is not None and not _continues(last, point, seen.hashes):
            raise Invalid(
                "the log does not continue what was signed: it forked or was rewritten",
                code="witness_proof",
                hint="Compare it with the checkpoint that this witness keeps.",
            )

    def _file(self, origin: str) -> Path:
        return self._folder / hashlib.sha256(origin.encode()).hexdigest()[:32]


def _continues(last: Checkpoint, point: Checkpoint, hashes: Sequence[bytes]) -> bool:
    if last.size == 0:
        return not hashes
    return verify_consistency(last.size, point.size, last.root, point.root, hashes)


# the log's side


def request_cosignature(folder: Path, url: str, witness: VerifierKey) -> Note:
    """Have the newest checkpoint in `folder` signed by a witness, keep the note beside the log and return it.

    Raises `Unavailable` (`witness`) where it does not answer, `Invalid` (`witness_refused`) where it refuses because
    the log does not continue the one that it knows.
    """
    kept = kept_note(folder, witness)
    seen = _build_request(folder, 0 if kept is None else parse_checkpoint(kept.text).size)
    status, body = _post(url, seen)
    if status == HTTPStatus.CONFLICT and body.strip().isdigit():
        seen = _build_request(folder, int(body))
        status, body = _post(url, seen)
    if status != HTTPStatus.OK:
        raise Invalid(
            f"the witness {witness.name} refused the checkpoint: {body[:200].decode(errors='replace').strip()}",
            code="witness_refused",
            hint="Find out which log it signed before: this one was forked, cut or restored from an older copy.",
        )
    note = _with_cosignature(seen.note, body, witness)
    (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
    write_atomically(_note_path(folder, witness), note.encode(), 0o644)
    write_atomically(_note_path(folder, witness).with_suffix(".pub"), witness.encode().encode() + b"\n", 0o644)
    return note


def _with_cosignature(note: Note, body: bytes, witness: VerifierKey) -> Note:
    try:
        for line in body.decode().splitlines():
            note = note.with_signature(parse_signature(line))
    except (ValueError, binascii.Error) as error:
        raise Invalid("the witness answered no signature", code="witness_refused", hint="Check its URL.") from error
    if note.cosigned(witness) is None:
        raise Invalid(
            f"what the witness answered is not signed by {witness.name}",
            code="witness_refused",
            hint="Check the witness's key in GROUNDPLAN_WITNESSES.",
        )
    return note


def _note_path(folder: Path, witness: VerifierKey) -> Path:
    return folder / FOLDER / witness.id.hex()


def kept_note(folder: Path, witness: VerifierKey) -> Note | None:
    """The newest note of this witness beside a log."""
    path = _note_path(folder, witness)
    return parse_note(path.read_bytes()) if path.exists() else None


def kept_notes(folder: Path) -> list[tuple[VerifierKey, Note]]:
    """Every witness whose key lies beside the log, with its newest note there; unreadable ones are left out."""
    found: list[tuple[VerifierKey, Note]] = []
    for path in sorted((folder / FOLDER).glob("*.pub")):
        try:
            found.append((parse_key(path.read_text("ascii")), parse_note(path.with_suffix("").read_bytes())))
        except (Invalid, OSError, UnicodeDecodeError):
            continue
    return found


def _build_request(folder: Path, old: int) -> CosignRequest:
    data = (folder / "checkpoint").read_bytes()
    size = parse_checkpoint(parse_note(data).text).size
    if old in (0, size):
        return CosignRequest(old, (), parse_note(data))
    if old > size:
        raise Invalid(
            f"the witness has signed {old} entries, this log has {size}: it was cut",
            code="witness_refused",
            hint="Restore the log from a copy that has them.",
        )
    proof = consistency_proof(folder, old)
    return CosignRequest(old, proof.hashes, parse_note(proof.checkpoint))


def _post(url: str, seen: CosignRequest) -> tuple[int, bytes]:
    request = urllib.request.Request(f"{url.rstrip('/')}/add-checkpoint", seen.encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as reply:
            return reply.status, reply.read(MAX_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(MAX_BYTES)
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"the witness at {url} does not answer", code="witness", hint="Start `groundplan-witness` there.",
            retry_after=5,
        ) from error  # fmt: skip
