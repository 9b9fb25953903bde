"""The learned routers of a HOME: a file for each name and version, never changed once written. No training, no
choices."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from groundplan.core.canonical import digest
from groundplan.core.errors import Invalid, NotFound
from groundplan.core.home import sync_folder, write_atomically
from groundplan.core.ids import new_id
from groundplan.economics.routing.model import Router
from groundplan.economics.routing.versions.artifact import dump, load

SUFFIX = ".router"
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}\Z")
_VERSION = re.compile(r"^([a-z0-9][a-z0-9-]{0,62})@([1-9][0-9]{0,8})\Z")


def save_router(folder: Path, router: Router) -> str:
    """Write a router as the next version of its name; returns NAME@VERSION. Concurrent writers get different versions:
    none is ever replaced. Raises `Invalid` (`router_name`)."""
    check_name(router.name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    version = max(versions(folder, router.name), default=0) + 1
    while not _write_version(folder, replace(router, version=version)):
        version += 1
    return f"{router.name}@{version}"


def check_name(name: str) -> None:
    """Raise `Invalid` (`router_name`) for an invalid name."""
    if not _NAME.match(name):
        hint = "Use lower-case letters, digits and hyphens."
        raise Invalid(f"{name[:80]!r} is not a name for a router", code="router_name", hint=hint)


def _write_version(folder: Path, router: Router) -> bool:
    """Write a version; False if it exists already."""
    whole = folder / f".{new_id()}"
    write_atomically(whole, dump(router))
    try:
        (folder / f"{router.name}@{router.version}{SUFFIX}").hardlink_to(whole)
    except FileExistsError:
        return False
    finally:
        whole.unlink()
    sync_folder(folder)
    return True


def versions(folder: Path, name: str) -> list[int]:
    """Stored versions of a name, oldest first."""
    found = (_VERSION.match(path.name.removesuffix(SUFFIX)) for path in folder.glob(f"{name}@*{SUFFIX}"))
    return sorted(int(match[2]) for match in found if match is not None and match[1] == name)


def list_routers(folder: Path) -> list[str]:
    """NAME@VERSION of all stored routers, by name and version."""
    found = (_VERSION.match(path.name.removesuffix(SUFFIX)) for path in folder.glob(f"*{SUFFIX}"))
    return [f"{name}@{version}" for name, version in sorted((m[1], int(m[2])) for m in found if m is not None)]


def router_digest(folder: Path, version: str) -> str:
    """SHA-256 of the bytes of NAME@VERSION. Raises `NotFound` (`router_unknown`)."""
    try:
        return digest((folder / f"{version}{SUFFIX}").read_bytes())
    except OSError as error:
        raise NotFound(f"there is no router {version[:80]}", code="router_unknown", hint="Train one first.") from error


def load_router(folder: Path, version: str) -> Router:
    """Load NAME@VERSION, or the newest version of NAME. Raises `NotFound` (`router_unknown`), `Invalid`
    (`router_version`, `router_artifact`)."""
    match = _VERSION.match(version)
    if match is None and not _NAME.match(version):
        hint = "Name a version as `groundplan routing list` does, such as support@3, or support for its newest."
        raise Invalid(f"{version[:80]!r} is not a version of a router", code="router_version", hint=hint)
    name = version if match is None else match[1]
    known = versions(folder, name)
    wanted = max(known, default=0) if match is None else int(match[2])
    if wanted not in known:
        hint = f"There are: {', '.join(f'{name}@{each}' for each in known)}." if known else "Train one first."
        raise NotFound(f"there is no router {version[:80]}", code="router_unknown", hint=hint)
    return load((folder / f"{name}@{wanted}{SUFFIX}").read_bytes())
