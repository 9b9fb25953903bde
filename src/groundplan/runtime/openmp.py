"""The OpenMP runtime that llama.cpp's library needs, on systems that do not have it.

A bare system has no `libgomp.so.1`, and only the system's administrator may install it. The wheel of `pykdtree` carries
the same library under a name of its own; here it gets the expected name in a folder that the loader is told about. The
loader reads that folder's name only when a program starts, so the process starts itself again, once. Nothing else of
that package is used.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from groundplan.core.errors import Unavailable
from groundplan.core.settings import child_environment

LIBRARY = "libgomp.so.1"
CARRIER = "pykdtree"
_SEARCH = "LD_LIBRARY_PATH"


def is_loadable() -> bool:
    """Whether the loader finds the library, on the system or through `restart_with`."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def find_bundled_library() -> Path | None:
    """The library inside the carrier's wheel, without importing it; None where it is not installed or has none."""
    spec = importlib.util.find_spec(CARRIER)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.parent.glob(f"{CARRIER}.libs/libgomp-*.so*"))), None)


def provide_library(folder: Path) -> Path:
    """Make `folder` hold the library under its expected name. Raises `Unavailable` (openmp_missing)."""
    library = find_bundled_library()
    if library is None:
        raise Unavailable(
            f"the library {LIBRARY} is missing", code="openmp_missing", hint="Install the system's package libgomp1."
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = folder / LIBRARY
    temporary = folder / f".{LIBRARY}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(library)
    temporary.replace(link)
    return folder


def restart_with(folder: Path, module: str, arguments: Sequence[str]) -> None:
    """Return where the library loads already; else start this process again as `python -m module` so that it does.

    Raises `Unavailable` (openmp_missing) where it cannot be provided, or did not load although it was.
    """
    if is_loadable():
        return
    environment = child_environment()
    before = environment.get(_SEARCH, "")
    if str(folder) in before.split(":"):
        raise Unavailable(
            f"the library {LIBRARY} does not load from {folder}",
            code="openmp_missing",
            hint="Install the system's package libgomp1.",
        )
    environment[_SEARCH] = ":".join(part for part in (str(provide_library(folder)), before) if part)
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
