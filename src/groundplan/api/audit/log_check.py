"""What a verification of the audit log found last, and when, so that a page can show it at once.

Everything is verified the first time and whenever somebody asks; after that only what a newer checkpoint has added.
Verifies in a thread of this process and writes nothing; `groundplan audit verify` needs none of this.
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
"""How long a reader waits for what a newer checkpoint has added."""
_UNKNOWN: Final[dict[str, Any]] = {
    "ok": None, "entries": None, "root": None, "signed": None, "witnessed": [], "problems": [],
}  # fmt: skip
"""In place of a verdict, while there is none."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A verdict with the checkpoint that it is about, and when everything and the newest entries were verified."""

    verdict: audit_verify.Verdict
    note: bytes
    at: datetime
    everything_at: datetime
    everything_ms: int


class LogCheck:
    """The audit log of one HOME. `newest` may be asked at any time and answers within `WAIT_SECONDS`."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._changed = threading.Condition()
        self._wanted: str | None = None
        """everything | new | stop"""
        self._checked: Checked | None = None
        self._progress: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._run, name="log-check", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._want("stop")
        self._thread.join(timeout=30)

    def ask(self) -> None:
        """Verify everything again soon."""
        self._want("everything")

    def newest(self) -> dict[str, Any]:
        """`{"ok", "entries", "root", "signed", "witnessed", "problems", "checked_at", "everything_at",
        "everything_ms", "newest", "running"}`.

        `newest` is the size of the log now; the rest is null before the first verification has ended.
        `running` is null, or `{"done", "of"}` entries. A log that does not hold is verified again only when asked.
        """
        note = self._note()
        with self._changed:
            last = self._checked
            stale = last is None or (last.verdict.ok and note != last.note)
            if stale and self._progress is None:
                self._wanted = self._wanted or ("everything" if last is None else "new")
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._wanted is None and self._progress is None, WAIT_SECONDS)
            return self._told(note)

    def _told(self, note: bytes) -> dict[str, Any]:
        last, running = self._checked, self._progress
        return {
            **(_UNKNOWN if last is None else last.verdict.to_json()),
            "checked_at": None if last is None else last.at,
            "everything_at": None if last is None else last.everything_at,
            "everything_ms": None if last is None else last.everything_ms,
            "newest": _size(note),
            "running": None if running is None else {"done": running[0], "of": running[1]},
        }

    def _want(self, what: str) -> None:
        with self._changed:
            if self._wanted != "stop":
                self._wanted = what
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None)
                wanted, last = self._wanted, self._checked
                if wanted == "stop":
                    return
                self._wanted, self._progress = None, (0, _size(self._note()))
            found = self._checked_again(last if wanted == "new" else None) or last
            with self._changed:
                self._checked, self._progress = found, None
                self._changed.notify_all()

    def _checked_again(self, last: Checked | None) -> Checked | None:
        """Of everything, or of what came after `last`; None where it could not be verified at all."""
        try:
            return self._verify(last)
        except (GroundplanError, OSError) as error:
            log.error("the audit log could not be verified: %s", error)
            return None

    def _verify(self, last: Checked | None) -> Checked:
        note, began, at = self._note(), time.monotonic(), self._clock.now()
        key = load_public(self._home, "checkpoint").public_bytes_raw()
        earlier = [] if last is None or not last.note else [last.note]
        since = 0 if last is None else last.verdict.entries
        verdict = audit_verify.verify(self._home.audit, key, self._tell, earlier=earlier, since=since)
        if last is not None:
            return Checked(verdict, note, at, last.everything_at, last.everything_ms)
        return Checked(verdict, note, at, at, round((time.monotonic() - began) * 1000))

    def _tell(self, done: int, of: int) -> None:
        with self._changed:
            self._progress = (done, of)

    def _note(self) -> bytes:
        try:
            return (self._home.audit / "checkpoint").read_bytes()
        except OSError:
            return b""


def _size(note: bytes) -> int:
    try:
        return parse_checkpoint(parse_note(note).text).size
    except GroundplanError:
        return 0
