"""The first start of a HOME: keys, the operator's token, blueprint 1 from a workspace. Repeating changes nothing."""

from __future__ import annotations

from pathlib import Path

from groundplan.api.release import Releases
from groundplan.catalog.loader import load
from groundplan.core.audit.keys import create_keys
from groundplan.core.database import connect, database_url
from groundplan.core.home import Home, write_atomically
from groundplan.core.settings import Settings
from groundplan.identity.sessions import ensure_operator_token
from groundplan.release import store as release_store


def take_up_keys(home: Home) -> None:
    """Make HOME, its keys and the operator's token where they are missing."""
    home.create()
    create_keys(home)
    ensure_operator_token(home)


def genesis_if_empty(home: Home, settings: Settings, workspace: Path | None, demo: bool) -> bool:
    """Make blueprint 1 where there is none and a workspace is given; whether it did. Where there is one, the workspace
    is not read: what is wrong with it keeps nobody from being served. Raises `Invalid`."""
    if workspace is None:
        return False
    with connect(database_url(home, settings, "control")) as conn:
        if release_store.newest(conn) is not None:
            return False
        made = Releases(home, demo=demo).genesis(conn, load(workspace).files)
    if made:
        write_atomically(home.workspace, f"{workspace}\n".encode())
    return made
