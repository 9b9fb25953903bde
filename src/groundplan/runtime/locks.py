"""Locks on a folder or a port of this machine: file locks that end with their process, and listening sockets."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from groundplan.core.errors import Conflict, GroundplanError, Invalid, Unavailable
from groundplan.core.home import Home

INCOMPLETE: Final = "restore.incomplete"
"""Name of a file in HOME while a restore is under way; it stays where the restore was killed."""


def own_home(home: Home) -> int:
    """Make HOME if need be and own it until the returned descriptor is closed: one `up`, or one restore, at a time.

    Raises `Conflict` (`up_running` with the pid of the owner, `restore_incomplete` where a restore was killed) and
    `Unavailable` (`home_unusable`) where the folder cannot be made or written.
    """
    try:
        home.create()
        return _own(home)
    except OSError as error:
        raise Unavailable(
            f"{home.root} cannot be used: {error.strerror or error}",
            code="home_unusable",
            hint="Choose a folder that this user may write with --home.",
        ) from error


def _own(home: Home) -> int:
    lock = take_lock(
        home.lock,
        lambda owner: Conflict(
            f"groundplan is already up on {home.root} (process {owner})",
            code="up_running",
            hint="Use it, stop it first, or choose another --home.",
            details={"pid": owner},
        ),
    )
    if (home.root / INCOMPLETE).exists():
        os.close(lock)
        raise Conflict(
            f"a restore into {home.root} was interrupted",
            code="restore_incomplete",
            hint="Delete that folder and restore again.",
        )
    return lock


def check_restored(home: Home) -> None:
    """Raise `Conflict` where HOME holds a part of a restore: `up_running` while that is under way, `restore_incomplete`
    once it was interrupted."""
    if (home.root / INCOMPLETE).exists():
        os.close(own_home(home))


def take_lock(path: Path, refusal: Callable[[str], GroundplanError]) -> int:
    """Hold `path` with flock until the returned descriptor is closed or this process dies; our pid is written into it.

    Where another process holds it, raises what `refusal` makes of that process's pid (`"?"` where it is unknown).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise refusal(owner or "?") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def open_listener(
    host: str, port: int, *, option: str = "--port", backlog: int = 2048, patience: float = 0.0
) -> socket.socket:
    """A listening TCP socket on `host`; port 0 picks a free one. Children inherit it by its number (`Process.fds`).

    A port in use is tried again for `patience` seconds. Raises `Unavailable` (`port_in_use`, `port_denied`,
    `address_unknown`) naming the command-line `option` that chooses it.
    """
    if not 0 <= port <= 65535:
        raise Invalid(f"{port} is not a port", code="port_range", hint=f"Choose 1 to 65535 with {option}.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Unavailable(
            f"the address {host} is unknown here", code="address_unknown", hint="Listen on 127.0.0.1 or an own address."
        ) from error
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    end = time.monotonic() + patience
    while True:
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(backlog)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() >= end:
                raise _refused(host, port, option, error) from error
            time.sleep(0.1)
        else:
            return listener


def _refused(host: str, port: int, option: str, error: OSError) -> Unavailable:
    if error.errno == errno.EADDRINUSE:
        return Unavailable(
            f"port {port} on {host} is in use",
            code="port_in_use",
            hint=f"Choose another with {option}, or stop what uses it.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unavailable(
            f"this user may not listen on port {port}", code="port_denied", hint=f"Choose one above 1023 with {option}."
        )
    return Unavailable(
        f"cannot listen on {host} port {port}: {error.strerror}",
        code="address_unknown",
        hint="Listen on 127.0.0.1 or an address of this machine.",
    )
