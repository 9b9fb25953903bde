"""The first start of a HOME: keys, the operator's token, blueprint 1 from a workspace. Idempotent."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from psycopg.errors import UndefinedTable

from groundplan.api.release import Releases
from groundplan.catalog.loader import load
from groundplan.core.audit.keys import SIGNING_KEYS, create_keys, load_private, load_public, load_wrapping
from groundplan.core.database import connect, database_url
from groundplan.core.errors import Conflict, Unavailable
from groundplan.core.home import Home, write_atomically
from groundplan.core.settings import Settings
from groundplan.identity.sessions import ensure_operator_token
from groundplan.release import store as release_store
from groundplan.release.publish import key_id

_IDENTITY = re.compile(r"\S+ \d{4}-\d\d-\d\dT[\d:.]+Z")
"""The format of `release.store.identity`."""


def prepare_home(home: Home) -> None:
    """Create HOME, its keys and the operator's token if they are missing. Raises `Unavailable` for a damaged key file,
    before any process is started that would fail because of it again and again."""
    home.create()
    create_keys(home)
    for name in SIGNING_KEYS:
        load_private(home, name)
        load_public(home, name)
    load_wrapping(home)
    ensure_operator_token(home)


def check_database(home: Home, settings: Settings) -> None:
    """Check that this is the database that HOME was served from before, so that nothing is written to another one.

    Raises `Conflict` (`database_differs`), `Unavailable` (also `home_damaged`).
    """
    before = _read_text(home.database)
    if before and before != (identity := _first_identity(home, settings)):
        if not _IDENTITY.fullmatch(before):
            agrees = identity is not None and identity.startswith(before)
            detail = (
                "its readable part names this database" if agrees else "its readable part does not identify a database"
            )
            raise Unavailable(
                f"{home.database}, which says from which database {home.root} is served, is damaged: {detail}",
                code="home_damaged",
                hint="Be sure that this is the database that it was served from before (GROUNDPLAN_DATABASE_URL, or "
                "that in HOME), and delete that file: `up` writes it again.",
            )
        detail = "has nothing of it" if identity is None else "is that of another installation"
        raise Conflict(
            f"{home.root} was served from another database than this one, which {detail}",
            code="database_differs",
            hint="Name that one in GROUNDPLAN_DATABASE_URL. If it is lost, `groundplan restore` a backup into a new "
            "HOME, or start in a new HOME with the folders keys and journal of this one: the journal has calls that "
            "are in no ledger yet.",
        )


def note_database(home: Home, settings: Settings) -> None:
    """Record in HOME from which database it is served, once that database has a blueprint; the first apply may come
    later."""
    if not _read_text(home.database) and (identity := _first_identity(home, settings)) is not None:
        write_atomically(home.database, f"{identity}\n".encode())


def _first_identity(home: Home, settings: Settings) -> str | None:
    """The identity of the first blueprint, which is unique and never changes; None without it, or without its table."""
    with connect(database_url(home, settings, "control")) as conn, suppress(UndefinedTable):
        return release_store.identity(conn, 1)
    return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def check_keys(home: Home, settings: Settings) -> None:
    """Check that the served blueprint was signed with the key of this HOME: gateways refuse any other.

    Raises `Conflict` (`keys_differ`), `Unavailable`.
    """
    with connect(database_url(home, settings, "control")) as conn:
        signed = release_store.newest_key_id(conn)
    if signed is not None and signed != key_id(load_public(home, "blueprint")):
        raise Conflict(
            f"the blueprint in this database was signed with another key than that in {home.keys}",
            code="keys_differ",
            hint=f"Put the folder keys of the HOME that made it in the place of {home.keys}, and its operator.token "
            "beside it (docs/cli.md, On your own PostgreSQL); where that is lost, `groundplan restore` a backup.",
        )


def genesis_if_empty(home: Home, settings: Settings, workspace: Path | None, demo: bool) -> bool:
    """Create blueprint 1 if there is no blueprint and a workspace is given; returns whether it did. If there is a
    blueprint, the workspace is not read, so that its problems cannot stop what is served. Raises `Invalid`."""
    if workspace is None:
        return False
    with connect(database_url(home, settings, "control")) as conn:
        if release_store.newest_blueprint(conn) is not None:
            return False
        is_made = Releases(home, demo=demo).genesis(conn, load(workspace).files)
        if is_made:  # before the commit: no later start would write it
            write_atomically(home.workspace, f"{workspace}\n".encode())
    return is_made
