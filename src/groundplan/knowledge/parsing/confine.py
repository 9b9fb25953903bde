"""Takes from this process what a parser never needs: unlimited memory, writable files, other programs, the network.

Resource limits hold everywhere; on Linux (x86-64 and ARM64) the kernel itself refuses sockets and new programs by a
seccomp filter, elsewhere only Python's own calls are refused. A process cannot undo its confinement.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from pathlib import Path
from typing import Any, Final

MEMORY_BYTES: Final = 1536 << 20
CPU_SECONDS: Final = 600
"""CPU time for all documents of one process together; the parent limits the time of a single document."""

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_ARCHITECTURES: Final = {
    # audit number, openat, open; creat, openat2, truncate, socket, socketpair, connect, bind, sendto, sendmsg, execve,
    # execveat, ptrace, fork, vfork, kill, unlink, unlinkat, rename, renameat, renameat2, io_uring_setup,
    # process_vm_writev, mount, bpf
    "x86_64": (
        0xC000003E, 257, 2,
        (85, 437, 76, 41, 53, 42, 49, 44, 46, 59, 322, 101, 57, 58, 62, 87, 263, 82, 264, 316, 425, 311, 165, 321),
    ),
    # this one has no open, creat, fork, vfork, unlink and rename: openat and unlinkat are all there is
    "aarch64": (
        0xC00000B7, 56, 56,
        (437, 45, 198, 199, 203, 200, 206, 211, 221, 281, 117, 129, 35, 38, 276, 425, 271, 40, 280),
    ),
}  # fmt: skip
_REFUSED_EVENTS = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system")


def confine(memory_bytes: int = MEMORY_BYTES) -> bool:
    """Restrict this process to reading and computing; returns True if the kernel itself enforces it.

    `memory_bytes` come on top of the addresses that are mapped already: libraries reserve up to a gigabyte of them.
    """
    limit = mapped_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    filtered = _install_seccomp_filter() if sys.platform == "linux" else False
    sys.addaudithook(_refuse_event)
    return filtered


def mapped_bytes() -> int:
    """Bytes of address space that this process has mapped, used or not; 0 if the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _refuse_event(event: str, _: tuple[Any, ...]) -> None:
    if event.startswith(_REFUSED_EVENTS):
        raise PermissionError(f"a parser may not do this: {event}")


def _install_seccomp_filter() -> bool:
    """Install the seccomp filter; returns False if this kernel or machine has none."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return False
    audit, openat, opens, calls = known
    rules = [struct.pack("HBBI", _LOAD, 0, 0, 4), struct.pack("HBBI", _EQUAL, 1, 0, audit)]
    rules += [struct.pack("HBBI", _RETURN, 0, 0, _REFUSE), struct.pack("HBBI", _LOAD, 0, 0, 0)]
    # the second numbering of calls on x86-64 (x32) would bypass the list
    rules += [struct.pack("HBBI", _AT_LEAST, 0, 1, 0x40000000), struct.pack("HBBI", _RETURN, 0, 0, _REFUSE)]
    for call in calls:
        rules += [struct.pack("HBBI", _EQUAL, 0, 1, call), struct.pack("HBBI", _RETURN, 0, 0, _REFUSE)]
    # a file may be opened for reading only: the flags are the third argument of openat, the second of open
    for call, flags in ((openat, 32), (opens, 24)):
        rules += [struct.pack("HBBI", _EQUAL, 0, 4, call), struct.pack("HBBI", _LOAD, 0, 0, flags)]
        rules += [struct.pack("HBBI", _ANY_BIT, 0, 1, _WRITES), struct.pack("HBBI", _RETURN, 0, 0, _REFUSE)]
        rules.append(struct.pack("HBBI", _RETURN, 0, 0, _ALLOW))
    rules.append(struct.pack("HBBI", _RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(rules))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) == 0)
