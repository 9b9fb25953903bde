"""The context that routes of the control API share: settings, paths, addresses and transactions. No rules, no SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from psycopg import Connection
from psycopg_pool import ConnectionPool

from groundplan.api.release import Releases
from groundplan.core.clock import Clock
from groundplan.core.database import connect, database_url
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home, write_atomically
from groundplan.core.settings import Settings
from groundplan.gateway.http.tls import ServerFiles


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a route needs; one instance for each control process."""

    home: Home
    settings: Settings
    workspace: Path | None
    """The folder given to `up`; None means the folder that was applied last."""
    demo: bool
    releases: Releases
    pool: ConnectionPool[Connection[tuple[Any, ...]]]
    clock: Clock

    @contextmanager
    def transaction(self) -> Iterator[Connection[tuple[Any, ...]]]:
        """A pooled connection in a transaction: committed at the end, rolled back by an exception."""
        with self.pool.connection() as conn:
            yield conn

    @contextmanager
    def release_turn(self) -> Iterator[Connection[tuple[Any, ...]]]:
        """A transaction for a plan or a release, of which only a few run at once: for thousands of workloads a plan
        takes seconds, and releases wait for each other; without this bound they would use up the pool."""
        with self.releases.turns, self.transaction() as conn:
            yield conn

    def own_connection(self) -> closing[Connection[tuple[Any, ...]]]:
        """A connection outside the pool, in autocommit, for work that takes long or commits as it goes."""
        return closing(connect(database_url(self.home, self.settings, "control"), autocommit=True))

    def folder(self) -> Path | None:
        """The workspace folder: the one given to `up`, else the one that was applied last; None if it is unknown."""
        if self.workspace is not None:
            return self.workspace
        try:
            noted = self.home.workspace.read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return Path(noted) if noted else None

    def addresses(self) -> dict[str, str]:
        """The base URLs `gateway`, `control` and `public` (the gateway's for callers), as `up` wrote them; empty if
        no `up` runs."""
        try:
            up_file = self._read_up_file()
            addresses = {"public": up_file["gateway"], **up_file}  # an older `up` may still run
            return {name: str(addresses[name]) for name in ("gateway", "control", "public")}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def certificate(self) -> ServerFiles | None:
        """The files of the gateway's certificate; None if it has none, or no `up` runs."""
        try:
            tls = self._read_up_file()["tls"]
            ca = None if tls["client_ca"] is None else Path(tls["client_ca"])
            return ServerFiles(Path(tls["cert"]), Path(tls["key"]), ca)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _read_up_file(self) -> dict[str, Any]:
        """The content of HOME/run/up.json, which `up` writes. Raises OSError, ValueError."""
        noted: dict[str, Any] = json.loads((self.home.run / "up.json").read_text(encoding="utf-8"))
        return noted

    def gateway(self) -> str:
        """The gateway's base URL. Raises `Unavailable` if no `up` runs."""
        url = self.addresses().get("gateway")
        if url is None:
            raise Unavailable("no gateway runs", code="gateway_unreachable", hint="Start `groundplan up`.")
        return url

    def remember_folder(self, folder: Path) -> str:
        """Remember where the applied workspace is, for the documents of its sources. Returns why that failed, for the
        caller who applied it; empty if it did not."""
        with suppress(OSError, UnicodeDecodeError):
            if self.home.workspace.read_text(encoding="utf-8") == f"{folder}\n":
                return ""
        try:
            write_atomically(self.home.workspace, f"{folder}\n".encode())
        except OSError as error:
            return (
                f"it is applied, but where the workspace is cannot be noted in {self.home.workspace} "
                f"({error.strerror}): apply it again once that can be written, or name it when `up` is started"
            )
        return ""


def services_of(request: Request) -> Services:
    """The services of the application that answers this request."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]
