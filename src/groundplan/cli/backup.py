"""`groundplan backup` and `restore`: one archive of database, audit log and keys."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from groundplan.cli.options import HomeOption, JsonOption, home_for, settings_for
from groundplan.cli.output import emit, note
from groundplan.runtime.backup import backup as write_backup
from groundplan.runtime.backup import restore as read_backup


def backup(
    target: Annotated[Path, typer.Argument(help="Archive to write.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a backup to TARGET while `up` runs. Protect it like HOME: it holds the keys."""
    write_backup(home_for(home), settings_for(home), target.absolute(), note)
    emit({"archive": str(target.absolute()), "bytes": target.stat().st_size}, as_json, f"{target} is complete")


def restore(
    archive: Annotated[Path, typer.Argument(help="Archive written by `groundplan backup`.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore ARCHIVE into an empty HOME. A damaged archive is refused before anything is written."""
    target_home = home_for(home)
    read_backup(archive.absolute(), target_home, settings_for(home), note)
    quoted_home = shlex.quote(str(target_home.root))
    emit(
        {"home": str(target_home.root)},
        as_json,
        f"{target_home.root} is restored. Next: groundplan up --home {quoted_home}",
    )
