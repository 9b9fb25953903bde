"""Turns itself into another program that dies when its parent does; run as a plain script, before any package is
imported.

    python -I -S leash.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT...]

PARENT is the pid that must still be the parent, SIGNAL what the kernel sends when it dies, UID and GID whom to become
(-1: stay). The kernel forgets the death signal when a process changes its user, so the user is changed first. It does
not watch anything itself: the kernel does.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def leash(parent: int, signal: int, uid: int, gid: int, program: list[str]) -> None:
    """Replace this process; returns only by raising OSError. Exits with 70 where the parent is gone already."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(70)
    os.execv(program[0], program)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:5]]
    try:
        leash(numbers[0], numbers[1], numbers[2], numbers[3], sys.argv[5:])
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[5]}: {error.strerror}")
