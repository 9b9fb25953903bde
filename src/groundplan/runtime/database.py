"""The database of one `up` at this program's schema: an embedded and supervised server, or an external one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from groundplan.core.database import database_url, dsn_parameters, external_dsn, role_name
from groundplan.core.home import Home
from groundplan.core.settings import Settings
from groundplan.runtime.migrate import check_role, migrate
from groundplan.runtime.postgres import EmbeddedPostgres, connection_settings
from groundplan.runtime.supervisor import Supervisor


def start_database(
    supervisor: Supervisor, settings: Settings, progress: Callable[[str], None], workers: int = 1
) -> None:
    """Start the database and migrate it to this program's schema. `supervisor` keeps an embedded server running, with
    connections for this number of gateway `workers`.

    Raises what `EmbeddedPostgres`, `migrate` and `check_role` raise. `database_url(home, settings, role)` holds
    afterwards.
    """
    home = supervisor.home
    if settings.database_url is None:
        server = EmbeddedPostgres(home, tuning=connection_settings(workers), progress=progress)
        supervisor.on_closed(server.close)
        server.open()
        supervisor.start(server.process())
        server.prepare()
        server.on_moved = supervisor.request_reload  # by which all who use it start anew
    migrate(database_url(home, settings, "owner"), progress=progress)
    if settings.database_url is not None:
        name = str(dsn_parameters(external_dsn(settings.database_url))["dbname"])
        check_role(database_url(home, settings, "search"), role_name(name, "search"))


@contextmanager
def running_database(
    home: Home, settings: Settings, progress: Callable[[str], None]
) -> Iterator[EmbeddedPostgres | None]:
    """The database for a command that needs it whether `up` runs or not: an embedded server that is down is started
    for as long as this lasts. Yields that server, or None where it runs already or is external. Does not migrate.
    """
    server = None if settings.database_url is not None else EmbeddedPostgres(home, progress=progress)
    if server is None or server.is_running():
        yield None
        return
    with server:
        server.start()
        yield server
