"""How local services of one installation find each other: each announces its address below HOME/run/endpoints.d.

Nothing here starts, watches or calls a service; an announcement only says where its writer listens, and with which key.
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

KNOWN_SECONDS = 2.0
"""How long a gateway may call a service where it last found it, before it looks again."""
AGAIN_SECONDS = 1.0
"""Until it is tried again to tell where a service is."""
log = logging.getLogger("groundplan.core.endpoints")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A living local service: base `url` without a trailing slash, bearer `token`, and the `pid` that announced it and
    `start_ticks` then."""

    name: str
    url: str
    token: str
    pid: int
    start_ticks: str = ""

    @property
    def lives(self) -> bool:
        """Whether its process is there: that one, not another that got its number, as after a container's restart."""
        if not is_alive(self.pid):
            return False
        now = start_ticks(self.pid)
        return not now or not self.start_ticks or now == self.start_ticks


def listen_locally() -> socket.socket:
    """Listening on a free port of 127.0.0.1. What is written to its connections goes out at once: else an answer in two
    writes waits 40 ms for its reader's acknowledgement, wherever the event loop does not see to it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def announce(home: Home, name: str, url: str, token: str) -> None:
    """Tell that this process serves `name` at `url`, instead of whoever did before. Raises `Invalid` for a bad name."""
    path = _path(home, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = {"pid": os.getpid(), "began": start_ticks(os.getpid()), "home": home_identity(home)}
    write_atomically(path, json.dumps({"name": name, "url": url.rstrip("/"), "token": token, **own}).encode())


def announce_retrying(home: Home, name: str, url: str, token: str, stop: threading.Event) -> None:
    """As `announce`; where the disk takes nothing, again and again until `stop`, beside whatever frees it."""

    def told() -> bool:
        try:
            announce(home, name, url, token)
        except OSError:
            return False
        return True

    def again() -> None:
        while not stop.wait(AGAIN_SECONDS) and not told():
            pass

    if not told():
        log.error("nobody is told where %s is: HOME/run cannot be written", name)
        threading.Thread(target=again, name=f"announce-{name}", daemon=True).start()


def withdraw(home: Home, name: str) -> None:
    """Take back this process's own announcement of `name`; a successor's is left alone. Where HOME/run takes nothing it
    stays, and tells of a process that is gone."""
    found = read_announcement(home, name)
    if found is not None and found.pid == os.getpid():
        with suppress(OSError):
            _path(home, name).unlink(missing_ok=True)


def lookup(home: Home, name: str) -> Endpoint | None:
    """The announcement of `name`, or None where there is none, or its process is gone. Reads a file at each call."""
    found = read_announcement(home, name)
    return found if found is not None and found.lives else None


def read_announcement(home: Home, name: str) -> Endpoint | None:
    """The same, also where its process is gone: one that ended by itself has taken it back."""
    try:
        told = json.loads(_path(home, name).read_bytes())
        said, url, token = (str(told[part]) for part in ("name", "url", "token"))
        return (
            Endpoint(said, url, token, int(told["pid"]), str(told.get("began", "")))
            if is_from_home(told, home)
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def home_identity(home: Home) -> str:
    """Which folder of this machine HOME is, whatever path leads there; a copy is another one."""
    try:
        found = home.root.stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def is_from_home(told: Mapping[str, Any], home: Home) -> bool:
    """Whether what a process told of itself in HOME is of this folder: one that was copied while it ran tells of those
    that serve the other. Processes of before say nothing of it."""
    return told.get("home", "") in ("", home_identity(home))


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
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def start_ticks(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty where /proc does not tell. Another one that got its
    number since began later."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
