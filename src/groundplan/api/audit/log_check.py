"""The last verification of the audit log, so that a page can show it at once.

Everything is verified the first time and on request; after that only what a newer checkpoint has added. Verifies in a
thread of this process and writes nothing; `groundplan audit verify` works without it.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from groundplan.core.audit import verify as audit_verify
from groundplan.core.audit.checkpoint import parse_checkpoint, parse_note
from groundplan.core.audit.keys import load_public
from groundplan.core.clock import Clock
from groundplan.core.errors import GroundplanError
from groundplan.core.home import Home

log = logging.getLogger("groundplan.api.audit.log_check")
WAIT_SECONDS = 0.3
"""How long a reader waits for the verification of a newer checkpoint."""
_NO_VERDICT: Final[dict[str, Any]] = {
    "ok": None, "entries": None, "root": None, "signed": None, "witnessed": [], "problems": [],
}  # fmt: skip
"""The verdict before the first verification has ended."""


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """A verdict with its checkpoint (`note`), and when the newest entries and everything were verified."""

    verdict: audit_verify.Verdict
    note: bytes
    at: datetime
    everything_at: datetime
    everything_ms: int


class LogCheck:
    """Verifies the audit log of one HOME in a thread. `latest` answers within `WAIT_SECONDS`."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._changed = threading.Condition()
        self._requested: str | None = None
        """everything | new | stop"""
        self._verified: VerifiedLog | None = None
        self._progress: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._run, name="log-check", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._request("stop")
        self._thread.join(timeout=30)

    def verify_everything(self) -> None:
        """Verify everything again soon."""
        self._request("everything")

    def latest(self) -> dict[str, Any]:
        """`{"ok", "entries", "root", "signed", "witnessed", "problems", "checked_at", "everything_at",
        "everything_ms", "newest", "running"}`.

        `newest` is the size of the log now; the rest is null before the first verification has ended.
        `running` is null, or `{"done", "of"}` entries. A log that does not hold is verified again only when asked.
        """
        note = self._read_checkpoint()
        with self._changed:
            last = self._verified
            stale = last is None or (last.verdict.ok and note != last.note)
            if stale and self._progress is None:
                self._requested = self._requested or ("everything" if last is None else "new")
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._requested is None and self._progress is None, WAIT_SECONDS)
            return self._to_json(note)

    def _to_json(self, note: bytes) -> dict[str, Any]:
        last, running = self._verified, self._progress
        return {
            **(_NO_VERDICT if last is None else last.verdict.to_json()),
            "checked_at": None if last is None else last.at,
            "everything_at": None if last is None else last.everything_at,
            "everything_ms": None if last is None else last.everything_ms,
            "newest": _log_size(note),
            "running": None if running is None else {"done": running[0], "of": running[1]},
        }

    def _request(self, what: str) -> None:
        with self._changed:
            if self._requested != "stop":
                self._requested = what
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._requested is not None)
                requested, last = self._requested, self._verified
                if requested == "stop":
                    return
                self._requested, self._progress = None, (0, _log_size(self._read_checkpoint()))
            verified = self._try_verify(last if requested == "new" else None) or last
            with self._changed:
                self._verified, self._progress = verified, None
                self._changed.notify_all()

    def _try_verify(self, last: VerifiedLog | None) -> VerifiedLog | None:
        """Verify everything, or what came after `last`; None if that failed."""
        try:
            return self._verify(last)
        except (GroundplanError, OSError) as error:
            log.error("the audit log could not be verified: %s", error)
            return None

    def _verify(self, last: VerifiedLog | None) -> VerifiedLog:
        note, began, at = self._read_checkpoint(), time.monotonic(), self._clock.now()
        key = load_public(self._home, "checkpoint").public_bytes_raw()
        earlier = [] if last is None or not last.note else [last.note]
        since = 0 if last is None else last.verdict.entries
        verdict = audit_verify.verify(self._home.audit, key, self._set_progress, earlier=earlier, since=since)
        if last is not None:
            return VerifiedLog(verdict, note, at, last.everything_at, last.everything_ms)
        return VerifiedLog(verdict, note, at, at, round((time.monotonic() - began) * 1000))

    def _set_progress(self, done: int, of: int) -> None:
        with self._changed:
            self._progress = (done, of)

    def _read_checkpoint(self) -> bytes:
        try:
            return (self._home.audit / "checkpoint").read_bytes()
        except OSError:
            return b""


def _log_size(note: bytes) -> int:
    try:
        return parse_checkpoint(parse_note(note).text).size
    except GroundplanError:
        return 0
