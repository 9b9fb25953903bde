"""Learned routers of a HOME: a file for each name and version, never changed once written. No learning, no choosing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from groundplan.core.errors import Invalid, NotFound
from groundplan.core.home import write_atomically
from groundplan.economics.routing.model import Router
from groundplan.economics.routing.versions.artifact import digest, dump, load

SUFFIX = ".router"
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
_VERSION = re.compile(r"^([a-z0-9][a-z0-9-]{0,62})@([1-9][0-9]*)$")


def keep(folder: Path, router: Router) -> str:
    """Write a router as the next version of its name; returns NAME@VERSION. Raises `Invalid` for a bad name."""
    if not _NAME.match(router.name):
        hint = "Use lower-case letters, digits and hyphens."
        raise Invalid(f"{router.name[:80]!r} is no name for a router", code="router_name", hint=hint)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    version = max(versions(folder, router.name), default=0) + 1
    written = replace(router, version=version)
    write_atomically(folder / f"{router.name}@{version}{SUFFIX}", dump(written))
    return f"{router.name}@{version}"


def versions(folder: Path, name: str) -> list[int]:
    """Versions of a name that are there, oldest first."""
    found = (_VERSION.match(path.name.removesuffix(SUFFIX)) for path in folder.glob(f"{name}@*{SUFFIX}"))
    return sorted(int(match[2]) for match in found if match is not None and match[1] == name)


def every(folder: Path) -> list[str]:
    """NAME@VERSION of all that are there, by name and version."""
    found = (_VERSION.match(path.name.removesuffix(SUFFIX)) for path in folder.glob(f"*{SUFFIX}"))
    return [f"{name}@{version}" for name, version in sorted((m[1], int(m[2])) for m in found if m is not None)]


def digest_of(folder: Path, version: str) -> str:
    """SHA-256 of the bytes of NAME@VERSION. Raises `NotFound` (`router_unknown`)."""
    try:
        return digest((folder / f"{version}{SUFFIX}").read_bytes())
    except OSError as error:
        raise NotFound(f"there is no router {version[:80]}", code="router_unknown", hint="Train one first.") from error


def named(folder: Path, version: str) -> Router:
    """NAME@VERSION, or the newest of NAME. Raises `NotFound` (`router_unknown`) and `Invalid` (`router_artifact`)."""
    name, _, number = version.partition("@")
    known = versions(folder, name)
    wanted = int(number) if number.isdigit() else max(known, default=0)
    if wanted not in known:
        hint = f"There are: {', '.join(f'{name}@{each}' for each in known)}." if known else "Train one first."
        raise NotFound(f"there is no router {version[:80]}", code="router_unknown", hint=hint)
    return load((folder / f"{name}@{wanted}{SUFFIX}").read_bytes())
