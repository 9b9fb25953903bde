"""Discovery of an installation's local services: each announces its address below HOME/run/endpoints.d.

Nothing here starts, watches or calls a service; an announcement has only the address and token of its writer.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundplan.core.errors import Invalid
from groundplan.core.home import Home, write_atomically

CACHE_SECONDS = 2.0
"""How long a gateway may use a service's address before it reads the announcement again."""
RETRY_SECONDS = 1.0
"""Delay before a failed announcement is retried."""
log = logging.getLogger("groundplan.core.endpoints")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An announced local service: base `url` without a trailing slash, bearer `token`, and the `pid` and `start_ticks`
    of the process that announced it."""

    name: str
    url: str
    token: str
    pid: int
    start_ticks: str = ""

    @property
    def lives(self) -> bool:
        """Whether its process is running, and not another one with the same pid, as after a container's restart."""
        if not is_alive(self.pid):
            return False
        now = start_ticks(self.pid)
        return not now or not self.start_ticks or now == self.start_ticks


def listen_locally() -> socket.socket:
    """Listen on a free port of 127.0.0.1, with TCP_NODELAY: otherwise a response of two writes waits 40 ms for the
    reader's acknowledgement, unless the event loop sets the option itself."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def announce(home: Home, name: str, url: str, token: str) -> None:
    """Announce that this process serves `name` at `url`, replacing an earlier announcement. Raises `Invalid` for a bad
    name."""
    path = _path(home, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = {"pid": os.getpid(), "began": start_ticks(os.getpid()), "home": home_identity(home)}
    write_atomically(path, json.dumps({"name": name, "url": url.rstrip("/"), "token": token, **own}).encode())


def announce_retrying(home: Home, name: str, url: str, token: str, stop: threading.Event) -> None:
    """`announce`; where writing fails, as on a full disk, a thread retries until `stop`."""

    def try_announce() -> bool:
        try:
            announce(home, name, url, token)
        except OSError:
            return False
        return True

    def retry() -> None:
        while not stop.wait(RETRY_SECONDS) and not try_announce():
            pass

    if not try_announce():
        log.error("nobody is told where %s is: HOME/run cannot be written", name)
        threading.Thread(target=retry, name=f"announce-{name}", daemon=True).start()


def withdraw(home: Home, name: str) -> None:
    """Delete this process's own announcement of `name`, not that of a successor. Where HOME/run cannot be written it
    stays, and names a process that has ended."""
    found = read_announcement(home, name)
    if found is not None and found.pid == os.getpid():
        with suppress(OSError):
            _path(home, name).unlink(missing_ok=True)


def lookup(home: Home, name: str) -> Endpoint | None:
    """The endpoint of `name`; None where none is announced or its process has ended. Reads a file at each call."""
    found = read_announcement(home, name)
    return found if found is not None and found.lives else None


def read_announcement(home: Home, name: str) -> Endpoint | None:
    """The announcement of `name`, even if its process has ended without withdrawing it."""
    try:
        document = json.loads(_path(home, name).read_bytes())
        said, url, token = (str(document[part]) for part in ("name", "url", "token"))
        return (
            Endpoint(said, url, token, int(document["pid"]), str(document.get("began", "")))
            if is_from_home(document, home)
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def home_identity(home: Home) -> str:
    """Device and inode of HOME: the same for every path to it, different for a copy; empty where it does not exist."""
    try:
        found = home.root.stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def is_from_home(document: Mapping[str, Any], home: Home) -> bool:
    """Whether a file in HOME/run was written for this folder and not copied with another HOME whose processes were
    running. Files of older versions have no `home`, and count as written here."""
    return document.get("home", "") in ("", home_identity(home))


def _folder(home: Home) -> Path:
    return home.run / "endpoints.d"


def _path(home: Home, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"'{name[:80]}' is not a name for a local service",
            code="service_name",
            hint="Use up to 63 lower-case letters, digits and hyphens.",
        )
    return _folder(home) / f"{name}.json"


def is_alive(pid: int) -> bool:
    """Whether a process with this pid exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def start_ticks(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty where /proc does not say. Tells a process from a later
    one with the same pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
