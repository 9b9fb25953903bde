"""Opens the connector of a source as its blueprint declares it. Secrets are resolved here and kept nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg import Connection

from groundplan.blueprint.model import Source
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.settings import resolve_secret
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.sources.file_systems import options_for
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.knowledge.sources.git import GitConnector
from groundplan.knowledge.sources.mail import MailConnector
from groundplan.knowledge.sources.model import Change, Connector, Content, Cursor, FolderRules
from groundplan.knowledge.sources.object_store import ObjectStoreConnector
from groundplan.knowledge.sources.push import PushConnector
from groundplan.knowledge.sources.sql import Layout, Postgres, SqlConnector, Sqlite
from groundplan.knowledge.sources.web import WebConnector

_DEFAULT_RATE = 50.0
"""Default rate of requests to stores and sites."""


class UnavailableConnector:
    """Stands in for a source that cannot be opened: its documents stay as they were; `changes` raises the reason."""

    is_complete = False

    def __init__(self, error: Invalid) -> None:
        self._error = error

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- there is nothing to continue
        raise Unavailable(self._error.message, code="source_missing", hint=self._error.hint) from self._error

    def read(self, key: str) -> Content:  # noqa: ARG002
        raise self._error

    def folder_rules(self, key: str) -> Sequence[FolderRules]:  # noqa: ARG002
        raise self._error

    def tables(self) -> Sequence[Table]:
        return ()

    def close(self) -> None:
        """Nothing is open."""


def open_or_unavailable(source: Source, workspace: Path, conn: Connection[Any], *, mirrors: Path) -> Connector:
    """As `open_connector`, but a source that cannot be opened gives a connector that raises the reason when used."""
    try:
        return open_connector(source, workspace, conn, mirrors=mirrors)
    except Invalid as error:
        return UnavailableConnector(error)


def open_connector(source: Source, workspace: Path, conn: Connection[Any], *, mirrors: Path) -> Connector:
    """Open the connector of a source. Paths are relative to `workspace`; `mirrors` is the folder for mirrors of
    repositories. Raises `Invalid`."""
    if source.connector is None:
        return FolderConnector(workspace / source.path)
    settings: dict[str, Any] = dict(source.connector.settings)
    rate = float(settings.get("rate", _DEFAULT_RATE))
    match source.connector.type:
        case "git":
            key = resolve_secret(settings["key"]) if "key" in settings else None
            return GitConnector(
                settings["url"], mirrors, branch=settings.get("branch"), folder=settings.get("path", ""), key=key
            )
        case "store":
            key = resolve_secret(settings["key"]) if "key" in settings else None
            options = options_for(settings["url"], settings.get("endpoint"), key, settings.get("host_key"))
            return ObjectStoreConnector(settings["url"], options, rate, source.connector.acl)
        case "web":
            return WebConnector(settings["url"], pages=int(settings.get("pages", 10_000)), rate=rate)
        case "sql":
            engine = (
                Postgres(resolve_secret(settings["dsn"]))
                if "dsn" in settings
                else Sqlite(path_inside(workspace, settings["path"]))
            )
            return SqlConnector(engine, table_layout(settings), float(settings["rate"]) if "rate" in settings else None)
        case "mail":
            return MailConnector(
                path_inside(workspace, settings["path"]), participants=settings.get("readers") == "participants"
            )
        case "push":
            return PushConnector(conn, source.name)
    raise Invalid(
        f"source {source.name} has a connector of type {source.connector.type}, which this version does not have",
        code="connector_type",
        hint="Run the version that made this blueprint, or correct the source.",
    )


def table_layout(settings: dict[str, Any]) -> Layout:
    """The layout of a table from the settings of an `sql` connector."""
    return Layout(
        settings["table"],
        settings.get("id", "id"),
        settings.get("changed"),
        settings.get("readers"),
        bool(settings.get("grants")),
    )


def path_inside(workspace: Path, path: str) -> Path:
    """A path below the workspace; raises `Invalid` for one that leads out of it."""
    resolved = (workspace / path).resolve()
    if not resolved.is_relative_to(workspace.resolve()):
        raise Invalid(f"{path} leads out of the workspace", code="source_path", hint="Put it into the workspace.")
    return resolved
